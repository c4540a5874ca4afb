//! Methods of sessions that generate rounds with a pipeline.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{FeedbackImage, Generation, MAX_SEEDS, Observer, Pipeline, Request, Settings};
use crate::session::{FeedbackSession, Judged, MadeWith, Round};
use crate::{Aspect, Error, ImageCondition};

/// The votes of a session as parts of a request.
#[derive(Debug, Default)]
struct Votes {
    image_conditions: Vec<ImageCondition>,
    references: Vec<FeedbackImage>,
}

impl Votes {
    fn of(session: &FeedbackSession, settings: &Settings) -> Self {
        let scales = scales_of_reasons(session.votes(), settings);
        let mut votes = Self::default();
        // In the order of the votes, because the keep policy for references goes by it.
        for (index, judged) in session.votes().iter().enumerate() {
            let strength = judged.vote.strength();
            let Some(aspect) = judged.vote.reason() else {
                votes.references.push(FeedbackImage::new(judged.image.clone(), strength));
                continue;
            };
            let Some(&scale) = scales.get(&index) else { continue };
            let condition = ImageCondition::new(judged.image.clone()).using(aspect.clone()).with_scale(scale);
            // Without a scale it would have no effect, but need an adapter and could need more branches.
            if scale > 0.0 {
                votes.image_conditions.push(if strength < 0.0 { condition.away() } else { condition });
            }
            if let Some(scope) = settings.reasons.references.get(&aspect.kind()) {
                let scope = scope.clone();
                votes.references.push(FeedbackImage { scope, ..FeedbackImage::new(judged.image.clone(), strength) });
            }
        }
        votes
    }
}

/// Returns the scales of the votes with a reason that have an effect, by the index of the vote: those that the keep policy
/// selects, and of these the newest of each aspect.
fn scales_of_reasons(votes: &[Judged], settings: &Settings) -> BTreeMap<usize, f64> {
    let (indices, reasons): (Vec<usize>, Vec<(f64, &Aspect)>) = (votes.iter().enumerate())
        .filter_map(|(index, judged)| Some((index, (judged.vote.strength(), judged.vote.reason()?))))
        .unzip();
    let strengths: Vec<f64> = reasons.iter().map(|(strength, _)| *strength).collect();
    let (indices, reasons): (Vec<usize>, Vec<(f64, &Aspect)>) =
        settings.fabric.keep.select(&strengths).into_iter().map(|at| (indices[at], reasons[at])).unzip();
    let (indices, reasons): (Vec<usize>, Vec<(f64, &Aspect)>) =
        settings.reasons.newest(&reasons).into_iter().map(|at| (indices[at], reasons[at])).unzip();
    indices.into_iter().zip(settings.reasons.scales(&reasons)).collect()
}

/// Generating rounds with a pipeline.
impl FeedbackSession {
    /// Returns the session's generation settings, or the defaults if none were set.
    ///
    /// # Errors
    ///
    /// Returns an error if the stored settings cannot be parsed as [`Settings`] or are invalid.
    pub fn generation_settings(&self) -> Result<Settings, Error> {
        if self.settings().is_null() {
            return Ok(Settings::default());
        }
        let refused =
            |got: String| Error::settings("the session's settings", got, "pipeline settings", "set them again");
        // serde would accept an array as the fields in order, and an empty one as the defaults.
        if !self.settings().is_object() {
            let got = self.settings().to_string();
            return Err(refused(format!("no JSON object: {got:.40}")));
        }
        let settings: Settings =
            serde_json::from_value(self.settings().clone()).map_err(|error| refused(error.to_string()))?;
        settings.validate()?;
        Ok(settings)
    }

    /// Sets the initial generation settings.
    #[must_use]
    pub fn with_generation_settings(self, settings: &Settings) -> Self {
        let settings = serde_json::to_value(settings).expect("settings are plain data");
        self.with_settings(settings)
    }

