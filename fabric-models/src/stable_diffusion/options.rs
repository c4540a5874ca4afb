//! Options and report of loading a whole model.

use std::path::PathBuf;

use fabric_core::schedule::{Prediction, SamplerKind};

use crate::load::{Family, LoadDtype, LoadOptions, LoadReport, ProgressCallback};
use crate::lora::LoraReport;
use crate::tokenizer::ClipTokenizer;

/// LoRA file to merge into the weights while loading.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraChoice {
    /// Path of the file.
    pub path: PathBuf,
    /// Scale of the LoRA; 1 applies it as trained.
    pub scale: f32,
}

/// Options for loading a model.
#[derive(Debug, Clone, Default)]
pub struct ModelOptions {
    /// Data type of the weights in memory; f32 by default.
    pub dtype: LoadDtype,
    /// Variant of the files in a folder: `Some("fp16")` prefers `*.fp16.safetensors`.
    pub variant: Option<String>,
    /// Tokenizer used instead of the model's own. A model without one gets the vocabulary of OpenAI's CLIP, which all
    /// published Stable Diffusion models use. The padding token is that of the model family, whatever the tokenizer's
    /// own.
    pub tokenizer: Option<ClipTokenizer>,
    /// Sampler used instead of the model's own. The model's sampler may then be one that this library lacks, provided
    /// its configuration contains the betas. A request can still select another.
    pub sampler: Option<SamplerKind>,
    /// Whether images larger than the VAE's training size are encoded and decoded in overlapping tiles. Needs memory
    /// for one tile only; the result is close to, but not equal to, that without tiling.
    pub tile_vae: bool,
    /// Whether the weights stay in host memory and one network at a time is copied to the device, which then needs
    /// room for the largest network instead of all. Copies per run: one for the text encoder, one for the U-Net, and
    /// one for the VAE before the first step and after the last; each preview in between adds two, unless there is a
    /// preview decoder, which stays on the device. The images are the same. Has no effect on a CPU.
    pub offload: bool,
    /// VAE used instead of the model's own: a file of weights with diffusers' names or those of the original code, or a
    /// folder in the diffusers layout. A file is read with the configuration of the model's own VAE.
    pub vae: Option<PathBuf>,
    /// Tiny autoencoder whose decoder makes previews instead of the VAE: a folder or a file, as
    /// [`TinyAutoencoderFiles::open`](crate::tiny_vae::TinyAutoencoderFiles::open) takes it. It must be distilled from
    /// the VAE of the model's family. `None` (the default) takes the folder `tiny_vae` of the model's folder if there is
    /// one, otherwise previews are decoded by the VAE.
    pub preview_decoder: Option<PathBuf>,
    /// Prediction type of the U-Net, overriding the model's files.
    ///
    /// A folder's scheduler configuration specifies it. For a single file, it is read from a tensor `v_pred` or the
    /// header's `modelspec.prediction_type`. Without them, Stable Diffusion 1 and XL are assumed to predict noise.
    /// Stable Diffusion 2 has two variants with the same names and shapes: 768-v, which predicts velocity, and base,
    /// which predicts noise. As in diffusers, inpainting networks (9 input channels) and files with the `global_step`
    /// of the published base models (875000) are taken for base, all others for 768-v. For other base models, set it
    /// here.
    pub prediction: Option<Prediction>,
    /// LoRA files, merged into the weights in this order.
    pub loras: Vec<LoraChoice>,
    /// Callback that receives the loading progress, one network after another.
    pub progress: Option<ProgressCallback>,
}

impl ModelOptions {
    pub(super) fn load(&self) -> LoadOptions {
        LoadOptions { dtype: self.dtype, progress: self.progress.clone(), ..LoadOptions::default() }
    }
}

/// Report of a loaded model.
#[derive(Debug, Clone)]
pub struct ModelReport {
    /// Model family (Stable Diffusion 1, 2 or XL).
    pub family: Family,
    /// One report per network, with the name of its folder.
    pub networks: Vec<(String, LoadReport)>,
    /// One report per merged LoRA.
    pub loras: Vec<LoraReport>,
}
