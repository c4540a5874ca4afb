//! Work queue of a pool's run: one thread per device; pieces of failed devices go back to the queue.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, TensorData};

use super::{PoolStep, Pooled};
use crate::Error;
use crate::cache::CacheStats;
use crate::image::Image;
use crate::pipeline::callback::contained;
use crate::pipeline::run::{Part, all_caches};
use crate::pipeline::{Generation, Observer, PhaseEvent, Pipeline, Request, StepEvent};

/// Batch of images of one request, made by one device.
#[derive(Debug, Clone)]
struct Piece {
    request: usize,
    images: Range<usize>,
}

/// Result of a piece, with its latents copied to the host because the device may fail later.
type Made = (Generation, TensorData);

/// Piece that a device is working on.
#[derive(Debug)]
struct Work {
    piece: Piece,
    /// Time of the device's last sign of progress.
    heard: Instant,
}

/// A device that is left out of the rest of the run.
#[derive(Debug)]
struct Loss {
    member: usize,
    said: String,
    /// The error if the device did not fail but exceeded its limits (memory, number types).
    limit: Option<Error>,
}

/// State shared by the threads.
#[derive(Debug)]
struct State {
    waiting: VecDeque<Piece>,
    /// Current work by device. If the entry is gone when a device finishes, the device timed out, its piece was
    /// returned to the queue, and the result is dropped.
    at_work: Vec<Option<Work>>,
    done: Vec<(Piece, Made)>,
    lost: Vec<Loss>,
    failure: Option<Error>,
}

impl State {
    fn lose(&mut self, piece: Piece, loss: Loss) {
        self.waiting.push_front(piece);
        self.lost.push(loss);
    }

    /// Whether no device is working and no more work will start.
    fn is_over(&self) -> bool {
        let nothing_to_do = self.waiting.is_empty() || self.failure.is_some() || self.lost.len() == self.at_work.len();
        nothing_to_do && self.at_work.iter().all(Option::is_none)
    }
}

