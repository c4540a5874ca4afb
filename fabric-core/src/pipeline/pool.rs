//! One request on several devices.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use burn::tensor::{Tensor, TensorData};
use fabric_backends::panic_message;

use super::{Generation, Pipeline, Request, StepEvent};
use crate::Error;

/// Pipelines of the same model on several devices, which share the pictures of a request among them.
///
/// A picture does not depend on its batch, so it does not depend on the device that makes it either, but for rounding.
/// Each device makes [`Settings::batch`](super::Settings::batch) pictures at a time, or an even share of them where that is
/// not set, and whoever is done takes the next ones: with small batches a faster device makes more of them. A device that
/// fails is left out for the rest of the run, and the others make its pictures. A device that neither answers nor fails is
/// waited for.
///
/// With [`ReferenceNoise::Fresh`](crate::fabric::ReferenceNoise::Fresh) a picture does depend on its batch, so one device
/// makes all of them unless a batch is set.
#[derive(Debug, Clone)]
pub struct DevicePool {
    members: Vec<(String, Pipeline)>,
}

/// What a pool made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Pooled<T> {
    /// As a single device would have made it. Seconds of the report are sums over the devices, and latents lie on the
    /// first device that is left.
    pub made: T,
    /// Devices that failed, with what they said. Their pictures were made by others.
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
    /// Which of the request's pictures.
    pub pictures: Range<usize>,
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
    /// When there is none.
    pub fn new(members: impl IntoIterator<Item = (String, Pipeline)>) -> Result<Self, Error> {
        let members: Vec<_> = members.into_iter().collect();
        if members.is_empty() {
            return Err(Error::settings("device pool", "no pipelines", "one per device", "load the model on a device"));
        }
        Ok(Self { members })
    }

    /// The names and pipelines.
    pub fn members(&self) -> &[(String, Pipeline)] {
        &self.members
    }

    /// Makes the pictures of a request.
    ///
    /// # Errors
    ///
    /// As [`Pipeline::generate`]; [`Error::Backend`] when all devices failed, with what each of them said.
    pub fn generate(&self, request: &Request) -> Result<Pooled<Generation>, Error> {
        let Pooled { made, lost } = self.generate_all(std::slice::from_ref(request))?;
        let made = made.into_iter().next().expect("one for one request");
        Ok(Pooled { made, lost })
    }

    /// Makes the pictures of several requests, for instance of an experiment's prompts.
    ///
    /// # Errors
    ///
    /// As [`Self::generate`]; the first request's that cannot be carried out.
    pub fn generate_all(&self, requests: &[Request]) -> Result<Pooled<Vec<Generation>>, Error> {
        self.generate_observed(requests, &|_| ControlFlow::Continue(()))
    }

    /// Makes the pictures of several requests under the eyes of an observer, which may cancel. It is called from several
    /// threads.
    ///
    /// # Errors
    ///
    /// As [`Self::generate_all`], and [`Error::Cancelled`].
    pub fn generate_observed(
        &self,
        requests: &[Request],
        observe: &(dyn Fn(PoolStep<'_>) -> ControlFlow<()> + Sync),
    ) -> Result<Pooled<Vec<Generation>>, Error> {
        for request in requests {
            request.validate()?;
            self.check_steering(request)?;
        }
        let run = Run { pool: self, requests, observe, state: Mutex::default(), changed: Condvar::new() };
        run.start();
        std::thread::scope(|scope| {
            for member in 0..self.members.len() {
                let run = &run;
                scope.spawn(move || run.work(member));
            }
        });
        run.finish()
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

/// Pictures of one request that one device makes at a time.
#[derive(Debug, Clone)]
struct Piece {
    request: usize,
    pictures: Range<usize>,
}

/// What threads share.
#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Piece>,
    /// Pieces that somebody is at work on.
    taken: usize,
    done: Vec<(Piece, Part)>,
    lost: Vec<(usize, String)>,
    failure: Option<Error>,
}

/// A piece's pictures, with the latents away from the device, which may be lost later.
type Part = (Generation, TensorData);

struct Run<'a> {
    pool: &'a DevicePool,
    requests: &'a [Request],
    observe: &'a (dyn Fn(PoolStep<'_>) -> ControlFlow<()> + Sync),
    state: Mutex<State>,
    changed: Condvar,
}

