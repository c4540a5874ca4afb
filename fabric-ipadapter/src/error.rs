//! Why an adapter cannot be used.

use fabric_models::load::LoadError;
use fabric_models::lora::LoraError;

/// Why an adapter cannot be used.
///
/// Every message says what, where, what was found, what was wanted and what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// A file's tensors are not those of an adapter.
    #[error(
        "{place}: {what}: expected {expected}, got {got}; is this an IP-Adapter? get the file again, or another one"
    )]
    NotAnAdapter {
        /// The file.
        place: String,
        /// The part of it that is wrong.
        what: String,
        /// What is there.
        got: String,
        /// What would be good.
        expected: String,
    },
    /// Adapter, image encoder and U-Net do not belong together.
    #[error("{adapter} does not fit: {what}: expected {expected}, got {got}; {next}")]
    Unfit {
        /// The adapter, in words.
        adapter: String,
        /// What does not fit it.
        what: String,
        /// What that offers.
        got: String,
        /// What the adapter wants.
        expected: String,
        /// What to do.
        next: String,
    },
    /// A setting cannot be used.
    #[error("{what}: expected {expected}, got {got}; {next}")]
    Setting {
        /// Which setting.
        what: String,
        /// What it is.
        got: String,
        /// What it may be.
        expected: String,
        /// What to do.
        next: String,
    },
    /// The weights cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// FaceID's LoRA does not fit.
    #[error(transparent)]
    Lora(#[from] LoraError),
}

impl From<AdapterError> for fabric_core::Error {
    fn from(error: AdapterError) -> Self {
        Self::Model(Box::new(error))
    }
}
