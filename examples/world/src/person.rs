//! A simulated person who knows what it wants.

use fabric::core::session::{BestAndWorst, FeedbackSource, Round, Vote};

use crate::{Judge, Named, Reasons, WorldError, parse_caption};

/// Simulated person: likes the image of a round that matches a caption best and dislikes the one that matches it worst,
/// with or without reasons.
#[derive(Debug)]
pub struct Person {
    wanted: Named,
    reasons: Reasons,
    judge: Judge,
    shares: Vec<f64>,
}

impl Person {
    /// Creates a person who wants what a caption says and judges images with these readers.
    ///
    /// # Errors
    ///
    /// Returns an error if the caption names nothing of this world.
    pub fn new(caption: &str, judge: Judge) -> Result<Self, WorldError> {
        let wanted = parse_caption(caption);
        if wanted.attributes().next().is_none() {
            return Err(WorldError::Caption { got: caption.chars().take(80).collect() });
        }
        Ok(Self { wanted, reasons: Reasons::None, judge, shares: Vec::new() })
    }

    /// Sets the reasons that the person gives. With reasons, the image that is liked gets a like for each aspect that is
    /// right, and the one that is disliked a dislike for each aspect that is wrong ([`Reasons::to_like`]).
    #[must_use]
    pub fn with_reasons(self, reasons: Reasons) -> Self {
        Self { reasons, ..self }
    }

    /// Returns the shares of what is wanted that the images of the last judged round show, from 0 to 1.
    #[must_use]
    pub fn shares(&self) -> &[f64] {
        &self.shares
    }
}

impl FeedbackSource for Person {
    fn judge(&mut self, round: &Round) -> Result<Vec<(usize, Vote)>, fabric::core::Error> {
        let seen = self.judge.read(&round.images)?;
        self.shares = seen.iter().map(|seen| self.wanted.agreement(seen)).collect();
        let mut shares = self.shares.iter().copied();
        let votes = BestAndWorst::new(|_, _| Ok(shares.next().unwrap_or_default())).judge(round)?;
        if self.reasons == Reasons::None {
            return Ok(votes);
        }
        let explained = |(index, vote): (usize, Vote)| {
            let reasons = if vote.strength() > 0.0 {
                self.reasons.to_like(&self.wanted, &seen[index])
            } else {
                self.reasons.to_dislike(&self.wanted, &seen[index])
            };
            reasons.into_iter().map(move |reason| (index, vote.clone().because(reason)))
        };
        Ok(votes.into_iter().flat_map(explained).collect())
    }
}