impl Run<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is a single one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the requests into pieces: of the size that they ask for, or one for each device, but never where that would
    /// change the pictures.
    fn start(&self) {
        let devices = self.pool.members.len();
        let pieces = self.requests.iter().enumerate().flat_map(|(request, asked)| {
            let all = asked.seeds.len();
            let even = if asked.depends_on_batch() { all } else { all.div_ceil(devices) };
            let size = asked.settings.batch.unwrap_or(even);
            (0..all).step_by(size).map(move |first| Piece { request, pictures: first..all.min(first + size) })
        });
        self.lock().waiting.extend(pieces);
    }

    /// What a device's thread does.
    fn work(&self, member: usize) {
        while let Some(piece) = self.next() {
            let made = self.make(member, &piece);
            let mut state = self.lock();
            state.taken -= 1;
            let goes_on = match made {
                Ok(part) => {
                    state.done.push((piece, part));
                    true
                }
                Err(Error::Backend { message, .. }) => {
                    state.waiting.push_front(piece);
                    state.lost.push((member, message));
                    false
                }
                Err(error) => {
                    // The first error counts; those of the others may be its consequence.
                    state.failure.get_or_insert(error);
                    false
                }
            };
            drop(state);
            self.changed.notify_all();
            if !goes_on {
                return;
            }
        }
    }

    /// The next piece. Waits while there is none but another device may still give one back.
    fn next(&self) -> Option<Piece> {
        let mut state = self.lock();
        loop {
            if state.failure.is_some() {
                return None;
            }
            if let Some(piece) = state.waiting.pop_front() {
                state.taken += 1;
                return Some(piece);
            }
            if state.taken == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn make(&self, member: usize, piece: &Piece) -> Result<Part, Error> {
        let (name, pipeline) = &self.pool.members[member];
        let request = &self.requests[piece.request];
        let part = Request { seeds: request.seeds[piece.pictures.clone()].to_vec(), ..request.clone() };
        let mut observer = |event: &StepEvent<'_>| {
            let step = PoolStep { device: name, request: piece.request, pictures: piece.pictures.clone(), event };
            if self.lock().failure.is_some() { ControlFlow::Break(()) } else { (self.observe)(step) }
        };
        catch_unwind(AssertUnwindSafe(|| {
            let made = pipeline.generate_observed(&part, &mut observer)?;
            let latents = made.latents.clone().into_data();
            Ok((made, latents))
        }))
        .unwrap_or_else(|panic| {
            Err(Error::Backend { doing: "making pictures on a pool".to_owned(), message: panic_message(&*panic) })
        })
    }

    fn finish(self) -> Result<Pooled<Vec<Generation>>, Error> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = state.failure {
            return Err(failure);
        }
        let members = &self.pool.members;
        let lost: Vec<(String, String)> =
            state.lost.iter().map(|(member, said)| (members[*member].0.clone(), said.clone())).collect();
        let left = (0..members.len()).find(|member| state.lost.iter().all(|(gone, _)| gone != member));
        let Some(left) = left.filter(|_| state.waiting.is_empty()) else {
            let said: Vec<String> = lost.iter().map(|(name, said)| format!("{name}: {said}")).collect();
            let doing = "making pictures on a pool, of which no device is left".to_owned();
            return Err(Error::Backend { doing, message: said.join("; ") });
        };
        let device = members[left].1.device();
        let mut done = state.done;
        done.sort_by_key(|(piece, _)| (piece.request, piece.pictures.start));
        let made = done.chunk_by(|(a, _), (b, _)| a.request == b.request).map(|parts| {
            let parts = parts.iter().map(|(_, (made, latents))| {
                let latents = Tensor::from_data(latents.clone(), &device);
                Generation { latents, ..made.clone() }
            });
            parts.reduce(Generation::joined).expect("at least one part")
        });
        let made = catch_unwind(AssertUnwindSafe(|| made.collect())).map_err(|panic| Error::Backend {
            doing: format!("bringing the latents of all devices to {}", members[left].0),
            message: panic_message(&*panic),
        })?;
        Ok(Pooled { made, lost })
    }
}
