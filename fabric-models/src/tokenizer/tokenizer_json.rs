//! Reads `tokenizer.json`, the single-file format of the tokenizers library with the contents of `vocab.json` and
//! `merges.txt`. transformers 5 saves no others.

use std::collections::HashMap;

use serde::Deserialize;

use super::alphabet::END_OF_WORD;
use super::error::TokenizerError;
use super::files::TokenizerConfig;
use super::vocabulary::{Vocabulary, check_added, corrupt};

pub(super) const TOKENIZER_JSON: &str = "tokenizer.json";

/// The required fields of the file. Normalisation and splitting use CLIP's own code instead, as in transformers.
#[derive(Deserialize)]
struct File {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct Model {
    end_of_word_suffix: Option<String>,
    vocab: HashMap<String, u32>,
    merges: Merges,
}

/// Pairs of tokens; older versions wrote each pair as one string with a space.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a list of pairs of tokens")]
enum Merges {
    Pairs(Vec<(String, String)>),
    Lines(Vec<String>),
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

/// Parses the file and adds its added tokens to `config`.
pub(super) fn read(text: &str, config: &mut TokenizerConfig) -> Result<Vocabulary, TokenizerError> {
    // Check the kind first: other kinds of models have other fields.
    #[derive(Deserialize)]
    struct Outline {
        model: ModelKind,
    }
    #[derive(Deserialize)]
    struct ModelKind {
        #[serde(rename = "type")]
        kind: Option<String>,
    }
    let malformed = |error| corrupt(TOKENIZER_JSON, error, "a tokenizer as the library tokenizers writes it");
    let outline: Outline = fabric_core::json::from_str(text).map_err(malformed)?;
    if let Some(kind) = outline.model.kind.filter(|kind| kind != "BPE") {
        return Err(not_clips(format!("a model of type {kind:?}")));
    }
    let File { model, added_tokens } = fabric_core::json::from_str(text).map_err(malformed)?;
    match model.end_of_word_suffix.as_deref() {
        Some(END_OF_WORD) => {}
        other => return Err(not_clips(format!("end_of_word_suffix {other:?}"))),
    }
    let pairs = match model.merges {
        Merges::Pairs(pairs) => pairs,
        Merges::Lines(lines) => lines.iter().map(|line| pair(line)).collect::<Result<_, _>>()?,
    };
    let added: Vec<(String, u32)> = added_tokens.into_iter().map(|AddedToken { id, content }| (content, id)).collect();
    check_added(TOKENIZER_JSON, &added)?;
    config.added_tokens.extend(added);
    Vocabulary::from_json(&model.vocab, &pairs)
}

fn pair(line: &str) -> Result<(String, String), TokenizerError> {
    match line.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
            Ok((left.to_owned(), right.to_owned()))
        }
        _ => {
            let got: String = line.chars().take(40).collect();
            Err(corrupt(TOKENIZER_JSON, format!("the merge {got:?}"), "two tokens with a space between"))
        }
    }
}

fn not_clips(got: String) -> TokenizerError {
    corrupt(TOKENIZER_JSON, got, "CLIP's kind: a model of type \"BPE\" with end_of_word_suffix \"</w>\"")
}
