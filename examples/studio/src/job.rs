//! Jobs: rounds and comparisons that wait for the worker, are being generated, or are finished.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Bytes;
use fabric::core::image::{ContentHash, Image};
use serde::Serialize;
use tokio::sync::watch;

use crate::error::ApiError;
use crate::ids::Id;

/// Task of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// The next round of the session.
    Round,
    /// A round again, without its votes.
    Compare { round: usize },
}

/// State of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JobState {
    Waiting,
    Running,
    Done,
    Failed,
    Cancelled,
}

/// A final image of a job.
#[derive(Debug, Clone)]
pub(crate) enum JobImage {
    /// An image of a run that is not finished.
    Decoded(Image),
    /// File of an image that no session has.
    Png(Bytes),
    /// An image of the session.
    Saved(ContentHash),
}

/// Progress of a job. There are previews only while someone listens, and until the job ends.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    pub(crate) state: JobState,
    /// 0 if the job runs or has ended, else its place in the queue from 1.
    pub(crate) place: usize,
    pub(crate) phase: Option<&'static str>,
    /// Evaluations of the U-Net, over all batches of the run. With most samplers, these are the steps.
    pub(crate) step: usize,
    pub(crate) steps: usize,
    /// Estimates of the images by index, each with the step after which it was made.
    pub(crate) previews: BTreeMap<usize, (usize, Image)>,
    pub(crate) images: Vec<JobImage>,
    /// Index of the round that was added to the session.
    pub(crate) round: Option<usize>,
    pub(crate) error: Option<ApiError>,
}

/// A job. Its progress can be watched by any number of listeners.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: Id,
    pub(crate) session: Id,
    pub(crate) task: Task,
    /// Number of images.
    pub(crate) images: usize,
    is_cancelled: AtomicBool,
    progress: watch::Sender<Progress>,
}

/// A job as the interface shows it.
#[derive(Debug, Serialize)]
pub(crate) struct JobView {
    id: Id,
    session: Id,
    kind: &'static str,
    state: JobState,
    place: usize,
    step: usize,
    steps: usize,
    phase: Option<&'static str>,
    round: Option<usize>,
    images: usize,
    error: Option<ApiError>,
}

impl Job {
    pub(crate) fn new(session: Id, task: Task, images: usize) -> Self {
        let progress = Progress {
            state: JobState::Waiting,
            place: 0,
            phase: None,
            step: 0,
            steps: 0,
            previews: BTreeMap::new(),
            images: Vec::new(),
            round: None,
            error: None,
        };
        let (id, is_cancelled, progress) = (Id::random(), AtomicBool::new(false), watch::Sender::new(progress));
        Self { id, session, task, images, is_cancelled, progress }
    }

    /// Changes the progress and tells all listeners.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(change);
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    pub(crate) fn listen(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Whether someone listens.
    pub(crate) fn is_watched(&self) -> bool {
        self.progress.receiver_count() > 0
    }

    /// Asks a running job to stop, which it does within a step.
    pub(crate) fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }

    /// Tells an observer of the run whether it goes on.
    pub(crate) fn flow(&self) -> ControlFlow<()> {
        if self.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    pub(crate) fn view(&self) -> JobView {
        let Progress { state, place, phase, step, steps, round, error, .. } = self.progress();
        let (kind, round) = match self.task {
            Task::Round => ("round", round),
            Task::Compare { round } => ("compare", Some(round)),
        };
        let (id, session, images) = (self.id, self.session, self.images);
        JobView { id, session, kind, state, place, step, steps, phase, round, images, error }
    }
}
