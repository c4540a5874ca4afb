//! Conversion of models to folders in the diffusers layout.

mod plan;
mod source;
mod write;

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use fabric_core::schedule::Prediction;

use self::source::Source;
use super::{LoraChoice, ModelError, ModelReport};
use crate::clip::{ClipTextConfig, ClipVisionConfig};
use crate::load::{Component, Family, PublishedNames, SaveDtype};
use crate::lora::LoraReport;
use crate::unet::UNetConfig;
use crate::vae::VaeConfig;

pub use self::plan::{PlannedFile, PlannedNetwork};

/// Options for converting a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvertOptions {
    /// Type of the weights in the new files. The default, [`SaveDtype::Keep`], keeps the stored type, except that f64
    /// and 8-bit weights become f32.
    pub dtype: SaveDtype,
    /// LoRA files, merged into the weights in this order.
    pub loras: Vec<LoraChoice>,
    /// VAE used instead of the model's own, as in [`ModelOptions::vae`](crate::ModelOptions::vae).
    pub vae: Option<PathBuf>,
    /// Prediction type of the U-Net, overriding the model's files, as in
    /// [`ModelOptions::prediction`](crate::ModelOptions::prediction).
    pub prediction: Option<Prediction>,
}

impl Default for ConvertOptions {
    fn default() -> Self {
        Self { dtype: SaveDtype::Keep, loras: Vec::new(), vae: None, prediction: None }
    }
}

/// Conversion of a model, a folder in the diffusers layout or a single checkpoint file, to a folder in the diffusers
/// layout, in another type and with LoRAs merged into the weights.
///
/// Networks, tokenizers, the scheduler and the settings in `model_index.json` are converted. A model without a
/// tokenizer gets OpenAI's with the padding of its family. Other files of a folder, such as adapters, a licence or a
/// safety checker, are not copied ([`Self::unused`]).
///
/// ```no_run
/// use fabric_models::load::SaveDtype;
/// use fabric_models::{ConvertOptions, ModelConversion};
///
/// let options = ConvertOptions { dtype: SaveDtype::F16, ..ConvertOptions::default() };
/// let conversion = ModelConversion::open("v1-5-pruned.ckpt", &fabric_backends::cpu()?, &options)?;
/// for file in conversion.files() {
///     println!("{}: {} tensors", file.path.display(), file.tensors);
/// }
/// conversion.write("stable-diffusion-v1-5")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ModelConversion {
    source: Source,
    networks: Vec<PlannedNetwork>,
    files: Vec<PlannedFile>,
    loras: Vec<LoraReport>,
    unused: Vec<String>,
    bytes_before: u64,
}

impl ModelConversion {
    /// Opens a model and checks all of its files: configurations, names and shapes of all tensors, tokenizers, and the
    /// LoRAs. Only the values of LoRAs are read.
    ///
    /// Weights are converted on `device`, one network at a time, so it needs memory for the largest. A CPU is usually
    /// the best choice.
    ///
    /// # Errors
    ///
    /// Returns an error if a file is missing, damaged or of the wrong kind, or a LoRA does not match the model.
    pub fn open(path: impl AsRef<Path>, device: &Device, options: &ConvertOptions) -> Result<Self, ModelError> {
        plan::plan(Source::open(path.as_ref(), device, options)?)
    }

    /// Family of the model.
    pub fn family(&self) -> Family {
        self.source.family()
    }

    /// The networks, with the tensors that are written.
    pub fn networks(&self) -> &[PlannedNetwork] {
        &self.networks
    }

    /// The files that are written.
    pub fn files(&self) -> &[PlannedFile] {
        &self.files
    }

    /// The weights that each LoRA changes, one report for each LoRA and network.
    pub fn loras(&self) -> &[LoraReport] {
        &self.loras
    }

    /// Names of what is not converted: of a folder, its other files and folders; of a single file, its other tensors;
    /// of both, tensors without information in the files of networks, as `COMPONENT/NAME`.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// Size in bytes of the files with weights that are read, without those of LoRAs.
    pub fn bytes_before(&self) -> u64 {
        self.bytes_before
    }

    /// Writes the folder. It must not exist or must be empty, and appears under its name only when it is complete.
    ///
    /// # Errors
    ///
    /// Returns an error if the folder exists and is not empty, a file cannot be read or written, a weight is not finite
    /// or too large for the type, or the device fails.
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<ModelReport, ModelError> {
        write::write(&self.source, &self.networks, folder.as_ref())
    }
}

/// Step of a conversion, for a network of any kind.
trait NetworkStep {
    /// Runs the step for the network of a component, without weights yet.
    fn run<M: Module + PublishedNames>(&mut self, component: Component, network: M) -> Result<(), ModelError>;
}

/// Initialises the network of a component, without weights, and runs a step for it. `config` is its configuration as
/// JSON.
fn with_network(
    component: Component,
    config: &str,
    device: &Device,
    step: &mut impl NetworkStep,
) -> Result<(), ModelError> {
    match component {
        Component::UNet => step.run(component, UNetConfig::from_json(config)?.init(device)?),
        Component::Vae => step.run(component, VaeConfig::from_json(config)?.init(device)?),
        Component::TextEncoder | Component::TextEncoder2 => {
            step.run(component, ClipTextConfig::from_json(config)?.init(device)?)
        }
        Component::ImageEncoder => step.run(component, ClipVisionConfig::from_json(config)?.init(device)?),
    }
}
