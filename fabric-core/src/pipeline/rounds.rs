//! Methods of sessions that generate rounds with a pipeline.

use super::{FeedbackImage, Observer, Pipeline, Request, Settings};
use crate::Error;
use crate::session::{FeedbackSession, Round};

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

    /// Generates a round of `count` images with the votes cast so far and adds it to the session.
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
        let settings = self.generation_settings()?;
        if count == 0 {
            return Err(Error::settings("images of a round", 0, "at least 1", "four is the paper's number"));
        }
        let votes = self.votes().iter();
        let feedback = votes
            .map(|judged| FeedbackImage { image: judged.image.clone(), strength: judged.vote.strength() })
            .collect();
        let mut request = Request {
            negative_prompt: Some(self.negative_prompt()).filter(|text| !text.is_empty()).map(str::to_owned),
            feedback,
            ..Request::new(self.prompt()).with_settings(settings)
        };
        // Check now: if the room were missing after generating, the images would be lost.
        let [width, height] = pipeline.size(&request)?;
        self.check_room_for(count, width, height)?;
        request.seeds = (0..count).map(|_| self.next_seed()).collect();
        let made = pipeline.generate_observed(&request, observer)?;
        let report = serde_json::to_value(&made.report).expect("a report is plain data");
        Ok(self.push_round(made.images.into_iter().zip(made.seeds).collect(), report)?)
    }
}
