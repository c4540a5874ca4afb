//! The rounds of a session whose first one may be from a corpus.

use fabric::core::InvalidValue;
use fabric::core::image::Image;
use fabric::core::pipeline::{Pipeline, Request};
use fabric::core::session::{FeedbackSession, Vote};
use serde_json::json;

use super::{Drawings, FirstRound};
use crate::round_maker::{Made, RoundMaker, session_of};
use crate::{Arm, ExperimentError, ImageOrigin, Subject};

/// Session of a person who votes on a first round of found or of generated images.
///
/// It is the library's own [`FeedbackSession`], so its requests are those that users get. Where all scores of a round
/// are equal, nobody votes, as with [`BestAndWorst`](fabric::core::session::BestAndWorst).
#[derive(Debug)]
pub(crate) struct CandidateSession<'a> {
    arm: &'a Arm,
    /// Drawings that the first round is from; `None` if it is generated.
    drawings: Option<&'a Drawings>,
    session: FeedbackSession,
}

impl<'a> CandidateSession<'a> {
    /// Creates the session of an arm without rounds. `base` has the prompts and the settings.
    ///
    /// # Errors
    ///
    /// Returns an error if the first round is from a corpus, and the subject lacks this corpus.
    pub(crate) fn new(
        subject: &'a dyn Subject,
        arm: &'a Arm,
        first_round: &FirstRound,
        base: &Request,
    ) -> Result<Self, ExperimentError> {
        let drawings = match first_round {
            FirstRound::Generated => None,
            FirstRound::Corpus { drawings } => Some(drawings_of(subject, arm, *drawings)?),
        };
        Ok(Self { arm, drawings, session: session_of(base) })
    }
}

/// Returns the corpus of an arm.
fn drawings_of<'a>(subject: &'a dyn Subject, arm: &Arm, count: usize) -> Result<&'a Drawings, ExperimentError> {
    let found = subject.small_world().and_then(|world| world.drawings(count));
    found.ok_or_else(|| {
        let expected = format!("the small world with a corpus of {count} drawings");
        let help = "draw the corpora of the arms with the model";
        InvalidValue::new(format!("arm {}", arm.name), "a subject without it", expected, help).into()
    })
}

impl RoundMaker for CandidateSession<'_> {
    fn make(&mut self, pipeline: &Pipeline, round: usize, base: Request) -> Result<Made, ExperimentError> {
        if let Some(drawings) = self.drawings.filter(|_| round == 0) {
            let (images, files): (Vec<Image>, Vec<String>) =
                drawings.nearest(self.session.prompt(), base.seeds.len())?.into_iter().unzip();
            let source = json!({ "corpus": files });
            self.session.push_candidates(images.clone(), source).map_err(fabric::core::Error::from)?;
            let origins = files.into_iter().map(ImageOrigin::Corpus).collect();
            return Ok(Made { images, origins, report: None });
        }
        let request = self.session.next_request(pipeline, base.seeds.len())?.with_seeds(base.seeds);
        let made = pipeline.generate(&request)?;
        self.session.record(&request, &made)?;
        Ok(Made::of(made))
    }

    fn judge(
        &mut self,
        made: &Made,
        _scores: &[f64],
        [best, worst]: [usize; 2],
    ) -> Result<Vec<(usize, Vote)>, ExperimentError> {
        if best != worst {
            let likes = (best, Vote::LIKE, self.arm.likes);
            let dislikes = (worst, Vote::DISLIKE, self.arm.dislikes);
            for (image, vote, _) in [likes, dislikes].into_iter().filter(|(_, _, is_cast)| *is_cast) {
                self.session.vote(&made.images[image], vote).map_err(fabric::core::Error::from)?;
            }
        }
        Ok(Vec::new())
    }
}
