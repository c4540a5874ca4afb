use std::path::PathBuf;

use crate::config::ConfigError;
use crate::load::LoadError;
use crate::lora::LoraError;
use crate::tokenizer::TokenizerError;

/// Why a model cannot be had from its files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file cannot be read, or does not hold what it should.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A network cannot be built from its configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tokenizer's files cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A LoRA does not fit.
    #[error(transparent)]
    Lora(#[from] LoraError),
    /// The demonstration model is nowhere.
    #[error(
        "the demonstration model: expected model_index.json in {}, got no such file; it lies in the library's repository as models/world: name that folder in FABRIC_DEMO, or give another model",
        places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    NoDemo {
        /// Where it was looked for.
        places: Vec<PathBuf>,
    },
    /// The networks have nowhere to rest.
    #[error(transparent)]
    Device(#[from] fabric_backends::DeviceError),
    /// Parts of different models.
    #[error("the parts of this model do not belong together: {}; take all of them from one model", faults.join("; "))]
    Unfit {
        /// Each pair of parts that do not fit, by their folders' names, with what both have.
        faults: Vec<String>,
    },
    /// The scheduler's settings cannot be used.
    #[error(transparent)]
    Pipeline(#[from] fabric_core::Error),
}

impl From<fabric_core::schedule::ScheduleError> for ModelError {
    fn from(error: fabric_core::schedule::ScheduleError) -> Self {
        Self::Pipeline(error.into())
    }
}
