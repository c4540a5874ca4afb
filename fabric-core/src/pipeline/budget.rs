//! Checks before a run: image size, batch size, memory and number types.

use burn::tensor::DType;
use fabric_backends::available_memory;
use fabric_backends::ops::computes_in;

use super::callback::contained_callback;
use super::plan::Plan;
use super::{Pipeline, Request, Settings};
use crate::Error;
use crate::attention::{AttnKind, AttnSite, Block};
use crate::fabric::ReferencePass;
use crate::models::CrossAttention;
use crate::schedule::Schedule;

impl Pipeline {
    /// Returns the noise schedule of a run with this number of steps.
    pub(super) fn schedule(&self, request: &Request, steps: usize) -> Result<Schedule, Error> {
        let kind = request.sampler.as_ref().map(|sampler| contained_callback("sampler", || Ok(sampler.kind())));
        let own = kind.transpose()?;
        let config = match own.or(request.settings.sampler) {
            Some(kind) => self.scheduler.with_sampler(kind),
            None => self.scheduler.clone(),
        };
        let schedule = Schedule::new(&config, steps)?;
        Ok(match &request.init_image {
            // At strength 0 there are no steps, and the init image is kept.
            Some(start) if start.strength > 0.0 => schedule.from_strength(start.strength)?,
            _ => schedule,
        })
    }

    /// Returns width and height of the result in pixels.
    pub(super) fn size(&self, request: &Request) -> Result<[usize; 2], Error> {
        let step = self.autoencoder.scale_factor();
        let side = |name: &str, requested: Option<usize>| {
            let side = requested.unwrap_or(self.native_size);
            if side == 0 || !side.is_multiple_of(step) {
                let near = (side / step).max(1) * step;
                return Err(Error::settings(name, side, format!("a multiple of {step} pixels"), format!("use {near}")));
            }
            Ok(side)
        };
        Ok([side("width", request.settings.width)?, side("height", request.settings.height)?])
    }

    /// Returns the batch size: the requested one, or as many images as fit in memory by the lower-bound
    /// estimate, or all images if they depend on their batch.
    pub(super) fn batch(&self, plan: &Plan<'_>) -> usize {
        let (request, settings, all) = (plan.request, &plan.request.settings, plan.request.seeds.len());
        if all == 1 || (settings.batch.is_none() && request.depends_on_batch()) {
            return all;
        }
        let free = || settings.memory_limit.or_else(|| available_memory(&self.unet.device()));
        let (None, Some(free)) = (settings.batch, free()) else { return settings.batch.unwrap_or(all).min(all) };
        let fits = |images: &usize| self.needed(plan, *images) <= free;
        (1..=all).rev().find(fits).unwrap_or(1)
    }

    /// Lower bound for the bytes that the largest evaluation of this many images needs.
    fn needed(&self, plan: &Plan<'_>, images: usize) -> u64 {
        let bytes = |&[branches, references]: &[usize; 2]| {
            self.evaluation_bytes(&plan.request.settings, images * branches, references, plan.size)
        };
        plan.chosen.acting().iter().map(bytes).max().unwrap_or_default()
    }

    /// Lower bound for the bytes that one evaluation needs besides the weights, with this number of image rows and
    /// references, all of which have an effect.
    fn evaluation_bytes(&self, settings: &Settings, rows: usize, references: usize, size: [usize; 2]) -> u64 {
        let fabric = &settings.fabric;
        let [_, _, height, width] = self.latent_shape(1, size);
        let pass = |rows| self.unet.working_bytes([rows, height, width]);
        let (chunk, half, cached) = match fabric.execution.pass {
            ReferencePass::Interleaved => return pass(rows + references),
            ReferencePass::TwoPasses { chunk } => (chunk, false, 0),
            ReferencePass::Cached { chunk, half, .. } => (chunk, half, self.tokens.stats().bytes),
        };
        // Regardless of the cache's budget, the keys and values of all references are in memory during the
        // images' pass.
        let tokens = self
            .reference_bytes([height, width], fabric.execution.token_merge_ratio, half)
            .saturating_mul(references as u64);
        let missing = not_yet_allocated(tokens, cached, settings.memory_limit);
        pass(rows).saturating_add(missing).max(pass(chunk.min(references)))
    }

