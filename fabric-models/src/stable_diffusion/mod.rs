//! Loads whole models from a folder or a file into a [`Pipeline`].

mod convert;
mod demo;
mod error;
mod fit;
mod offload;
mod options;
mod parts;
mod preview;
mod recommended;
mod text;
mod whole;

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use fabric_core::models::Autoencoder;
use fabric_core::pipeline::Pipeline;
use fabric_core::schedule::SchedulerConfig;
use fabric_core::spans;

pub use convert::{ConvertOptions, ModelConversion, PlannedFile, PlannedNetwork};
pub use demo::demo_folder;
pub use error::ModelError;
pub use options::{LoraChoice, ModelOptions, ModelReport};
pub use preview::PreviewDecoder;
pub use recommended::{RECOMMENDED_SETTINGS, recommended_settings};
pub use text::StableDiffusionText;
pub use whole::StableDiffusion;

use self::fit::TextPart;
use self::parts::{Parts, vae_in};
use self::text::{State, Tower};
use crate::clip::{ClipText, ClipTextConfig};
use crate::config::OneOrMany;
use crate::load::{Component, Family, PublishedNames, TensorSource, load_into};
use crate::lora::{LoraFile, merge};
use crate::tokenizer::{ClipTokenizer, PadWith};
use crate::unet::{UNet, UNetConfig};
use crate::vae::{Vae, VaeConfig, VaeOptions};

/// Loads a model: a folder in the diffusers layout, or a single checkpoint file.
///
/// ```no_run
/// let device = fabric_backends::default_device()?;
/// let (pipeline, report) = fabric_models::load_model("v1-5-pruned.safetensors", &device, &Default::default())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Returns an error if a file is missing, damaged or of the wrong kind, or if the components do not match.
pub fn load_model(
    path: impl AsRef<Path>,
    device: &Device,
    options: &ModelOptions,
) -> Result<(Pipeline, ModelReport), ModelError> {
    let path = path.as_ref();
    let (pipeline, report) = if options.offload {
        let (model, report) = StableDiffusion::open(path, &fabric_backends::cpu()?, options)?;
        (model.into_offloaded(device)?, report)
    } else {
        let (model, report) = StableDiffusion::open(path, device, options)?;
        (model.into_pipeline()?, report)
    };
    let loras = options.loras.iter().map(|lora| format!("LoRA {} at {}", name_of(&lora.path), lora.scale));
    let origin = [format!("{} {}", report.family, name_of(path))].into_iter().chain(loras).collect();
    Ok((pipeline.with_origin(origin), report))
}

