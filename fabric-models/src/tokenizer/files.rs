//! Reads and writes the tokenizer's files in a model folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::ClipTokenizer;
use super::error::TokenizerError;
use super::tokenizer_json::{self, TOKENIZER_JSON};
use super::vocabulary::{Vocabulary, check_added, corrupt};
use crate::load::{LoadError, write_text};

/// Maximum size of a tokenizer's file; OpenAI's largest has 1 MB.
const MAX_FILE_BYTES: u64 = 32 << 20;
/// Maximum window: some files specify `1e30` for "unlimited", but CLIP's position embeddings end at 77.
const MAX_WINDOW: f64 = 65_536.0;

/// Settings of a tokenizer, from the small files beside its vocabulary.
///
/// The default is OpenAI's: `<|startoftext|>`, `<|endoftext|>`, padding with the latter, 77 tokens, lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizerConfig {
    /// Token at the begin of each prompt.
    pub bos_token: String,
    /// Token at the end of each prompt.
    pub eos_token: String,
    /// Token that pads a window; `None` means `eos_token`. SD 2 and the second encoder of SDXL use `!`.
    pub pad_token: Option<String>,
    /// Token for bytes that are not in the vocabulary; `None` means `eos_token`.
    pub unk_token: Option<String>,
    /// Additional tokens with their ids (textual inversion).
    pub added_tokens: Vec<(String, u32)>,
    /// Length of the tokenizer window.
    pub model_max_length: usize,
    /// Whether prompts are converted to lower case. (transformers' slow tokenizer always does and has no such
    /// setting.)
    pub do_lower_case: bool,
}

impl Default for TokenizerConfig {
    fn default() -> Self {
        Self {
            bos_token: "<|startoftext|>".to_owned(),
            eos_token: "<|endoftext|>".to_owned(),
            pad_token: None,
            unk_token: None,
            added_tokens: Vec::new(),
            model_max_length: 77,
            do_lower_case: true,
        }
    }
}

/// Token as written in the files: its text, or an object that contains its text.
#[derive(Deserialize)]
#[serde(untagged)]
enum TokenText {
    Plain(String),
    Added { content: String },
}

impl TokenText {
    fn into_text(self) -> String {
        match self {
            Self::Plain(text) | Self::Added { content: text } => text,
        }
    }
}

/// Length; Python writes `Infinity` for "unlimited".
#[derive(Deserialize)]
#[serde(untagged)]
enum Length {
    Tokens(f64),
    Word(Any),
}

#[derive(Deserialize)]
enum Any {
    Infinity,
}

/// Fields of both small files; each file contains some of these.
#[derive(Deserialize, Default)]
#[serde(default)]
struct SmallFile {
    bos_token: Option<TokenText>,
    eos_token: Option<TokenText>,
    pad_token: Option<TokenText>,
    unk_token: Option<TokenText>,
    model_max_length: Option<Length>,
    do_lower_case: Option<bool>,
    added_tokens_decoder: Option<BTreeMap<u32, TokenText>>,
}

