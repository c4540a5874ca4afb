//! Training of byte-pair vocabularies for small languages.

use std::collections::BTreeMap;

use super::alphabet::{BYTES, CHARACTERS, END_OF_WORD};
use super::{ClipTokenizer, TokenizerConfig, TokenizerError};

impl ClipTokenizer {
    /// Trains a tokenizer in which each of these words is one token; other words are split into bytes and parts
    /// shared by the given words.
    ///
    /// Training is that of CLIP's vocabulary: the most frequent pair of neighbours becomes a token, until every word
    /// is a single token (of equally frequent pairs, the alphabetically first).
    ///
    /// ```
    /// use fabric_models::tokenizer::{ClipTokenizer, TokenizerConfig};
    ///
    /// let tokenizer = ClipTokenizer::learned(&["red", "star"], &TokenizerConfig::default())?;
    /// assert_eq!(tokenizer.encode("a Red star")?.len(), 3);
    /// assert_eq!(tokenizer.encode("rest")?.len(), 4);
    /// # Ok::<(), fabric_models::tokenizer::TokenizerError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if the configuration's special tokens cannot be used.
    pub fn learned(words: &[&str], config: &TokenizerConfig) -> Result<Self, TokenizerError> {
        let mut tokens: Vec<String> = Vec::new();
        for end in ["", END_OF_WORD] {
            tokens.extend(BYTES.iter().map(|&byte| format!("{}{end}", CHARACTERS[usize::from(byte)])));
        }
        let mut spelt: Vec<Vec<String>> = words.iter().map(|word| spell(word)).collect();
        let mut merges = "#version: 0.2\n".to_owned();
        while let Some((left, right)) = most_frequent(&spelt) {
            merges.push_str(&format!("{left} {right}\n"));
            tokens.push(format!("{left}{right}"));
            for word in &mut spelt {
                merge(word, &left, &right);
            }
        }
        tokens.extend([config.bos_token.clone(), config.eos_token.clone()]);
        let vocabulary: serde_json::Map<String, serde_json::Value> =
            tokens.into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
        Self::from_parts(&serde_json::Value::Object(vocabulary).to_string(), &merges, config)
    }
}

/// Converts a word to characters of the byte-level alphabet, the last with the end-of-word suffix.
fn spell(word: &str) -> Vec<String> {
    let mut characters: Vec<String> = word.bytes().map(|byte| CHARACTERS[usize::from(byte)].to_string()).collect();
    if let Some(last) = characters.last_mut() {
        last.push_str(END_OF_WORD);
    }
    characters
}

fn most_frequent(words: &[Vec<String>]) -> Option<(String, String)> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for pair in words.iter().flat_map(|word| word.windows(2)) {
        *counts.entry((&pair[0], &pair[1])).or_default() += 1;
    }
    let most = *counts.values().max()?;
    let (pair, _) = counts.into_iter().find(|(_, count)| *count == most)?;
    Some((pair.0.to_owned(), pair.1.to_owned()))
}

fn merge(word: &mut Vec<String>, left: &str, right: &str) {
    let mut at = 0;
    while at + 1 < word.len() {
        if word[at] == left && word[at + 1] == right {
            let joined = word.remove(at + 1);
            word[at].push_str(&joined);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learned_words_are_one_token_and_files_say_the_same() {
        let words = ["the", "there", "red", "striped", "star", "stars", "a", "at"];
        let config = TokenizerConfig { model_max_length: 32, ..TokenizerConfig::default() };
        let tokenizer = ClipTokenizer::learned(&words, &config).expect("a tokenizer");
        for word in words {
            assert_eq!(tokenizer.encode(word).expect("ids").len(), 1, "{word}");
        }
        assert_eq!(tokenizer.window(), 32);
        let place = tempfile::tempdir().expect("a folder");
        tokenizer.save(place.path()).expect("files");
        let read = ClipTokenizer::from_folder(place.path()).expect("a tokenizer");
        let prompt = "There, a red Heart at the star!";
        assert_eq!(read.encode(prompt).expect("ids"), tokenizer.encode(prompt).expect("ids"));
        assert_eq!(
            tokenizer.decode(&tokenizer.encode(prompt).expect("ids")).expect("a text").trim(),
            "there , a red heart at the star !"
        );
    }
}
