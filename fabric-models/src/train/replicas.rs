//! The batches of a step, one after the other or beside each other.

use std::panic::resume_unwind;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Device;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{Task, TrainError};

/// What works on the batches of a step: a thread for each that is worked on at once, none where that is always one.
#[derive(Debug, Default)]
pub(super) struct Replicas(Vec<ThreadPool>);

/// What one batch of a step gives.
pub(super) struct Part {
    pub(super) batch: u64,
    pub(super) loss: f64,
    /// Of the mean over the step's batches; none where the loss is not finite.
    pub(super) gradients: GradientsParams,
}

impl Replicas {
    pub(super) fn new(count: usize) -> Result<Self, TrainError> {
        // On its one thread, a batch does without the others' kernels.
        let thread = |_| ThreadPoolBuilder::new().num_threads(1).build();
        let threads = if count > 1 { (0..count).map(thread).collect() } else { Ok(Vec::new()) };
        threads.map(Self).map_err(|error| {
            TrainError::settings("replicas", format!("{count} ({error})"), "threads that can be had", "ask for fewer")
        })
    }

    /// Losses and gradients of these batches, in their order.
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
                    // A graph of its own: no other's backward pass is waited for.
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

/// Loss and gradients of one batch, which counts for this share of a step.
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
