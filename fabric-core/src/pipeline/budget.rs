//! What a request needs of the device, settled before any long work.

use burn::tensor::DType;
use fabric_backends::available_memory;
use fabric_backends::ops::computes_in;

use super::references::Chosen;
use super::{Pipeline, Request, Settings};
use crate::Error;
use crate::attention::{AttnKind, AttnSite, Block};
use crate::fabric::ReferencePass;
use crate::models::CrossAttention;
use crate::schedule::Schedule;

impl Pipeline {
    /// The noise levels of a run with so many steps.
    pub(super) fn schedule(&self, request: &Request, steps: usize) -> Result<Schedule, Error> {
        let config = match request.settings.sampler {
            Some(kind) => self.scheduler.with_sampler(kind),
            None => self.scheduler.clone(),
        };
        let schedule = Schedule::new(&config, steps)?;
        Ok(match &request.init_image {
            // At 0 no step is left, and the start image is kept.
            Some(start) if start.strength > 0.0 => schedule.from_strength(start.strength)?,
            _ => schedule,
        })
    }

    /// Width and height of the result, in pixels.
    pub(super) fn size(&self, request: &Request) -> Result<[usize; 2], Error> {
        let step = self.autoencoder.scale_factor();
        let side = |name: &str, expected: Option<usize>| {
            let side = expected.unwrap_or(self.native_size);
            if side == 0 || !side.is_multiple_of(step) {
                let near = (side / step).max(1) * step;
                return Err(Error::settings(name, side, format!("a multiple of {step} pixels"), format!("use {near}")));
            }
            Ok(side)
        };
        Ok([side("width", request.settings.width)?, side("height", request.settings.height)?])
    }

    /// Images to compute at once: as many as asked for, or as the memory may hold, by an estimate from below; all of them
    /// where the batch is part of the result.
    pub(super) fn batch(&self, request: &Request) -> Result<usize, Error> {
        let (settings, all) = (&request.settings, request.seeds.len());
        if all == 1 || (settings.batch.is_none() && request.depends_on_batch()) {
            return Ok(all);
        }
        let free = || settings.memory_limit.or_else(|| available_memory(&self.unet.device()));
        let (None, Some(free)) = (settings.batch, free()) else { return Ok(settings.batch.unwrap_or(all)) };
        let guidance = request.guidance()?;
        let references = Chosen::of(request, &guidance, &self.schedule(request, settings.steps)?).len();
        let (branches, size) = (guidance.branches().len(), self.size(request)?);
        let fits = |images: &usize| self.evaluation_bytes(settings, images * branches, references, size) <= free;
        Ok((1..=all).rev().find(fits).unwrap_or(1))
    }

    /// Bytes that one evaluation takes beside the weights, from below: of these rows of images, and of references that
    /// all act.
    fn evaluation_bytes(&self, settings: &Settings, rows: usize, references: usize, size: [usize; 2]) -> u64 {
        let fabric = &settings.fabric;
        let [_, _, height, width] = self.latent_shape(1, size);
        let pass = |rows| self.unet.working_bytes([rows, height, width]);
        let (chunk, half, cached) = match fabric.pass {
            ReferencePass::Interleaved => return pass(rows + references),
            ReferencePass::TwoPasses { chunk } => (chunk, false, 0),
            ReferencePass::Cached { chunk, half, .. } => (chunk, half, self.tokens.stats().bytes),
        };
        // Whatever a cache keeps, the keys and values of all references are there while the images attend to them.
        let tokens =
            self.reference_bytes([height, width], fabric.token_merge_ratio, half).saturating_mul(references as u64);
        let missing = not_yet_allocated(tokens, cached, settings.memory_limit);
        pass(rows).saturating_add(missing).max(pass(chunk.min(references)))
    }

    /// Bytes of one reference's keys and values in all self-attentions, from below.
    fn reference_bytes(&self, latents: [usize; 2], merge: f64, half: bool) -> u64 {
        // A network of halves computes in them, but on a CPU.
        let computes = computes_in(&self.unet.device(), DType::F16);
        let number = if half { DType::F16.size() } else { computes.size() };
        let lowest = self.unet.levels().saturating_sub(1);
        // Behind each self-attention is the cross-attention of the same layer, which is as wide.
        let one = |layer: &CrossAttention| {
            let level = match layer.site.block {
                Block::Down(level) => level,
                Block::Mid => lowest,
                Block::Up(index) => lowest.saturating_sub(index),
            };
            let tokens: usize = latents.map(|side| (side >> level).max(1)).iter().product();
            // Rounded down, as merging rounds how many go to the nearest number.
            (tokens as f64 * (1.0 - merge)) as u64 * (2 * layer.channels * number) as u64
        };
        let (layers, sites) = (self.unet.cross_attentions(), self.unet.attention_sites());
        let attends =
            |layer: &&CrossAttention| sites.contains(&AttnSite { kind: AttnKind::SelfAttention, ..layer.site });
        layers.iter().filter(attends).map(one).sum()
    }

    /// Refuses to keep halves where the device has none.
    pub(super) fn check_halves(&self, request: &Request) -> Result<(), Error> {
        let expected = matches!(request.settings.fabric.pass, ReferencePass::Cached { half: true, .. });
        if !expected || self.unet.device().supports_dtype(DType::F16) {
            return Ok(());
        }
        let expected = "false on a device that has no numbers of 16 bits";
        Err(Error::device_limit("fabric.pass.half", true, expected, "set it to false, or choose another device"))
    }

    /// Refuses what surely needs more memory than there is, before it drives the machine into the ground.
    pub(super) fn check_memory(&self, request: &Request, size: [usize; 2], chosen: &Chosen<'_>) -> Result<(), Error> {
        let settings = &request.settings;
        let Some(free) = settings.memory_limit.or_else(|| available_memory(&self.unet.device())) else { return Ok(()) };
        let branches = request.guidance()?.branches().len();
        let [_, _, height, width] = self.latent_shape(1, size);
        let (images, references) = (request.seeds.len(), chosen.len());
        let network = self.evaluation_bytes(settings, images * branches, references, size);
        let needed = network.max(self.autoencoder.working_bytes([height, width]));
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

/// Bytes of the references' keys and values that still have to come out of the free memory. What earlier runs left in
/// the cache is missing from the free memory already; a limit that the caller sets is for all of it.
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
