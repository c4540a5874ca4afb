//! One request on several devices.

mod run;

use std::ops::{ControlFlow, Range};
use std::time::Duration;

use super::{Generation, Pipeline, Request, StepEvent};
use crate::Error;
use run::Run;

/// Pipelines of the same model on several devices, which share the images of a request among them.
///
/// An image does not depend on its batch, so it does not depend on the device that makes it either, but for rounding.
/// Each device makes [`Settings::batch`](super::Settings::batch) images at a time, or an even share of them where that is
/// not set, and whoever is done takes the next ones: with small batches a faster device makes more of them. A device that
/// fails, or lacks the memory for a request, is left out for the rest of the run, and the others make its images. A device that neither answers nor fails (another
/// machine that lost its power closes no connection) is waited for, or counts as lost after [`Self::with_patience`].
///
/// With [`ReferenceNoise::Fresh`](crate::fabric::ReferenceNoise::Fresh) an image does depend on its batch, so one device
/// makes all of them unless a batch is set.
#[derive(Debug, Clone)]
pub struct DevicePool {
    members: Vec<(String, Pipeline)>,
    patience: Option<Duration>,
}

/// What a pool made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Pooled<T> {
    /// As a single device would have made it. Seconds of the report are sums over the devices, and latents lie on the
    /// first device that is left.
    pub made: T,
    /// Devices that failed, fell silent or were too small, with what they said or how long they said nothing. Their images were made by others.
    pub lost: Vec<(String, String)>,
}

/// A step on one of the devices.
#[derive(Debug)]
#[non_exhaustive]
pub struct PoolStep<'a> {
    /// The device's name.
    pub device: &'a str,
    /// Which request, by its place.
    pub request: usize,
    /// Which of the request's images.
    pub images: Range<usize>,
    /// What happened.
    pub event: &'a StepEvent<'a>,
}

impl DevicePool {
    /// A pool of pipelines with names that tell them apart in reports.
    ///
    /// ```
    /// use fabric_core::pipeline::DevicePool;
    /// assert!(DevicePool::new([]).unwrap_err().to_string().starts_with("device pool"));
    /// ```
    ///
    /// # Errors
    ///
    /// When there is none, and when two differ in the shape of their networks, in their noise schedule or in their native size.
    /// Weights are not compared: two models of the same shape pass, and a request's images would be of both.
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

    /// With a limit to how long a device at work may be silent: no step and no image. Then it counts as lost.
    ///
    /// Nobody can stop its thread; whenever that ends, what it brings is dropped. So the time should be longer than a device's
    /// longest silence, which is before its first step (kernels, references) or after the last one (decoding all images of a batch).
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// The names and pipelines.
    pub fn members(&self) -> &[(String, Pipeline)] {
        &self.members
    }

    /// Makes the images of a request.
    ///
    /// # Errors
    ///
    /// As [`Pipeline::generate`]; [`Error::Backend`] when all devices failed, with what each of them said;
    /// [`Error::DeviceLimit`] when the request is too much for each of them.
    pub fn generate(&self, request: &Request) -> Result<Pooled<Generation>, Error> {
        let Pooled { made, lost } = self.generate_all(std::slice::from_ref(request))?;
        let made = made.into_iter().next().expect("one for one request");
        Ok(Pooled { made, lost })
    }

    /// Makes the images of several requests, for instance of an experiment's prompts.
    ///
    /// # Errors
    ///
    /// As [`Self::generate`]; the first request's that cannot be carried out.
    pub fn generate_all(&self, requests: &[Request]) -> Result<Pooled<Vec<Generation>>, Error> {
        self.generate_observed(requests, |_| ControlFlow::Continue(()))
    }

    /// Makes the images of several requests under the eyes of an observer, which may cancel. It is called from several
    /// threads, which a silent device may keep beyond this call.
    ///
    /// # Errors
    ///
    /// As [`Self::generate_all`], [`Error::Cancelled`], and [`Error::Callback`] if the observer panics, which is no device's
    /// failure.
    pub fn generate_observed(
        &self,
        requests: &[Request],
        observe: impl Fn(PoolStep<'_>) -> ControlFlow<()> + Send + Sync + 'static,
    ) -> Result<Pooled<Vec<Generation>>, Error> {
        for request in requests {
            request.validate()?;
            self.check_steering(request)?;
        }
        Run::new(&self.members, requests, Box::new(observe)).finish(self.patience)
    }

    /// What steers a run may hold tensors of one device.
    fn check_steering(&self, request: &Request) -> Result<(), Error> {
        let first = self.members[0].1.device();
        if request.steering.is_empty() || self.members.iter().all(|(_, pipeline)| pipeline.device() == first) {
            return Ok(());
        }
        Err(Error::settings(
            "steering",
            "an adapter or a control network beside several devices",
            "none, as its tensors lie on one device",
            "make a request for each device, and give it to that device's pipeline",
        ))
    }
}
