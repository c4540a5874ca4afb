//! Examples for adapters: drawings, and images that the model made, as a data set on disk.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fabric::core::image::Image;
use fabric::core::pipeline::{Request, Settings};
use fabric::models::{ModelOptions, load_model};
use fabric_world::{
    Attribute, Curriculum, Judge, MOST_PROMPTS, Named, Pair, Scene, SeveralPrompts, Split, Variation, VotesExample,
    full_caption, measure, sample, several_prompts, votes_example,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// Numbers of examples.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExampleCounts {
    /// Pairs of drawings per task.
    pairs: u64,
    /// Examples with several image prompts, for Instruct.
    #[serde(default)]
    several: u64,
    /// Examples with the votes of a feedback session, for Instruct.
    #[serde(default)]
    votes: u64,
    /// Images that the model makes for these votes. Those that do not show their caption are left out.
    #[serde(default)]
    made: u64,
}

/// Examples of an adapter's stage.
pub(crate) struct Examples<'a> {
    pub(crate) curriculum: &'a Curriculum,
    pub(crate) counts: ExampleCounts,
    /// Whether the adapter reads instructions.
    pub(crate) instructs: bool,
}

/// Seed of the examples; `evaluate_world` uses another one.
const SEED: u64 = 71;

/// Name of the task of examples with several image prompts, by which the options give them a weight.
const SEVERAL: &str = "several";

/// Numbers of image prompts of these examples, in turn: with four, the text names other factors.
const PROMPTS: [usize; 2] = [4, MOST_PROMPTS];

/// As [`SEVERAL`], for examples with the votes of a feedback session.
const VOTES: &str = "votes";

impl Examples<'_> {
    /// Writes the examples into a folder of the stage's, unless they exist already. Returns the path of their list.
    ///
    /// `model` is the folder of the model that makes images for votes.
    pub(crate) fn write(&self, stage: &Path, model: &Path, device: &Device) -> Result<PathBuf, Box<dyn Error>> {
        let ExampleCounts { pairs, several, votes, made } = self.counts;
        // The folder's name has what the data depend on, so that others are never taken for them.
        let folder = stage.join(format!("data-{}-{pairs}-{several}-{votes}-{made}", self.curriculum.label()));
        let list = folder.join("data.jsonl");
        if list.is_file() {
            return Ok(list);
        }
        fs::create_dir_all(&folder)?;
        let mut lines = self.pairs(&folder)?;
        lines.extend(self.several(&folder)?);
        if votes > 0 {
            lines.extend(self.votes(&folder, model, device)?);
        }
        // Written last, so that the list only names images that exist.
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&list, lines)?;
        Ok(list)
    }

    fn pairs(&self, folder: &Path) -> Result<Vec<Value>, Box<dyn Error>> {
        let mut lines = Vec::new();
        for &task in &self.curriculum.tasks {
            for index in 0..self.counts.pairs {
                let Pair { condition, target, text, instruction, .. } = self.curriculum.pair(SEED, index, task);
                let condition = draw(folder, &condition, format!("{task}-{index}-condition.png"))?;
                let target = draw(folder, &target, format!("{task}-{index}-target.png"))?;
                let mut line = json!({ "image": target, "condition": condition, "text": text });
                if self.instructs {
                    line["task"] = task.to_string().into();
                    line["instruction"] = instruction.into();
                }
                lines.push(line);
            }
            println!("drew {} pairs for the task {task}", self.counts.pairs);
        }
        Ok(lines)
    }

    fn several(&self, folder: &Path) -> Result<Vec<Value>, Box<dyn Error>> {
        let example = |(index, count): (u64, usize)| {
            let SeveralPrompts { prompts, target, text, .. } = several_prompts(SEED, index, count, Split::Train);
            let target = draw(folder, &target, format!("{SEVERAL}-{index}-target.png"))?;
            let conditions = prompts.into_iter().enumerate().map(|(at, prompt)| {
                Ok((draw(folder, &prompt.image, format!("{SEVERAL}-{index}-condition-{at}.png"))?, prompt.instruction))
            });
            Ok(line_of_several(SEVERAL, target, text, conditions.collect::<Result<_, Box<dyn Error>>>()?))
        };
        (0..self.counts.several).zip(PROMPTS.into_iter().cycle()).map(example).collect()
    }

    fn votes(&self, folder: &Path, model: &Path, device: &Device) -> Result<Vec<Value>, Box<dyn Error>> {
        let (images, scenes): (Vec<Image>, Vec<Scene>) = made(self.counts.made, model, device)?.into_iter().unzip();
        println!("made {} images for votes, of which {} show their caption", self.counts.made, images.len());
        if images.is_empty() {
            return Err("examples.made: none of the images shows its caption; make more, or train the U-Net".into());
        }
        let name = |index: usize| format!("made-{index}.png");
        for (index, image) in images.iter().enumerate() {
            image.save(folder.join(name(index)))?;
        }
        let example = |index| {
            let VotesExample { votes, target, text, .. } = votes_example(SEED, index, &scenes, Split::Train);
            let target = draw(folder, &target, format!("{VOTES}-{index}-target.png"))?;
            let conditions = votes.into_iter().map(|vote| (name(vote.image), vote.instruction));
            Ok(line_of_several(VOTES, target, text, conditions.collect()))
        };
        (0..self.counts.votes).map(example).collect()
    }
}

/// Draws an image, and returns its name.
fn draw(folder: &Path, scene: &(Scene, Variation), name: String) -> Result<String, Box<dyn Error>> {
    measure::drawing(scene)?.save(folder.join(&name))?;
    Ok(name)
}

/// Returns the line of an example with several image prompts, each with its instruction.
fn line_of_several(task: &str, target: String, text: String, conditions: Vec<(String, String)>) -> Value {
    let prompt = |(condition, instruction)| json!({ "condition": condition, "instruction": instruction });
    let mut prompts = conditions.into_iter().map(prompt);
    let mut line = prompts.next().expect("there is at least one");
    line["image"] = target.into();
    line["text"] = text.into();
    line["task"] = task.into();
    line["more"] = prompts.collect();
    line
}

/// Makes images of captions of things, and returns those in which the readers see all that the caption says.
///
/// The images of a feedback session are made, too, and the image encoder, which has seen drawings alone, tells their
/// textures apart less well.
fn made(count: u64, model: &Path, device: &Device) -> Result<Vec<(Image, Scene)>, Box<dyn Error>> {
    let (pipeline, _) = load_model(model, device, &ModelOptions::default())?;
    let judge = Judge::load(model, device)?;
    let samples = (0..).map(|index| sample(SEED, index, Split::Train).scene);
    let scenes: Vec<Scene> = samples.filter(|scene| !scene.is_face()).take(usize::try_from(count)?).collect();
    let settings = Settings { steps: 10, guidance_scale: 3.0, ..Settings::default() };
    let request = |(seed, scene)| Request::new(full_caption(scene)).with_seeds([seed]).with_settings(settings.clone());
    let requests: Vec<Request> = (SEED..).zip(&scenes).map(request).collect();
    let images = measure::generate_all(&pipeline, &requests)?;
    let seen = judge.read(&images)?;
    let is_shown = |scene: &Scene, seen: &Named| {
        let scene = Named::of(scene);
        Attribute::ALL
            .into_iter()
            .all(|each| scene.index_of(each).is_none_or(|index| seen.index_of(each) == Some(index)))
    };
    let made = images.into_iter().zip(scenes).zip(&seen);
    Ok(made.filter(|((_, scene), seen)| is_shown(scene, seen)).map(|(made, _)| made).collect())
}
