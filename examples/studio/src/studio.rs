//! The studio: the model, the sessions, and the queue with its worker.

use std::cmp::Reverse;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::StudioError;
use crate::error::{ApiError, ErrorCode};
use crate::ids::Id;
use crate::job::{JobView, Task};
use crate::jobs::Jobs;
use crate::model::{MOST_IMAGES, Model};
use crate::sessions::Sessions;
use crate::timeline::Timeline;
use crate::transfer;
use crate::views::{AttentionView, GalleryImage, ListedSession, SessionView};
use crate::worker;

/// Largest number of clients that listen to events at once.
pub(crate) const MOST_STREAMS: usize = 32;

/// The studio: a model, the sessions of a folder, and a queue of jobs with one worker thread that generates.
///
/// Every change of a session is saved before it is answered. When the studio is dropped, the running job is cancelled.
pub struct Studio {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

/// Parts of the studio that requests and the worker share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) model: Model,
    pub(crate) sessions: Sessions,
    pub(crate) jobs: Jobs,
    /// Permits for listening to events.
    pub(crate) streams: Arc<Semaphore>,
}

/// Order of the images of the gallery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sort {
    /// Best rating first; of equal ratings, the newest.
    Rating,
    /// Newest first.
    #[default]
    New,
}

impl Studio {
    /// Opens the studio with the sessions of a folder, which is created if necessary. At most `queue` jobs, at least
    /// one, wait at once.
    ///
    /// # Errors
    ///
    /// Returns an error if the folder cannot be read or created, another studio uses it, or the system refuses the
    /// worker's thread. Sessions that cannot be read are listed with their error.
    pub fn open(model: Model, folder: impl AsRef<Path>, queue: usize) -> Result<Self, StudioError> {
        let sessions = Sessions::open(folder.as_ref())?;
        let (jobs, streams) = (Jobs::new(queue.max(1)), Arc::new(Semaphore::new(MOST_STREAMS)));
        let shared = Arc::new(Shared { model, sessions, jobs, streams });
        let worker = std::thread::Builder::new().name("studio worker".to_owned()).spawn({
            let shared = shared.clone();
            move || worker::work(&shared)
        })?;
        Ok(Self { shared, worker: Some(worker) })
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl fmt::Debug for Studio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Studio").field("folder", &self.shared.sessions.folder()).finish_non_exhaustive()
    }
}

impl Drop for Studio {
    fn drop(&mut self) {
        self.shared.jobs.close();
        if let Some(worker) = self.worker.take() {
            // The worker catches panics of its jobs, so there is nothing to report.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// All sessions, newest first.
    pub(crate) fn list(&self) -> Vec<ListedSession> {
        let mut sessions: Vec<ListedSession> = self.sessions.list().into_iter().map(ListedSession::new).collect();
        sessions.sort_by_key(|session| Reverse(session.created()));
        sessions
    }

    pub(crate) fn session(&self, id: Id) -> Result<SessionView, ApiError> {
        self.sessions.read(id, |open| Ok(SessionView::new(id, open, self.jobs.unfinished(id))))
    }

    /// Deletes a session that has no unfinished job.
    pub(crate) fn delete(&self, id: Id) -> Result<(), ApiError> {
        self.sessions.delete(id, || {
            let jobs = self.jobs.unfinished(id).len();
            if jobs == 0 {
                return Ok(());
            }
            let (message, next) = ("the session is in use", "cancel its jobs with DELETE /api/jobs/JOB");
            let (expected, got) = ("a session without unfinished jobs", format!("{jobs} unfinished jobs"));
            Err(ApiError::new(ErrorCode::Busy, message, expected, got, next))
        })
    }

    /// Queues the next round of a session.
    pub(crate) fn start_round(&self, id: Id, images: usize) -> Result<JobView, ApiError> {
        if !(1..=MOST_IMAGES).contains(&images) {
            let expected = format!("1 to {MOST_IMAGES}");
            return Err(ApiError::bad_request("number of images of a round", expected, images, "4 is usual"));
        }
        self.sessions.read(id, |open| {
            // What is wrong with the request is told now. The session takes the request's seeds when the job runs.
            self.model.check(&open.session.clone().next_request(&self.model.pipeline, images)?)?;
            Ok(self.jobs.add(id, Task::Round, images)?.view())
        })
    }

    /// Queues a comparison: a round again, without its votes.
    pub(crate) fn start_comparison(&self, id: Id, round: usize) -> Result<JobView, ApiError> {
        self.sessions.read(id, |open| {
            let request = worker::without_votes(open, round)?;
            self.model.check(&request)?;
            Ok(self.jobs.add(id, Task::Compare { round }, request.seeds.len())?.view())
        })
    }

    pub(crate) fn attention(&self, id: Id, round: usize) -> Result<AttentionView, ApiError> {
        self.sessions.read(id, |open| AttentionView::new(open, round))
    }

    /// Times and peak memory of a round.
    pub(crate) fn timeline(&self, id: Id, round: usize) -> Result<Timeline, ApiError> {
        self.sessions.read(id, |open| Ok(Timeline::of(open.round(round)?)))
    }

    /// PNG file of all rounds, with liked images framed in green and disliked ones in red.
    pub(crate) fn sheet(&self, id: Id) -> Result<Vec<u8>, ApiError> {
        // Copied, because drawing takes longer than votes should wait.
        let session = self.sessions.read(id, |open| Ok(open.session.clone()))?;
        if session.rounds().is_empty() {
            return Err(ApiError::unknown_round("none", 0));
        }
        session.contact_sheet().and_then(|sheet| sheet.to_png_bytes()).map_err(|error| {
            let (message, expected) = ("the contact sheet cannot be drawn", "rounds that fit into one image");
            let next = "look at the images one by one, or branch off an earlier round";
            ApiError::new(ErrorCode::TooLarge, message, expected, error, next)
        })
    }

    /// The images of all sessions.
    pub(crate) fn gallery(&self, sort: Sort) -> Vec<GalleryImage> {
        let mut images = Vec::new();
        for (session, about) in self.sessions.list() {
            let summary = about.ok().and_then(|about| about.summary);
            images.extend(summary.into_iter().flat_map(|summary| summary.images).map(|one| GalleryImage {
                session,
                round: one.round,
                image: one.image,
                rating: one.rating,
                liked: one.liked,
                disliked: one.disliked,
                unix_ms: one.unix_ms,
            }));
        }
        images.sort_by_key(|image| Reverse(image.unix_ms));
        if sort == Sort::Rating {
            // Of equal ratings, the newest stays first.
            images.sort_by(|a, b| b.rating.total_cmp(&a.rating));
        }
        images
    }

    /// Packs a session into a zip file.
    pub(crate) fn export(&self, id: Id) -> Result<File, ApiError> {
        self.sessions.with(id, |open, folder| {
            // A session that another program saved has no `studio.json` yet.
            open.about.write(folder)?;
            open.session.remove_unused_images(folder)?;
            transfer::pack(folder, self.sessions.folder())
        })
    }

    /// Adds the session of a zip file. A broken file leaves nothing behind.
    pub(crate) fn import(&self, zip: File) -> Result<SessionView, ApiError> {
        let id = transfer::import(zip, &self.sessions)?;
        self.session(id)
    }
}
