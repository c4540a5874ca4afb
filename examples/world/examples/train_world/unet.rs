//! Stage `unet`: trains the U-Net on captions and latents.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use fabric::core::image::{Mark, contact_sheet};
use fabric::core::models::Autoencoder;
use fabric::core::pipeline::{Request, Settings};
use fabric::core::schedule::training_levels;
use fabric::models::train::Trainer;
use fabric::models::vae::Vae;
use fabric::models::{ModelOptions, load_model};
use fabric_world::learn::{Stage, UNetTask};
use fabric_world::{SIDE, Split, full_caption, measure, sample};

use super::Job;
use super::model::scheduler;

impl Job<'_> {
    /// Trains the U-Net. Returns false if the deadline came first.
    pub(crate) fn unet(&self) -> Result<bool, Box<dyn Error>> {
        if self.is_done("unet") {
            return Ok(true);
        }
        let config = self.config("unet", Stage::Unet)?;
        let text = self.encoder("text", self.world.text.init(&self.device)?)?;
        let (vae, scale) = self.scaled_vae()?;
        println!("latents are scaled by {scale:.4}");
        if config.options.pool == 0 {
            return Err("unet.json: pool: expected as many as there are to learn from, got 0 images".into());
        }
        let pool = self.pool(&vae, config.training.seed, config.options.pool)?;
        let levels = training_levels(&scheduler())?;
        let side = SIDE as usize / vae.scale_factor();
        let shape = [vae.latent_channels(), side, side];
        let task = UNetTask::new(
            &self.world,
            &config.training,
            &config.options,
            (self.tokenizer.clone(), text),
            (pool, shape),
            levels,
        )?;
        self.training.seed(config.training.seed);
        let model = self.begun("unet", self.world.unet.init(&self.training)?)?;
        let folder = self.folder("unet");
        let trainer = Trainer::new(task, model, &config.training, &folder, &self.training, self.arguments.workers)?;
        self.train("unet", trainer, 1000, &mut |trainer| {
            let place = self.folder("unet").join("preview");
            self.write_model(&place, &trainer.averaged())?;
            self.samples(&place, &folder.join(format!("samples-{:06}.png", trainer.steps_done())))
        })
    }

    /// Encodes the training images to latents.
    fn pool(&self, vae: &Vae, seed: u64, count: usize) -> Result<Vec<f32>, Box<dyn Error>> {
        let mut pool = Vec::new();
        let clock = Instant::now();
        for first in (0..count).step_by(64) {
            let samples: Vec<_> =
                (first..count.min(first + 64)).map(|i| sample(seed, i as u64, Split::Train)).collect();
            let pixels = measure::pixels(&measure::drawn(&samples)?, &self.device)?;
            let latents = vae.encode(pixels, fabric::core::models::Posterior::Mean);
            pool.extend(latents.into_data().convert::<f32>().try_to_vec::<f32>()?);
            if first % 6400 == 0 {
                println!("encoded {first} of {count} images, {:.0} s", clock.elapsed().as_secs_f64());
            }
        }
        Ok(pool)
    }

    /// Saves a sheet with images of held-out captions: each drawing, then the image made from its caption.
    fn samples(&self, model: &Path, sheet: &Path) -> Result<(), Box<dyn Error>> {
        let (pipeline, _) = load_model(model, &self.device, &ModelOptions::default())?;
        let samples: Vec<_> = (0..32).map(|index| sample(780, index, Split::HeldOut)).collect();
        let mut rows = Vec::new();
        for (row, samples) in samples.chunks(8).enumerate() {
            let mut images = Vec::new();
            for (column, drawn) in measure::drawn(samples)?.into_iter().enumerate() {
                let settings = Settings { steps: 20, guidance_scale: 3.0, ..Settings::default() };
                let request = Request::new(full_caption(&samples[column].scene))
                    .with_seeds([(row * 8 + column) as u64])
                    .with_settings(settings);
                images.push(drawn);
                images.extend(pipeline.generate(&request)?.images);
            }
            rows.push(images);
        }
        let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|image| (image, Mark::None)).collect()).collect();
        contact_sheet(&rows, 4)?.save(sheet)?;
        println!("{} (drawn, then made, by turns)", sheet.display());
        Ok(())
    }
}
