//! Server-sent events of a job.
//!
//! A listener compares the progress of the job with what it has sent already. So it needs no memory for events that a
//! slow client has not read yet, and a client that comes late learns the same as one that listened from the beginning.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;

use axum::response::sse::Event;
use futures_util::stream::{self, Stream};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::job::{Job, JobState, Progress};

/// Returns the events of a job until it ends. The permit is held as long as the client listens.
pub(crate) fn events(
    job: &Arc<Job>,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> + Send + use<> {
    let mut progress = job.listen();
    // The current progress is the first change.
    progress.mark_changed();
    let first = event("state", &json!(job.view()));
    let listener =
        Listener { progress, told: Told::default(), pending: VecDeque::from([first]), ended: false, _permit: permit };
    stream::unfold(listener, |mut listener| async move {
        let event = listener.next().await?;
        Some((Ok(event), listener))
    })
}

struct Listener {
    progress: watch::Receiver<Progress>,
    told: Told,
    pending: VecDeque<Event>,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

/// Progress that the client knows.
#[derive(Default)]
struct Told {
    place: Option<usize>,
    phase: Option<&'static str>,
    step: usize,
    /// Step of the last preview of each image.
    previews: BTreeMap<usize, usize>,
    images: usize,
}

impl Listener {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            self.progress.changed().await.ok()?;
            let progress = self.progress.borrow_and_update().clone();
            self.ended = !matches!(progress.state, JobState::Waiting | JobState::Running);
            self.pending.extend(self.told.news(&progress));
        }
    }
}

impl Told {
    /// Returns the events that lead from what the client knows to this progress.
    fn news(&mut self, progress: &Progress) -> Vec<Event> {
        let mut news = Vec::new();
        if self.place != Some(progress.place) {
            self.place = Some(progress.place);
            news.push(event("place", &json!({ "place": progress.place })));
        }
        if self.phase != progress.phase {
            self.phase = progress.phase;
            news.push(event("phase", &json!({ "phase": progress.phase })));
        }
        if self.step != progress.step {
            self.step = progress.step;
            news.push(event("step", &json!({ "step": progress.step, "steps": progress.steps })));
        }
        for (&image, &(step, _)) in &progress.previews {
            if self.previews.insert(image, step) != Some(step) {
                news.push(event("preview", &json!({ "image": image, "step": step })));
            }
        }
        let images = self.images..progress.images.len();
        self.images = images.end;
        news.extend(images.map(|image| event("image", &json!({ "image": image }))));
        match progress.state {
            JobState::Waiting | JobState::Running => {}
            JobState::Done => news.push(event("done", &json!({ "round": progress.round }))),
            JobState::Failed => news.push(event("failed", &json!({ "error": progress.error }))),
            JobState::Cancelled => news.push(event("cancelled", &json!({}))),
        }
        news
    }
}

fn event(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}
