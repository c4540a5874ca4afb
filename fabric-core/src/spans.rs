//! Spans of runs and of loading, for subscribers of the crate `tracing`.
//!
//! The feature `tracing` opens them; without it they cost nothing. All have the target `fabric`. The library writes no
//! events and prints nothing.
//!
//! | span | level | inside of | fields |
//! |---|---|---|---|
//! | `generate`: a run | info | the caller's span | `images`, `steps`, `width` and `height` in pixels |
//! | `conditioning`, once per run | info | `generate` | |
//! | `text`, `encoding`, `denoising`, `decoding`, once per batch | info | `generate` | |
//! | `evaluation`: one call of the guided U-Net | debug | `denoising` | `step` from 1, `timestep`, `sigma` |
//! | `reference_pass`: recording of references | debug | `evaluation` | `references` |
//! | `load_model`: the networks of a whole model | info | the caller's span | `model`, the last part of its path |
//! | `load_component`: the weights of one network | info | `load_model` | `component`, the name of its folder |
//!
//! `timestep` and `sigma` are those of [`NoiseLevel`](crate::denoise::NoiseLevel), and the phases those of [`Phase`].
//!
//! A span is entered when its work begins and left when it ends, also by an error, so a subscriber can measure how long
//! each took. GPUs work asynchronously: an evaluation ends when its work is queued, and decoding waits for the rest.
//! The devices of a [`DevicePool`](crate::pipeline::DevicePool) work on threads of their own, where the caller's span
//! is not entered.

use std::path::Path;

use crate::denoise::ModelCall;
use crate::pipeline::{Phase, Settings};

/// A span that is entered until this is dropped or [ended](Self::end).
#[doc(hidden)]
#[derive(Debug)]
#[must_use = "the span is left when this is dropped"]
pub struct Span {
    #[cfg(feature = "tracing")]
    _entered: tracing::span::EnteredSpan,
}

impl Span {
    /// Leaves the span before the end of its scope.
    pub fn end(self) {}
}

#[cfg(feature = "tracing")]
macro_rules! span {
    ($level:ident, $name:literal $(, $field:ident = $value:expr)*) => {{
        let span = tracing::span!(target: "fabric", tracing::Level::$level, $name, $($field = $value),*);
        Span { _entered: span.entered() }
    }};
}

#[cfg(not(feature = "tracing"))]
macro_rules! span {
    ($level:ident, $name:literal $(, $field:ident = $value:expr)*) => {{
        // Closures that are never called: the values count as used, and are not computed.
        $(let _ = || { let _ = &$value; };)*
        Span {}
    }};
}

/// The span of a run of this many images.
pub(crate) fn generate(images: usize, settings: &Settings, [width, height]: [usize; 2]) -> Span {
    span!(INFO, "generate", images = images, steps = settings.steps, width = width, height = height)
}

/// The span of a phase.
pub(crate) fn phase(phase: Phase) -> Span {
    match phase {
        Phase::Conditioning => span!(INFO, "conditioning"),
        Phase::Text => span!(INFO, "text"),
        Phase::Encoding => span!(INFO, "encoding"),
        Phase::Denoising => span!(INFO, "denoising"),
        Phase::Decoding => span!(INFO, "decoding"),
    }
}

/// The span of an evaluation by a sampler with this number of evaluations per step.
pub(crate) fn evaluation(call: &ModelCall, per_step: usize) -> Span {
    let (step, level) = (call.index / per_step + 1, call.level);
    span!(DEBUG, "evaluation", step = step, timestep = level.timestep, sigma = level.sigma)
}

/// The span of a recording of this many references.
pub(crate) fn reference_pass(references: usize) -> Span {
    span!(DEBUG, "reference_pass", references = references)
}

/// The span of loading the networks of a model from this folder or file.
#[doc(hidden)]
pub fn load_model(path: &Path) -> Span {
    span!(INFO, "load_model", model = &*crate::printable(path.file_name().unwrap_or_default().display()))
}

/// The span of loading the weights of one network, named by its folder.
#[doc(hidden)]
pub fn load_component(component: &str) -> Span {
    span!(INFO, "load_component", component = component)
}