/// Returns the last part of a path, which says nothing about the machine.
fn name_of(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn assemble(
    parts: &dyn Parts,
    device: &Device,
    options: &ModelOptions,
) -> Result<(StableDiffusion, ModelReport), ModelError> {
    let family = parts.family();
    let recommended_settings = parts.recommended_settings()?;
    let mut report = ModelReport { family, networks: Vec::new(), loras: Vec::new() };

    // Small files first, so that their errors are reported before gigabytes are read.
    let json = |component| parts.config(component).map(|value| value.to_string());
    let unet_config = UNetConfig::from_json(&json(Component::UNet)?)?;
    let own_vae = options.vae.as_deref().map(|path| vae_in(path, options.variant.as_deref())).transpose()?;
    let vae_config = match &own_vae {
        Some((_, Some(config))) => config.to_string(),
        _ => json(Component::Vae)?,
    };
    let vae_config = VaeConfig::from_json(&vae_config)?;
    let scheduler = parts.scheduler()?.to_string();
    let mut scheduler = match options.sampler {
        Some(sampler) => SchedulerConfig::from_json_for(&scheduler, sampler)?,
        None => SchedulerConfig::from_json(&scheduler)?,
    };
    scheduler.prediction = options.prediction.unwrap_or(scheduler.prediction);
    let encoders: &[Component] = match family {
        Family::Sdxl => &[Component::TextEncoder, Component::TextEncoder2],
        Family::Sd1 | Family::Sd2 => &[Component::TextEncoder],
    };
    let mut text = Vec::new();
    for &component in encoders {
        // Only the model's own files determine the padding token. A tokenizer given for all encoders does not: SDXL's
        // two encoders differ in it.
        let (tokenizer, own_padding) = match &options.tokenizer {
            Some(tokenizer) => (tokenizer.clone(), None),
            None => match parts.tokenizer(component)? {
                Some(tokenizer) => (tokenizer.clone(), Some(tokenizer.padding())),
                None => (ClipTokenizer::openai(), None),
            },
        };
        let pad = own_padding.unwrap_or_else(|| published_padding(family, component));
        text.push((component, ClipTextConfig::from_json(&json(component)?)?, tokenizer, pad));
    }
    let loras = open_loras(&options.loras, family)?;

    // Networks without weights yet, so that mismatched sizes are reported before the weights are read.
    let unet: UNet = unet_config.init(device)?;
    let vae: Vae = vae_config.init(device)?;
    let preview_path = options.preview_decoder.clone().or_else(|| parts.preview_decoder());
    let preview_files = preview_path.map(|path| preview::open(&path, family)).transpose()?;
    let preview = preview_files.as_ref().map(|files| files.config().init_decoder(device)).transpose()?;
    let mut encoders = Vec::new();
    for (component, config, tokenizer, pad) in text {
        let encoder: ClipText = config.init(device)?;
        encoders.push((component, encoder, tokenizer, pad));
    }
    let texts: Vec<TextPart<'_>> = encoders
        .iter()
        .map(|(_, encoder, tokenizer, _)| TextPart { encoder, window: tokenizer.window().min(encoder.max_tokens()) })
        .collect();
    fit::check(&unet, &vae, &texts, family == Family::Sdxl, preview.as_ref())?;

    let mut load = Loader { parts, options, loras: &loras, report: &mut report };
    let mut towers = Vec::new();
    for (component, encoder, tokenizer, pad) in encoders {
        let encoder: ClipText = load.network(component, encoder)?;
        let state = if family == Family::Sdxl { State::Penultimate } else { State::Last };
        towers.push(Tower { tokenizer, pad, encoder, state });
    }
    let unet: UNet = load.network(Component::UNet, unet)?;
    let mut vae: Vae = match own_vae {
        Some((weights, _)) => load.network_from(&*weights, Component::Vae, vae)?,
        None => load.network(Component::Vae, vae)?,
    };
    if options.tile_vae {
        let tiled = VaeOptions { tiling: Some(vae.default_tiling()), ..vae.options() };
        vae = vae.with_options(tiled);
    }

    let preview_decoder = match preview_files {
        Some(files) => {
            let name = name_of(files.path());
            let (network, loaded) = files.load_decoder(device, &options.load())?;
            report.networks.push((name.clone(), loaded));
            Some(PreviewDecoder { name, network })
        }
        None => None,
    };

    let native_size = latent_side(&unet_config) * vae.scale_factor();
    let force_zeros_for_empty_prompt = parts.force_zeros_for_empty_prompt();
    let text = StableDiffusionText { towers, pooled: family == Family::Sdxl, force_zeros_for_empty_prompt };
    let model = StableDiffusion { unet, vae, text, scheduler, native_size, recommended_settings, preview_decoder };
    Ok((model, report))
}

/// Opens LoRA files with their scales, and checks that a model of this family has the networks that they change.
fn open_loras(choices: &[LoraChoice], family: Family) -> Result<Vec<(LoraFile, f32)>, ModelError> {
    let loras = choices.iter().map(|choice| Ok((LoraFile::open(&choice.path)?, choice.scale)));
    let loras: Vec<(LoraFile, f32)> = loras.collect::<Result<_, ModelError>>()?;
    for part in loras.iter().flat_map(|(file, _)| file.parts()) {
        part.check_network(family)?;
    }
    Ok(loras)
}

/// Returns the published padding token of a text encoder: the end-of-text token for OpenAI's encoder, `!` for
/// OpenCLIP's.
fn published_padding(family: Family, encoder: Component) -> PadWith {
    match (family, encoder) {
        (Family::Sd1, _) | (Family::Sdxl, Component::TextEncoder) => PadWith::Eos,
        (Family::Sd2 | Family::Sdxl, _) => PadWith::Id(0),
    }
}

/// Returns the side of the latents that the U-Net was trained on; 64 if the configuration does not specify it.
fn latent_side(config: &UNetConfig) -> usize {
    match &config.sample_size {
        Some(OneOrMany::One(side)) => *side,
        Some(OneOrMany::Many(sides)) => sides.first().copied().unwrap_or(64),
        None => 64,
    }
}

/// Loads the networks one after another and merges the LoRA layers of each.
struct Loader<'a> {
    parts: &'a dyn Parts,
    options: &'a ModelOptions,
    loras: &'a [(LoraFile, f32)],
    report: &'a mut ModelReport,
}

impl Loader<'_> {
    fn network<M: Module + PublishedNames>(&mut self, component: Component, module: M) -> Result<M, ModelError> {
        let weights = self.parts.weights(component)?;
        self.network_from(&*weights, component, module)
    }

    fn network_from<M: Module + PublishedNames>(
        &mut self,
        weights: &dyn TensorSource,
        component: Component,
        module: M,
    ) -> Result<M, ModelError> {
        let _load = spans::load_component(component.folder_name());
        let (mut module, report) = load_into(module, weights, &self.options.load())?;
        self.report.networks.push((component.folder_name().to_owned(), report));
        for (file, scale) in self.loras {
            if let Some(lora) = file.part(component).filter(|lora| !lora.is_empty()) {
                let report;
                (module, report) = merge(module, lora, *scale)?;
                self.report.loras.push(report);
            }
        }
        Ok(module)
    }
}

/// Constructors of [`Pipeline`] from files, with the default options.
pub trait LoadPipeline: Sized {
    /// Loads a model: a folder in the diffusers layout, or a single checkpoint file. [`load_model`] takes options.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`load_model`].
    fn open(path: impl AsRef<Path>, device: &Device) -> Result<Self, ModelError>;

    /// Loads the demonstration model from [`demo_folder`].
    ///
    /// # Errors
    ///
    /// Returns an error if the model is not found, and the errors of [`load_model`].
    fn demo(device: &Device) -> Result<Self, ModelError> {
        Self::open(demo_folder()?, device)
    }
}

impl LoadPipeline for Pipeline {
    fn open(path: impl AsRef<Path>, device: &Device) -> Result<Self, ModelError> {
        load_model(path, device, &ModelOptions::default()).map(|(pipeline, _)| pipeline)
    }
}
