//! The error type for everything that can stop a run.

use crate::image::{Image, ImageError};
use crate::samplers::SamplerError;
use crate::schedule::ScheduleError;
use crate::session::SessionError;
use crate::{InvalidValue, printable, printable_value};

/// Any error that can stop a run, grouped by who can act on it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of its range, or two settings exclude each other.
    #[error(transparent)]
    Settings(#[from] InvalidValue),
    /// The device lacks the memory or the number type for this request; another device may have it.
    #[error("{0}")]
    DeviceLimit(InvalidValue),
    /// A noise schedule cannot be built.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A sampler cannot run.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// An image cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A session cannot be saved or loaded.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The folder for cached keys and values that do not fit into memory cannot be created.
    #[error("spill folder: no folder can be made in `{place}`: {source}; name one that exists and may be written to")]
    SpillFolder {
        /// The configured folder.
        place: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A network of the pipeline returned an error.
    #[error(transparent)]
    Model(Box<dyn std::error::Error + Send + Sync>),
    /// The device or its library failed while computing. Running out of CPU memory is not covered: it ends the
    /// process.
    #[error(
        "the device failed while {doing}: {message}; try a smaller size, fewer images or references, or another device",
        message = printable_value(.message)
    )]
    Backend {
        /// The operation that failed.
        doing: String,
        /// The message of the failure.
        message: String,
    },
    /// A callback of the caller (`observer`, `sampler`, `noise source`) panicked. The device and the networks remain
    /// usable and unchanged.
    #[error(
        "the {callback} panicked: {message}; nothing else failed, so correct the callback and run again",
        message = printable_value(.message)
    )]
    Callback {
        /// Name of the callback.
        callback: &'static str,
        /// The message of the failure.
        message: String,
    },
    /// A conditioning of the request panicked: a mistake in it, or a failure of the device on which it computes.
    #[error(
        "the conditioning `{name}` panicked: {message}; if the device ran out of memory, try a smaller size or another \
         device, otherwise correct the conditioning",
        name = printable(.name),
        message = printable_value(.message)
    )]
    Conditioning {
        /// Its [`describe`](crate::pipeline::Conditioning::describe).
        name: String,
        /// The message of the failure.
        message: String,
    },
    /// A network returned NaN or infinity. A decoded image with such values is an [`ImageError::NotFinite`] instead.
    #[error("{stage}: expected finite values, got NaN or infinity; {help}")]
    NotFinite {
        /// The network, and in which part of the run.
        stage: String,
        /// The next step.
        help: &'static str,
    },
    /// An observer stopped the run. If it was made in batches, `step` counts the steps of the batch that was stopped.
    #[error("cancelled after {step} of {steps} steps")]
    Cancelled {
        /// Number of completed steps.
        step: usize,
        /// Number of requested steps.
        steps: usize,
        /// The images of the batches that were finished before, with their seeds.
        finished: Vec<(Image, u64)>,
    },
}

impl Error {
    /// Creates an [`Error::Settings`].
    pub fn settings(
        what: impl Into<String>,
        got: impl ToString,
        expected: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self::Settings(InvalidValue::new(what, got, expected, help))
    }

    /// Creates an [`Error::DeviceLimit`].
    pub(crate) fn device_limit(
        what: impl Into<String>,
        got: impl ToString,
        expected: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self::DeviceLimit(InvalidValue::new(what, got, expected, help))
    }
}
