//! CLIP's tokenizer: converts prompts to token ids that equal the reference's for every text.
//!
//! A prompt is cleaned ([`Cleaning`]) and split into words, and each word into tokens of the vocabulary. Text beyond
//! the tokenizer window is reported ([`Tokenized::truncated`]) or continues in further windows. Weights
//! such as `(word:1.2)` are parsed only if the text options ask for it.
//!
//! ```
//! use fabric_models::tokenizer::ClipTokenizer;
//!
//! let tokenizer = ClipTokenizer::openai();
//! let prompt = tokenizer.tokenize("a small red star", tokenizer.window(), tokenizer.padding())?;
//! assert_eq!(prompt.ids[..7], [49406, 320, 2442, 736, 1565, 49407, 49407]);
//! # Ok::<(), fabric_models::tokenizer::TokenizerError>(())
//! ```

mod alphabet;
mod bpe;
mod chunks;
mod clean;
mod dropout;
mod emphasis;
mod error;
mod files;
mod learn;
mod specials;
mod tokenizer_json;
mod vocabulary;
mod weights;
mod words;

use std::sync::Arc;

pub(crate) use chunks::Chunks;
pub use chunks::Tokenized;
pub use clean::Cleaning;
pub(crate) use emphasis::{Emphasis, apply_weights};
pub use error::TokenizerError;
pub use files::TokenizerConfig;
pub(crate) use weights::WeightedPrompt;

use specials::{Part, Specials};
use vocabulary::{Vocabulary, check_added};

/// Maximum length of a prompt in bytes: some 200 windows.
pub const MAX_PROMPT_BYTES: usize = 65_536;

/// Padding token after the end of the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PadWith {
    /// The EOS token, as in SD 1.5 and the first encoder of SDXL.
    Eos,
    /// A given id: 0 (`!`) in SD 2, the second encoder of SDXL, and OpenCLIP.
    Id(u32),
}

