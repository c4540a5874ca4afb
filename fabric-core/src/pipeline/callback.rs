//! Turns panics into errors and distinguishes panics of the caller's own code from those of the device.

use std::any::Any;
use std::fmt::Display;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use burn::tensor::Tensor;
use fabric_backends::{catch_panic, panic_message};

use super::{Conditioning, Observer, PhaseEvent, StepEvent};
use crate::Error;
use crate::denoise::ModelCall;
use crate::image::Image;
use crate::noise::{Draw, RunNoise};

/// Payload of a rethrown panic of the caller's own code, by which [`contained`] recognizes it.
pub(super) enum CallersPanic {
    /// Panic of a callback.
    Callback { callback: &'static str, message: String },
    /// Panic of a conditioning.
    Conditioning { name: String, message: String },
}

impl CallersPanic {
    fn into_error(self) -> Error {
        match self {
            Self::Callback { callback, message } => Error::Callback { callback, message },
            Self::Conditioning { name, message } => Error::Conditioning { name, message },
        }
    }
}

/// Calls a callback that may return nothing, so that only a panic can end the run.
fn rethrown<T>(callback: &'static str, call: impl FnOnce() -> T) -> T {
    catch_panic(call).unwrap_or_else(|message| resume_unwind(Box::new(CallersPanic::Callback { callback, message })))
}

/// Wraps an observer so that [`contained`] can recognize its panics.
pub(super) struct Watched<'a>(pub(super) &'a mut dyn Observer);

impl Watched<'_> {
    fn call<T>(&mut self, call: impl FnOnce(&mut dyn Observer) -> T) -> T {
        rethrown("observer", || call(self.0))
    }
}

impl Observer for Watched<'_> {
    fn phase(&mut self, event: &PhaseEvent) -> ControlFlow<()> {
        self.call(|observer| observer.phase(event))
    }

    fn image(&mut self, index: usize, image: &Image) {
        self.call(|observer| observer.image(index, image));
    }

    fn step(&mut self, event: &StepEvent<'_>) -> ControlFlow<()> {
        self.call(|observer| observer.step(event))
    }

    fn references(&mut self, call: &ModelCall, noised: &Tensor<4>) {
        self.call(|observer| observer.references(call, noised));
    }

    fn predictions(&mut self, call: &ModelCall, predictions: &Tensor<4>) {
        self.call(|observer| observer.predictions(call, predictions));
    }
}

/// Wraps the caller's source of noise so that [`contained`] can recognize its panics.
pub(super) struct WatchedNoise<'a>(pub(super) &'a mut dyn RunNoise);

impl RunNoise for WatchedNoise<'_> {
    fn draw(&mut self, what: Draw<'_>, shape: [usize; 4]) -> Result<Tensor<4>, Error> {
        rethrown("noise source", || self.0.draw(what, shape))
    }

    fn is_seeded(&self) -> bool {
        rethrown("noise source", || self.0.is_seeded())
    }

    fn has_fixed_references(&self) -> bool {
        rethrown("noise source", || self.0.has_fixed_references())
    }
}

/// Runs code that uses the device, which panics on failure, and possibly code of the caller behind a wrapper of this
/// module, and turns a panic of either into an error.
pub(super) fn contained<T>(doing: impl Display, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    contained_as(work, |panic| Error::Backend { doing: doing.to_string(), message: panic_message(panic) })
}

/// Runs a callback of the caller and turns its panic into an error that names it.
pub(super) fn contained_callback<T>(
    callback: &'static str,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    contained_as(work, |panic| Error::Callback { callback, message: panic_message(panic) })
}

/// Runs a method of a conditioning and turns its panic into an error that names it.
pub(super) fn contained_conditioning<T>(
    name: impl FnOnce() -> String,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    contained_as(work, |panic| Error::Conditioning { name: name(), message: panic_message(panic) })
}

/// Returns the description of a conditioning of the caller's own code, whatever it does.
pub(super) fn described(conditioning: &dyn Conditioning) -> String {
    catch_panic(|| conditioning.describe())
        .unwrap_or_else(|message| format!("a conditioning whose description panicked: {message}"))
}

fn contained_as<T>(
    work: impl FnOnce() -> Result<T, Error>,
    error: impl FnOnce(&(dyn Any + Send)) -> Error,
) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(match panic.downcast::<CallersPanic>() {
            Ok(panic) => panic.into_error(),
            Err(panic) => error(&*panic),
        })
    })
}
