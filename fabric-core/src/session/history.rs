//! Steps of a session and the state that follows from them.

use std::collections::BTreeMap;
use std::slice;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Judged, Round, Vote};
use crate::image::{ContentHash, Image};

/// One step of a session; can be undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Step {
    /// Images were made.
    Round { unix_ms: u64, images: Vec<ContentHash>, seeds: Vec<u64>, report: Value },
    /// A vote was cast, or taken back.
    Vote { unix_ms: u64, image: ContentHash, vote: Option<Vote> },
    /// The prompt was changed.
    Prompt { prompt: String },
    /// The negative prompt was changed.
    NegativePrompt { negative_prompt: String },
    /// The generation settings were changed.
    Settings { settings: Value },
}

impl Step {
    /// The images it refers to.
    pub(super) fn images(&self) -> &[ContentHash] {
        match self {
            Self::Round { images, .. } => images,
            Self::Vote { image, .. } => slice::from_ref(image),
            Self::Prompt { .. } | Self::NegativePrompt { .. } | Self::Settings { .. } => &[],
        }
    }
}

/// State of a session after a number of steps.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct State {
    pub(super) prompt: String,
    pub(super) negative_prompt: String,
    pub(super) settings: Value,
    pub(super) rounds: Vec<Round>,
    /// Current votes, one per image, in the order in which they were cast.
    pub(super) judged: Vec<Judged>,
}

impl State {
    pub(super) fn new(prompt: String) -> Self {
        Self { prompt, negative_prompt: String::new(), settings: Value::Null, rounds: Vec::new(), judged: Vec::new() }
    }

    /// Applies one step. `images` must have all images that it refers to.
    pub(super) fn apply(&mut self, step: &Step, images: &BTreeMap<ContentHash, Image>) {
        match step {
            Step::Round { unix_ms, images: hashes, seeds, report } => self.rounds.push(Round {
                index: self.rounds.len(),
                prompt: self.prompt.clone(),
                negative_prompt: self.negative_prompt.clone(),
                settings: self.settings.clone(),
                images: hashes.iter().map(|hash| images[hash].clone()).collect(),
                seeds: seeds.clone(),
                unix_ms: *unix_ms,
                report: report.clone(),
            }),
            Step::Vote { image, vote, .. } => {
                self.judged.retain(|judged| judged.image.content_hash() != *image);
                let image = &images[image];
                self.judged.extend(vote.iter().map(|vote| Judged { image: image.clone(), vote: vote.clone() }));
            }
            Step::Prompt { prompt } => self.prompt.clone_from(prompt),
            Step::NegativePrompt { negative_prompt } => self.negative_prompt.clone_from(negative_prompt),
            Step::Settings { settings } => self.settings.clone_from(settings),
        }
    }
}
