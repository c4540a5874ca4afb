//! Device pool: shares the images of requests among several devices.

mod run;

use std::ops::{ControlFlow, Range};
use std::time::Duration;

use super::{Generation, Pipeline, Request, StepEvent};
use crate::Error;
use run::Run;

/// Pipelines of the same model on several devices that share the images of a request.
///
/// An image does not depend on its batch, nor on the device that makes it, except for rounding. Each device makes
/// [`Settings::batch`](super::Settings::batch) images at a time (an even share if that is not set), then takes the
/// next batch; with small batches, faster devices make more images. If a device fails or lacks the memory for a
/// request, it is left out for the rest of the run and the other devices make its images. A device that neither
/// answers nor fails (a machine that lost power closes no connection) is waited for without limit, or until the
/// timeout set by [`Self::with_patience`].
///
/// With [`ReferenceNoise::Fresh`](crate::fabric::ReferenceNoise::Fresh) an image does depend on its batch, so one
/// device makes all of them unless a batch is set.
#[derive(Debug, Clone)]
pub struct DevicePool {
    members: Vec<(String, Pipeline)>,
    patience: Option<Duration>,
}

/// Result of a pool's run, with the devices that failed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Pooled<T> {
    /// The result. Times in the report are sums over the devices; latents are on the first device that did not fail.
    pub made: T,
    /// Name and error of each device that failed, timed out or had too little memory. Other devices made its images.
    pub lost: Vec<(String, String)>,
}

/// One evaluation on one of the devices, passed to a pool's observer.
#[derive(Debug)]
#[non_exhaustive]
pub struct PoolStep<'a> {
    /// The device's name.
    pub device: &'a str,
    /// Index of the request.
    pub request: usize,
    /// Indices of the images, within the request, that this device is making.
    pub images: Range<usize>,
    /// State of the run on this device.
    pub event: &'a StepEvent<'a>,
}

impl DevicePool {
    /// Creates a pool from named pipelines; the names identify devices in reports and errors.
    ///
    /// ```
    /// use fabric_core::pipeline::DevicePool;
    /// assert!(DevicePool::new([]).unwrap_err().to_string().starts_with("device pool"));
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if there are no pipelines, or two differ in the shapes of their networks, noise
    /// schedule or native size. Weights are not compared: two different models of the same architecture pass,
    /// and images of one request would then come from both.
    pub fn new(members: impl IntoIterator<Item = (String, Pipeline)>) -> Result<Self, Error> {
        let members: Vec<_> = members.into_iter().collect();
        if members.is_empty() {
            return Err(Error::settings("device pool", "no pipelines", "one per device", "load the model on a device"));
        }
        let (first, one) = &members[0];
        for (name, other) in &members[1..] {
            if let Some(what) = one.difference(other) {
                let got = format!("`{name}` differs from `{first}` in {what}");
                let next = "load the same folder on each device";
                return Err(Error::settings("device pool", got, "pipelines of one model", next));
            }
        }
        Ok(Self { members, patience: None })
    }

    /// Sets a timeout: a working device that begins no phase and completes no evaluation and no image for this long counts as failed.
    ///
    /// Its thread cannot be stopped; whatever it returns later is dropped. The timeout should therefore exceed
    /// the longest normal pause, which is before the first step (kernel compilation, encoding references) or
    /// after the last one (decoding all images of a batch).
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// The pool's pipelines with their names.
    pub fn members(&self) -> &[(String, Pipeline)] {
        &self.members
    }

    /// Generates the images of a request.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Pipeline::generate`], [`Error::Backend`] with each device's message if all
    /// devices failed, and [`Error::DeviceLimit`] if the request exceeds the limits of every device.
    pub fn generate(&self, request: &Request) -> Result<Pooled<Generation>, Error> {
        let Pooled { made, lost } = self.generate_all(std::slice::from_ref(request))?;
        let made = made.into_iter().next().expect("one for one request");
        Ok(Pooled { made, lost })
    }

    /// Generates the images of several requests, for instance all prompts of an experiment.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Self::generate`], for the first request that fails.
    pub fn generate_all(&self, requests: &[Request]) -> Result<Pooled<Vec<Generation>>, Error> {
        self.generate_observed(requests, |_| ControlFlow::Continue(()))
    }

    /// Generates the images of several requests and calls `observe` after each evaluation; it may cancel.
    ///
    /// `observe` is called from several threads. The thread of a device that timed out may outlive this call.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Self::generate_all`], [`Error::Cancelled`] if `observe` cancels, and
    /// [`Error::Callback`] if it panics (which does not count as a device failure).
    pub fn generate_observed(
        &self,
        requests: &[Request],
        observe: impl Fn(PoolStep<'_>) -> ControlFlow<()> + Send + Sync + 'static,
    ) -> Result<Pooled<Vec<Generation>>, Error> {
        for request in requests {
            request.validate()?;
        }
        Run::new(&self.members, requests, Box::new(observe)).finish(self.patience)
    }
}
