//! Turns panics into errors and distinguishes panics of an observer from those of the device.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use burn::tensor::Tensor;
use fabric_backends::{catch_panic, panic_message};

use super::{Observer, PhaseEvent, StepEvent};
use crate::Error;
use crate::denoise::ModelCall;
use crate::image::Image;

/// Wraps an observer so that [`contained`] can recognize its panics by their payload type.
pub(super) struct Watched<'a>(pub(super) &'a mut dyn Observer);

/// Payload of a rethrown panic of an observer.
struct ObserverPanic(String);

impl Watched<'_> {
    fn call<T>(&mut self, call: impl FnOnce(&mut dyn Observer) -> T) -> T {
        // Some methods return nothing, so only a panic can end the run.
        catch_panic(|| call(self.0)).unwrap_or_else(|message| resume_unwind(Box::new(ObserverPanic(message))))
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

/// Runs code that uses the device, which panics on failure, and possibly a [`Watched`] observer, and turns a panic of
/// either into an error.
pub(super) fn contained<T>(doing: &str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(match panic.downcast::<ObserverPanic>() {
            Ok(panic) => Error::Callback { callback: "observer", message: panic.0 },
            Err(panic) => Error::Backend { doing: doing.to_owned(), message: panic_message(&*panic) },
        })
    })
}
