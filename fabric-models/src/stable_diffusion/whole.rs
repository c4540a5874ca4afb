//! The networks of a loaded model, before they are joined in a pipeline.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use fabric_core::pipeline::{Pipeline, Settings};
use fabric_core::schedule::SchedulerConfig;
use fabric_core::spans;

use super::fit::{self, TextPart};
use super::offload::{DeviceSlot, Offloaded, check_types, copied};
use super::parts::open_parts;
use super::text::Tower;
use super::{ModelError, ModelOptions, ModelReport, PreviewDecoder, StableDiffusionText, assemble};
use crate::unet::UNet;
use crate::vae::Vae;

/// Networks of a loaded model, for changing or training one before [`Self::into_pipeline`] builds the pipeline.
///
/// ```no_run
/// # use fabric_models::{StableDiffusion, lora::{LoraFile, attach}};
/// # fn example(device: burn::tensor::Device) -> Result<(), Box<dyn std::error::Error>> {
/// let (mut model, _) = StableDiffusion::open("stable-diffusion-v1-5", &device, &Default::default())?;
/// let (attached, _) = attach(model.unet, &LoraFile::open("style.safetensors")?.unet, 0.8)?;
/// model.unet = attached.network();
/// let pipeline = model.into_pipeline()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct StableDiffusion {
    /// The U-Net.
    pub unet: UNet,
    /// The VAE.
    pub vae: Vae,
    /// The tokenizers and text encoders.
    pub text: StableDiffusionText,
    /// The model's own sampler and noise schedule.
    pub scheduler: SchedulerConfig,
    /// Side in pixels of the training images.
    pub native_size: usize,
    /// Settings that the model's files recommend, or the defaults.
    pub recommended_settings: Settings,
    /// Decoder for previews; `None` decodes them with the VAE.
    pub preview_decoder: Option<PreviewDecoder>,
}

impl StableDiffusion {
    /// Loads the networks of a model: a folder in the diffusers layout, or a single checkpoint file.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`load_model`](super::load_model).
    pub fn open(
        path: impl AsRef<Path>,
        device: &Device,
        options: &ModelOptions,
    ) -> Result<(Self, ModelReport), ModelError> {
        let path = path.as_ref();
        let _load = spans::load_model(path);
        let parts = open_parts(path, options.variant.as_deref(), options.prediction)?;
        assemble(&*parts, device, options)
    }

    /// Checks that the sizes of the networks match.
    fn check(&self) -> Result<(), ModelError> {
        let texts: Vec<TextPart<'_>> = self.text.towers.iter().map(Tower::as_part).collect();
        fit::check(
            &self.unet,
            &self.vae,
            &texts,
            self.text.pooled,
            self.preview_decoder.as_ref().map(|one| &one.network),
        )
    }

    /// Builds a pipeline from the networks.
    ///
    /// # Errors
    ///
    /// Returns an error if the sizes of the networks do not match.
    pub fn into_pipeline(self) -> Result<Pipeline, ModelError> {
        self.check()?;
        let Self { unet, vae, text, scheduler, native_size, recommended_settings, preview_decoder } = self;
        let pipeline = Pipeline::new(Arc::new(unet), Arc::new(vae), Arc::new(text), scheduler, native_size)?;
        complete(pipeline, recommended_settings, preview_decoder)
    }

    /// Builds a pipeline whose weights stay on their present device and are copied to `device` one network at a time:
    /// see [`ModelOptions::offload`].
    ///
    /// ```no_run
    /// # use fabric_models::StableDiffusion;
    /// # fn example(gpu: burn::tensor::Device) -> Result<(), Box<dyn std::error::Error>> {
    /// let cpu = fabric_backends::cpu()?;
    /// let (model, _) = StableDiffusion::open("stable-diffusion-v1-5", &cpu, &Default::default())?;
    /// let pipeline = model.into_offloaded(&gpu)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if the sizes of the networks do not match, or if weights have a type that the device does not
    /// support.
    pub fn into_offloaded(self, device: &Device) -> Result<Pipeline, ModelError> {
        self.check()?;
        check_types(&self.unet, device)?;
        check_types(&self.vae, device)?;
        self.text.towers.iter().try_for_each(|tower| check_types(&tower.encoder, device))?;
        self.preview_decoder.iter().try_for_each(|decoder| check_types(&decoder.network, device))?;
        let slot = DeviceSlot::default();
        let unet = Arc::new(Offloaded::new(self.unet, device, &slot));
        let vae = Arc::new(Offloaded::new(self.vae, device, &slot));
        let text = Arc::new(Offloaded::new(self.text, device, &slot));
        let pipeline = Pipeline::new(unet, vae, text, self.scheduler, self.native_size)?;
        // So small that it stays on the device, beside whichever network is there.
        let preview_decoder = self.preview_decoder.map(|decoder| {
            let network = copied(&decoder.network, device);
            PreviewDecoder { network, ..decoder }
        });
        complete(pipeline, self.recommended_settings, preview_decoder)
    }
}

/// Gives a pipeline what a model has besides its networks.
fn complete(
    pipeline: Pipeline,
    settings: Settings,
    preview_decoder: Option<PreviewDecoder>,
) -> Result<Pipeline, ModelError> {
    let pipeline = pipeline.with_recommended_settings(settings)?;
    Ok(match preview_decoder {
        Some(PreviewDecoder { name, network }) => pipeline.with_preview_decoder(name, Arc::new(network))?,
        None => pipeline,
    })
}
