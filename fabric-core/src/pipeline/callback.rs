//! The border where panics become errors: the caller's, of an observer, told apart from the device's.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use burn::tensor::Tensor;
use fabric_backends::{catch_panic, panic_message};

use super::{Observer, StepEvent};
use crate::Error;
use crate::denoise::ModelCall;

/// An observer whose panics travel to [`contained`] under a type of their own.
pub(super) struct Watched<'a>(pub(super) &'a mut dyn Observer);

/// The message of an observer's panic, on its way.
struct ObserverPanic(String);

impl Watched<'_> {
    fn call<T>(&mut self, call: impl FnOnce(&mut dyn Observer) -> T) -> T {
        // Two of its three methods return nothing, so only a panic can end the run.
        catch_panic(|| call(self.0)).unwrap_or_else(|message| resume_unwind(Box::new(ObserverPanic(message))))
    }
}

impl Observer for Watched<'_> {
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

/// Runs what calls the device, which reports what it cannot do by panicking, and perhaps a [`Watched`] observer, and
/// makes an error of a panic of either.
pub(super) fn contained<T>(doing: &str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(match panic.downcast::<ObserverPanic>() {
            Ok(panic) => Error::Callback { callback: "observer", message: panic.0 },
            Err(panic) => Error::Backend { doing: doing.to_owned(), message: panic_message(&*panic) },
        })
    })
}
