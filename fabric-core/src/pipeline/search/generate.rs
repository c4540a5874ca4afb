//! Generation of the images of a round.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::SettingsSearch;
use crate::Error;
use crate::image::Image;
use crate::pipeline::{Generation, Observer, Pipeline, Report, Request};
use crate::session::Round;

/// Generating rounds with a pipeline.
impl SettingsSearch {
    /// Generates the images of the round that was not judged yet, one for each candidate.
    ///
    /// In the result, [`Round::settings`] and [`Round::report`] are arrays with an entry for each image; the image
    /// conditions and the init image are those of the base request. The search does not change, so after an error the
    /// same images can be generated again.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Self::requests`], before any image is made, and those of [`Pipeline::generate`].
    pub fn generate(&self, pipeline: &Pipeline, base: &Request) -> Result<Round, Error> {
        self.generate_observed(pipeline, base, &mut ())
    }

    /// Generates the images of the round that was not judged yet and calls `observer` after each evaluation; the
    /// observer may cancel. Each candidate is a run of its own for the observer, with one image.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Self::generate`], and [`Error::Cancelled`] with the images that were finished.
    pub fn generate_observed(
        &self,
        pipeline: &Pipeline,
        base: &Request,
        observer: &mut dyn Observer,
    ) -> Result<Round, Error> {
        let requests = self.requests(base)?;
        let mut made: Vec<(Image, u64)> = Vec::with_capacity(requests.len());
        let mut reports = Vec::with_capacity(requests.len());
        for request in &requests {
            match pipeline.generate_observed(request, observer) {
                Ok(Generation { images, seeds, report, .. }) => {
                    made.extend(images.into_iter().zip(seeds));
                    reports.push(report);
                }
                Err(Error::Cancelled { step, steps, finished }) => {
                    made.extend(finished);
                    return Err(Error::Cancelled { step, steps, finished: made });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.round(base, &requests, made, &reports))
    }

    /// Returns the round of these images, which were made with these requests.
    pub(super) fn round(
        &self,
        base: &Request,
        requests: &[Request],
        made: Vec<(Image, u64)>,
        reports: &[Report],
    ) -> Round {
        let plain = |value: Result<Value, _>| value.expect("settings and reports are plain data");
        let (images, seeds) = made.into_iter().unzip();
        let settings: Vec<Value> = requests.iter().map(|one| plain(serde_json::to_value(&one.settings))).collect();
        Round {
            index: self.rounds().saturating_sub(1) as usize,
            prompt: base.prompt.clone(),
            negative_prompt: base.negative_prompt.clone().unwrap_or_default(),
            settings: settings.into(),
            image_conditions: base.image_conditions.clone(),
            init_image: base.init_image.clone(),
            images,
            seeds,
            unix_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64),
            report: plain(serde_json::to_value(reports)),
        }
    }
}
