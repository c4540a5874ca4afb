//! The method: which references act on an evaluation, how they are noised, and the three ways to compute their keys and
//! values.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::{
    FabricSettings, FeedbackSchedule, InBatchReferences, RecordedReferences, Reference, ReferencePass, ReferenceWeight,
    Side, acted_on,
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

/// What the method needs from a pipeline.
pub(crate) trait ReferencePasses {
    /// Draws noise for the references, one row each.
    fn draw(&self, call: &ModelCall, ids: &[ReferenceId], shape: [usize; 4]) -> Result<Tensor<4>, Error>;

    /// Reports the noised latents of all references.
    fn observe(&self, call: &ModelCall, noised: &Tensor<4>);

    /// Passes a batch of references (its layout has no branches) through the U-Net with the empty prompt, and returns
    /// the keys and values of its self-attention layers.
    fn record(&self, call: &ModelCall, noised: Tensor<4>, layout: BatchLayout) -> Result<Vec<RecordedTokens>, Error>;
}

/// What references add to one evaluation.
#[derive(Debug)]
pub(crate) enum Contribution {
    /// Rows at the end of the batch, whose keys and values the processor passes on.
    InBatch { latents: Tensor<4>, processor: InBatchReferences },
    /// Keys and values from an earlier pass.
    Recorded(RecordedReferences),
}

/// The references that act on one evaluation: index, rows that attend to it, and weights.
pub(crate) type ActiveReferences = Vec<(usize, ReferenceWeight)>;

