//! Measures what each image condition of a request contributes to the cross-attention, by layer and evaluation.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::plan::ActiveConditioning;
use super::reference_attention::{Mean, join_mean};
use super::{LayerAttention, Window};
use crate::attention::{AttnSite, LayerContributions};
use crate::layout::BatchLayout;
use crate::models::CrossAttention;
use crate::{Aspect, ImageCondition};

/// Effect of one [`ImageCondition`] on the images' cross-attention. For a vote with a reason, it tells what the vote
/// did.
///
/// The share of an image condition in a layer is the norm of its contribution (its part of the result of its softmax,
/// times the scale) divided by the sum of the norms of the text's attention and of the contributions of all image prompts,
/// from 0 to 1. Norms are over the queries and channels of a row, and the share is the mean over all rows that attend
/// to the image: those of the prompt's branch, or of the branches that guidance leads away from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImagePromptEffect {
    /// Aspect of the image that is used; `None` is a plain image prompt.
    pub aspect: Option<Aspect>,
    /// Whether it leads away from the image.
    pub away: bool,
    /// Scale of the image condition. For a vote with a reason, it is the scale that
    /// [`ReasonSettings`](super::ReasonSettings) leave it.
    pub scale: f64,
    /// Part of the run in which it acts.
    pub window: Window,
    /// Mean share over the layers and evaluations in which it acted; 0 if it never did.
    pub mean: f64,
    /// Share in each cross-attention layer, in the order in which they run.
    pub layers: Vec<LayerAttention>,
}

impl ImagePromptEffect {
    /// Adds what was measured in another batch of the run, with the numbers of images of this part and of that batch.
    pub(super) fn join(&mut self, other: Self, images: [f64; 2]) {
        join_mean(&mut self.mean, other.mean, images);
        self.layers.iter_mut().zip(other.layers).for_each(|(mine, other)| mine.join(other, images));
    }
}

/// Direction, aspect, scale and window: "towards, use the style, scale 0.50, window 0 to 1".
impl fmt::Display for ImagePromptEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.away { "away" } else { "towards" };
        let aspect = self.aspect.as_ref().map_or_else(|| "no aspect".to_owned(), ToString::to_string);
        let (start, end): (f64, f64) = self.window.into();
        write!(f, "{direction}, {aspect}, scale {:.2}, window {start} to {end}", self.scale)
    }
}

/// Shares of one image condition, by layer and evaluation. Where it did not act, there are none.
type Shares = BTreeMap<(AttnSite, usize), f64>;

/// Collects the shares of all image conditions of a batch.
#[derive(Debug)]
pub(super) struct EffectCollector {
    evaluations: usize,
    conditions: Vec<Shares>,
}

impl EffectCollector {
    /// Creates a collector for a batch with this many image conditions and evaluations.
    pub(super) fn new(conditions: usize, evaluations: usize) -> Self {
        Self { evaluations, conditions: vec![Shares::new(); conditions] }
    }

    /// Notes what the layers measured at an evaluation, whose first processor was that of the references, followed by
    /// those of the run's conditioning.
    pub(super) fn note(
        &mut self,
        evaluation: usize,
        layers: &[LayerContributions],
        conditioning: &[ActiveConditioning],
        layout: &BatchLayout,
    ) {
        for layer in layers {
            for (processor, shares) in layer.shares() {
                let one = processor.checked_sub(1).and_then(|index| conditioning.get(index));
                let Some((one, condition)) = one.and_then(|one| Some((one, one.image_condition?))) else { continue };
                let rows: Vec<usize> = one.rows_with_image(layout, &layer.site).into_iter().flatten().collect();
                if !rows.is_empty() {
                    let mut mean = Mean::default();
                    rows.iter().for_each(|row| mean.add(shares[*row]));
                    self.conditions[condition].insert((layer.site, evaluation), mean.value());
                }
            }
        }
    }

    /// Returns the effects of the request's image conditions in a network with these cross-attention layers.
    pub(super) fn finish(self, conditions: &[ImageCondition], layers: &[CrossAttention]) -> Vec<ImagePromptEffect> {
        let Self { evaluations, conditions: all } = self;
        let effect = |(condition, shares): (&ImageCondition, Shares)| {
            let layer = |layer: &CrossAttention| {
                let share = |evaluation| shares.get(&(layer.site, evaluation)).copied().unwrap_or_default();
                LayerAttention { layer: layer.site.to_string(), shares: (0..evaluations).map(share).collect() }
            };
            let mut mean = Mean::default();
            shares.values().for_each(|share| mean.add(*share));
            ImagePromptEffect {
                aspect: condition.aspect.clone(),
                away: condition.away,
                scale: condition.scale,
                window: condition.window,
                mean: mean.value(),
                layers: layers.iter().map(layer).collect(),
            }
        };
        conditions.iter().zip(all).map(effect).collect()
    }
}

#[cfg(test)]
mod tests;
