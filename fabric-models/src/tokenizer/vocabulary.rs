//! Vocabulary: tokens, their ids and the merges.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use super::alphabet::{BYTES, CHARACTERS, END_OF_WORD, byte_of};
use super::error::TokenizerError;
use super::specials::MAX_TOKEN_BYTES;
use super::tokenizer_json::TOKENIZER_JSON;

/// Maximum number of merges that the reference reads.
pub(super) const MAX_MERGES: usize = 49_152 - 256 - 2;
/// Ids from this number on are rejected as a corrupt file.
const MAX_IDS: u32 = 1 << 20;
/// Maximum number of special and added tokens; a textual inversion adds up to about 100.
const MAX_ADDED: usize = 1 << 17;

/// Vocabulary of a byte-pair tokenizer.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// Tokens by id, in the byte-level alphabet; empty if no token has the id.
    tokens: Vec<Box<str>>,
    /// Ids of the single bytes, inside a word and at its end.
    bytes: [[Option<u32>; 256]; 2],
    /// Merges of token `i` as left part: `merges[starts[i]..starts[i + 1]]`, sorted by right part.
    starts: Vec<u32>,
    merges: Vec<Merge>,
}

/// Result of merging a pair of neighbouring tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Merge {
    right: u32,
    /// Pairs of lower rank merge first.
    pub(super) rank: u32,
    /// The merged token.
    pub(super) token: u32,
}

/// Returns OpenAI's vocabulary of 49,408 tokens, which all Stable Diffusion models use.
pub(super) fn openai() -> Arc<Vocabulary> {
    static OPENAI: LazyLock<Arc<Vocabulary>> = LazyLock::new(|| {
        let mut tokens: Vec<String> = Vec::with_capacity(49_408);
        for end in ["", END_OF_WORD] {
            tokens.extend(BYTES.iter().map(|&byte| format!("{}{end}", CHARACTERS[usize::from(byte)])));
        }
        let pairs = include_bytes!("data/openai_merges.bin").as_chunks::<4>().0;
        let id = |low, high| usize::from(u16::from_le_bytes([low, high]));
        for &[a, b, c, d] in pairs {
            tokens.push(format!("{}{}", tokens[id(a, b)], tokens[id(c, d)]));
        }
        tokens.extend(["<|startoftext|>".to_owned(), "<|endoftext|>".to_owned()]);
        let merges = (512..).zip(pairs).map(|(token, &[a, b, c, d])| (id(a, b) as u32, id(c, d) as u32, token));
        Arc::new(Vocabulary::new(tokens, merges.collect()))
    });
    OPENAI.clone()
}

impl Vocabulary {
    /// Builds a vocabulary from tokens by id and merges `(left, right, token)` by rank; of equal pairs the last one
    /// counts.
    fn new(tokens: Vec<String>, merges: Vec<(u32, u32, u32)>) -> Self {
        let mut bytes = [[None; 256]; 2];
        for (id, token) in (0_u32..).zip(&tokens) {
            let (word, ends_word) = split_end(token);
            let mut characters = word.chars();
            if let (Some(byte), None) = (characters.next().and_then(byte_of), characters.next()) {
                bytes[usize::from(ends_word)][usize::from(byte)] = Some(id);
            }
        }

        let mut ranked: Vec<(u32, Merge)> =
            (0..).zip(merges).map(|(rank, (left, right, token))| (left, Merge { right, rank, token })).collect();
        ranked.sort_unstable_by_key(|&(left, merge)| (left, merge.right, std::cmp::Reverse(merge.rank)));
        ranked.dedup_by_key(|(left, merge)| (*left, merge.right));
        let mut starts = vec![0_u32; tokens.len() + 1];
        for (left, _) in &ranked {
            starts[*left as usize + 1] += 1;
        }
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        let merges = ranked.into_iter().map(|(_, merge)| merge).collect();
        Self { tokens: tokens.into_iter().map(String::into_boxed_str).collect(), bytes, starts, merges }
    }

    /// Parses the text of `vocab.json` and `merges.txt`.
    pub(super) fn from_text(vocab_json: &str, merges_txt: &str) -> Result<Self, TokenizerError> {
        let ids: HashMap<String, u32> = fabric_core::json::from_str(vocab_json)
            .map_err(|error| corrupt("vocab.json", error, "one JSON object of tokens and their ids"))?;
        let tokens = by_id("vocab.json", &ids)?;
        let mut lines = merges_txt.trim_start_matches('\u{feff}').trim().split('\n').enumerate();
        if !lines.next().is_some_and(|(_, first)| first.starts_with('#')) {
            return Err(corrupt("merges.txt", "no first line that starts with `#`", "`#version: 0.2` and then merges"));
        }
        let mut merges = Vec::new();
        for (number, line) in lines.take(MAX_MERGES).map(|(i, line)| (i + 1, line)) {
            let parts: Vec<&str> = line.split_whitespace().collect();
            let &[left, right] = parts.as_slice() else {
                let got: String = line.chars().take(40).collect();
                return Err(corrupt("merges.txt", format!("{got:?} in line {number}"), "two tokens in each line"));
            };
            merges.push(merged("merges.txt", || format!("line {number}"), &ids, left, right)?);
        }
        Ok(Self::new(tokens, merges))
    }

