//! Reports of finished runs, and observers that are called during a run.

use std::ops::{ControlFlow, Range};

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::callback::contained;
use super::preview::PreviewDecoder;
use super::run::decode;
use super::{ImagePromptEffect, ReferenceAttention};
use crate::Error;
use crate::cache::CacheStats;
use crate::denoise::ModelCall;
use crate::image::Image;
use crate::models::Autoencoder;

/// Report of a run: times, counts, cache statistics and notes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Names of what made the images: the model and its LoRAs ([`Pipeline::with_origin`](super::Pipeline::with_origin)), then each
    /// conditioning ([`Conditioning::describe`](super::Conditioning::describe)).
    pub origin: Vec<String>,
    /// Name of the network that [`StepEvent::preview`] decodes with; `None` for the VAE. The images of a
    /// [`Generation`](super::Generation) are always decoded by the VAE.
    pub preview_decoder: Option<String>,
    /// Seconds spent on encoding text.
    pub text_seconds: f64,
    /// Seconds spent on preparing image prompts and control images, and on encoding the init image and the reference
    /// images.
    pub encode_seconds: f64,
    /// Seconds spent on each evaluation of the U-Net. Devices work asynchronously, so one may still be
    /// computing when its time is taken.
    pub step_seconds: Vec<f64>,
    /// Seconds spent on decoding images.
    pub decode_seconds: f64,
    /// Evaluations of the U-Net (a step of a second-order sampler has two).
    pub calls: usize,
    /// Evaluations in which references had an effect.
    pub calls_with_references: usize,
    /// References that passed through the U-Net, summed over evaluations; references found in the cache are not
    /// counted.
    pub reference_passes: usize,
    /// Number of liked and disliked references used, after removing those without effect and applying
    /// [`FabricSettings::keep`](crate::fabric::FabricSettings::keep) and
    /// [`FabricSettings::liked_per_image`](crate::fabric::FabricSettings::liked_per_image).
    pub references: [usize; 2],
    /// Share of the images' self-attention that went to each reference (liked before disliked, oldest first). Empty
    /// unless [`Settings::measure_attention`](super::Settings::measure_attention) is set.
    pub attention: Vec<ReferenceAttention>,
    /// What each image condition contributed to the images' cross-attention, in the order of
    /// [`Request::image_conditions`](super::Request::image_conditions). In the requests of sessions, these include the
    /// votes with a reason. Empty unless [`Settings::measure_attention`](super::Settings::measure_attention) is set.
    pub image_prompts: Vec<ImagePromptEffect>,
    /// References left out by [`FabricSettings::keep`](crate::fabric::FabricSettings::keep), or because no image of the
    /// request attends to them ([`FabricSettings::liked_per_image`](crate::fabric::FabricSettings::liked_per_image)).
    pub references_left_out: usize,
    /// References left out because they can have no effect in this run; [`Self::notes`] gives the reason.
    pub references_without_effect: usize,
    /// Notes on parts of the request that have no effect or an unexpected one, such as a prompt at guidance
    /// scale 0 or disliked images at guidance scale 1.
    pub notes: Vec<String>,
    /// Text cut off from prompts that were longer than the text encoder's window.
    pub truncated: Vec<String>,
    /// Statistics of the cache of reference keys and values after the run; for a pool, the sum over its pipelines.
    pub cache: CacheStats,
    /// Disk error of the spill folder ([`Pipeline::with_spill`](super::Pipeline::with_spill)): from this run,
    /// or from an earlier one that stopped spilling. Images are not affected.
    pub spill_error: Option<String>,
}

/// State of a run after one evaluation, passed to an [`Observer`].
#[derive(Clone)]
#[non_exhaustive]
pub struct StepEvent<'a> {
    /// The images of the batch, as indices into the request's seeds.
    pub images: Range<usize>,
    /// The sampler step that this evaluation belongs to, from 1, in this batch. ([`Error::Cancelled`] counts finished
    /// steps.)
    pub step: usize,
    /// Number of sampler steps of a batch.
    pub steps: usize,
    /// Number of this evaluation, from 1, counted over all batches of the run. Samplers such as Heun and DPM++ SDE
    /// evaluate the U-Net twice per step.
    pub evaluation: usize,
    /// Number of evaluations of all batches of the run.
    pub evaluations: usize,
    /// The sampler's current noisy latents.
    pub state: &'a Tensor<4>,
    /// The current estimate of the clean latents (x0).
    pub denoised: &'a Tensor<4>,
    pub(super) autoencoder: &'a dyn Autoencoder,
    pub(super) preview_decoder: Option<&'a PreviewDecoder>,
}

