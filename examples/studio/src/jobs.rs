//! The queue of jobs, which one worker takes one after another, and the jobs that finished last.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::error::{ApiError, ErrorCode};
use crate::ids::Id;
use crate::job::{Job, JobImage, JobState, Progress, Task};
use crate::lock;

/// Number of finished jobs that are kept.
const MOST_FINISHED: usize = 64;

/// Result of a job.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The round with this index was added to the session, with these images.
    Round(usize, Vec<JobImage>),
    /// Images that belong to no session.
    Images(Vec<JobImage>),
    /// The job was cancelled.
    Cancelled,
}

/// All jobs.
#[derive(Debug)]
pub(crate) struct Jobs {
    queue: Mutex<Queue>,
    /// Wakes the worker.
    wake: Condvar,
    /// Largest number of waiting jobs.
    pub(crate) limit: usize,
}

#[derive(Debug, Default)]
struct Queue {
    all: HashMap<Id, Arc<Job>>,
    waiting: VecDeque<Arc<Job>>,
    running: Option<Arc<Job>>,
    finished: VecDeque<Id>,
    is_closed: bool,
}

impl Jobs {
    pub(crate) fn new(limit: usize) -> Self {
        Self { queue: Mutex::default(), wake: Condvar::new(), limit }
    }

    /// Puts a job at the end of the queue.
    ///
    /// A session has at most one unfinished round, because the next one needs the votes on it.
    pub(crate) fn add(&self, session: Id, task: Task, images: usize) -> Result<Arc<Job>, ApiError> {
        let mut queue = lock(&self.queue);
        if task == Task::Round && queue.unfinished(session).any(|job| job.task == Task::Round) {
            let (message, expected) = ("a round of this session is unfinished", "one unfinished round of a session");
            let next = "wait for it, or cancel it with DELETE /api/jobs/JOB";
            return Err(ApiError::new(ErrorCode::Busy, message, expected, "a second one", next));
        }
        if queue.waiting.len() >= self.limit {
            let expected = format!("at most {} waiting jobs", self.limit);
            let next = "wait until a job has finished, or start the studio with a larger --queue";
            return Err(ApiError::new(ErrorCode::QueueFull, "the queue is full", expected, "one more", next));
        }
        let job = Arc::new(Job::new(session, task, images));
        queue.all.insert(job.id, job.clone());
        queue.waiting.push_back(job.clone());
        queue.number();
        self.wake.notify_one();
        Ok(job)
    }

    /// Waits for the next job. `None` is the end of the queue.
    pub(crate) fn next(&self) -> Option<Arc<Job>> {
        let mut queue = lock(&self.queue);
        while !queue.is_closed {
            if let Some(job) = queue.waiting.pop_front() {
                queue.running = Some(job.clone());
                job.update(|progress| (progress.state, progress.place) = (JobState::Running, 0));
                queue.number();
                return Some(job);
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// Notes the result of the running job.
    pub(crate) fn finish(&self, job: &Arc<Job>, result: Result<Outcome, ApiError>) {
        let mut queue = lock(&self.queue);
        queue.running = None;
        queue.end(job, |progress| match result {
            Ok(Outcome::Round(round, images)) => {
                (progress.state, progress.round, progress.images) = (JobState::Done, Some(round), images);
            }
            Ok(Outcome::Images(images)) => (progress.state, progress.images) = (JobState::Done, images),
            Ok(Outcome::Cancelled) => progress.state = JobState::Cancelled,
            Err(error) => (progress.state, progress.error) = (JobState::Failed, Some(error)),
        });
    }

    /// Cancels a job. A waiting one ends at once, a running one within a step, and a finished one stays as it is.
    pub(crate) fn cancel(&self, id: Id) -> Result<Arc<Job>, ApiError> {
        let mut queue = lock(&self.queue);
        let job = queue.all.get(&id).cloned().ok_or_else(|| ApiError::unknown_job(id))?;
        job.cancel();
        let before = queue.waiting.len();
        queue.waiting.retain(|waiting| waiting.id != id);
        if queue.waiting.len() < before {
            queue.end(&job, |progress| progress.state = JobState::Cancelled);
            queue.number();
        }
        Ok(job)
    }

    pub(crate) fn get(&self, id: Id) -> Result<Arc<Job>, ApiError> {
        lock(&self.queue).all.get(&id).cloned().ok_or_else(|| ApiError::unknown_job(id))
    }

    /// Ids of the unfinished jobs of a session.
    pub(crate) fn unfinished(&self, session: Id) -> Vec<Id> {
        lock(&self.queue).unfinished(session).map(|job| job.id).collect()
    }

    /// Ends the queue: waiting jobs are cancelled, and the running one is asked to stop.
    pub(crate) fn close(&self) {
        let mut queue = lock(&self.queue);
        queue.is_closed = true;
        for job in std::mem::take(&mut queue.waiting) {
            queue.end(&job, |progress| progress.state = JobState::Cancelled);
        }
        if let Some(running) = &queue.running {
            running.cancel();
        }
        self.wake.notify_all();
    }
}

impl Queue {
    fn unfinished(&self, session: Id) -> impl Iterator<Item = &Arc<Job>> {
        self.running.iter().chain(&self.waiting).filter(move |job| job.session == session)
    }

    /// Tells each waiting job its place, from 1.
    fn number(&self) {
        for (index, job) in self.waiting.iter().enumerate() {
            job.update(|progress| progress.place = index + 1);
        }
    }

    /// Ends a job with what `change` keeps of it, and forgets the one that ended first if there are too many.
    fn end(&mut self, job: &Arc<Job>, change: impl FnOnce(&mut Progress)) {
        job.update(|progress| {
            progress.previews.clear();
            progress.images.clear();
            progress.place = 0;
            change(progress);
        });
        self.finished.push_back(job.id);
        if self.finished.len() > MOST_FINISHED
            && let Some(oldest) = self.finished.pop_front()
        {
            self.all.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use fabric::core::image::Image;

    use super::*;

    #[test]
    fn a_cancelled_job_is_unfinished_until_the_worker_ends_it() {
        let (jobs, session) = (Jobs::new(2), Id::random());
        let first = jobs.add(session, Task::Round, 1).expect("a job");
        let second = jobs.add(session, Task::Compare { round: 0 }, 1).expect("a job");
        let places = || [first.progress().place, second.progress().place];
        assert_eq!(places(), [1, 2]);
        let running = jobs.next().expect("the first job");
        assert_eq!(places(), [0, 1]);
        jobs.cancel(first.id).expect("the job");
        assert!(running.is_cancelled() && running.progress().state == JobState::Running);
        assert_eq!(jobs.unfinished(session), [first.id, second.id]);
        jobs.finish(&running, Ok(Outcome::Cancelled));
        jobs.cancel(first.id).expect("the job");
        assert_eq!(first.progress().state, JobState::Cancelled);
        assert_eq!((jobs.unfinished(session), places()), (vec![second.id], [0, 1]));
    }

    #[test]
    fn a_job_without_a_result_keeps_no_images() {
        let (jobs, image) = (Jobs::new(1), Image::filled(4, 4, [1, 2, 3]).expect("an image"));
        for result in [Ok(Outcome::Cancelled), Err(ApiError::internal("no memory"))] {
            jobs.add(Id::random(), Task::Round, 1).expect("a job");
            let job = jobs.next().expect("the job");
            job.update(|progress| progress.images.push(JobImage::Decoded(image.clone())));
            jobs.finish(&job, result);
            assert!(job.progress().images.is_empty());
        }
    }
}
