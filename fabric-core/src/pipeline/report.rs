//! What a run tells: while it lasts, and afterwards.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::callback::contained;
use crate::Error;
use crate::denoise::ModelCall;
use crate::fabric::CacheStats;
use crate::image::Image;
use crate::models::Autoencoder;

/// What happened in a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Seconds spent on text.
    pub text_seconds: f64,
    /// Seconds spent on encoding start and reference images.
    pub encode_seconds: f64,
    /// Seconds spent on each evaluation of the network; the device may still be at work when a step ends.
    pub step_seconds: Vec<f64>,
    /// Seconds spent on decoding images.
    pub decode_seconds: f64,
    /// Evaluations of the network (a step of a second-order sampler has two).
    pub calls: usize,
    /// How many of them saw references.
    pub calls_with_references: usize,
    /// References that passed through the network, summed over calls; fewer when a cache served some.
    pub reference_passes: usize,
    /// Liked and disliked references in use: those that the cap kept, of those that can act.
    pub references: [usize; 2],
    /// Share of the images' self-attention that went to each reference (liked before disliked, oldest first), from 0
    /// to 1: the mean over the layers, queries, heads and calls that saw it. Empty unless
    /// [`Settings::measure_attention`](super::Settings::measure_attention) asked for it.
    pub attention_mass: Vec<f64>,
    /// References that the cap left out.
    pub references_left_out: usize,
    /// References that were left out before the cap, because nothing in this run lets them act: [`Self::notes`] says why.
    pub references_without_effect: usize,
    /// What the request asks for that has no effect, or not the one that might be expected: a prompt under a guidance
    /// scale of 0, disliked images under one of 1.
    pub notes: Vec<String>,
    /// What prompts lost because they were longer than the text encoder's window.
    pub truncated: Vec<String>,
    /// The cache of reference keys and values after the run; of a pool, its pipelines' caches added up.
    pub cache: CacheStats,
    /// What went wrong on disk, where [`Pipeline::with_spill`](super::Pipeline::with_spill) is in use: in this run, or
    /// earlier if nothing is spilled since. No image depends on it.
    pub spill_error: Option<String>,
}

/// One evaluation of a run, as a callback sees it.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct StepEvent<'a> {
    /// The step of the sampler that this evaluation belongs to, from 1. [`Error::Cancelled`] counts the steps that were
    /// finished.
    pub step: usize,
    /// Steps of the run.
    pub steps: usize,
    /// Evaluations of the network so far, from 1. Samplers such as Heun and DPM++ SDE evaluate twice a step.
    pub evaluation: usize,
    /// Evaluations in all.
    pub evaluations: usize,
    /// The sampler's state.
    pub state: &'a Tensor<4>,
    /// The network's present idea of the clean latents.
    pub denoised: &'a Tensor<4>,
    pub(super) autoencoder: &'a dyn Autoencoder,
}

impl std::fmt::Debug for StepEvent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { step, steps, evaluation, evaluations, .. } = self;
        let mut shown = f.debug_struct("StepEvent");
        shown.field("step", step).field("steps", steps);
        shown.field("evaluation", evaluation).field("evaluations", evaluations).finish_non_exhaustive()
    }
}

impl StepEvent<'_> {
    /// What the images would look like if the network were right already. Costs a decoding.
    ///
    /// # Errors
    ///
    /// When the latents hold no image (NaN), or the device fails.
    pub fn preview(&self) -> Result<Vec<Image>, Error> {
        // A device that fails here is no panic of the observer who asked.
        contained("decoding a preview", || super::run::decode(self.autoencoder, self.denoised))
    }
}

/// Watches a run. Every method has a default that does nothing, and a closure that takes a [`StepEvent`] is one too.
pub trait Observer {
    /// After each evaluation; a break cancels the run, and a panic ends it as [`Error::Callback`].
    fn step(&mut self, event: &StepEvent<'_>) -> ControlFlow<()> {
        let _ = event;
        ControlFlow::Continue(())
    }

    /// The references as they enter the network, `[references, channels, height, width]`, liked first.
    fn references(&mut self, call: &ModelCall, noised: &Tensor<4>) {
        let _ = (call, noised);
    }

    /// The network's predictions before guidance mixes them, one block of rows per branch.
    fn predictions(&mut self, call: &ModelCall, predictions: &Tensor<4>) {
        let _ = (call, predictions);
    }
}

/// Watches nothing.
impl Observer for () {}

impl<F: FnMut(&StepEvent<'_>) -> ControlFlow<()>> Observer for F {
    fn step(&mut self, event: &StepEvent<'_>) -> ControlFlow<()> {
        self(event)
    }
}
