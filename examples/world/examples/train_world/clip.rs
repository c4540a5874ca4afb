//! Stage `clip`: trains the image encoder to match the features of captions.

use std::error::Error;

use fabric::core::image::{Crop, clip_batch};
use fabric::models::train::Trainer;
use fabric_world::learn::{ClipTask, Stage, WorldClip};
use fabric_world::{Named, SIDE, Split, Tally, measure, sample};

use super::Job;

impl Job<'_> {
    /// Trains the image encoder. Returns false if the deadline came first.
    pub(crate) fn clip(&self) -> Result<bool, Box<dyn Error>> {
        if self.is_done("clip") {
            return Ok(true);
        }
        let config = self.config("clip", Stage::Clip)?;
        let settings = config.training;
        self.training.seed(settings.seed);
        let task = ClipTask::new(&self.world, self.tokenizer.clone(), &settings, &config.options);
        let mut model = WorldClip::new(&self.world, &self.training)?;
        model.text = self.encoder("text", self.world.text.init(&self.training)?)?;
        model.vision = self.begun("image_encoder", model.vision)?;
        let trainer =
            Trainer::new(task, model, &settings, self.folder("clip"), &self.training, self.arguments.workers)?;
        self.train("clip", trainer, 250, &mut |trainer| {
            let clip = trainer.averaged();
            let samples = |seed, count, split| -> Vec<_> { (0..count).map(|i| sample(seed, i, split)).collect() };
            let parts = (&clip.text, &clip.vision);
            let asked = samples(777, 512, Split::Train);
            let share = 100.0 * measure::retrieval(parts, &self.tokenizer, &asked, &self.device)?;
            println!("clip: {share:.1} % of captions find their own image among 64");
            let mut tally = Tally::default();
            for samples in samples(776, 1024, Split::HeldOut).chunks(64) {
                let pixels = clip_batch(&measure::drawn(samples)?, SIDE as usize, Crop::Centre, &self.device)?;
                let classified = clip.classify(pixels);
                samples.iter().zip(classified).for_each(|(sample, seen)| tally.add(&Named::of(&sample.scene), &seen));
            }
            println!("clip: factors classified right in percent, held-out combinations: {tally}");
            Ok(())
        })
    }
}
