//! Stage `vae`: trains the VAE.

use std::error::Error;

use fabric::core::image::{Mark, contact_sheet};
use fabric::models::train::Trainer;
use fabric::models::vae::Vae;
use fabric_world::learn::{Stage, VaeTask};
use fabric_world::{Split, measure, sample};

use super::Job;

impl Job<'_> {
    /// Trains the VAE. Returns false if the deadline came first.
    pub(crate) fn vae(&self) -> Result<bool, Box<dyn Error>> {
        if self.is_done("vae") {
            return Ok(true);
        }
        let config = self.config("vae", Stage::Vae)?;
        self.training.seed(config.training.seed);
        let task = VaeTask::new(&self.world, &config.training, &config.options)?;
        let model = self.begun("vae", self.world.vae.init(&self.training)?)?;
        let folder = self.folder("vae");
        let trainer = Trainer::new(task, model, &config.training, &folder, &self.training, self.arguments.workers)?;
        self.train("vae", trainer, 250, &mut |trainer| {
            let vae = trainer.averaged();
            let held: Vec<_> = (0..128).map(|index| sample(778, index, Split::HeldOut)).collect();
            println!("vae: {:.2} dB on held-out images", measure::fidelity(&vae, &held, &self.device)?);
            let drawn = measure::drawn(&held[..12])?;
            let latents = vae.encode_distribution(measure::pixels(&drawn, &self.device)?).mean;
            let back = fabric::core::image::from_tensor(vae.decode_unscaled(latents))?;
            let rows = [drawn, back];
            let rows: Vec<Vec<_>> =
                rows.iter().map(|row| row.iter().map(|image| (image, Mark::None)).collect()).collect();
            contact_sheet(&rows, 4)?.save(folder.join("images.png"))?;
            Ok(())
        })
    }

    /// Loads the trained VAE with a scaling factor that gives its latents unit variance. Returns the VAE and the
    /// factor.
    pub(crate) fn scaled_vae(&self) -> Result<(Vae, f64), Box<dyn Error>> {
        let vae = self.finished("vae", self.world.vae.init(&self.device)?)?;
        let samples: Vec<_> = (0..256).map(|index| sample(779, index, Split::Train)).collect();
        let drawn = measure::drawn(&samples)?;
        let latents = vae.encode_distribution(measure::pixels(&drawn, &self.device)?).mean;
        let scale = 1.0 / latents.square().mean().into_scalar::<f64>().sqrt();
        let mut config = self.world.vae.clone();
        config.scaling_factor = scale;
        Ok((self.finished("vae", config.init(&self.device)?)?, scale))
    }
}
