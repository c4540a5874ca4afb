use fabric_core::{printable, printable_value};

use super::LoraMismatch;
use crate::load::{Component, LoadError};

/// Error while reading or applying a LoRA.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoraError {
    /// The file cannot be read, or a value in it is not a finite float.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The file has no LoRA keys.
    #[error(
        "{place}: expected keys of a LoRA (`.lora_down.weight`, `.lora_A.weight`, `.lora.down.weight` \
         or `_lora.down.weight` and their counterparts), got {got}; give a LoRA file, or load this one as what it is",
        place = printable_value(.place), got = printable_value(.got)
    )]
    NotALora {
        /// Path of the file.
        place: String,
        /// Actual content.
        got: String,
    },
    /// Some keys of the file are not LoRA keys.
    #[error(
        "{place}: {} keys are not known from any LoRA layout, expected none: {}; \
         remove them from the file, or convert it with the program that wrote it",
        keys.len(), first_few(keys), place = printable_value(.place)
    )]
    UnknownKeys {
        /// Path of the file.
        place: String,
        /// The unknown keys.
        keys: Vec<String>,
    },
    /// The adaptation is not a plain product of two matrices.
    #[error(
        "{place}: key `{key}` belongs to {kind}, supported are products of two matrices (LoRA, LoCon); \
         extract a plain LoRA from it with the tools of its trainer, or use another file",
        place = printable_value(.place), key = printable(.key)
    )]
    Unsupported {
        /// Path of the file.
        place: String,
        /// The first key by which it was recognized.
        key: String,
        /// Kind of adaptation.
        kind: &'static str,
    },
    /// One of the two matrices of a product is missing.
    #[error(
        "{place}: `{target}` has {got} and lacks {expected}; the file is incomplete: get it again",
        place = printable_value(.place), target = printable(.target)
    )]
    Incomplete {
        /// Path of the file.
        place: String,
        /// Name of the module in the file.
        target: String,
        /// What the file has.
        got: &'static str,
        /// What is missing.
        expected: &'static str,
    },
    /// Two keys name the same weight.
    #[error(
        "{place}: both `{first}` and `{second}` are for the same weight, expected one of them; the file mixes two layouts: get it again",
        place = printable_value(.place), first = printable(.first), second = printable(.second)
    )]
    Duplicate {
        /// Path of the file.
        place: String,
        /// First key.
        first: String,
        /// Second key.
        second: String,
    },
    /// The shapes of the two matrices do not match, or an alpha is not a single number.
    #[error(
        "{place}: tensor `{key}`: expected {expected}, got shape {got:?}; the file is damaged or of an unknown kind: get it again",
        place = printable_value(.place), key = printable(.key), expected = printable_value(.expected)
    )]
    Shape {
        /// Path of the file.
        place: String,
        /// Name of the tensor.
        key: String,
        /// Actual shape.
        got: Vec<usize>,
        /// Expected shape.
        expected: String,
    },
    /// An alpha is out of range.
    #[error(
        "{place}: `{target}`: expected more than 0 and at most {limit} · rank, got alpha {alpha} at rank {rank}; the file is damaged: get it again",
        place = printable_value(.place), target = printable(.target)
    )]
    Alpha {
        /// Path of the file.
        place: String,
        /// Name of the module in the file.
        target: String,
        /// Alpha of the module.
        alpha: f64,
        /// Rank of the module.
        rank: usize,
        /// Largest allowed alpha / rank.
        limit: f64,
    },
    /// The scaling settings in the header of the file, or in `adapter_config.json`, cannot be read.
    #[error(
        "{place}: settings in `{key}`: expected {expected}, got {got}; remove them, or save the LoRA again with diffusers or peft",
        place = printable_value(.place), key = printable(.key), got = printable_value(.got)
    )]
    Metadata {
        /// Path of the file.
        place: String,
        /// Header entry, or `adapter_config.json`.
        key: String,
        /// Actual content.
        got: String,
        /// Expected content.
        expected: &'static str,
    },
    /// The file has entries for a network that the model does not have.
    #[error(
        "{place}: {entries} entries are for the network `{part}`, which {model} does not have, so they would have no \
         effect; use a LoRA that was made for this model, or merge the parts that fit with `lora::merge`",
        place = printable_value(.place)
    )]
    NoSuchNetwork {
        /// Path of the file.
        place: String,
        /// The network.
        part: Component,
        /// Number of entries for this network.
        entries: usize,
        /// The model.
        model: String,
    },
    /// Names or shapes of the LoRA differ from those of the network.
    #[error(transparent)]
    Mismatch(#[from] Box<LoraMismatch>),
    /// A name matches several weights.
    #[error(
        "{place}: `{target}` could be {}; convert the file to a layout with dots (peft)",
        names.join(" or "), place = printable_value(.place), target = printable(.target)
    )]
    Ambiguous {
        /// Path of the file.
        place: String,
        /// The name in the file.
        target: String,
        /// The matching weights.
        names: Vec<String>,
    },
    /// The scale is not finite.
    #[error(
        "{place}: expected a finite number, got a scale of {scale}; usual are 0 to 1.5, 1 is as trained",
        place = printable_value(.place)
    )]
    Scale {
        /// Path of the file.
        place: String,
        /// The requested scale.
        scale: f32,
    },
    /// The number of scales differs from the number of attached LoRAs.
    #[error("expected {expected} scales, one for each attached LoRA in the order of attaching, got {got}")]
    ScaleCount {
        /// Number of scales.
        got: usize,
        /// Number of attached LoRAs.
        expected: usize,
    },
    /// The change would be far larger than the weights.
    #[error(
        "{place}: `{target}` at scale {scale} may change weights by up to {got:.1e}, expected at most {expected:.1e} \
         (weights are of the order of 1); use a smaller scale, or another file if the scale was usual",
        place = printable_value(.place), target = printable(.target)
    )]
    TooStrong {
        /// Path of the file.
        place: String,
        /// Name of the module in the file.
        target: String,
        /// The requested scale.
        scale: f32,
        /// Upper bound of the change.
        got: f64,
        /// Largest allowed change.
        expected: f64,
    },
    /// The network already has LoRAs attached by another call.
    #[error(
        "{place}: the network `{part}` has LoRAs attached already; \
         add this one with `Attached::with`, or `detach` or `merge` them first",
        place = printable_value(.place)
    )]
    AlreadyAttached {
        /// Path of the file.
        place: String,
        /// The network.
        part: Component,
    },
    /// The device failed while computing weights.
    #[error(
        "{place}: the device failed while applying the LoRA: {message}; is its memory large enough?",
        place = printable_value(.place), message = printable_value(.message)
    )]
    Device {
        /// Path of the file.
        place: String,
        /// Error message of the device.
        message: String,
    },
}