/// CLIP tokenizer: converts prompts to token ids.
///
/// Cheap to clone, and usable from several threads at once.
#[derive(Debug, Clone)]
pub struct ClipTokenizer {
    vocabulary: Arc<Vocabulary>,
    /// Special tokens that are recognised in the text.
    specials: Arc<Specials>,
    /// Words that are single tokens after cleaning.
    whole_words: [(&'static str, u32); 2],
    bos: u32,
    eos: u32,
    pad: u32,
    unknown: u32,
    window: usize,
    lower_case: bool,
    cleaning: Cleaning,
}

impl ClipTokenizer {
    /// Returns OpenAI's tokenizer with the embedded vocabulary of 49,408 tokens, as in SD 1.5: 77 tokens, padded with
    /// EOS.
    #[must_use]
    pub fn openai() -> Self {
        Self::build(vocabulary::openai(), &TokenizerConfig::default()).expect("the carried vocabulary")
    }

    fn build(vocabulary: Arc<Vocabulary>, config: &TokenizerConfig) -> Result<Self, TokenizerError> {
        let id = |name: &str, what: &str| {
            let added = config.added_tokens.iter().find(|(added, _)| added == name).map(|(_, id)| *id);
            added.or_else(|| vocabulary.id_of(name)).ok_or_else(|| TokenizerError::UnknownToken {
                file: "tokenizer_config.json".to_owned(),
                what: what.to_owned(),
                token: name.to_owned(),
            })
        };
        let bos = id(&config.bos_token, "bos_token")?;
        let eos = id(&config.eos_token, "eos_token")?;
        let optional = |token: &Option<String>, what| token.as_deref().map_or(Ok(eos), |name| id(name, what));
        let pad = optional(&config.pad_token, "pad_token")?;
        let unknown = optional(&config.unk_token, "unk_token")?;

        let named =
            [Some(&config.bos_token), Some(&config.eos_token), config.pad_token.as_ref(), config.unk_token.as_ref()];
        let special = |name: &String| Ok((name.clone(), id(name, "special token")?));
        let mut specials = named.into_iter().flatten().map(special).collect::<Result<Vec<_>, TokenizerError>>()?;
        specials.extend(config.added_tokens.iter().cloned());
        check_added("special tokens", &specials)?;
        let tokenizer = Self {
            vocabulary,
            specials: Arc::new(Specials::new(specials)),
            whole_words: [("", 0); 2],
            bos,
            eos,
            pad,
            unknown,
            window: config.model_max_length,
            lower_case: config.do_lower_case,
            cleaning: Cleaning::default(),
        };
        Ok(tokenizer.with_cleaning(Cleaning::default()))
    }

    /// Sets the text cleaning.
    #[must_use]
    pub fn with_cleaning(self, cleaning: Cleaning) -> Self {
        let id = |token| self.vocabulary.id_of(token).unwrap_or(self.unknown);
        let whole_words = match cleaning {
            // The reference implementations fix these names, whatever the vocabulary calls its special tokens.
            Cleaning::OpenClip => [("<start_of_text>", self.bos), ("<end_of_text>", self.eos)],
            _ => ["<|startoftext|>", "<|endoftext|>"].map(|token| (token, id(token))),
        };
        Self { cleaning, whole_words, ..self }
    }

    /// Sets the length of the tokenizer window.
    #[must_use]
    pub fn with_window(self, window: usize) -> Self {
        Self { window, ..self }
    }

    /// Returns the length of the tokenizer window, from its files: 77 for every CLIP.
    #[must_use]
    pub fn window(&self) -> usize {
        self.window
    }

    /// Returns the padding token, from its files.
    #[must_use]
    pub fn padding(&self) -> PadWith {
        if self.pad == self.eos { PadWith::Eos } else { PadWith::Id(self.pad) }
    }

    /// Sets the padding token. As in transformers, its text in a prompt becomes this token, too: with `!`, which
    /// Stable Diffusion 2 pads with, every `!` of a prompt is padding.
    #[must_use]
    pub fn with_padding(mut self, padding: PadWith) -> Self {
        self.pad = match padding {
            PadWith::Eos => self.eos,
            PadWith::Id(id) => id,
        };
        if let Some(name) = self.vocabulary.token(self.pad) {
            self.specials = Arc::new((*self.specials).clone().with(name, self.pad));
        }
        self
    }

    /// Returns the id of the token that begins a prompt.
    #[must_use]
    pub fn bos(&self) -> u32 {
        self.bos
    }

    /// Returns the id of the token that ends a prompt.
    #[must_use]
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// Returns the number of ids, including added tokens: the number of rows that an embedding table needs.
    #[must_use]
    pub fn vocabulary_size(&self) -> usize {
        let added = self.specials.iter().map(|(_, id)| *id as usize + 1).max().unwrap_or(0);
        self.vocabulary.len().max(added)
    }

    /// Returns the ids of a text without BOS and EOS; the text is never truncated.
    ///
    /// # Errors
    ///
    /// Returns [`TokenizerError::PromptTooLong`] if the text is longer than [`MAX_PROMPT_BYTES`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        if text.len() > MAX_PROMPT_BYTES {
            return Err(TokenizerError::PromptTooLong { got: text.len(), limit: MAX_PROMPT_BYTES });
        }
        let clean = |text| self.cleaning.apply(text, self.lower_case);
        let mut ids = Vec::new();
        match self.cleaning {
            Cleaning::OpenClip => self.encode_clean(&clean(text), &mut ids),
            Cleaning::Fast => {
                for part in self.specials.cut(&clean(text)) {
                    match part {
                        Part::Special(id) => ids.push(id),
                        Part::Text(text) => self.encode_clean(text, &mut ids),
                    }
                }
            }
            Cleaning::Ftfy | Cleaning::Basic => {
                for part in self.specials.cut(text) {
                    match part {
                        Part::Special(id) => ids.push(id),
                        Part::Text(text) => self.encode_clean(&clean(text), &mut ids),
                    }
                }
            }
        }
        Ok(ids)
    }

    fn encode_clean(&self, text: &str, ids: &mut Vec<u32>) {
        for word in words::words(text, self.cleaning) {
            match self.whole_words.iter().find(|(name, _)| *name == word) {
                Some(&(_, id)) => ids.push(id),
                None => bpe::encode_word(&self.vocabulary, word, self.unknown, ids),
            }
        }
    }

    /// Returns the text of token ids, with single spaces between words; BOS and EOS are omitted.
    ///
    /// # Errors
    ///
    /// Returns [`TokenizerError::UnknownId`] if an id is not in the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let mut bytes = Vec::new();
        for &id in ids.iter().filter(|&&id| id != self.bos && id != self.eos) {
            if let Some(ends_word) = self.vocabulary.spell(id, &mut bytes) {
                bytes.extend(ends_word.then_some(b' '));
            } else if let Some(name) = self.specials.name_of(id) {
                bytes.extend_from_slice(name.as_bytes());
                bytes.push(b' ');
            } else {
                return Err(TokenizerError::UnknownId { got: id, size: self.vocabulary_size() });
            }
        }
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }
}

#[cfg(test)]
mod tests;
