//! Sessions as the interface shows them.

use fabric::core::image::{ContentHash, Image};
use fabric::core::pipeline::{Report, Settings, Window};
use fabric::core::session::Round;
use fabric::core::{Aspect, ImageCondition, InitImage};
use serde::Serialize;
use serde_json::Value;

use crate::about::{About, Parent};
use crate::error::{ApiError, ErrorCode};
use crate::ids::Id;
use crate::made_with::{MadeWith, VoteRecord, votes};
use crate::studio_session::StudioSession;
use crate::timeline::Timeline;

/// A session in the list.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ListedSession {
    id: String,
    title: String,
    prompt: String,
    rounds: usize,
    votes: usize,
    created: u64,
    cover: Option<ContentHash>,
    error: Option<String>,
}

/// An image in the gallery.
#[derive(Debug, Serialize)]
pub(crate) struct GalleryImage {
    pub(crate) session: Id,
    pub(crate) round: usize,
    pub(crate) image: ContentHash,
    pub(crate) rating: f64,
    pub(crate) liked: bool,
    pub(crate) disliked: bool,
    #[serde(skip)]
    pub(crate) unix_ms: u64,
}

/// A session.
#[derive(Debug, Serialize)]
pub(crate) struct SessionView {
    id: Id,
    title: String,
    created: u64,
    parent: Option<Parent>,
    prompt: String,
    negative_prompt: String,
    settings: Value,
    seed: u64,
    can_undo: bool,
    can_redo: bool,
    rounds: Vec<RoundView>,
    votes: Vec<VoteRecord>,
    conditions: Vec<ConditionView>,
    init_image: Option<InitImageView>,
    /// Unfinished jobs.
    jobs: Vec<Id>,
}

#[derive(Debug, Serialize)]
struct RoundView {
    index: usize,
    prompt: String,
    negative_prompt: String,
    settings: Value,
    images: Vec<ContentHash>,
    seeds: Vec<u64>,
    notes: Vec<String>,
    made_with: MadeWithView,
    /// Time that generating took, to a thousandth.
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct MadeWithView {
    liked: Vec<ContentHash>,
    disliked: Vec<ContentHash>,
    conditions: Vec<ConditionView>,
}

#[derive(Debug, Serialize)]
struct ConditionView {
    image: ContentHash,
    aspect: Option<Aspect>,
    scale: f64,
    window: Window,
    away: bool,
}

#[derive(Debug, Serialize)]
struct InitImageView {
    image: ContentHash,
    strength: f64,
    mask: Option<ContentHash>,
}

/// Attention to the references of a round.
#[derive(Debug, Serialize)]
pub(crate) struct AttentionView {
    references: Vec<ReferenceView>,
}

#[derive(Debug, Serialize)]
struct ReferenceView {
    /// `None` if the votes of the round do not tell which image it was.
    image: Option<ContentHash>,
    side: &'static str,
    mean: f64,
    layers: Vec<LayerView>,
    /// Share in each part of each image of the round: rows from top to bottom, each from left to right.
    maps: Vec<Vec<Vec<f32>>>,
}

#[derive(Debug, Serialize)]
struct LayerView {
    name: String,
    /// Share at each evaluation.
    steps: Vec<f64>,
}

impl ListedSession {
    /// Lists a session, or the error of one that cannot be read.
    pub(crate) fn new((id, about): (Id, Result<About, String>)) -> Self {
        let id = id.to_string();
        match about {
            Err(error) => Self { id, error: Some(error), ..Self::default() },
            Ok(About { title, created_unix_ms: created, summary: None, .. }) => {
                Self { id, title, created, ..Self::default() }
            }
            Ok(About { title, created_unix_ms: created, summary: Some(summary), .. }) => {
                let (cover, rounds, votes) = (summary.cover(), summary.rounds, summary.votes);
                Self { id, title, prompt: summary.prompt, rounds, votes, created, cover, error: None }
            }
        }
    }

