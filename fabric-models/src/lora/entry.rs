//! Entries of a LoRA file, and the LoRA of one network.

use std::fmt;
use std::sync::Arc;

use burn::tensor::TensorData;

use super::LoraError;
use crate::load::{Component, Family};

/// Layout in which an entry was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum LoraLayout {
    /// `lora_unet_..._to_q.lora_down.weight`: names with underscores instead of dots, from kohya's trainers.
    Kohya,
    /// `unet. ... .to_q.lora_A.weight`: diffusers since 0.22, with the library peft.
    Peft,
    /// `unet. ... .to_q.lora.down.weight`: diffusers 0.19 to 0.21.
    Diffusers,
    /// `... .attn1.processor.to_q_lora.down.weight`: older diffusers, and the LoRA published with FABRIC.
    AttnProcessors,
}

impl fmt::Display for LoraLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kohya => "kohya",
            Self::Peft => "peft",
            Self::Diffusers => "diffusers",
            Self::AttnProcessors => "attention processors",
        })
    }
}

/// Change of one weight: `factor · up · down`.
#[derive(Debug, Clone)]
pub(crate) struct LoraEntry {
    /// Name of the changed module, as in the file: the published name (`mid_block.attentions.0.proj_in`), in kohya's
    /// layout the same with underscores instead of dots, or the name of the original code
    /// (`input_blocks_4_1_proj_in`). For an attention processor, the name of the projection layer.
    pub(super) target: String,
    pub(super) layout: LoraLayout,
    /// `[rank, in * height * width]`, in its stored type.
    pub(super) down: TensorData,
    /// `[out, rank]`.
    pub(super) up: TensorData,
    /// `alpha / rank`; 1 if the file has no alpha.
    pub(super) factor: f64,
    /// Shape of the change: `[out, in]`, or `[out, in, height, width]` for a convolution.
    pub(super) shape: Vec<usize>,
    /// Upper bound of the absolute values of `up · down`.
    pub(super) bound: f64,
}

/// LoRA of one network; empty if the file has no entries for this network.
///
/// The matrices are in host memory in their stored type; clones share them.
#[derive(Debug, Clone)]
pub struct Lora {
    pub(super) place: String,
    pub(super) part: Component,
    pub(super) entries: Arc<[LoraEntry]>,
    pub(super) strict: bool,
}

impl Lora {
    /// Path of the file.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Network of the LoRA.
    pub fn part(&self) -> Component {
        self.part
    }

    /// Names of the changed modules, as in the file, and the shapes of the changes, sorted by name.
    pub fn changes(&self) -> impl ExactSizeIterator<Item = (&str, &[usize])> {
        self.entries.iter().map(|entry| (entry.target.as_str(), entry.shape.as_slice()))
    }

    /// Returns whether the LoRA has no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Checks that a model of this family has the network; entries for a missing network would have no effect.
    pub(crate) fn check_network(&self, family: Family) -> Result<(), LoraError> {
        if self.is_empty() || !self.strict || family.components().contains(&self.part) {
            return Ok(());
        }
        let (place, entries, model) = (self.place.clone(), self.entries.len(), family.to_string());
        Err(LoraError::NoSuchNetwork { place, part: self.part, entries, model })
    }

    /// Sets whether an entry that does not match the network is an error (default), or is skipped and listed in the
    /// report.
    #[must_use]
    pub fn with_strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }
}
