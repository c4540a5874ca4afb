//! Methods of sessions that generate rounds with a pipeline.

use super::{FeedbackImage, Generation, Observer, Pipeline, Request, Settings};
use crate::session::{FeedbackSession, InitImage, Judged, Round};
use crate::{Error, ImageCondition};

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
    /// image of the session, with new seeds. Anything can be added to it; [`Self::record`] then adds what was made.
    ///
    /// Votes without a reason are references of FABRIC. A vote with a reason is an [`ImageCondition`] of that aspect, with
    /// the strength of the vote as its scale: towards a liked image, away from a disliked one. It needs a pipeline with
    /// an Instruct adapter ([`Pipeline::with_adapter`]).
    ///
    /// # Errors
    ///
    /// Returns an error if `count` is 0, the stored settings are invalid, or the session has no room for the round. The
    /// room is checked with the size in the settings, if they have one.
    pub fn next_request(&mut self, count: usize) -> Result<Request, Error> {
        let settings = self.generation_settings()?;
        if count == 0 {
            return Err(Error::settings("images of a round", 0, "at least 1", "four is the paper's number"));
        }
        if let (Some(width), Some(height)) = (settings.width, settings.height) {
            self.check_room_for(count, width, height)?;
        }
        let mut request = Request::new(self.prompt()).with_settings(settings);
        request.negative_prompt = Some(self.negative_prompt()).filter(|text| !text.is_empty()).map(str::to_owned);
        request.image_conditions = self.image_conditions().to_vec();
        for Judged { image, vote } in self.votes() {
            let (image, strength) = (image.clone(), vote.strength());
            match vote.reason() {
                None => request.feedback.push(FeedbackImage { image, strength }),
                Some(aspect) if strength != 0.0 => {
                    let condition = ImageCondition::new(image).using(aspect.clone()).with_scale(strength.abs());
                    request.image_conditions.push(if strength < 0.0 { condition.away() } else { condition });
                }
                Some(_) => {}
            }
        }
        if let Some(InitImage { image, strength, mask }) = self.init_image().cloned() {
            request = request.with_init_image(image, strength);
            request.mask = mask;
        }
        request.seeds = (0..count).map(|_| self.next_seed()).collect();
        Ok(request)
    }

    /// Adds what was made as a round.
    ///
    /// # Errors
    ///
    /// Returns an error if there are no images, or the session has no room for them. Nothing is added then; the images
    /// are still in `made`.
    pub fn record(&mut self, made: &Generation) -> Result<Round, Error> {
        let report = serde_json::to_value(&made.report).expect("a report is plain data");
        let images = made.images.iter().cloned().zip(made.seeds.iter().copied());
        Ok(self.push_round(images.collect(), report)?)
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
        // Check now: if the room were missing after generating, the images would be lost.
        self.adopt_settings(|| serde_json::to_value(pipeline.recommended_settings()).expect("settings are plain data"));
        let [width, height] = pipeline.size(&Request::new("").with_settings(self.generation_settings()?))?;
        self.check_room_for(count, width, height)?;
        let request = self.next_request(count)?;
        self.record(&pipeline.generate_observed(&request, observer)?)
    }
}
