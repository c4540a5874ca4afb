//! A training run.

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

/// What is learned: batches, and the loss of a network on one.
pub trait Task: Sync {
    /// The network.
    type Model: Module + PublishedNames;
    /// What a worker thread prepares, on the host.
    type Batch: Send + 'static;

    /// Everything besides [`TrainSettings`] that the weights depend on, to tell one run's checkpoints from another's.
    fn identity(&self) -> Value;

    /// Makes batch number `n`, from nothing but `n`.
    fn batches(&self) -> Arc<dyn Fn(u64) -> Self::Batch + Send + Sync>;

    /// The mean loss over a batch, a single number; `device` tracks gradients, as the network does.
    ///
    /// # Errors
    ///
    /// Why the batch cannot be used; the trainer knows its number.
    fn loss(&self, model: &Self::Model, batch: Self::Batch, device: &Device) -> Result<Tensor<1>, String>;
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// The step, from 1.
    pub step: u64,
    /// Of so many.
    pub steps: u64,
    /// The mean loss of its batches.
    pub loss: f64,
    /// The gradient's length before it was clipped.
    pub gradient: f64,
    /// The learning rate.
    pub rate: f64,
    /// Seconds that the step took.
    pub seconds: f64,
    /// Seconds that are left at this run's mean speed.
    pub seconds_left: f64,
}

/// A training run in a folder: goes on from the newest checkpoint there, to the bit on the CPU.
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
    /// When this process began, and at which step.
    began: (Instant, u64),
}

impl<T: Task> Trainer<T> {
    /// Begins a run in `folder`, or goes on with the one that is there.
    ///
    /// `model` is the network with its first weights, on a device that tracks gradients.
    ///
    /// # Errors
    ///
    /// When settings cannot be used, or the folder holds another run or a damaged one.
    pub fn new(
        task: T,
        model: T::Model,
        settings: &TrainSettings,
        folder: impl AsRef<Path>,
        device: &Device,
        workers: usize,
    ) -> Result<Self, TrainError> {
        settings.validate()?;
        let folder = folder.as_ref().to_owned();
        fs::create_dir_all(&folder).map_err(|error| LoadError::io(&folder, "make the folder", error))?;
        // How often it is saved changes nothing.
        let same = TrainSettings { save_every: TrainSettings::default().save_every, ..settings.clone() };
        let run = json!({ "task": task.identity(), "settings": same });
        let mut optimizer = Optimizer::new(&model, settings);
        let (mut step, mut model) = (0, model);
        let last_saved = checkpoint::newest(&folder)?;
        if let Some(place) = &last_saved {
            let state;
            (state, model, optimizer) = checkpoint::load(place, &run, model, optimizer, device)?;
            step = state.step;
        }
        let mut curve = match fs::read_to_string(folder.join("loss.csv")) {
            Ok(text) => LossCurve::from_csv(&text),
            Err(_) => LossCurve::default(),
        };
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

    /// Works on so many of a step's batches ([`TrainSettings::accumulate`]) at once, each on a thread of its own with a
    /// copy of the network, and never on more than a step has; 1 works on one after the other, which is the default.
    ///
    /// For a small network on a CPU that is faster than one batch on all threads. Gradients are added in the same
    /// order either way.
    ///
    /// # Errors
    ///
    /// When the threads cannot be had.
    pub fn with_replicas(mut self, replicas: usize) -> Result<Self, TrainError> {
        let batches = usize::try_from(self.settings.accumulate).unwrap_or(usize::MAX);
        self.replicas = Replicas::new(replicas.min(batches))?;
        Ok(self)
    }

    /// Whether all steps are done.
    pub fn is_done(&self) -> bool {
        self.step >= self.settings.steps
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// The task.
    pub fn task(&self) -> &T {
        &self.task
    }

    /// The losses so far.
    pub fn curve(&self) -> &LossCurve {
        &self.curve
    }

    /// The network as it is, tracking gradients.
    pub fn model(&self) -> &T::Model {
        self.model.as_ref().expect("a trainer has its network between steps")
    }

    /// The network with averaged weights, which is the better one, without gradients.
    pub fn averaged(&self) -> T::Model {
        self.optimizer.averaged(self.model().valid())
    }

    /// One step; saves a checkpoint when one is due.
    ///
    /// # Errors
    ///
    /// When a batch cannot be used, the loss is not finite, or a checkpoint cannot be written. The last checkpoint stays,
    /// and so does the network.
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
    /// When a file cannot be written; older checkpoints stay.
    pub fn save(&mut self) -> Result<(), TrainError> {
        let state = State { step: self.step, run: self.run.clone() };
        let place = checkpoint::save(&self.folder, &state, self.model(), &self.optimizer)?;
        self.last_saved = Some(place);
        self.curve.save(&self.folder, &format!("loss, step {} of {}", self.step, self.settings.steps))
    }
}
