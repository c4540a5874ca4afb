//! Token ids in windows of the text encoder's length: one window and the truncated text, or several windows.

use super::{ClipTokenizer, PadWith, TokenizerError, WeightedPrompt};

/// Token ids of a prompt in one window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokenized {
    /// BOS, tokens, EOS and padding; exactly the length of the window.
    pub ids: Vec<u32>,
    /// Number of tokens of the whole prompt, including BOS, EOS and truncated tokens.
    pub length: usize,
    /// The truncated text, if any.
    pub truncated: Option<String>,
}

/// Token ids of a prompt in one or several windows, with a weight for each token.
///
/// As in the common web interfaces, each window begins with BOS, ends with EOS and is encoded separately; the U-Net
/// attends to the concatenated encodings.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chunks {
    /// Ids of each window: BOS, tokens, EOS, padding.
    pub(crate) windows: Vec<Vec<u32>>,
    /// Weight of each token of each window; 1 for BOS, EOS and padding.
    pub(crate) weights: Vec<Vec<f32>>,
    /// The text beyond the maximum number of windows, if any.
    pub(crate) truncated: Option<String>,
    /// Ids of a window without text.
    blank: Vec<u32>,
}

impl Chunks {
    /// Appends windows without text until there are `count`, so that all prompts of a batch have the same number.
    pub(crate) fn lengthen(&mut self, count: usize) {
        let count = count.max(self.windows.len());
        self.weights.resize_with(count, || vec![1.0; self.blank.len()]);
        self.windows.resize(count, self.blank.clone());
    }

    /// Returns the ids of a window without text.
    #[must_use]
    pub(crate) fn blank(&self) -> &[u32] {
        &self.blank
    }

    /// Returns whether any token has a weight other than 1.
    #[must_use]
    pub(crate) fn is_weighted(&self) -> bool {
        self.weights.iter().flatten().any(|&weight| weight != 1.0)
    }
}

impl ClipTokenizer {
    /// Tokenizes a prompt to one window: BOS, as many tokens as fit, EOS, padding.
    ///
    /// # Errors
    ///
    /// Returns an error if the prompt is longer than [`MAX_PROMPT_BYTES`](super::MAX_PROMPT_BYTES) or the window
    /// shorter than 2 tokens.
    ///
    /// # Examples
    ///
    /// ```
    /// use fabric_models::tokenizer::{ClipTokenizer, PadWith};
    ///
    /// let prompt = ClipTokenizer::openai().tokenize("a cat and a dog", 5, PadWith::Eos)?;
    /// assert_eq!(prompt.ids, [49406, 320, 2368, 537, 49407]);
    /// assert_eq!(prompt.truncated.as_deref(), Some("a dog"));
    /// # Ok::<(), fabric_models::tokenizer::TokenizerError>(())
    /// ```
    pub fn tokenize(&self, text: &str, window: usize, pad: PadWith) -> Result<Tokenized, TokenizerError> {
        check(window, 2)?;
        let ids = self.encode(text)?;
        let (kept, cut) = ids.split_at(ids.len().min(window - 2));
        let truncated = if cut.is_empty() { None } else { Some(self.decode(cut)?) };
        Ok(Tokenized { ids: self.frame(kept, window, pad), length: ids.len() + 2, truncated })
    }

    /// Tokenizes a prompt to at most `max_windows` windows, and at least one, even for an empty prompt.
    ///
    /// # Errors
    ///
    /// Returns an error if the prompt is longer than [`MAX_PROMPT_BYTES`](super::MAX_PROMPT_BYTES) or a window
    /// shorter than 3 tokens.
    pub(crate) fn chunks(
        &self,
        prompt: &WeightedPrompt,
        window: usize,
        pad: PadWith,
        max_windows: usize,
    ) -> Result<Chunks, TokenizerError> {
        check(window, 3)?;
        let bytes = prompt.runs.iter().map(|run| run.text.len()).sum();
        if bytes > super::MAX_PROMPT_BYTES {
            return Err(TokenizerError::PromptTooLong { got: bytes, limit: super::MAX_PROMPT_BYTES });
        }
        let (mut ids, mut weights) = (Vec::new(), Vec::new());
        for run in &prompt.runs {
            ids.extend(self.encode(&run.text)?);
            weights.resize(ids.len(), run.weight);
        }
        let room = window - 2;
        let kept = ids.len().min(room.saturating_mul(max_windows.max(1)));
        let truncated = if kept < ids.len() { Some(self.decode(&ids[kept..])?) } else { None };
        let framed_weights = |weights: &[f32]| {
            let mut framed = vec![1.0; window];
            framed[1..=weights.len()].copy_from_slice(weights);
            framed
        };
        let mut chunks = Chunks {
            windows: ids[..kept].chunks(room).map(|ids| self.frame(ids, window, pad)).collect(),
            weights: weights[..kept].chunks(room).map(framed_weights).collect(),
            truncated,
            blank: self.frame(&[], window, pad),
        };
        chunks.lengthen(1);
        Ok(chunks)
    }

    /// Returns BOS, the ids, EOS, and padding up to the length of the window.
    fn frame(&self, ids: &[u32], window: usize, pad: PadWith) -> Vec<u32> {
        let mut framed = Vec::with_capacity(window);
        framed.push(self.bos);
        framed.extend_from_slice(ids);
        framed.push(self.eos);
        let pad = match pad {
            PadWith::Eos => self.eos,
            PadWith::Id(id) => id,
        };
        framed.resize(window, pad);
        framed
    }
}

/// Maximum length of a window, far above that of any text encoder.
const MAX_WINDOW: usize = 65_536;

fn check(window: usize, least: usize) -> Result<(), TokenizerError> {
    if (least..=MAX_WINDOW).contains(&window) {
        return Ok(());
    }
    Err(TokenizerError::Window { got: window, expected: format!("{least} to {MAX_WINDOW}") })
}
