//! Votes on the images of a round, from the command line.

use clap::Args;
use fabric::core::Aspect;
use fabric::core::session::Vote;

/// Number of images of the round that is voted on.
pub(crate) const IMAGES: usize = 4;

/// Options for votes on the images of a round.
#[derive(Args)]
pub(crate) struct Votes {
    /// Image of the first round to like, 1 to 4, and what is liked of it, for example 2:colour. Without a reason, it is
    /// a plain vote. Repeat the option for several votes.
    #[arg(long, value_name = "IMAGE:REASON", value_parser = like)]
    like: Vec<(usize, Vote)>,
    /// Image of the first round to dislike, 1 to 4, and what is disliked of it, for example 1:background. Without a
    /// reason, it is a plain vote. Repeat the option for several votes.
    #[arg(long, value_name = "IMAGE:REASON", value_parser = dislike)]
    dislike: Vec<(usize, Vote)>,
}

impl Votes {
    /// Returns all votes, likes first, each with the index of its image.
    pub(crate) fn all(&self) -> Vec<(usize, Vote)> {
        [self.like.as_slice(), self.dislike.as_slice()].concat()
    }

    /// Returns a label for each image: its number, and whether it is liked, disliked or both.
    pub(crate) fn labels(&self) -> Vec<String> {
        let has = |votes: &[(usize, Vote)], index: usize| votes.iter().any(|(voted, _)| *voted == index);
        let word = |index: usize| match (has(&self.like, index), has(&self.dislike, index)) {
            (true, true) => "both",
            (true, false) => "like",
            (false, true) => "dislike",
            (false, false) => "image",
        };
        (0..IMAGES).map(|index| format!("{} {}", word(index), index + 1)).collect()
    }
}

fn like(text: &str) -> Result<(usize, Vote), String> {
    vote(text, Vote::LIKE)
}

fn dislike(text: &str) -> Result<(usize, Vote), String> {
    vote(text, Vote::DISLIKE)
}

/// Parses the number of an image, with or without the reason of the vote on it: 2 or 2:colour.
fn vote(text: &str, plain: Vote) -> Result<(usize, Vote), String> {
    let (number, vote) = match text.split_once(':') {
        Some((number, reason)) => (number, plain.because(reason)),
        None => (text, plain),
    };
    vote.reason().map_or(Ok(()), Aspect::validate).map_err(|error| error.to_string())?;
    match number.parse::<usize>() {
        Ok(number @ 1..=IMAGES) => Ok((number - 1, vote)),
        _ => Err(format!("expected an image from 1 to {IMAGES}, with or without a reason (2:colour), got {text}")),
    }
}