impl TokenizerConfig {
    /// Parses `tokenizer_config.json` and `special_tokens_map.json`, both optional.
    ///
    /// As in transformers, the second file takes precedence, unless the first lists its tokens in
    /// `added_tokens_decoder`.
    ///
    /// # Errors
    ///
    /// Returns [`TokenizerError::Corrupt`] if one of them is not JSON of the usual form.
    pub fn from_json(tokenizer_config: Option<&str>, special_tokens_map: Option<&str>) -> Result<Self, TokenizerError> {
        let parse = |name: &str, text: Option<&str>| {
            let Some(text) = text else { return Ok(SmallFile::default()) };
            let expected = "a JSON object of settings and special tokens";
            if fabric_core::json::is_list(text.as_bytes()) {
                return Err(corrupt(name, "a list", expected));
            }
            fabric_core::json::from_str(text).map_err(|error| corrupt(name, error, expected))
        };
        let main = parse("tokenizer_config.json", tokenizer_config)?;
        let map = parse("special_tokens_map.json", special_tokens_map)?;
        let map = if main.added_tokens_decoder.is_some() { SmallFile::default() } else { map };

        let added = main.added_tokens_decoder.unwrap_or_default().into_iter();
        let added_tokens: Vec<(String, u32)> = added.map(|(id, token)| (token.into_text(), id)).collect();
        check_added("tokenizer_config.json", &added_tokens)?;

        let default = Self::default();
        let text = |over: Option<TokenText>, under: Option<TokenText>| over.or(under).map(TokenText::into_text);
        Ok(Self {
            bos_token: text(map.bos_token, main.bos_token).unwrap_or(default.bos_token),
            eos_token: text(map.eos_token, main.eos_token).unwrap_or(default.eos_token),
            pad_token: text(map.pad_token, main.pad_token),
            unk_token: text(map.unk_token, main.unk_token),
            added_tokens,
            model_max_length: match main.model_max_length.map(|length| match length {
                Length::Tokens(length) => length,
                Length::Word(Any::Infinity) => f64::INFINITY,
            }) {
                Some(length) if (2.0..=MAX_WINDOW).contains(&length) => length as usize,
                Some(length) if length.is_nan() || length <= MAX_WINDOW => {
                    let expected = "a `model_max_length` of at least 2";
                    return Err(corrupt("tokenizer_config.json", length, expected));
                }
                _ => default.model_max_length,
            },
            do_lower_case: main.do_lower_case.unwrap_or(default.do_lower_case),
        })
    }
}

