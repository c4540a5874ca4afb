//! Error type of this crate.

use fabric_core::InvalidValue;
use fabric_models::load::LoadError;
use fabric_models::lora::LoraError;

/// Error when an adapter cannot be loaded or used.
///
/// Each message says what failed and where, what was expected, what was found, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// The tensors of a file are not those of an adapter.
    #[error(
        "{place}: {what}: expected {expected}, got {got}; is this an IP-Adapter? get the file again, or another one"
    )]
    NotAnAdapter {
        /// The file.
        place: String,
        /// The part of it that is wrong.
        what: String,
        /// The value that was found.
        got: String,
        /// The value that was expected.
        expected: String,
    },
    /// Adapter, image encoder and U-Net do not fit together.
    #[error("{adapter} does not fit: {value}")]
    Unfit {
        /// Description of the adapter.
        adapter: String,
        /// The part that does not fit.
        value: InvalidValue,
    },
    /// A setting has an invalid value.
    #[error(transparent)]
    Setting(#[from] InvalidValue),
    /// The weights cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The LoRA of a FaceID file does not fit.
    #[error(transparent)]
    Lora(#[from] LoraError),
}

impl From<AdapterError> for fabric_core::Error {
    fn from(error: AdapterError) -> Self {
        Self::Model(Box::new(error))
    }
}
