//! Stage `text`: trains the text encoder.

use std::error::Error;

use fabric::models::train::Trainer;
use fabric_world::learn::{Stage, TextTask, WorldText};
use fabric_world::{InstructTask, Split, Tally, sample};

use super::Job;

impl Job<'_> {
    /// Trains the text encoder. Returns false if the deadline came first.
    pub(crate) fn text(&self) -> Result<bool, Box<dyn Error>> {
        if self.is_done("text") {
            return Ok(true);
        }
        let config = self.config("text", Stage::Text)?;
        self.training.seed(config.training.seed);
        let task = TextTask::new(&self.world, self.tokenizer.clone(), &config.training);
        let mut model = WorldText::new(&self.world, &self.training)?;
        model.text = self.begun("text_encoder", model.text)?;
        let folder = self.folder("text");
        let trainer = Trainer::new(task, model, &config.training, &folder, &self.training, self.arguments.workers)?;
        self.train("text", trainer, 500, &mut |trainer| {
            let text = trainer.averaged();
            let window = self.tokenizer.window();
            let tokens = |text: &str| self.tokenizer.tokenize(text, window, self.tokenizer.padding()).map(|it| it.ids);
            let captions: Vec<_> = (0..512).map(|index| sample(781, index, Split::HeldOut).caption).collect();
            let ids = captions.iter().map(|caption| tokens(&caption.text)).collect::<Result<Vec<_>, _>>()?;
            let mut tally = Tally::default();
            for (caption, (named, _)) in captions.iter().zip(text.read(&ids)?) {
                tally.add(&caption.named, &named);
            }
            println!("text: factors read right in percent, held-out combinations: {tally}");
            let asked = InstructTask::ALL.into_iter().flat_map(|task| {
                task.instructions(Split::HeldOut, None).into_iter().map(move |instruction| (task, instruction))
            });
            let (tasks, ids): (Vec<_>, Vec<_>) = asked.map(|(task, instruction)| (task, tokens(&instruction))).unzip();
            let read = text.read(&ids.into_iter().collect::<Result<Vec<_>, _>>()?)?;
            let right = tasks.iter().zip(read).filter(|(task, (_, got))| Some(**task) == *got).count();
            println!("text: {right} of {} held-out instructions read right", tasks.len());
            Ok(())
        })
    }
}