impl ClipTokenizer {
    /// Loads the tokenizer of a model folder: `vocab.json` and `merges.txt`, or `tokenizer.json` alone, and, if they
    /// exist, `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`.
    ///
    /// # Errors
    ///
    /// Returns an error if a file is missing, too large or corrupt, or does not match the others.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        let folder = folder.as_ref();
        let has = |name: &str| folder.join(name).exists();
        if has(TOKENIZER_JSON) && !(has("vocab.json") && has("merges.txt")) {
            return Self::from_tokenizer_json(folder.join(TOKENIZER_JSON));
        }
        let config = read_config(folder)?;
        let vocab = read(&folder.join("vocab.json"))?;
        let merges = read(&folder.join("merges.txt"))?;
        Self::from_parts(&vocab, &merges, &config)
    }

    /// Loads a tokenizer from a `tokenizer.json`, also if its folder contains `vocab.json` and `merges.txt`. The small
    /// files of its folder are read as [`Self::from_folder`] does.
    ///
    /// # Errors
    ///
    /// Same as [`Self::from_folder`].
    pub fn from_tokenizer_json(path: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        let path = path.as_ref();
        let mut config = read_config(path.parent().unwrap_or(Path::new("")))?;
        let vocabulary = tokenizer_json::read(&read(path)?, &mut config)?;
        Self::build(Arc::new(vocabulary), &config)
    }

    /// Builds a tokenizer from the text of `vocab.json` and `merges.txt`.
    ///
    /// Vocabularies may have any size. As in the reference, the first line of the merges is a comment, and at most
    /// 48,894 merges are read.
    ///
    /// # Errors
    ///
    /// Returns an error if a text is corrupt, or if the result of a merge or a special token is not in the
    /// vocabulary.
    ///
    /// # Examples
    ///
    /// ```
    /// use fabric_models::tokenizer::{ClipTokenizer, TokenizerConfig};
    ///
    /// let vocab = r#"{"h": 0, "i</w>": 1, "hi</w>": 2, "<|startoftext|>": 3, "<|endoftext|>": 4}"#;
    /// let tokenizer = ClipTokenizer::from_parts(vocab, "#version: 0.2\nh i</w>", &TokenizerConfig::default())?;
    /// assert_eq!(tokenizer.encode("Hi")?, [2]);
    /// # Ok::<(), fabric_models::tokenizer::TokenizerError>(())
    /// ```
    pub fn from_parts(vocab_json: &str, merges_txt: &str, config: &TokenizerConfig) -> Result<Self, TokenizerError> {
        Self::build(Arc::new(Vocabulary::from_text(vocab_json, merges_txt)?), config)
    }

    /// Writes the files of [`Self::to_files`] to an existing folder.
    ///
    /// # Errors
    ///
    /// Returns [`TokenizerError::Write`] if a file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<(), TokenizerError> {
        for (name, text) in self.to_files() {
            let path = folder.as_ref().join(name);
            write_text(&path, &text).map_err(|error| match error {
                LoadError::Io { source, .. } => TokenizerError::Write { path, source },
                other => TokenizerError::Write { path, source: std::io::Error::other(other) },
            })?;
        }
        Ok(())
    }

    /// Returns the names and texts of the files of the tokenizer in the format of transformers: `vocab.json`,
    /// `merges.txt`, `tokenizer_config.json`, `special_tokens_map.json` and, if there are tokens beside the vocabulary,
    /// `added_tokens.json`.
    pub fn to_files(&self) -> Vec<(&'static str, String)> {
        let (vocab, merges) = self.vocabulary.to_text();
        let name = |id| self.specials.name_of(id);
        let specials = serde_json::json!({
            "bos_token": name(self.bos),
            "eos_token": name(self.eos),
            "pad_token": name(self.pad),
            "unk_token": name(self.unknown),
        });
        let mut config = specials.clone();
        config["model_max_length"] = self.window.into();
        config["do_lower_case"] = self.lower_case.into();
        config["tokenizer_class"] = "CLIPTokenizer".into();
        let mut files = vec![
            ("vocab.json", vocab),
            ("merges.txt", merges),
            ("tokenizer_config.json", format!("{config:#}\n")),
            ("special_tokens_map.json", format!("{specials:#}\n")),
        ];
        let beside = |(_, id): &&(String, u32)| self.vocabulary.token(*id).is_none();
        let added: BTreeMap<&str, u32> =
            self.specials.iter().filter(beside).map(|(name, id)| (name.as_str(), *id)).collect();
        if !added.is_empty() {
            files.push(("added_tokens.json", format!("{:#}\n", serde_json::json!(added))));
        }
        files
    }
}

/// Reads the settings of a tokenizer from the small files in its folder, all of them optional.
fn read_config(folder: &Path) -> Result<TokenizerConfig, TokenizerError> {
    let optional = |name: &str| {
        let path = folder.join(name);
        if path.exists() { read(&path).map(Some) } else { Ok(None) }
    };
    let main = optional("tokenizer_config.json")?;
    let map = optional("special_tokens_map.json")?;
    let mut config = TokenizerConfig::from_json(main.as_deref(), map.as_deref())?;
    if let Some(added) = optional("added_tokens.json")? {
        let added: BTreeMap<String, u32> = fabric_core::json::from_str(&added)
            .map_err(|error| corrupt("added_tokens.json", error, "one JSON object of tokens and their ids"))?;
        let added: Vec<(String, u32)> = added.into_iter().collect();
        check_added("added_tokens.json", &added)?;
        config.added_tokens.extend(added);
    }
    Ok(config)
}

/// Reads a text file of limited size.
fn read(path: &Path) -> Result<String, TokenizerError> {
    let failed = |source| TokenizerError::Io { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(std::io::Error::other("it is not a file")));
    }
    if metadata.len() > MAX_FILE_BYTES {
        let (got, limit) = (metadata.len(), MAX_FILE_BYTES);
        return Err(TokenizerError::FileTooLarge { path: path.to_owned(), got, limit });
    }
    let bytes = fs::read(path).map_err(failed)?;
    String::from_utf8(bytes).map_err(|error| corrupt(&path.display().to_string(), error, "text in UTF-8"))
}
