use std::path::PathBuf;

use fabric_core::printable_value;

use crate::config::ConfigError;
use crate::load::LoadError;
use crate::lora::LoraError;
use crate::tokenizer::TokenizerError;

/// Error while loading a model from its files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file cannot be read, or its contents are not as expected.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The configuration of a network is invalid or not supported.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tokenizer's files are missing or invalid.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A LoRA file is invalid or does not match the model.
    #[error(transparent)]
    Lora(#[from] LoraError),
    /// The demonstration model was not found.
    #[error(
        "the demonstration model: expected model_index.json in {}, got no such file; it lies in the library's repository as models/world: name that folder in FABRIC_DEMO, or give another model",
        places.iter().map(|place| printable_value(place.display())).collect::<Vec<_>>().join(", ")
    )]
    NoDemo {
        /// The folders that were searched.
        places: Vec<PathBuf>,
    },
    /// No CPU device is available to hold the offloaded networks.
    #[error(transparent)]
    Device(#[from] fabric_backends::DeviceError),
    /// The sizes of the networks do not match, as when they come from different models.
    #[error("the parts of this model do not belong together: {}; take all of them from one model", faults.join("; "))]
    Unfit {
        /// One message per mismatched pair of networks, with their folder names and both sizes.
        faults: Vec<String>,
    },
    /// The scheduler's settings are invalid.
    #[error(transparent)]
    Pipeline(#[from] fabric_core::Error),
}

impl From<fabric_core::schedule::ScheduleError> for ModelError {
    fn from(error: fabric_core::schedule::ScheduleError) -> Self {
        Self::Pipeline(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile_texts::{assert_printable, hostile_texts};

    #[test]
    fn no_message_hands_a_text_from_a_file_to_the_terminal() {
        for text in hostile_texts() {
            let path = PathBuf::from(&text);
            let errors = [
                ModelError::Load(LoadError::malformed(&path, "class", 1, "2", "get it again")),
                ModelError::Config(ConfigError::invalid("U-Net", "act_fn", &text, "silu")),
                ModelError::Lora(LoraError::Scale { place: text.clone(), scale: f32::NAN }),
                ModelError::NoDemo { places: vec![path] },
                fabric_core::schedule::SchedulerConfig::from_json(&text).expect_err("no JSON").into(),
            ];
            errors.iter().for_each(|error| assert_printable(&error.to_string()));
        }
    }
}
