//! A simulated person who knows what it wants.

use fabric::core::session::{BestAndWorst, FeedbackSource, Round, Vote};

use crate::{Judge, Named, WorldError, parse_caption};

/// Simulated person: likes the image of a round that matches a caption best and dislikes the one that matches it worst.
#[derive(Debug)]
pub struct Person {
    wanted: Named,
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
        Ok(Self { wanted, judge, shares: Vec::new() })
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
        BestAndWorst::new(|_, _| Ok(shares.next().unwrap_or_default())).judge(round)
    }
}
