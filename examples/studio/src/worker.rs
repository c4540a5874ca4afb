//! The thread that generates: one job after another, without holding the lock of a session meanwhile.

use std::ops::ControlFlow;

use fabric::backends::catch_panic;
use fabric::core::Error;
use fabric::core::image::Image;
use fabric::core::pipeline::{Generation, Observer, Phase, PhaseEvent, Request, Settings, StepEvent};

use crate::error::ApiError;
use crate::ids::Id;
use crate::job::{Job, JobImage, Task};
use crate::jobs::Outcome;
use crate::made_with::MadeWith;
use crate::model::MOST_IMAGES;
use crate::peak_memory::PeakMemory;
use crate::studio::Shared;
use crate::studio_session::StudioSession;
use crate::timeline;

/// Number of previews of a run.
const PREVIEWS: usize = 8;

/// Generates jobs until the queue ends.
pub(crate) fn work(shared: &Shared) {
    while let Some(job) = shared.jobs.next() {
        let result = catch_panic(|| match job.task {
            Task::Round => round(shared, &job),
            Task::Compare { round } => compare(shared, &job, round),
        });
        shared.jobs.finish(&job, result.unwrap_or_else(|message| Err(ApiError::internal(message))));
    }
}

/// Generates the next round of a session and adds it.
fn round(shared: &Shared, job: &Job) -> Result<Outcome, ApiError> {
    // The new seeds are saved before they are used, so that no other round gets them.
    let (request, made_with) = shared.sessions.change(job.session, |open| {
        let made_with = MadeWith::next_of(&open.session);
        let request = open.session.next_request(&shared.model.pipeline, job.images)?;
        shared.model.check(&request)?;
        Ok((request, made_with))
    })?;
    let memory = PeakMemory::start();
    let Some(made) = generate(shared, job, &request)? else { return Ok(Outcome::Cancelled) };
    let peak = memory.bytes();
    save_images(shared, job.session, &request, &made);
    let round = shared.sessions.change(job.session, |open| {
        let round = open.session.record(&request, &made)?;
        open.session.set_report(timeline::noted_in(made_with.noted_in(round.report), peak));
        Ok(round.index)
    })?;
    Ok(Outcome::Round(round, made.images.iter().map(|image| JobImage::Saved(image.content_hash())).collect()))
}

/// Generates a round again without its votes.
fn compare(shared: &Shared, job: &Job, round: usize) -> Result<Outcome, ApiError> {
    let request = shared.sessions.read(job.session, |open| without_votes(open, round))?;
    shared.model.check(&request)?;
    let Some(made) = generate(shared, job, &request)? else { return Ok(Outcome::Cancelled) };
    let png = |index: usize, image: &Image| match made.metadata(&request, index) {
        Ok(metadata) => image.to_png_bytes_with_metadata(&metadata).map_err(ApiError::internal),
        Err(error) => Err(ApiError::internal(error)),
    };
    let images = made.images.iter().enumerate().map(|(index, image)| png(index, image));
    let images = images.map(|file| file.map(|bytes| JobImage::Png(bytes.into())));
    Ok(Outcome::Images(images.collect::<Result<_, _>>()?))
}

/// Returns the request of a round without the votes that it was made with.
pub(crate) fn without_votes(open: &StudioSession, index: usize) -> Result<Request, ApiError> {
    let round = open.round(index)?;
    if round.seeds.is_empty() {
        let (message, next) = ("the round cannot be generated again", "choose a round that the studio made");
        return Err(ApiError::bad_request(message, "a round with seeds", "images from elsewhere", next));
    }
    if round.seeds.len() > MOST_IMAGES {
        let (message, expected) = ("the round cannot be generated again", format!("at most {MOST_IMAGES} images"));
        return Err(ApiError::bad_request(message, expected, round.seeds.len(), "choose a smaller round"));
    }
    let settings: Settings = serde_json::from_value(round.settings.clone()).map_err(ApiError::broken_session)?;
    let mut request = Request::new(&round.prompt).with_seeds(round.seeds.iter().copied()).with_settings(settings);
    request.negative_prompt = Some(round.negative_prompt.clone()).filter(|text| !text.is_empty());
    let conditions = MadeWith::of_rounds(&open.session).get(index).map_or(0, |made_with| made_with.conditions);
    request.image_conditions = round.image_conditions.iter().take(conditions).cloned().collect();
    request.init_image.clone_from(&round.init_image);
    Ok(request)
}

/// Runs a request. `None` is a cancelled run.
fn generate(shared: &Shared, job: &Job, request: &Request) -> Result<Option<Generation>, ApiError> {
    match shared.model.pipeline.generate_observed(request, &mut Watcher { job }) {
        // A job that was cancelled after its last step adds nothing either.
        Ok(made) => Ok(Some(made).filter(|_| !job.is_cancelled())),
        Err(Error::Cancelled { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Saves the images of a round with metadata. The session keeps files that it finds and writes those that are missing,
/// so a failure here costs the metadata alone.
fn save_images(shared: &Shared, session: Id, request: &Request, made: &Generation) {
    for (index, image) in made.images.iter().enumerate() {
        let path = shared.sessions.image_path(session, image.content_hash());
        if let Ok(metadata) = made.metadata(request, index)
            && !path.exists()
        {
            let _ = image.save_with_metadata(path, &metadata);
        }
    }
}

/// Observer that notes the progress of a job and stops the run when the job is cancelled.
struct Watcher<'a> {
    job: &'a Job,
}

impl Observer for Watcher<'_> {
    fn phase(&mut self, event: &PhaseEvent) -> ControlFlow<()> {
        self.job.update(|progress| progress.phase = Some(name(event.phase)));
        self.job.flow()
    }

    fn image(&mut self, _index: usize, image: &Image) {
        self.job.update(|progress| progress.images.push(JobImage::Decoded(image.clone())));
    }

    fn step(&mut self, event: &StepEvent<'_>) -> ControlFlow<()> {
        let (step, steps) = (event.evaluation, event.evaluations);
        let is_due = step.is_multiple_of((steps / PREVIEWS).max(1)) && self.job.is_watched();
        // What is wrong with the latents is the error of the run.
        let previews = if is_due { event.preview().unwrap_or_default() } else { Vec::new() };
        self.job.update(|progress| {
            (progress.step, progress.steps) = (step, steps);
            let previews = event.images.clone().zip(previews.into_iter().map(|image| (step, image)));
            progress.previews.extend(previews);
        });
        self.job.flow()
    }
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Conditioning => "conditioning",
        Phase::Text => "text",
        Phase::Encoding => "encoding",
        Phase::Denoising => "denoising",
        Phase::Decoding => "decoding",
        _ => "other",
    }
}
