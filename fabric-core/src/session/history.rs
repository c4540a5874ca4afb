//! Steps of a session and the state that follows from them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::limits::{check_prompt, check_settings, check_texts};
use super::{Judged, Round, Vote};
use crate::InitImage;
use crate::image::{ContentHash, Image};
use crate::image_condition::validate_scale;
use crate::init_image::validate_strength;
use crate::window::Window;
use crate::{Aspect, ImageCondition, InvalidValue};

/// One step of a session; can be undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Step {
    /// Images were made. The fields before `images` are what they were made with.
    Round {
        unix_ms: u64,
        prompt: String,
        negative_prompt: String,
        settings: Value,
        image_conditions: Vec<StoredCondition>,
        init_image: Option<StoredInitImage>,
        images: Vec<ContentHash>,
        seeds: Vec<u64>,
        report: Value,
    },
    /// A vote was cast, or all votes on an image were taken back.
    Vote { unix_ms: u64, image: ContentHash, vote: Option<Vote> },
    /// The prompt was changed.
    Prompt { prompt: String },
    /// The negative prompt was changed.
    NegativePrompt { negative_prompt: String },
    /// The generation settings were changed.
    Settings { settings: Value },
    /// The images that steer all rounds were changed.
    ImageConditions { conditions: Vec<StoredCondition> },
    /// The init image was changed or removed.
    InitImage { init_image: Option<StoredInitImage> },
}

/// An [`ImageCondition`] with its image by hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredCondition {
    image: ContentHash,
    aspect: Option<Aspect>,
    scale: f64,
    window: Window,
    away: bool,
}

/// An [`InitImage`] with its images by hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredInitImage {
    image: ContentHash,
    strength: f64,
    mask: Option<ContentHash>,
}

impl StoredCondition {
    pub(super) fn new(condition: &ImageCondition) -> Self {
        let ImageCondition { image, aspect, scale, window, away } = condition;
        let (image, aspect) = (image.content_hash(), aspect.clone());
        Self { image, aspect, scale: *scale, window: *window, away: *away }
    }

    /// Checks scale and aspect.
    fn validate(&self) -> Result<(), InvalidValue> {
        validate_scale(self.scale)?;
        self.aspect.as_ref().map_or(Ok(()), Aspect::validate)
    }

    /// Returns the condition with its image.
    fn with(&self, images: &BTreeMap<ContentHash, Image>) -> ImageCondition {
        let Self { image, aspect, scale, window, away } = self;
        let (image, aspect) = (images[image].clone(), aspect.clone());
        ImageCondition { image, aspect, scale: *scale, window: *window, away: *away }
    }
}

impl StoredInitImage {
    pub(super) fn new(init: &InitImage) -> Self {
        let InitImage { image, strength, mask } = init;
        let mask = mask.as_ref().map(Image::content_hash);
        Self { image: image.content_hash(), strength: *strength, mask }
    }

    /// Checks the strength.
    fn validate(&self) -> Result<(), InvalidValue> {
        validate_strength(self.strength)
    }

    fn images(&self) -> impl Iterator<Item = ContentHash> + use<> {
        [Some(self.image), self.mask].into_iter().flatten()
    }

    /// Returns the init image and its mask.
    fn with(&self, images: &BTreeMap<ContentHash, Image>) -> InitImage {
        let image = |hash: &ContentHash| images[hash].clone();
        InitImage { image: image(&self.image), strength: self.strength, mask: self.mask.as_ref().map(image) }
    }
}

impl Step {
    /// Checks values that JSON allows and a session does not.
    pub(super) fn validate(&self) -> Result<(), InvalidValue> {
        match self {
            Self::Round { prompt, negative_prompt, settings, image_conditions, init_image, .. } => {
                check_texts(prompt, negative_prompt, settings)?;
                image_conditions.iter().try_for_each(StoredCondition::validate)?;
                init_image.as_ref().map_or(Ok(()), StoredInitImage::validate)
            }
            Self::Prompt { prompt } => check_prompt("prompt", prompt),
            Self::NegativePrompt { negative_prompt } => check_prompt("negative prompt", negative_prompt),
            Self::Settings { settings } => check_settings(settings),
            Self::Vote { vote, .. } => vote.as_ref().and_then(Vote::reason).map_or(Ok(()), Aspect::validate),
            Self::ImageConditions { conditions } => conditions.iter().try_for_each(StoredCondition::validate),
            Self::InitImage { init_image } => init_image.as_ref().map_or(Ok(()), StoredInitImage::validate),
        }
    }

    /// The images it refers to.
    pub(super) fn images(&self) -> Vec<ContentHash> {
        match self {
            Self::Round { images, image_conditions, init_image, .. } => {
                let conditions = image_conditions.iter().map(|one| one.image);
                images
                    .iter()
                    .copied()
                    .chain(conditions)
                    .chain(init_image.iter().flat_map(StoredInitImage::images))
                    .collect()
            }
            Self::Vote { image, .. } => vec![*image],
            Self::ImageConditions { conditions } => conditions.iter().map(|one| one.image).collect(),
            Self::InitImage { init_image } => init_image.iter().flat_map(StoredInitImage::images).collect(),
            Self::Prompt { .. } | Self::NegativePrompt { .. } | Self::Settings { .. } => Vec::new(),
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
    /// Current votes, in the order in which they were cast.
    pub(super) judged: Vec<Judged>,
    pub(super) image_conditions: Vec<ImageCondition>,
    pub(super) init_image: Option<InitImage>,
}

impl State {
    pub(super) fn new(prompt: String) -> Self {
        Self {
            prompt,
            negative_prompt: String::new(),
            settings: Value::Null,
            rounds: Vec::new(),
            judged: Vec::new(),
            image_conditions: Vec::new(),
            init_image: None,
        }
    }

    /// Applies one step. `images` must have all images that it refers to.
    /// [`ReplayedVotes`](super::ReplayedVotes) applies many votes at once.
    pub(super) fn apply(&mut self, step: &Step, images: &BTreeMap<ContentHash, Image>) {
        match step {
            Step::Round {
                unix_ms,
                prompt,
                negative_prompt,
                settings,
                image_conditions,
                init_image,
                images: hashes,
                seeds,
                report,
            } => self.rounds.push(Round {
                index: self.rounds.len(),
                prompt: prompt.clone(),
                negative_prompt: negative_prompt.clone(),
                settings: settings.clone(),
                image_conditions: image_conditions.iter().map(|one| one.with(images)).collect(),
                init_image: init_image.as_ref().map(|init| init.with(images)),
                images: hashes.iter().map(|hash| images[hash].clone()).collect(),
                seeds: seeds.clone(),
                unix_ms: *unix_ms,
                report: report.clone(),
            }),
            Step::Vote { image, vote, .. } => {
                let replaces = |old: &Vote| vote.as_ref().is_none_or(|vote| vote.replaces(old));
                self.judged.retain(|judged| judged.image.content_hash() != *image || !replaces(&judged.vote));
                let image = &images[image];
                self.judged.extend(vote.iter().map(|vote| Judged { image: image.clone(), vote: vote.clone() }));
            }
            Step::Prompt { prompt } => self.prompt.clone_from(prompt),
            Step::NegativePrompt { negative_prompt } => self.negative_prompt.clone_from(negative_prompt),
            Step::Settings { settings } => self.settings.clone_from(settings),
            Step::ImageConditions { conditions } => {
                self.image_conditions = conditions.iter().map(|one| one.with(images)).collect();
            }
            Step::InitImage { init_image } => self.init_image = init_image.as_ref().map(|init| init.with(images)),
        }
    }
}