type Observe = Box<dyn Fn(PoolStep<'_>) -> ControlFlow<()> + Send + Sync>;

/// A run of a pool. Threads share it through an `Arc`: one that waits for an unresponsive device cannot be
/// stopped and may outlive the call.
pub(super) struct Run {
    members: Vec<(String, Pipeline)>,
    requests: Vec<Request>,
    observe: Observe,
    state: Mutex<State>,
    changed: Condvar,
}

impl Run {
    /// Splits requests into pieces of their batch size, or into one piece per device. Requests whose images depend on
    /// their batch are not split unless a batch size is set.
    pub(super) fn new(members: &[(String, Pipeline)], requests: &[Request], observe: Observe) -> Arc<Self> {
        let pieces = requests.iter().enumerate().flat_map(|(request, asked)| {
            let all = asked.seeds.len();
            let even = if asked.depends_on_batch() { all } else { all.div_ceil(members.len()) };
            let size = asked.settings.batch.unwrap_or(even);
            (0..all).step_by(size).map(move |first| Piece { request, images: first..all.min(first + size) })
        });
        let state = State {
            waiting: pieces.collect(),
            at_work: members.iter().map(|_| None).collect(),
            done: Vec::new(),
            lost: Vec::new(),
            failure: None,
        };
        Arc::new(Self {
            members: members.to_vec(),
            requests: requests.to_vec(),
            observe,
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    /// Starts the threads, waits for them and assembles the results.
    pub(super) fn finish(self: Arc<Self>, patience: Option<Duration>) -> Result<Pooled<Vec<Generation>>, Error> {
        for member in 0..self.members.len() {
            let run = self.clone();
            if let Err(error) = std::thread::Builder::new().spawn(move || run.work(member)) {
                self.lock().lost.push(Loss { member, said: format!("no thread for it: {error}"), limit: None });
            }
        }
        self.watch(patience);
        self.put_together()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave the state inconsistent: every change is a single operation.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the work is over. Marks devices that exceed the timeout as lost and requeues their pieces.
    fn watch(&self, patience: Option<Duration>) {
        let mut state = self.lock();
        while !state.is_over() {
            let Some(patience) = patience else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let mut next = patience;
            for member in 0..self.members.len() {
                let Some(work) = &state.at_work[member] else { continue };
                match patience.checked_sub(work.heard.elapsed()).filter(|left| !left.is_zero()) {
                    Some(left) => next = next.min(left),
                    None => {
                        let piece = work.piece.clone();
                        state.at_work[member] = None;
                        let said = format!("silent for {:.1} s", patience.as_secs_f64());
                        state.lose(piece, Loss { member, said, limit: None });
                        self.changed.notify_all();
                    }
                }
            }
            if !state.is_over() {
                state = self.changed.wait_timeout(state, next).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    /// Main loop of a device's thread.
    fn work(&self, member: usize) {
        while let Some(piece) = self.next(member) {
            let made = self.make(member, &piece);
            let mut state = self.lock();
            if state.at_work[member].take().is_none() {
                return;
            }
            let goes_on = match made {
                Ok(part) => {
                    state.done.push((piece, part));
                    true
                }
                Err(Error::Backend { message, .. }) => {
                    state.lose(piece, Loss { member, said: message, limit: None });
                    false
                }
                // It computes on the device, so its panic may be a failure of the device.
                Err(error @ Error::Conditioning { .. }) => {
                    state.lose(piece, Loss { member, said: error.to_string(), limit: None });
                    false
                }
                // Another device may have the memory or the number type that this one lacks.
                Err(limit @ Error::DeviceLimit(_)) => {
                    state.lose(piece, Loss { member, said: limit.to_string(), limit: Some(limit) });
                    false
                }
                Err(error) => {
                    // Keep the first error: later ones may be its consequence.
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

    /// Takes the next piece. If the queue is empty, waits while other devices work: if one fails, its piece
    /// comes back.
    fn next(&self, member: usize) -> Option<Piece> {
        let mut state = self.lock();
        loop {
            if state.failure.is_some() {
                return None;
            }
            if let Some(piece) = state.waiting.pop_front() {
                state.at_work[member] = Some(Work { piece: piece.clone(), heard: Instant::now() });
                return Some(piece);
            }
            if state.at_work.iter().all(Option::is_none) {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn make(&self, member: usize, piece: &Piece) -> Result<Made, Error> {
        let pipeline = &self.members[member].1;
        let request = &self.requests[piece.request];
        let part = Part { request, images: piece.images.clone(), is_warm_up: false };
        let mut observer = PieceObserver { run: self, member, piece };
        contained("making images on a pool", || {
            let made = pipeline.generate_part(part, &mut observer)?;
            let latents = made.latents.clone().into_data();
            Ok((made, latents))
        })
    }

    /// Notes that a device made progress on its piece. False if the run has failed, or the device is counted as lost.
    fn hear(&self, member: usize) -> bool {
        let mut shared = self.lock();
        let state = &mut *shared;
        let (None, Some(work)) = (&state.failure, &mut state.at_work[member]) else { return false };
        work.heard = Instant::now();
        true
    }

    fn put_together(&self) -> Result<Pooled<Vec<Generation>>, Error> {
        let mut state = self.lock();
        if let Some(failure) = state.failure.take() {
            return Err(failure);
        }
        let State { waiting, done, lost, .. } = &mut *state;
        let (all_done, mut done, mut lost) = (waiting.is_empty(), std::mem::take(done), std::mem::take(lost));
        drop(state);
        let cache = all_caches(self.members.iter().map(|(_, pipeline)| pipeline));
        done.sort_by_key(|(piece, _)| (piece.request, piece.images.start));
        for (member, (name, pipeline)) in self.members.iter().enumerate().filter(|_| all_done) {
            if lost.iter().any(|loss| loss.member == member) {
                continue;
            }
            let doing = format!("bringing the latents of all devices to {name}");
            match contained(&doing, || Ok(joined(&done, &pipeline.device(), cache))) {
                Ok(made) => return Ok(Pooled { made, lost: self.named(&lost) }),
                // Only this device failed: the images are complete and the latents can go to another device.
                Err(error) => lost.push(Loss { member, said: error.to_string(), limit: None }),
            }
        }
        // If the request exceeds the limits of every device, return that error.
        if lost.iter().all(|loss| loss.limit.is_some())
            && let Some(limit) = lost.iter_mut().find_map(|loss| loss.limit.take())
        {
            return Err(limit);
        }
        let said: Vec<String> = self.named(&lost).into_iter().map(|(name, said)| format!("{name}: {said}")).collect();
        let doing = "making images on a pool, of which no device is left".to_owned();
        Err(Error::Backend { doing, message: said.join("; ") })
    }

    fn named(&self, lost: &[Loss]) -> Vec<(String, String)> {
        lost.iter().map(|loss| (self.members[loss.member].0.clone(), loss.said.clone())).collect()
    }
}

/// Observer of one device's piece.
struct PieceObserver<'a> {
    run: &'a Run,
    member: usize,
    piece: &'a Piece,
}

impl Observer for PieceObserver<'_> {
    fn phase(&mut self, _: &PhaseEvent) -> ControlFlow<()> {
        if self.run.hear(self.member) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn image(&mut self, _: usize, _: &Image) {
        self.run.hear(self.member);
    }

    fn step(&mut self, event: &StepEvent<'_>) -> ControlFlow<()> {
        if !self.run.hear(self.member) {
            return ControlFlow::Break(());
        }
        let (device, images) = (&*self.run.members[self.member].0, self.piece.images.clone());
        (self.run.observe)(PoolStep { device, request: self.piece.request, images, event })
    }
}

/// Joins the parts of each request, with latents on `device`.
fn joined(done: &[(Piece, Made)], device: &Device, cache: CacheStats) -> Vec<Generation> {
    let made = done.chunk_by(|(a, _), (b, _)| a.request == b.request).map(|parts| {
        let parts = parts.iter().map(|(_, (made, latents))| {
            let latents = Tensor::from_data(latents.clone(), device);
            Generation { latents, ..made.clone() }
        });
        let mut made = parts.reduce(Generation::joined).expect("at least one part");
        // Each part reports only its own device's cache.
        made.report.cache = cache;
        made
    });
    made.collect()
}
