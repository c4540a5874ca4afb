//! Training tasks and the training loop.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use burn::module::Module;
use burn::optim::GradientsAccumulator;
use burn::tensor::{Device, Tensor};
use serde_json::{Value, json};

use super::checkpoint::{self, State};
use super::replicas::Replicas;
use super::{Feed, LossCurve, Optimizer, TrainError, TrainSettings, learning_rate};
use crate::load::{LoadError, PublishedNames};

/// Maximum number of threads of each kind that a run starts; each takes memory, and no machine has more processors.
const MAX_THREADS: usize = 1024;

/// Training task: defines the batches and the loss of a network on a batch.
pub trait Task: Sync {
    /// The network.
    type Model: Module + PublishedNames;
    /// Batch in host memory, prepared by a worker thread.
    type Batch: Send + 'static;

    /// Everything besides [`TrainSettings`] that the weights depend on. It tells checkpoints of different runs apart.
    fn identity(&self) -> Value;

    /// Returns the function that prepares batch number `n`; its result must depend on `n` only.
    fn batches(&self) -> Arc<dyn Fn(u64) -> Self::Batch + Send + Sync>;

    /// Computes the mean loss over a batch as a single number. `device` is the autodiff device of the network.
    ///
    /// # Errors
    ///
    /// Returns the reason if the batch cannot be used; the trainer adds the number of the batch.
    fn loss(&self, model: &Self::Model, batch: Self::Batch, device: &Device) -> Result<Tensor<1>, String>;
}

/// Result of one training step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// The step, counted from 1.
    pub step: u64,
    /// Total number of steps.
    pub steps: u64,
    /// Mean loss of the step's batches.
    pub loss: f64,
    /// Gradient norm before clipping.
    pub gradient: f64,
    /// Learning rate.
    pub rate: f64,
    /// Duration of the step in seconds.
    pub seconds: f64,
    /// Estimated remaining time in seconds, from the mean duration of the steps since this process started.
    pub seconds_left: f64,
}

/// Training run in a folder. It resumes from the newest checkpoint in the folder, bit-exactly on the CPU.
#[derive(Debug)]
pub struct Trainer<T: Task> {
    task: T,
    settings: TrainSettings,
    folder: PathBuf,
    device: Device,
    model: Option<T::Model>,
    optimizer: Optimizer,
    feed: Feed<T::Batch>,
    run: Value,
    step: u64,
    curve: LossCurve,
    last_saved: Option<PathBuf>,
    replicas: Replicas,
    /// Time and step at which this process started training.
    began: (Instant, u64),
}

impl<T: Task> Trainer<T> {
    /// Starts a run in `folder`, or resumes the run in it.
    ///
    /// `model` is the network with its initial weights, on an autodiff device. `workers` threads prepare batches, at
    /// most 1024. What an earlier process left incomplete in the folder is removed if it is older than a day.
    ///
    /// # Errors
    ///
    /// Returns an error if settings are out of range, or the folder contains another run, a damaged checkpoint or a
    /// damaged `loss.csv`.
    pub fn new(
        task: T,
        model: T::Model,
        settings: &TrainSettings,
        folder: impl AsRef<Path>,
        device: &Device,
        workers: usize,
    ) -> Result<Self, TrainError> {
        settings.validate()?;
        if workers > MAX_THREADS {
            let expected = format!("at most {MAX_THREADS}");
            return Err(TrainError::settings("workers", workers, &expected, "as many as processors are enough"));
        }
        let folder = folder.as_ref().to_owned();
        fs::create_dir_all(&folder).map_err(|error| LoadError::io(&folder, "make the folder", error))?;
        checkpoint::remove_leftovers(&folder);
        // The checkpoint interval does not affect the weights, so it is not part of the run's identity.
        let same = TrainSettings { save_every: TrainSettings::default().save_every, ..settings.clone() };
        let run = json!({ "task": task.identity(), "settings": same });
        let mut optimizer = Optimizer::new(&model, settings);
        let (mut step, mut model) = (0, model);
        let last_saved = checkpoint::newest(&folder)?;
        if let Some(place) = &last_saved {
            let state;
            (state, model, optimizer) = checkpoint::load(place, &run, settings.steps, model, optimizer, device)?;
            step = state.step;
        }
        let mut curve = if step == 0 { LossCurve::default() } else { LossCurve::read(&folder, settings.steps)? };
        curve.points.retain(|(at, _)| *at <= step);
        let feed = Feed::new(task.batches(), step * settings.accumulate, workers);
        Ok(Self {
            task,
            settings: settings.clone(),
            folder,
            device: device.clone(),
            model: Some(model),
            optimizer,
            feed,
            run,
            step,
            curve,
            last_saved,
            replicas: Replicas::default(),
            began: (Instant::now(), step),
        })
    }