impl std::fmt::Debug for StepEvent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { images, step, steps, evaluation, evaluations, .. } = self;
        let mut shown = f.debug_struct("StepEvent");
        shown.field("images", images);
        shown.field("step", step).field("steps", steps);
        shown.field("evaluation", evaluation).field("evaluations", evaluations).finish_non_exhaustive()
    }
}

impl StepEvent<'_> {
    /// Decodes [`Self::denoised`] into preview images, with the pipeline's preview decoder if it has one
    /// ([`Pipeline::with_preview_decoder`](super::Pipeline::with_preview_decoder)), otherwise with the VAE.
    ///
    /// Costs one decoding per image: with a tiny decoder, a small part of the VAE's time.
    ///
    /// # Errors
    ///
    /// Returns an error if the latents contain NaN, or the device fails.
    pub fn preview(&self) -> Result<Vec<Image>, Error> {
        match self.preview_decoder {
            // A device failure becomes `Error::Backend` here and not a panic of the observer.
            Some(decoder) => contained("decoding a preview", || decoder.decode(self.denoised, self.images.start)),
            None => self.preview_with_vae(),
        }
    }

    /// Decodes [`Self::denoised`] with the VAE, as the final images are. Costs one VAE decoding per image.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`Self::preview`].
    pub fn preview_with_vae(&self) -> Result<Vec<Image>, Error> {
        contained("decoding a preview", || Ok(decode(self.autoencoder, self.denoised, self.images.start)?.images))
    }

    /// Name of the network that [`Self::preview`] decodes with; `None` for the VAE.
    pub fn preview_decoder(&self) -> Option<&str> {
        self.preview_decoder.map(PreviewDecoder::name)
    }
}

/// Part of a run, in the order in which they come. All but the first come once per batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Preparing image prompts and control images, once per run.
    Conditioning,
    /// Encoding prompts.
    Text,
    /// Encoding the init image and the reference images.
    Encoding,
    /// Evaluating the U-Net.
    Denoising,
    /// Decoding images.
    Decoding,
}

/// Beginning of a phase, passed to an [`Observer`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PhaseEvent {
    /// The phase that begins.
    pub phase: Phase,
    /// The images that it is for, as indices into the request's seeds.
    pub images: Range<usize>,
}

/// Callbacks during a run. Every method does nothing by default. Closures that take a [`StepEvent`] implement it.
pub trait Observer {
    /// Called when a phase begins, the first time before any long work. A break cancels the run.
    fn phase(&mut self, event: &PhaseEvent) -> ControlFlow<()> {
        let _ = event;
        ControlFlow::Continue(())
    }

    /// Called with each image as soon as it is decoded. `index` is its index into the request's seeds.
    fn image(&mut self, index: usize, image: &Image) {
        let _ = (index, image);
    }

    /// Called after each evaluation. A break cancels the run; a panic ends it with [`Error::Callback`].
    fn step(&mut self, event: &StepEvent<'_>) -> ControlFlow<()> {
        let _ = event;
        ControlFlow::Continue(())
    }

    /// Called with the noised reference latents before they enter the U-Net, `[references, channels, height, width]`,
    /// liked first.
    fn references(&mut self, call: &ModelCall, noised: &Tensor<4>) {
        let _ = (call, noised);
    }

    /// Called with the U-Net's predictions before guidance combines them, one block of rows per branch. Evaluations may
    /// run only some of the branches ([`Settings::guidance_window`](super::Settings::guidance_window)), so the number
    /// of rows may change during a run.
    fn predictions(&mut self, call: &ModelCall, predictions: &Tensor<4>) {
        let _ = (call, predictions);
    }
}

/// Observer that does nothing.
impl Observer for () {}

impl<F: FnMut(&StepEvent<'_>) -> ControlFlow<()>> Observer for F {
    fn step(&mut self, event: &StepEvent<'_>) -> ControlFlow<()> {
        self(event)
    }
}
