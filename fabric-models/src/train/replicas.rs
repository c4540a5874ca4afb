//! Loss and gradients of a step's batches, computed sequentially or in parallel.

use std::panic::resume_unwind;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Device;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{Task, TrainError};

/// Thread pools that compute the batches of a step: one single-threaded pool per parallel batch. Empty if batches are
/// computed sequentially.
#[derive(Debug, Default)]
pub(super) struct Replicas(Vec<ThreadPool>);

/// Result of one batch of a step.
pub(super) struct Part {
    pub(super) batch: u64,
    pub(super) loss: f64,
    /// Gradients of this batch's share of the mean loss of the step; empty if the loss is not finite.
    pub(super) gradients: GradientsParams,
}

impl Replicas {
    pub(super) fn new(count: usize) -> Result<Self, TrainError> {
        // A pool of one thread keeps the kernels of each batch on their own thread.
        let thread = |_| ThreadPoolBuilder::new().num_threads(1).build();
        let threads = if count > 1 { (0..count).map(thread).collect() } else { Ok(Vec::new()) };
        threads.map(Self).map_err(|error| {
            TrainError::settings("replicas", format!("{count} ({error})"), "threads that can be had", "ask for fewer")
        })
    }

    /// Computes losses and gradients of batches; returns them in the order of the batches.
    pub(super) fn run<T: Task>(
        &self,
        task: &T,
        model: &T::Model,
        batches: Vec<(u64, T::Batch)>,
        device: &Device,
    ) -> Result<Vec<Part>, TrainError> {
        let share = 1.0 / batches.len() as f64;
        let run = move |model: &T::Model, batch| part(task, model, batch, device, share);
        if self.0.is_empty() {
            return batches.into_iter().map(|batch| run(model, batch)).collect();
        }
        let mut parts = Vec::with_capacity(batches.len());
        let mut batches = batches.into_iter().peekable();
        while batches.peek().is_some() {
            std::thread::scope(|scope| {
                let mut begun = Vec::with_capacity(self.0.len());
                for (thread, batch) in self.0.iter().zip(batches.by_ref()) {
                    // Each batch has its own autodiff graph, so it does not wait for other backward passes.
                    let model = model.clone().fork(device);
                    begun.push(scope.spawn(move || thread.install(move || run(&model, batch))));
                }
                for thread in begun {
                    parts.push(thread.join().unwrap_or_else(|panic| resume_unwind(panic))?);
                }
                Ok::<_, TrainError>(())
            })?;
        }
        Ok(parts)
    }
}

/// Computes loss and gradients of one batch; the gradients are multiplied by `share`.
fn part<T: Task>(
    task: &T,
    model: &T::Model,
    (number, batch): (u64, T::Batch),
    device: &Device,
    share: f64,
) -> Result<Part, TrainError> {
    let loss = task.loss(model, batch, device).map_err(|message| TrainError::Batch { batch: number, message })?;
    let value = loss.clone().into_scalar::<f64>();
    let gradients = if value.is_finite() {
        GradientsParams::from_grads((loss * share).backward(), model)
    } else {
        GradientsParams::new()
    };
    Ok(Part { batch: number, loss: value, gradients })
}
