//! Text embeddings of the small world's CLIP, which are compared with those of images.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use fabric::core::InvalidValue;
use fabric::models::ModelError;
use fabric::models::clip::{ClipText, ClipTextConfig};
use fabric::models::load::{Component, LoadDtype, LoadOptions, ModelFolder, load_into};
use fabric::models::tokenizer::ClipTokenizer;

use crate::ExperimentError;

/// The text encoder of a model folder with its projection, which makes texts comparable with images.
#[derive(Debug)]
pub(crate) struct TextRuler {
    encoder: ClipText,
    tokenizer: ClipTokenizer,
}

impl TextRuler {
    /// Loads the text encoder of a model folder.
    pub(crate) fn open(model: &Path, device: &Device) -> Result<Self, ModelError> {
        let folder = ModelFolder::open(model)?;
        let config: ClipTextConfig = folder.config(Component::TextEncoder)?;
        let options = LoadOptions::default().with_dtype(LoadDtype::F32);
        let (encoder, _) = load_into(config.init(device)?, &*folder.weights(Component::TextEncoder)?, &options)?;
        let tokenizer = ClipTokenizer::from_folder(model.join("tokenizer"))?;
        Ok(Self { encoder, tokenizer })
    }

    /// Returns the projected embedding of a text, `[1, channels]`. `channels` is that of the image embeddings.
    pub(crate) fn embed(&self, text: &str, channels: usize) -> Result<Tensor<2>, ExperimentError> {
        let window = self.tokenizer.window().min(self.encoder.max_tokens());
        let tokenized = self.tokenizer.tokenize(text, window, self.tokenizer.padding()).map_err(ModelError::from)?;
        let output = self.encoder.forward(&[tokenized.ids]).map_err(|error| ExperimentError::Other(error.into()))?;
        match output.text_embeds {
            Some(embedded) if embedded.dims()[1] == channels => Ok(embedded),
            other => {
                let got = other.map_or("none".to_owned(), |embedded| format!("{} channels", embedded.dims()[1]));
                let expected = format!("{channels} channels, as in the image embeddings");
                let help = "take a model whose text and image encoder were trained together";
                Err(InvalidValue::new("projected text embedding", got, expected, help).into())
            }
        }
    }
}
