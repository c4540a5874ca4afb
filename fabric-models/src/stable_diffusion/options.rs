//! How to load a whole model, and what that did.

use std::path::PathBuf;

use fabric_core::schedule::{Prediction, SamplerKind};

use crate::load::{Family, LoadDtype, LoadOptions, LoadReport, ProgressCallback};
use crate::lora::LoraReport;
use crate::tokenizer::ClipTokenizer;

/// A LoRA file to merge on the way.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraChoice {
    /// The file.
    pub path: PathBuf,
    /// How strongly; 1 is as trained.
    pub scale: f32,
}

/// How to load a model.
#[derive(Debug, Clone, Default)]
pub struct ModelOptions {
    /// Type of the weights in memory (f32 unless asked for another).
    pub dtype: LoadDtype,
    /// Which files of a folder to take: `Some("fp16")` prefers `*.fp16.safetensors`.
    pub variant: Option<String>,
    /// A tokenizer instead of the model's own. A model without one gets the vocabulary of OpenAI's CLIP, which is every
    /// published Stable Diffusion's. The padding is that of the model's family, whatever the tokenizer's own.
    pub tokenizer: Option<ClipTokenizer>,
    /// A sampler instead of the model's own, which then may be one that this library lacks, as long as its file says the
    /// betas. A request can still name another.
    pub sampler: Option<SamplerKind>,
    /// Whether images beyond the VAE's training size are encoded and decoded in overlapping tiles: memory for one tile,
    /// and a result that is close to the whole one but not equal to it.
    pub tile_vae: bool,
    /// Whether the networks rest in the machine's memory and take slot on the device, which then needs room for the
    /// largest instead of all. Each turn copies a network there: once per run for the text encoder and the U-Net, and for the VAE
    /// before the first step and after the last; a preview in between costs two copies more. Same images. On a CPU it changes nothing.
    pub offload: bool,
    /// What the U-Net predicts, instead of what its files say. A single file of Stable Diffusion 2 may not say it
    /// ([`SingleFile::prediction`](crate::load::SingleFile::prediction)).
    pub prediction: Option<Prediction>,
    /// Merged into the weights in this order.
    pub loras: Vec<LoraChoice>,
    /// Told how far the load has come, one network after the other.
    pub progress: Option<ProgressCallback>,
}

impl ModelOptions {
    pub(super) fn load(&self) -> LoadOptions {
        LoadOptions { dtype: self.dtype, progress: self.progress.clone(), ..LoadOptions::default() }
    }
}

/// What a load did.
#[derive(Debug, Clone)]
pub struct ModelReport {
    /// Which Stable Diffusion it is.
    pub family: Family,
    /// One per network, by its folder's name.
    pub networks: Vec<(String, LoadReport)>,
    /// One per LoRA.
    pub loras: Vec<LoraReport>,
}