    pub(crate) fn created(&self) -> u64 {
        self.created
    }
}

impl SessionView {
    pub(crate) fn new(id: Id, open: &StudioSession, jobs: Vec<Id>) -> Self {
        let StudioSession { session, about } = open;
        let rounds = session.rounds().iter().zip(MadeWith::of_rounds(session));
        Self {
            id,
            title: about.title.clone(),
            created: about.created_unix_ms,
            parent: about.parent,
            prompt: session.prompt().to_owned(),
            negative_prompt: session.negative_prompt().to_owned(),
            settings: session.settings().clone(),
            seed: session.seed(),
            can_undo: session.step_count() > 0,
            can_redo: session.can_redo(),
            rounds: rounds.map(|(round, made_with)| RoundView::new(round, &made_with)).collect(),
            votes: votes(session),
            conditions: session.image_conditions().iter().map(ConditionView::new).collect(),
            init_image: session.init_image().map(InitImageView::new),
            jobs,
        }
    }
}

impl RoundView {
    fn new(round: &Round, made_with: &MadeWith) -> Self {
        let report = &round.report;
        let conditions = round.image_conditions.iter().take(made_with.conditions);
        let texts = |name: &str| report[name].as_array().into_iter().flatten().filter_map(Value::as_str);
        let cut = texts("truncated").map(|text| format!("the prompt is too long, this was left out: {text}"));
        Self {
            index: round.index,
            prompt: round.prompt.clone(),
            negative_prompt: round.negative_prompt.clone(),
            settings: round.settings.clone(),
            images: round.images.iter().map(Image::content_hash).collect(),
            seeds: round.seeds.clone(),
            notes: texts("notes").map(str::to_owned).chain(cut).collect(),
            made_with: MadeWithView {
                liked: made_with.images(1.0),
                disliked: made_with.images(-1.0),
                conditions: conditions.map(ConditionView::new).collect(),
            },
            seconds: Timeline::of(round).seconds(),
        }
    }
}

impl ConditionView {
    fn new(condition: &ImageCondition) -> Self {
        let ImageCondition { image, aspect, scale, window, away } = condition;
        let (image, aspect) = (image.content_hash(), aspect.clone());
        Self { image, aspect, scale: *scale, window: *window, away: *away }
    }
}

impl InitImageView {
    fn new(init: &InitImage) -> Self {
        let mask = init.mask.as_ref().map(Image::content_hash);
        Self { image: init.image.content_hash(), strength: init.strength, mask }
    }
}

impl AttentionView {
    /// Returns the attention to the references of a round, if it was measured.
    pub(crate) fn new(open: &StudioSession, index: usize) -> Result<Self, ApiError> {
        let round = open.round(index)?;
        let settings: Settings = serde_json::from_value(round.settings.clone()).unwrap_or_default();
        if !settings.measure_attention {
            let expected = "a round with `measure_attention` in its settings";
            let (got, next) = (format!("round {index}"), "set `measure_attention` to true, and make another round");
            return Err(ApiError::new(ErrorCode::UnknownRound, "attention was not measured", expected, got, next));
        }
        let report: Report = serde_json::from_value(round.report.clone()).map_err(ApiError::broken_session)?;
        let made_with = MadeWith::of_rounds(&open.session).into_iter().nth(index);
        let images = made_with.map(|made_with| made_with.references(&settings, report.references)).unwrap_or_default();
        let [liked, _] = report.references;
        let references = report.attention.into_iter().enumerate().map(|(at, attention)| ReferenceView {
            image: images.get(at).copied(),
            side: if at < liked { "liked" } else { "disliked" },
            mean: attention.mean,
            layers: attention.layers.into_iter().map(|one| LayerView { name: one.layer, steps: one.shares }).collect(),
            maps: attention.maps,
        });
        Ok(Self { references: references.collect() })
    }
}
