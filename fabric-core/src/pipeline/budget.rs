//! What a request needs of the device, settled before any long work.

use burn::tensor::DType;
use fabric_backends::available_memory;

use super::{Pipeline, Request};
use crate::Error;
use crate::fabric::ReferencePass;
use crate::schedule::Schedule;

impl Pipeline {
    /// The noise levels of a run with so many steps.
    pub(super) fn schedule(&self, request: &Request, steps: usize) -> Result<Schedule, Error> {
        let config = match request.settings.sampler {
            Some(kind) => self.scheduler.with_sampler(kind),
            None => self.scheduler.clone(),
        };
        let schedule = Schedule::new(&config, steps)?;
        Ok(match &request.start {
            Some(start) => schedule.from_strength(start.strength)?,
            None => schedule,
        })
    }

    /// Width and height of the result, in pixels.
    pub(super) fn size(&self, request: &Request) -> Result<[usize; 2], Error> {
        let step = self.codec.downscale();
        let side = |name: &str, wanted: Option<usize>| {
            let side = wanted.unwrap_or(self.native_size);
            if side == 0 || !side.is_multiple_of(step) {
                let near = (side / step).max(1) * step;
                return Err(Error::settings(name, side, format!("a multiple of {step} pixels"), format!("use {near}")));
            }
            Ok(side)
        };
        Ok([side("width", request.settings.width)?, side("height", request.settings.height)?])
    }

    /// Pictures to compute at once: as many as asked for, or as the memory may hold, by an estimate from below; all of them
    /// where the batch is part of the result.
    pub(super) fn batch(&self, request: &Request) -> Result<usize, Error> {
        let (settings, all) = (&request.settings, request.seeds.len());
        if all == 1 || (settings.batch.is_none() && request.depends_on_batch()) {
            return Ok(all);
        }
        let free = || settings.memory_limit.or_else(|| available_memory(&self.unet.device()));
        let (None, Some(free)) = (settings.batch, free()) else { return Ok(settings.batch.unwrap_or(all)) };
        let branches = request.guidance()?.branches().len();
        let [_, _, height, width] = self.latent_shape(1, self.size(request)?);
        let one = self.unet.working_bytes([branches, height, width]).max(1);
        Ok(usize::try_from(free / one).unwrap_or(all).clamp(1, all))
    }

    /// Refuses to keep halves where the device has none.
    pub(super) fn check_halves(&self, request: &Request) -> Result<(), Error> {
        let wanted = matches!(request.settings.fabric.pass, ReferencePass::Cached { half: true, .. });
        if !wanted || self.unet.device().supports_dtype(DType::F16) {
            return Ok(());
        }
        let wanted = "false on a device that has no numbers of 16 bits";
        Err(Error::device_limit("fabric.pass.half", true, wanted, "set it to false, or choose another device"))
    }

    /// Refuses what surely needs more memory than there is, before it drives the machine into the ground.
    pub(super) fn check_memory(&self, request: &Request, size: [usize; 2]) -> Result<(), Error> {
        let settings = &request.settings;
        let Some(free) = settings.memory_limit.or_else(|| available_memory(&self.unet.device())) else { return Ok(()) };
        let branches = request.guidance()?.branches().len();
        let [_, _, height, width] = self.latent_shape(1, size);
        let network = self.unet.working_bytes([request.seeds.len() * branches, height, width]);
        let needed = network.max(self.codec.working_bytes([height, width]));
        if needed <= free {
            return Ok(());
        }
        let gigabytes = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
        Err(Error::device_limit(
            format!("memory for {} pictures of {}x{} at once", request.seeds.len(), size[0], size[1]),
            format!("at least {} needed", gigabytes(needed)),
            format!("at most {}", gigabytes(free)),
            "choose a smaller size, set `batch`, load with VAE tiles, or raise `memory_limit`",
        ))
    }

    pub(super) fn latent_shape(&self, rows: usize, [width, height]: [usize; 2]) -> [usize; 4] {
        let step = self.codec.downscale();
        [rows, self.codec.latent_channels(), height / step, width / step]
    }
}