impl References<'_> {
    /// Returns the references that act on this evaluation: those with a weight, on a branch that is computed.
    ///
    /// Liked references act on the conditional branch, disliked ones on the others. The weight follows the schedule of
    /// [`FabricSettings`].
    pub(crate) fn active(&self, call: &ModelCall, layout: &BatchLayout) -> ActiveReferences {
        let count = |side| self.all.iter().filter(|reference| reference.side == side).count();
        let counts = [count(Side::Liked), count(Side::Disliked)];
        let active = self.all.iter().enumerate().filter_map(|(index, reference)| {
            let same_side = counts[usize::from(reference.side == Side::Disliked)];
            let to = layout.rows_of_branches(acted_on(reference.side, layout.branches()));
            let weights = self.schedule.weights(call, reference.side, reference.strength, same_side);
            (!to.is_empty() && !weights.is_zero()).then_some((index, ReferenceWeight { to, weights }))
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
        if self.settings.execution.pass == ReferencePass::Interleaved {
            return self.in_batch(active, call, layout, passes);
        }
        let tokens = match self.settings.execution.pass {
            ReferencePass::Cached { chunk, budget, half } if let Some(cache) = self.cache => {
                self.cached(&active, call, passes, chunk, &CacheUse { cache, budget, half })?
            }
            ReferencePass::Cached { chunk, .. } | ReferencePass::TwoPasses { chunk } => {
                self.recorded(&indices(&active), call, passes, chunk)?
            }
            ReferencePass::Interleaved => unreachable!("handled above"),
        };
        let references = active.into_iter().zip(tokens).map(|((_, weight), tokens)| (weight, tokens)).collect();
        Ok(Contribution::Recorded(RecordedReferences { references, levels: self.levels }))
    }

    /// First way: the references are rows of the same batch.
    fn in_batch(
        &self,
        active: ActiveReferences,
        call: &ModelCall,
        layout: &BatchLayout,
        passes: &dyn ReferencePasses,
    ) -> Result<Contribution, Error> {
        let latents = rows(&self.noised(call, passes)?, &indices(&active));
        let processor = InBatchReferences {
            first: layout.image_rows(),
            references: active.into_iter().map(|(_, weight)| weight).collect(),
            token_merge_ratio: self.settings.execution.token_merge_ratio,
            levels: self.levels,
        };
        Ok(Contribution::InBatch { latents, processor })
    }

    /// Second way: the references pass through the U-Net before the images, `chunk` at a time.
    fn recorded(
        &self,
        indices: &[usize],
        call: &ModelCall,
        passes: &dyn ReferencePasses,
        chunk: usize,
    ) -> Result<Vec<Arc<TokensBySite>>, Error> {
        if indices.is_empty() {
            return Ok(Vec::new());
        }
        let noised = self.noised(call, passes)?;
        let mut tokens = Vec::with_capacity(indices.len());
        for chunk in indices.chunks(chunk) {
            let recorded = passes.record(call, rows(&noised, chunk), BatchLayout::of_references(self.sides(chunk)))?;
            tokens.extend(RecordedReferences::split(recorded, self.settings.execution.token_merge_ratio));
        }
        Ok(tokens.into_iter().map(Arc::new).collect())
    }

    /// Third way: as the second, with keys and values cached across images, prompts and rounds.
    fn cached(
        &self,
        active: &ActiveReferences,
        call: &ModelCall,
        passes: &dyn ReferencePasses,
        chunk: usize,
        cache: &CacheUse<'_>,
    ) -> Result<Vec<Arc<TokensBySite>>, Error> {
        let keys: Vec<ReferenceKvKey> = active.iter().map(|(index, _)| self.key(*index, call, cache.half)).collect();
        let mut tokens: Vec<_> = keys.iter().map(|key| cache.get(key)).collect();
        let missing = |tokens: &[Option<_>]| (0..tokens.len()).filter(|&at| tokens[at].is_none()).collect::<Vec<_>>();
        // Records what no other thread is recording, then waits for the rest. A thread with claims never waits.
        let mut claims: Vec<(usize, Claim<'_>)> = Vec::new();
        for at in missing(&tokens) {
            if let Some(claim) = cache.cache.claim(keys[at]) {
                // Another thread may have finished between the lookup and the claim.
                tokens[at] = cache.cache.look_again(&keys[at], cache.budget);
                claims.extend(tokens[at].is_none().then_some((at, claim)));
            }
        }
        let record = |at: Vec<usize>, tokens: &mut [Option<Arc<TokensBySite>>]| {
            let indices: Vec<usize> = at.iter().map(|&at| active[at].0).collect();
            for (at, recorded) in at.into_iter().zip(self.recorded(&indices, call, passes, chunk)?) {
                tokens[at] = Some(cache.insert(keys[at], recorded));
            }
            Ok::<(), Error>(())
        };
        record(claims.iter().map(|(at, _)| *at).collect(), &mut tokens)?;
        drop(claims);
        for at in missing(&tokens) {
            cache.cache.wait(&keys[at]);
            tokens[at] = cache.cache.look_again(&keys[at], cache.budget);
        }
        // The other thread failed, or the budget is too small to keep them.
        record(missing(&tokens), &mut tokens)?;
        Ok(tokens.into_iter().flatten().collect())
    }

    /// Adds noise to all references at once, so that the draws do not depend on which of them are active.
    fn noised(&self, call: &ModelCall, passes: &dyn ReferencePasses) -> Result<Tensor<4>, Error> {
        let clean = Tensor::cat(self.all.iter().map(|reference| reference.latents.clone()).collect(), 0);
        let ids: Vec<ReferenceId> = self.all.iter().map(|reference| reference.id).collect();
        let noise = passes.draw(call, &ids, clean.dims())?.cast(clean.dtype());
        let noised = noised(clean, noise, &call.level);
        passes.observe(call, &noised);
        Ok(noised)
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

    /// Adds a recording and returns it as it is cached.
    fn insert(&self, key: ReferenceKvKey, recorded: Arc<TokensBySite>) -> Arc<TokensBySite> {
        let recorded = if self.half { Arc::new(in_half(Arc::unwrap_or_clone(recorded))) } else { recorded };
        self.cache.insert(key, recorded.clone(), self.budget);
        recorded
    }
}

pub(crate) fn indices(active: &ActiveReferences) -> Vec<usize> {
    active.iter().map(|(index, _)| *index).collect()
}

fn rows(latents: &Tensor<4>, rows: &[usize]) -> Tensor<4> {
    Tensor::cat(rows.iter().map(|&row| latents.clone().narrow(0, row, 1)).collect(), 0)
}
