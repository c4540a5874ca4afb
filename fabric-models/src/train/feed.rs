//! Preparation of batches on worker threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use fabric_backends::panic_message;

use super::TrainError;

/// Queue of batches that worker threads prepare ahead of time. The order of batches does not depend on the threads.
#[derive(Debug)]
pub(crate) struct Feed<B> {
    /// Batch `n` comes from worker `n % workers`.
    queues: Vec<Receiver<Result<B, String>>>,
    next: u64,
    // A thread ends when the receiver of its queue is dropped.
    _workers: Vec<JoinHandle<()>>,
}

/// Number of batches that each worker prepares ahead.
const AHEAD: usize = 2;

impl<B: Send + 'static> Feed<B> {
    /// Starts the workers at batch number `first`. The result of `make` must depend on the batch number only.
    pub(crate) fn new(make: Arc<dyn Fn(u64) -> B + Send + Sync>, first: u64, workers: usize) -> Self {
        let workers = workers.max(1) as u64;
        let mut queues: Vec<Option<Receiver<_>>> = (0..workers).map(|_| None).collect();
        let mut threads = Vec::new();
        for worker in 0..workers {
            let (send, receive) = sync_channel(AHEAD);
            let make = make.clone();
            let mut number = first + worker;
            queues[(number % workers) as usize] = Some(receive);
            threads.push(std::thread::spawn(move || {
                loop {
                    let made = catch_unwind(AssertUnwindSafe(|| make(number))).map_err(|panic| panic_message(&*panic));
                    let failed = made.is_err();
                    if send.send(made).is_err() || failed {
                        return;
                    }
                    number += workers;
                }
            }));
        }
        Self { queues: queues.into_iter().flatten().collect(), next: first, _workers: threads }
    }

    /// Waits for the next batch and returns it with its number.
    ///
    /// # Errors
    ///
    /// Returns an error if `make` panicked for this batch, or its worker has ended.
    pub(crate) fn take(&mut self) -> Result<(u64, B), TrainError> {
        let number = self.next;
        let queue = &self.queues[(number % self.queues.len() as u64) as usize];
        let made = queue.recv().unwrap_or_else(|_| Err("its thread is gone".to_owned()));
        self.next += 1;
        made.map(|batch| (number, batch)).map_err(|message| TrainError::Batch { batch: number, message })
    }
}
