//! Stage `readers`: trains the readers, which classify the factors of an image.

use std::error::Error;

use fabric::models::train::Trainer;
use fabric_world::learn::{ReadersTask, Stage};
use fabric_world::{Judge, Readers, measure, sample};

use super::Job;

impl Job<'_> {
    /// Trains the readers. Returns false if the deadline came first.
    pub(crate) fn readers(&self) -> Result<bool, Box<dyn Error>> {
        if self.is_done("readers") {
            return Ok(true);
        }
        let config = self.config("readers", Stage::Readers)?;
        self.training.seed(config.training.seed);
        let task = ReadersTask::new(&config.training, &config.options);
        let model = self.begun("readers", Readers::new(&self.training))?;
        let folder = self.folder("readers");
        let trainer = Trainer::new(task, model, &config.training, &folder, &self.training, self.arguments.workers)?;
        self.train("readers", trainer, 250, &mut |trainer| {
            let judge = Judge::new(trainer.averaged(), &self.device);
            let samples: Vec<_> = (0..2048).map(|index| sample(776, index, None)).collect();
            println!("readers: percent right: {}", measure::readers(&judge, &samples)?);
            Ok(())
        })
    }
}
