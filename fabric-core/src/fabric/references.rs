//! The method: which references act on an evaluation, how they are noised, and the three ways to compute their keys and
//! values.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Tensor;

use super::{
    CallWeights, FabricSettings, FeedbackSchedule, InBatchReferences, RecordedReferences, Reference, ReferencePass,
    ReferenceWeight, Side, WeightedRows,
};
use crate::Error;
use crate::cache::{Claim, ReferenceKvCache, ReferenceKvKey, TokensBySite, in_half};
use crate::denoise::ModelCall;
use crate::layout::BatchLayout;
use crate::models::RecordedTokens;
use crate::noise::ReferenceId;
use crate::schedule::noised;

/// The liked and disliked images of a run.
#[derive(Debug)]
pub(crate) struct References<'a> {
    /// Liked before disliked.
    pub(crate) all: Vec<Reference>,
    pub(crate) settings: &'a FabricSettings,
    pub(crate) schedule: FeedbackSchedule,
    /// Number of down blocks of the U-Net.
    pub(crate) levels: usize,
    /// Cache for [`ReferencePass::Cached`]; `None` if keys and values depend on more than the [`ReferenceKvKey`]: on
    /// fresh or injected noise, or on a conditioning that acts on references too.
    pub(crate) cache: Option<&'a ReferenceKvCache>,
    /// Digest of everything else that keys and values depend on: clip skip, number of text tokens, image size.
    pub(crate) cache_conditions: u64,
}

/// Operations of a pipeline that the method uses.
pub(crate) trait ReferencePasses {
    /// Draws noise for the references, one row each.
    fn draw(&self, call: &ModelCall, ids: &[ReferenceId], shape: [usize; 4]) -> Result<Tensor<4>, Error>;

    /// Reports the noised latents of all references.
    fn observe(&self, call: &ModelCall, noised: &Tensor<4>);

    /// Passes a batch of references (its layout has no branches) through the U-Net with the empty prompt, and returns
    /// the keys and values of its self-attention layers.
    fn record(&self, call: &ModelCall, noised: Tensor<4>, layout: BatchLayout) -> Result<Vec<RecordedTokens>, Error>;
}

/// Rows, or keys and values, that references add to one evaluation.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a tensor is a handle, and there is one of these per evaluation")]
pub(crate) enum Contribution {
    /// Rows at the end of the batch, whose keys and values the processor passes on.
    InBatch { latents: Tensor<4>, processor: InBatchReferences },
    /// Keys and values from an earlier pass.
    Recorded(RecordedReferences),
}

/// The references that act on one evaluation: index, rows that attend to it, and weights.
pub(crate) type ActiveReferences = Vec<(usize, ReferenceWeight)>;

