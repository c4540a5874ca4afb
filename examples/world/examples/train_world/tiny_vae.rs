//! Stage `tiny-vae`: distils the tiny autoencoder from the VAE.

use std::error::Error;
use std::sync::Arc;

use fabric::core::image::{Mark, contact_sheet, from_tensor};
use fabric::core::models::{Autoencoder, LatentDecoder, Posterior};
use fabric::models::train::Trainer;
use fabric_world::learn::{Stage, TinyVaeTask};
use fabric_world::{Split, measure, sample};

use super::Job;

/// Name of the stage, which is also that of the folder in the model.
pub(crate) const NAME: &str = "tiny_vae";

impl Job<'_> {
    /// Trains the tiny autoencoder on the finished VAE's latents. Returns false if the deadline came first.
    pub(crate) fn tiny_vae(&self) -> Result<bool, Box<dyn Error>> {
        if self.is_done(NAME) {
            return Ok(true);
        }
        let config = self.config(NAME, Stage::TinyVae)?;
        let vae = Arc::new(self.scaled_vae()?.0);
        self.training.seed(config.training.seed);
        let task = TinyVaeTask::new(&self.world, &config.training, &config.options, vae.clone());
        let model = self.begun(NAME, self.world.tiny_vae.init(&self.training)?)?;
        let folder = self.folder(NAME);
        let trainer = Trainer::new(task, model, &config.training, &folder, &self.training, self.arguments.workers)?;
        self.train(NAME, trainer, 200, &mut |trainer| {
            let decoder = trainer.averaged().into_decoder();
            let held: Vec<_> = (0..128).map(|index| sample(778, index, Split::HeldOut)).collect();
            let fidelity = measure::decoder_fidelity(&decoder, &vae, &held, &self.device)?;
            println!("tiny_vae: {fidelity:.2} dB from the VAE's images on held-out drawings");
            let pixels = measure::pixels(&measure::drawn(&held[..12])?, &self.device)?;
            let latents = vae.encode(pixels, Posterior::Mean);
            let rows = [from_tensor(vae.decode(latents.clone()))?, from_tensor(decoder.decode(latents))?];
            let rows: Vec<Vec<_>> =
                rows.iter().map(|row| row.iter().map(|image| (image, Mark::None)).collect()).collect();
            contact_sheet(&rows, 4)?.save(folder.join("images.png"))?;
            Ok(())
        })
    }
}
