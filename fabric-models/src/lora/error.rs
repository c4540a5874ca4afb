use super::LoraMismatch;
use crate::load::{Component, LoadError, shortened};

/// Why a LoRA cannot be read or applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoraError {
    /// The file cannot be read, or a value in it is not a finite float.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file without a single key of a LoRA.
    #[error(
        "{place}: expected keys of a LoRA (`.lora_down.weight`, `.lora_A.weight`, `.lora.down.weight` \
         or `_lora.down.weight` and their counterparts), got {got}; give a LoRA file, or load this one as what it is"
    )]
    NotALora {
        /// The file.
        place: String,
        /// What is in it.
        got: String,
    },
    /// Some keys of the file are those of a LoRA, others are not.
    #[error(
        "{place}: {} keys are not known from any LoRA layout, expected none: {}; \
         remove them from the file, or convert it with the program that wrote it", keys.len(), first_few(keys)
    )]
    UnknownKeys {
        /// The file.
        place: String,
        /// The keys.
        keys: Vec<String>,
    },
    /// An adaptation that is no plain product of two matrices.
    #[error(
        "{place}: key `{key}` belongs to {kind}, supported are products of two matrices (LoRA, LoCon); \
         extract a plain LoRA from it with the tools of its trainer, or use another file"
    )]
    Unsupported {
        /// The file.
        place: String,
        /// The first key that tells.
        key: String,
        /// What it is.
        kind: &'static str,
    },
    /// One half of a product without the other.
    #[error("{place}: `{target}` has {got} and lacks {expected}; the file is incomplete: get it again")]
    Incomplete {
        /// The file.
        place: String,
        /// The module.
        target: String,
        /// What is there.
        got: &'static str,
        /// What is not.
        expected: &'static str,
    },
    /// The same weight named by two keys.
    #[error(
        "{place}: both `{first}` and `{second}` are for the same weight, expected one of them; the file mixes two layouts: get it again"
    )]
    Duplicate {
        /// The file.
        place: String,
        /// One key.
        first: String,
        /// The other.
        second: String,
    },
    /// Matrices that cannot be multiplied, or an alpha that is not one number.
    #[error(
        "{place}: tensor `{key}`: expected {expected}, got shape {got:?}; the file is damaged or of an unknown kind: get it again"
    )]
    Shape {
        /// The file.
        place: String,
        /// The tensor.
        key: String,
        /// Its shape.
        got: Vec<usize>,
        /// What would fit.
        expected: String,
    },
    /// An alpha that makes no sense.
    #[error(
        "{place}: `{target}`: expected more than 0 and at most {limit} · rank, got alpha {alpha} at rank {rank}; the file is damaged: get it again"
    )]
    Alpha {
        /// The file.
        place: String,
        /// The module.
        target: String,
        /// Its alpha.
        alpha: f64,
        /// Its rank.
        rank: usize,
        /// The largest alpha / rank allowed.
        limit: f64,
    },
    /// The settings on scaling in the file's header, or beside it, cannot be read.
    #[error(
        "{place}: settings in `{key}`: expected {expected}, got {got}; remove them, or save the LoRA again with diffusers or peft"
    )]
    Metadata {
        /// The file.
        place: String,
        /// The header's entry, or the file beside it.
        key: String,
        /// What is there.
        got: String,
        /// What would be good.
        expected: &'static str,
    },
    /// Entries for a network that the model does not have.
    #[error(
        "{place}: {entries} entries are for the network `{part}`, which {model} does not have, so they would have no \
         effect; use a LoRA that was made for this model, or merge the parts that fit with `lora::merge`"
    )]
    NoSuchNetwork {
        /// The file.
        place: String,
        /// The network.
        part: Component,
        /// How many entries the file has for it.
        entries: usize,
        /// The model.
        model: String,
    },
    /// Names or shapes that are not those of the network.
    #[error(transparent)]
    Mismatch(#[from] Box<LoraMismatch>),
    /// A name that could mean two weights.
    #[error("{place}: `{target}` could be {}; convert the file to a layout with dots (peft)", names.join(" or "))]
    Ambiguous {
        /// The file.
        place: String,
        /// The name in the file.
        target: String,
        /// The weights that are called so.
        names: Vec<String>,
    },
    /// A scale that is not a number.
    #[error("{place}: expected a finite number, got a scale of {scale}; usual are 0 to 1.5, 1 is as trained")]
    Scale {
        /// The file.
        place: String,
        /// The scale asked for.
        scale: f32,
    },
    /// A number of scales that is not that of the LoRAs.
    #[error(
        "expected one for each, in the order in which they were attached, got {got} scales for {expected} attached LoRAs"
    )]
    ScaleCount {
        /// Scales given.
        got: usize,
        /// LoRAs attached.
        expected: usize,
    },
    /// A change that would drown the weights.
    #[error(
        "{place}: `{target}` at scale {scale} may change weights by up to {got:.1e}, expected at most {expected:.1e} \
         (weights are of the order of 1); use a smaller scale, or another file if the scale was usual"
    )]
    TooStrong {
        /// The file.
        place: String,
        /// The module.
        target: String,
        /// The scale asked for.
        scale: f32,
        /// Bound of the change.
        got: f64,
        /// The largest allowed.
        expected: f64,
    },
    /// The network has LoRAs attached that this call does not know of.
    #[error(
        "{place}: the network `{part}` has LoRAs attached already; \
         add this one with `Attached::with`, or `detach` or `merge` them first"
    )]
    AlreadyAttached {
        /// The file.
        place: String,
        /// The network.
        part: Component,
    },
    /// The device failed while computing weights.
    #[error("{place}: the device failed while applying the LoRA: {message}; is its memory large enough?")]
    Device {
        /// The file.
        place: String,
        /// What the device said.
        message: String,
    },
}

impl From<LoraError> for fabric_core::Error {
    fn from(error: LoraError) -> Self {
        Self::Model(Box::new(error))
    }
}

fn first_few(keys: &[String]) -> String {
    let shown: Vec<String> = keys.iter().take(5).map(|key| format!("`{}`", shortened(key))).collect();
    let more = if keys.len() > 5 { ", ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}