impl References<'_> {
    /// Returns the references that act on this evaluation: those with a weight, on a branch that is computed, and on an
    /// image of this batch.
    ///
    /// Liked references act on the conditional branch, disliked ones on the others, or as
    /// [`FabricSettings::dislikes_without_guidance`] says if there are none. The weight follows the schedule of
    /// [`FabricSettings`] and the scope of the reference.
    pub(crate) fn active(&self, call: &ModelCall, layout: &BatchLayout) -> ActiveReferences {
        // For each image, the numbers of liked and of disliked references that act on it.
        let images = layout.images();
        let mut counts = vec![[0; 2]; images.len()];
        for reference in self.all.iter().filter(|reference| reference.scope.factor(call) > 0.0) {
            for image in images.clone().filter(|&image| reference.images.contains(image)) {
                counts[image - images.start][usize::from(reference.side == Side::Disliked)] += 1;
            }
        }
        let active = self.all.iter().enumerate().filter_map(|(index, reference)| {
            let (branches, dislike) = self.schedule.branches(reference.side, layout.branches());
            let strength = reference.strength * reference.scope.factor(call);
            let mut rows: Vec<(usize, CallWeights)> = Vec::new();
            for image in images.clone().filter(|&image| reference.images.contains(image)) {
                let same_side = counts[image - images.start][usize::from(reference.side == Side::Disliked)];
                let weights = self.schedule.weights(call, reference.side, strength, same_side);
                if !weights.is_zero() {
                    rows.extend(layout.rows_of_image(image, branches.clone()).map(|row| (row, weights)));
                }
            }
            let to = joined(rows);
            let blocks = self.settings.block_weights.times(&reference.scope.blocks);
            (!to.is_empty()).then_some((index, ReferenceWeight { to, blocks, dislike }))
        });
        active.collect()
    }

    /// Returns what the active references add to an evaluation whose images have this layout.
    pub(crate) fn contribute(
        &self,
        active: ActiveReferences,
        call: &ModelCall,
        layout: &BatchLayout,
        passes: &dyn ReferencePasses,
    ) -> Result<Contribution, Error> {
        let evaluation = Evaluation { references: self, call, passes, noised: OnceCell::new() };
        let tokens = match self.settings.execution.pass {
            ReferencePass::Interleaved => return evaluation.in_batch(active, layout),
            ReferencePass::Cached { chunk, budget, half } if let Some(cache) = self.cache => {
                evaluation.cached(&active, chunk, &CacheUse { cache, budget, half })?
            }
            ReferencePass::Cached { chunk, .. } | ReferencePass::TwoPasses { chunk } => {
                let recorded =
                    indices(&active).chunks(chunk).map(|chunk| evaluation.recorded(chunk)).collect::<Vec<_>>();
                recorded.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().map(Arc::new).collect()
            }
        };
        let references = active.into_iter().zip(tokens).map(|((_, weight), tokens)| (weight, tokens)).collect();
        Ok(Contribution::Recorded(RecordedReferences { references, levels: self.levels }))
    }

    /// Number of liked and of disliked references among these.
    pub(crate) fn sides(&self, indices: &[usize]) -> [usize; 2] {
        let liked = indices.iter().filter(|&&index| self.all[index].side == Side::Liked).count();
        [liked, indices.len() - liked]
    }

    fn key(&self, index: usize, call: &ModelCall, half: bool) -> ReferenceKvKey {
        ReferenceKvKey {
            id: self.all[index].id,
            level: [call.level.timestep, call.level.alpha, call.level.sigma].map(f64::to_bits),
            conditions: self.cache_conditions,
            half,
            token_merge_ratio: self.settings.execution.token_merge_ratio.to_bits(),
        }
    }
}

/// Joins neighbouring rows with the same weights.
fn joined(mut rows: Vec<(usize, CallWeights)>) -> Vec<WeightedRows> {
    rows.sort_by_key(|(row, _)| *row);
    let mut joined: Vec<WeightedRows> = Vec::new();
    for (row, weights) in rows {
        match joined.last_mut() {
            Some(last) if last.rows.end == row && last.weights == weights => last.rows.end += 1,
            _ => joined.push(WeightedRows { rows: row..row + 1, weights }),
        }
    }
    joined
}

/// One evaluation of the U-Net, for which references are computed.
struct Evaluation<'a> {
    references: &'a References<'a>,
    call: &'a ModelCall,
    passes: &'a dyn ReferencePasses,
    /// The noised latents of all references, on first use.
    noised: OnceCell<Tensor<4>>,
}

