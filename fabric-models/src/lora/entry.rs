//! One entry of a file: the change of one weight.

use std::fmt;
use std::sync::Arc;

use burn::tensor::TensorData;

use super::LoraError;
use crate::load::{Component, Family};

/// How an entry was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LoraLayout {
    /// `lora_unet_..._to_q.lora_down.weight`: names with underscores for dots, from kohya's trainers.
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

/// What is added to one weight: `factor · up · down`.
#[derive(Debug, Clone)]
pub struct LoraEntry {
    pub(super) target: String,
    pub(super) layout: LoraLayout,
    /// `[rank, in * height * width]`, in the type in which it was stored.
    pub(super) down: TensorData,
    /// `[out, rank]`.
    pub(super) up: TensorData,
    pub(super) factor: f64,
    pub(super) shape: Vec<usize>,
    /// No value of `up · down` is larger.
    pub(super) bound: f64,
}

impl LoraEntry {
    /// The module whose weight it changes, as the file names it: the published name
    /// (`mid_block.attentions.0.proj_in`), or in kohya's layout the same with underscores for dots, or the
    /// original code's name (`input_blocks_4_1_proj_in`). For an attention processor, the projection it stood for.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// How it was stored.
    pub fn layout(&self) -> LoraLayout {
        self.layout
    }

    /// Inner length of the product.
    pub fn rank(&self) -> usize {
        self.up.shape()[1]
    }

    /// `alpha / rank`, 1 where the file tells no alpha.
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// Shape of the change: `[out, in]`, or `[out, in, height, width]` for a convolution.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
}

/// What a LoRA file has for one network; empty if it leaves that network alone.
///
/// Its matrices are held in host memory in the type in which they were stored; a clone shares them.
#[derive(Debug, Clone)]
pub struct Lora {
    pub(super) place: String,
    pub(super) part: Component,
    pub(super) entries: Arc<[LoraEntry]>,
    pub(super) strict: bool,
}

impl Lora {
    /// The file it came from.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The network it is for.
    pub fn part(&self) -> Component {
        self.part
    }

    /// What it changes, by name.
    pub fn targets(&self) -> &[LoraEntry] {
        &self.entries
    }

    /// Whether it leaves its network alone.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Makes sure that a model of this family has the network: entries for one that it lacks would have no effect.
    pub(crate) fn check_network(&self, family: Family) -> Result<(), LoraError> {
        if self.is_empty() || !self.strict || family.components().contains(&self.part) {
            return Ok(());
        }
        let (place, entries, model) = (self.place.clone(), self.entries.len(), family.to_string());
        Err(LoraError::NoSuchNetwork { place, part: self.part, entries, model })
    }

    /// The same, strict or not: whether an entry without a place in the network is an error (default), or is
    /// skipped and named in the report.
    #[must_use]
    pub fn with_strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }
}