impl From<LoraError> for fabric_core::Error {
    fn from(error: LoraError) -> Self {
        Self::Model(Box::new(error))
    }
}

fn first_few(keys: &[String]) -> String {
    let shown: Vec<String> = keys.iter().take(5).map(|key| format!("`{}`", printable(key))).collect();
    let more = if keys.len() > 5 { ", ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile_texts::{assert_printable, hostile_texts};

    #[test]
    fn no_message_hands_a_text_from_a_file_to_the_terminal() {
        for text in hostile_texts() {
            let (name, place) = (|| text.clone(), || "x.safetensors".to_owned());
            let (scale, part) = (1.0, Component::UNet);
            let errors = [
                LoraError::NotALora { place: place(), got: name() },
                LoraError::NotALora { place: name(), got: "no tensors".to_owned() },
                LoraError::UnknownKeys { place: place(), keys: vec![name(); 4] },
                LoraError::Unsupported { place: place(), key: name(), kind: "LoHa" },
                LoraError::Incomplete { place: place(), target: name(), got: "an alpha", expected: "its matrices" },
                LoraError::Duplicate { place: place(), first: name(), second: name() },
                LoraError::Shape { place: place(), key: name(), got: vec![1], expected: "one number".to_owned() },
                LoraError::Shape { place: place(), key: "a".to_owned(), got: vec![1], expected: name() },
                LoraError::Alpha { place: place(), target: name(), alpha: 1.0, rank: 1, limit: 1.0 },
                LoraError::Metadata { place: place(), key: name(), got: "1".to_owned(), expected: "a text" },
                LoraError::Metadata { place: place(), key: "a".to_owned(), got: name(), expected: "a text" },
                LoraError::NoSuchNetwork { place: name(), part, entries: 1, model: "Stable Diffusion 1".to_owned() },
                LoraError::Ambiguous { place: place(), target: name(), names: vec!["`a`".to_owned()] },
                LoraError::Scale { place: name(), scale },
                LoraError::TooStrong { place: place(), target: name(), scale, got: 1.0, expected: 1.0 },
                LoraError::AlreadyAttached { place: name(), part },
                LoraError::Device { place: name(), message: "no memory".to_owned() },
            ];
            errors.iter().for_each(|error| assert_printable(&error.to_string()));
        }
    }
}