    /// Lower bound for the bytes of one reference's keys and values in all self-attention layers.
    fn reference_bytes(&self, latents: [usize; 2], merge: f64, half: bool) -> u64 {
        // f16 weights are computed in f16, except on a CPU.
        let computes = computes_in(&self.unet.device(), DType::F16);
        let number = if half { DType::F16.size() } else { computes.size() };
        let lowest = self.unet.levels().saturating_sub(1);
        // Each self-attention is followed by a cross-attention with the same number of channels.
        let one = |layer: &CrossAttention| {
            let level = match layer.site.block {
                Block::Down(level) => level,
                Block::Mid => lowest,
                Block::Up(index) => lowest.saturating_sub(index),
            };
            let tokens: usize = latents.map(|side| (side >> level).max(1)).iter().product();
            // Rounded down to stay a lower bound: merging rounds the number of merged tokens to the nearest integer.
            (tokens as f64 * (1.0 - merge)) as u64 * (2 * layer.channels * number) as u64
        };
        let (layers, sites) = (self.unet.cross_attentions(), self.unet.attention_sites());
        let attends =
            |layer: &&CrossAttention| sites.contains(&AttnSite { kind: AttnKind::SelfAttention, ..layer.site });
        layers.iter().filter(attends).map(one).sum()
    }

    /// Refuses to cache in f16 if the device does not support it.
    pub(super) fn check_halves(&self, request: &Request) -> Result<(), Error> {
        let half = matches!(request.settings.fabric.execution.pass, ReferencePass::Cached { half: true, .. });
        if !half || self.unet.device().supports_dtype(DType::F16) {
            return Ok(());
        }
        let expected = "false on a device that has no numbers of 16 bits";
        Err(Error::device_limit(
            "fabric.execution.pass.half",
            true,
            expected,
            "set it to false, or choose another device",
        ))
    }

    /// Refuses requests that certainly need more memory than is free, before they exhaust the machine's memory.
    pub(super) fn check_memory(&self, plan: &Plan<'_>) -> Result<(), Error> {
        let settings = &plan.request.settings;
        let Some(free) = settings.memory_limit.or_else(|| available_memory(&self.unet.device())) else { return Ok(()) };
        let (size, images, references) = (plan.size, plan.batch, plan.chosen.len());
        let [_, _, height, width] = self.latent_shape(1, size);
        let needed = self.needed(plan, images).max(self.autoencoder.working_bytes([height, width]));
        if needed <= free {
            return Ok(());
        }
        let gigabytes = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
        let beside = if references > 0 { format!(" beside {references} references") } else { String::new() };
        Err(Error::device_limit(
            format!("memory for {images} images of {}x{} at once{beside}", size[0], size[1]),
            format!("at least {} needed", gigabytes(needed)),
            format!("at most {}", gigabytes(free)),
            "choose a smaller size or fewer references, set `batch`, load with VAE tiles, or raise `memory_limit`",
        ))
    }

    pub(super) fn latent_shape(&self, rows: usize, [width, height]: [usize; 2]) -> [usize; 4] {
        let step = self.autoencoder.scale_factor();
        [rows, self.autoencoder.latent_channels(), height / step, width / step]
    }
}

/// Bytes of reference keys and values that still have to be allocated from free memory. Bytes cached by earlier runs
/// are already missing from the free memory, but count towards a limit set by the caller.
fn not_yet_allocated(tokens: u64, cached: u64, memory_limit: Option<u64>) -> u64 {
    if memory_limit.is_some() { tokens } else { tokens.saturating_sub(cached) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_references_are_not_counted_twice() {
        assert_eq!(not_yet_allocated(100, 0, None), 100);
        assert_eq!(not_yet_allocated(100, 60, None), 40);
        assert_eq!(not_yet_allocated(100, 130, None), 0);
        assert_eq!(not_yet_allocated(100, 130, Some(1000)), 100, "a limit is for all that a run uses");
    }
}