impl Evaluation<'_> {
    /// First way: the references are rows of the same batch.
    fn in_batch(&self, active: ActiveReferences, layout: &BatchLayout) -> Result<Contribution, Error> {
        let References { settings, levels, .. } = self.references;
        let latents = self.rows(&indices(&active))?;
        let processor = InBatchReferences {
            first: layout.image_rows(),
            references: active.into_iter().map(|(_, weight)| weight).collect(),
            token_merge_ratio: settings.execution.token_merge_ratio,
            levels: *levels,
        };
        Ok(Contribution::InBatch { latents, processor })
    }

    /// Second way: the references pass through the U-Net before the images, one chunk of them at a time.
    fn recorded(&self, chunk: &[usize]) -> Result<Vec<TokensBySite>, Error> {
        let layout = BatchLayout::of_references(self.references.sides(chunk));
        let recorded = self.passes.record(self.call, self.rows(chunk)?, layout)?;
        Ok(RecordedReferences::split(recorded, self.references.settings.execution.token_merge_ratio))
    }

    /// Third way: as the second, with keys and values cached across images, prompts and rounds.
    fn cached(
        &self,
        active: &ActiveReferences,
        chunk: usize,
        cache: &CacheUse<'_>,
    ) -> Result<Vec<Arc<TokensBySite>>, Error> {
        let key = |&(index, _): &(usize, _)| self.references.key(index, self.call, cache.half);
        let keys: Vec<ReferenceKvKey> = active.iter().map(key).collect();
        let mut tokens: Vec<_> = keys.iter().map(|key| cache.get(key)).collect();
        let missing = |tokens: &[Option<_>]| (0..tokens.len()).filter(|&at| tokens[at].is_none()).collect::<Vec<_>>();
        let record = |at: &[usize], tokens: &mut [Option<Arc<TokensBySite>>]| {
            let chunk: Vec<usize> = at.iter().map(|&at| active[at].0).collect();
            for (&at, recorded) in at.iter().zip(self.recorded(&chunk)?) {
                tokens[at] = Some(cache.insert(keys[at], recorded));
            }
            Ok::<(), Error>(())
        };
        // Records what no other thread is recording, then waits for the rest. A thread with claims never waits.
        let mut claims: Vec<(usize, Claim<'_>)> = Vec::new();
        for at in missing(&tokens) {
            if let Some(claim) = cache.cache.claim(keys[at]) {
                // Another thread may have finished between the lookup and the claim.
                tokens[at] = cache.look_again(&keys[at]);
                claims.extend(tokens[at].is_none().then_some((at, claim)));
            }
        }
        while !claims.is_empty() {
            let (claimed, _claims): (Vec<usize>, Vec<Claim<'_>>) = claims.drain(..chunk.min(claims.len())).unzip();
            record(&claimed, &mut tokens)?;
        }
        let waiting = Instant::now();
        for at in missing(&tokens) {
            cache.cache.wait(&keys[at], waiting);
            tokens[at] = cache.look_again(&keys[at]);
        }
        // The other thread failed, or the budget is too small to keep them.
        missing(&tokens).chunks(chunk).try_for_each(|at| record(at, &mut tokens))?;
        Ok(tokens.into_iter().flatten().collect())
    }

    /// Returns the noised latents of these references. Noise is added to all references at once, so that the draws do
    /// not depend on which of them are active.
    fn rows(&self, indices: &[usize]) -> Result<Tensor<4>, Error> {
        if self.noised.get().is_none() {
            let all = &self.references.all;
            let clean = Tensor::cat(all.iter().map(|reference| reference.latents.clone()).collect(), 0);
            let ids: Vec<ReferenceId> = all.iter().map(|reference| reference.id).collect();
            let noise = self.passes.draw(self.call, &ids, clean.dims())?.cast(clean.dtype());
            let noised = noised(clean, noise, &self.call.level);
            self.passes.observe(self.call, &noised);
            self.noised.get_or_init(|| noised);
        }
        let noised = self.noised.get().expect("it was just computed");
        Ok(Tensor::cat(indices.iter().map(|&row| noised.clone().narrow(0, row, 1)).collect(), 0))
    }
}

/// The cache with the settings of [`ReferencePass::Cached`].
struct CacheUse<'a> {
    cache: &'a ReferenceKvCache,
    budget: u64,
    half: bool,
}

impl CacheUse<'_> {
    fn get(&self, key: &ReferenceKvKey) -> Option<Arc<TokensBySite>> {
        self.cache.get(key, self.budget)
    }

    /// Looks up a key that was not found a moment ago.
    fn look_again(&self, key: &ReferenceKvKey) -> Option<Arc<TokensBySite>> {
        self.cache.look_again(key, self.budget)
    }

    /// Adds a recording and returns it as it is cached.
    fn insert(&self, key: ReferenceKvKey, recorded: TokensBySite) -> Arc<TokensBySite> {
        let recorded = Arc::new(if self.half { in_half(recorded) } else { recorded });
        self.cache.insert(key, recorded.clone(), self.budget);
        recorded
    }
}

pub(crate) fn indices(active: &ActiveReferences) -> Vec<usize> {
    active.iter().map(|(index, _)| *index).collect()
}