    /// Builds a vocabulary from the tokens and merges of a `tokenizer.json`.
    pub(super) fn from_json(ids: &HashMap<String, u32>, pairs: &[(String, String)]) -> Result<Self, TokenizerError> {
        let tokens = by_id(TOKENIZER_JSON, ids)?;
        let merge = |(i, (left, right)): (usize, &(String, String))| {
            merged(TOKENIZER_JSON, || format!("merge {i}"), ids, left, right)
        };
        Ok(Self::new(tokens, pairs.iter().enumerate().map(merge).collect::<Result<_, _>>()?))
    }

    /// Finds the id of a token with a linear search; used for few tokens only.
    pub(super) fn id_of(&self, token: &str) -> Option<u32> {
        self.tokens.iter().position(|known| &**known == token).map(|id| id as u32)
    }

    /// Returns the token of an id, as written in `vocab.json`.
    pub(super) fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(|token| &**token).filter(|token| !token.is_empty())
    }

    /// Returns the number of ids.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Returns the id of a byte, inside a word or at its end.
    pub(super) fn byte(&self, byte: u8, ends_word: bool) -> Option<u32> {
        self.bytes[usize::from(ends_word)][usize::from(byte)]
    }

    /// Returns the merge of two neighbouring tokens, if there is one.
    pub(super) fn merge(&self, left: u32, right: u32) -> Option<Merge> {
        let range = *self.starts.get(left as usize)? as usize..*self.starts.get(left as usize + 1)? as usize;
        let merges = self.merges.get(range)?;
        merges.binary_search_by_key(&right, |merge| merge.right).ok().map(|i| merges[i])
    }

    /// Returns the text of `vocab.json` and `merges.txt`.
    pub(super) fn to_text(&self) -> (String, String) {
        let named = (0_u32..).zip(self.tokens.iter().map(|token| &**token)).filter(|(_, token)| !token.is_empty());
        let entry = |(id, token): (u32, &str)| format!("  {}: {id}", serde_json::Value::from(token));
        let vocab = format!("{{\n{}\n}}\n", named.map(entry).collect::<Vec<_>>().join(",\n"));
        let mut pairs: Vec<(u32, &str, &str)> = Vec::with_capacity(self.merges.len());
        for (left, range) in self.starts.windows(2).enumerate() {
            for merge in &self.merges[range[0] as usize..range[1] as usize] {
                pairs.push((merge.rank, &self.tokens[left], &self.tokens[merge.right as usize]));
            }
        }
        pairs.sort_unstable();
        let lines = pairs.into_iter().map(|(_, left, right)| format!("{left} {right}\n"));
        (vocab, std::iter::once("#version: 0.2\n".to_owned()).chain(lines).collect())
    }

    /// Appends the bytes of a token to `out` and returns whether it ends a word. Characters outside the alphabet are
    /// appended as they are.
    pub(super) fn spell(&self, id: u32, out: &mut Vec<u8>) -> Option<bool> {
        let (word, ends_word) = split_end(self.token(id)?);
        for c in word.chars() {
            match byte_of(c) {
                Some(byte) => out.push(byte),
                None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Some(ends_word)
    }
}

/// Returns the tokens of a file in the order of their ids.
fn by_id(file: &str, ids: &HashMap<String, u32>) -> Result<Vec<String>, TokenizerError> {
    let size = match ids.values().max() {
        Some(&largest) if largest < MAX_IDS => largest as usize + 1,
        Some(largest) => return Err(corrupt(file, format!("id {largest}"), format!("ids below {MAX_IDS}"))),
        None => return Err(corrupt(file, "no tokens", "at least the special tokens")),
    };
    let mut tokens = vec![String::new(); size];
    for (token, &id) in ids {
        let slot = &mut tokens[id as usize];
        if token.is_empty() || !slot.is_empty() {
            let got = format!("the tokens {slot:?} and {token:?} for id {id}");
            return Err(corrupt(file, got, "one token for each id"));
        }
        slot.clone_from(token);
    }
    Ok(tokens)
}

/// Checks special and added tokens: their number, the lengths of their names, and their ids.
pub(super) fn check_added(file: &str, tokens: &[(String, u32)]) -> Result<(), TokenizerError> {
    if tokens.len() > MAX_ADDED {
        return Err(corrupt(file, format!("{} tokens", tokens.len()), format!("at most {MAX_ADDED}")));
    }
    for (name, id) in tokens {
        if name.len() > MAX_TOKEN_BYTES {
            let got = format!("a token of {} bytes", name.len());
            return Err(corrupt(file, got, format!("tokens of at most {MAX_TOKEN_BYTES} bytes")));
        }
        if *id >= MAX_IDS {
            return Err(corrupt(file, format!("id {id}"), format!("ids below {MAX_IDS}")));
        }
    }
    Ok(())
}

/// Returns the ids of two tokens and of their merged token; `what` names the merge in errors.
fn merged(
    file: &str,
    what: impl Fn() -> String,
    ids: &HashMap<String, u32>,
    left: &str,
    right: &str,
) -> Result<(u32, u32, u32), TokenizerError> {
    let id = |token: &str| {
        ids.get(token).copied().ok_or_else(|| TokenizerError::UnknownToken {
            file: file.to_owned(),
            what: what(),
            token: token.to_owned(),
        })
    };
    Ok((id(left)?, id(right)?, id(&format!("{left}{right}"))?))
}

/// Strips the end-of-word suffix of a token and returns whether it was present.
fn split_end(token: &str) -> (&str, bool) {
    token.strip_suffix(END_OF_WORD).map_or((token, false), |word| (word, true))
}

pub(super) fn corrupt(file: &str, got: impl ToString, expected: impl Into<String>) -> TokenizerError {
    TokenizerError::Corrupt { file: file.to_owned(), got: got.to_string(), expected: expected.into() }
}