    /// Returns the request of the next round of `count` images: prompts, settings, votes, image conditions and init
    /// image of the session, with new seeds. Anything can be added to it; [`Self::record`] then adds what was made. A
    /// session without settings takes the recommended settings of the model.
    ///
    /// Votes without a reason are references of FABRIC. A vote with a reason is an [`ImageCondition`] of that aspect,
    /// towards a liked image and away from a disliked one, with a scale by [`Settings::reasons`], and a reference too if
    /// these settings have one for its reason. It needs a pipeline with an adapter that can use the aspect
    /// ([`Pipeline::with_adapter`]). [`FabricSettings::keep`](crate::fabric::FabricSettings::keep) selects among the votes
    /// with a reason, and then among all references, of whichever kind of vote.
    ///
    /// # Errors
    ///
    /// Returns an error if `count` is 0 or above [`MAX_SEEDS`], the stored settings are invalid, a prompt or the
    /// settings are too long for a saved session, or the session has no room for the round.
    pub fn next_request(&mut self, pipeline: &Pipeline, count: usize) -> Result<Request, Error> {
        if count == 0 || count > MAX_SEEDS {
            let (expected, help) = (format!("1 to {MAX_SEEDS}"), "four is the paper's number");
            return Err(Error::settings("images of a round", count, expected, help));
        }
        self.adopt_settings(|| serde_json::to_value(pipeline.recommended_settings()).expect("settings are plain data"));
        self.check_texts()?;
        let mut request = Request::new(self.prompt()).with_settings(self.generation_settings()?);
        // Check now: if the room were missing after generating, the images would be lost.
        let [width, height] = pipeline.size(&request)?;
        self.check_room_for(count, width, height)?;
        request.negative_prompt = Some(self.negative_prompt()).filter(|text| !text.is_empty()).map(str::to_owned);
        request.image_conditions = self.image_conditions().to_vec();
        let votes = Votes::of(self, &request.settings);
        request.image_conditions.extend(votes.image_conditions);
        request.feedback = votes.references;
        request.init_image = self.init_image().cloned();
        request.seeds = (0..count).map(|_| self.next_seed()).collect();
        Ok(request)
    }

    /// Adds what was made with a request as a round. The round has the prompts, settings and images of the request, also
    /// if the session was changed since [`Self::next_request`]; not what was added to it: conditioning, references and
    /// initial noise.
    ///
    /// # Errors
    ///
    /// Returns an error if there are no images, or the session has no room for them. Nothing is added then; the images
    /// are still in `made`.
    pub fn record(&mut self, request: &Request, made: &Generation) -> Result<Round, Error> {
        let plain = |value: Result<Value, _>| value.expect("settings and reports are plain data");
        let made_with = MadeWith {
            prompt: request.prompt.clone(),
            negative_prompt: request.negative_prompt.clone().unwrap_or_default(),
            settings: plain(serde_json::to_value(&request.settings)),
            image_conditions: request.image_conditions.clone(),
            init_image: request.init_image.clone(),
        };
        let report = plain(serde_json::to_value(&made.report));
        Ok(self.push_round_made_with(made.images.clone(), made.seeds.clone(), made_with, report)?)
    }

    /// Generates a round of `count` images with the votes cast so far and adds it to the session. A session without
    /// settings takes the recommended settings of the model.
    ///
    /// # Errors
    ///
    /// Returns an error if the session has no room for the round (checked before generating), or generating fails. No
    /// round is added then, but the round's seeds may be used up.
    pub fn generate(&mut self, pipeline: &Pipeline, count: usize) -> Result<Round, Error> {
        self.generate_observed(pipeline, count, &mut ())
    }

    /// Generates a round and calls `observer` after each evaluation; the observer may cancel.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Self::generate`], and [`Error::Cancelled`] if the observer cancels.
    pub fn generate_observed(
        &mut self,
        pipeline: &Pipeline,
        count: usize,
        observer: &mut dyn Observer,
    ) -> Result<Round, Error> {
        let request = self.next_request(pipeline, count)?;
        self.record(&request, &pipeline.generate_observed(&request, observer)?)
    }
}
