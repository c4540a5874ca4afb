//! One error type for everything that can stop a run.

use crate::image::ImageError;
use crate::samplers::SamplerError;
use crate::schedule::ScheduleError;
use crate::session::SessionError;

/// Anything that can stop a run, grouped by who can act on it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of its range, or two settings exclude each other.
    #[error("{what}: expected {expected}, got {got}; {next}")]
    Settings {
        /// The setting.
        what: String,
        /// Its value.
        got: String,
        /// What would be good.
        expected: String,
        /// What to do.
        next: String,
    },
    /// This device cannot carry out the request, for want of memory or of a number type; another device may.
    #[error("{what}: expected {expected}, got {got}; {next}")]
    DeviceLimit {
        /// What it lacks, or what asks for it.
        what: String,
        /// What was found.
        got: String,
        /// What would be good.
        expected: String,
        /// What to do.
        next: String,
    },
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
    /// There is no folder for keys and values that memory cannot hold.
    #[error("spill folder: no folder can be made in `{place}`: {source}; name one that exists and may be written to")]
    SpillFolder {
        /// The folder that was named.
        place: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A network of the pipeline reports an error of its own.
    #[error(transparent)]
    Model(Box<dyn std::error::Error + Send + Sync>),
    /// The device or its library failed while computing. A CPU that runs out of memory is not among it: that ends the
    /// process.
    #[error(
        "the device failed while {doing}: {message}; try a smaller size, fewer images or references, or another device"
    )]
    Backend {
        /// What was going on.
        doing: String,
        /// What it said.
        message: String,
    },
    /// A callback that the caller gave panicked. The device and the networks are as they were.
    #[error("the {callback} panicked: {message}; nothing else failed, so mend the callback and run again")]
    Callback {
        /// Which callback.
        callback: &'static str,
        /// What it said.
        message: String,
    },
    /// A step callback asked to stop.
    #[error("cancelled after {step} of {steps} steps")]
    Cancelled {
        /// Steps that were done.
        step: usize,
        /// Steps that were asked for.
        steps: usize,
    },
}

impl Error {
    /// A setting that cannot be used.
    pub fn settings(
        what: impl Into<String>,
        got: impl ToString,
        expected: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self::Settings { what: what.into(), got: got.to_string(), expected: expected.into(), next: next.into() }
    }

    /// A request that is too much for one device.
    pub(crate) fn device_limit(
        what: impl Into<String>,
        got: impl ToString,
        expected: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self::DeviceLimit { what: what.into(), got: got.to_string(), expected: expected.into(), next: next.into() }
    }
}