    /// Sets how many of a step's batches ([`TrainSettings::accumulate`]) are computed in parallel, each on its own
    /// thread with a clone of the network. The number is limited to the batches of a step and to 1024; 1 (the default)
    /// computes them sequentially.
    ///
    /// For a small network on a CPU, this is faster than one batch on all threads. Gradients are added in the same
    /// order in both cases.
    ///
    /// # Errors
    ///
    /// Returns an error if the threads cannot be started.
    pub fn with_replicas(mut self, replicas: usize) -> Result<Self, TrainError> {
        let batches = usize::try_from(self.settings.accumulate).unwrap_or(usize::MAX);
        self.replicas = Replicas::new(replicas.min(batches).min(MAX_THREADS))?;
        Ok(self)
    }

    /// Returns whether all steps are completed.
    pub fn is_done(&self) -> bool {
        self.step >= self.settings.steps
    }

    /// Number of completed steps.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// The task.
    pub fn task(&self) -> &T {
        &self.task
    }

    /// Losses so far.
    pub fn curve(&self) -> &LossCurve {
        &self.curve
    }

    /// Network with the current weights, with autodiff.
    pub fn model(&self) -> &T::Model {
        self.model.as_ref().expect("a trainer has its network between steps")
    }

    /// Returns the network with averaged weights, without autodiff. These weights are better than the current ones.
    pub fn averaged(&self) -> T::Model {
        self.optimizer.averaged(self.model().valid())
    }

    /// Runs one training step; saves a checkpoint every [`TrainSettings::save_every`] steps and after the last step.
    ///
    /// # Errors
    ///
    /// Returns an error if a batch cannot be used, the loss is not finite, or a checkpoint cannot be written. The last
    /// checkpoint and the network remain usable.
    pub fn step(&mut self) -> Result<Progress, TrainError> {
        let clock = Instant::now();
        let batches = (0..self.settings.accumulate).map(|_| self.feed.take()).collect::<Result<Vec<_>, _>>()?;
        let model = self.model.as_ref().expect("a trainer has its network between steps");
        let mut sum = GradientsAccumulator::new();
        let mut loss = 0.0;
        for part in self.replicas.run(&self.task, model, batches, &self.device)? {
            if !part.loss.is_finite() {
                let checkpoint = self.last_saved.clone();
                return Err(TrainError::Diverged {
                    step: self.step + 1,
                    batch: part.batch,
                    loss: part.loss,
                    checkpoint,
                });
            }
            loss += part.loss / self.settings.accumulate as f64;
            sum.accumulate(model, part.gradients);
        }
        let gradients = sum.grads();
        let rate = learning_rate(&self.settings, self.step);
        let model = self.model.take().expect("a trainer has its network between steps");
        let (model, gradient) = self.optimizer.step(model, gradients, rate, self.step);
        self.model = Some(model);
        self.step += 1;
        self.curve.points.push((self.step, loss));
        if self.step.is_multiple_of(self.settings.save_every) || self.is_done() {
            self.save()?;
        }
        let (began, at) = self.began;
        let mean = began.elapsed().as_secs_f64() / (self.step - at) as f64;
        Ok(Progress {
            step: self.step,
            steps: self.settings.steps,
            loss,
            gradient,
            rate,
            seconds: clock.elapsed().as_secs_f64(),
            seconds_left: mean * (self.settings.steps - self.step) as f64,
        })
    }

    /// Writes a checkpoint and the loss curve now.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be written; older checkpoints are kept.
    pub fn save(&mut self) -> Result<(), TrainError> {
        let state = State { step: self.step, run: self.run.clone() };
        let place = checkpoint::save(&self.folder, &state, self.model(), &self.optimizer)?;
        self.last_saved = Some(place);
        self.curve.save(&self.folder, &format!("loss, step {} of {}", self.step, self.settings.steps))
    }
}
