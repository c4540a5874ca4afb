//! Training of the text encoder.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use serde_json::{Value, json};

use super::WorldConfig;
use crate::draws::{below, chance, pick};
use crate::{Attribute, Factor, InstructTask, Named, Scene, Split, Wording};
use fabric::models::clip::{ClipText, ClipTextError};
use fabric::models::config::ConfigError;
use fabric::models::layers::Linear;
use fabric::models::load::PublishedNames;
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::train::{Task, TrainSettings};

/// Text encoder with its training heads, which classify the value of each factor (or "not named") and the task
/// of an instruction.
#[derive(Module, Debug)]
pub struct WorldText {
    /// The text encoder.
    pub text: ClipText,
    /// One head for each of [`Attribute::ALL`]; the last output is "not named".
    factors: Vec<Linear>,
    /// One output for each of [`InstructTask::ALL`]; the last one is "no instruction".
    task: Linear,
}

impl PublishedNames for WorldText {
    fn published_name(path: &str) -> String {
        match path.split_once('.') {
            Some(("text", rest)) => ClipText::published_name(rest),
            _ => path.to_owned(),
        }
    }
}

impl WorldText {
    /// Creates a text encoder with random weights.
    ///
    /// # Errors
    ///
    /// Returns an error if the configuration is invalid.
    pub fn new(config: &WorldConfig, device: &Device) -> Result<Self, ConfigError> {
        let head = |values: usize| Linear::new(config.text.projection_dim, values + 1, true, device);
        Ok(Self {
            text: config.text.init(device)?,
            factors: Attribute::ALL.into_iter().map(|attribute| head(attribute.values().len())).collect(),
            task: head(InstructTask::ALL.len()),
        })
    }

    /// Returns the most likely factors of each text, and its task if it is an instruction.
    ///
    /// # Errors
    ///
    /// Returns an error if the texts differ in length or contain unknown tokens.
    pub fn read(&self, ids: &[Vec<u32>]) -> Result<Vec<(Named, Option<InstructTask>)>, ClipTextError> {
        let embeds = self.text.forward(ids)?.text_embeds.expect("the world's text encoder projects");
        let best = |head: &Linear| -> Vec<usize> {
            let indices = head.forward(embeds.clone()).argmax(1).into_data();
            indices.iter::<i64>().map(|index| index as usize).collect()
        };
        let tasks = best(&self.task).into_iter().map(|index| InstructTask::ALL.get(index).copied());
        let mut got: Vec<_> = tasks.map(|task| (Named::default(), task)).collect();
        for (attribute, head) in Attribute::ALL.into_iter().zip(&self.factors) {
            for ((named, _), index) in got.iter_mut().zip(best(head)) {
                // The last output is beyond the values, which `with` turns into `None`: not named.
                *named = named.with(attribute, Some(index));
            }
        }
        Ok(got)
    }
}

/// Task that trains the text encoder, before all networks that use its output: linear heads on the embedding of
/// a text classify everything that the text says.
///
/// The U-Net can therefore be trained before or alongside the image encoder, which later learns to match these
/// embeddings.
#[derive(Debug)]
pub struct TextTask {
    tokenizer: ClipTokenizer,
    settings: TrainSettings,
    identity: Value,
}

/// Batch of texts with their factors and tasks.
#[derive(Debug)]
pub struct TextBatch {
    ids: Vec<Vec<u32>>,
    named: Vec<Named>,
    tasks: Vec<Option<InstructTask>>,
}

impl TextTask {
    /// Creates a task for this text encoder.
    pub fn new(config: &WorldConfig, tokenizer: ClipTokenizer, settings: &TrainSettings) -> Self {
        let identity = json!({ "stage": "text", "text": config.text });
        Self { tokenizer, settings: settings.clone(), identity }
    }
}

/// Keeps each named factor with a probability of a third.
///
/// If most texts named both kind and colour, the encoder would learn which kinds never occur in which colours
/// and misread the held-out pairs. Texts that name one factor without the other show that they are independent.
fn thinned(named: Named, rng: &mut impl Rng) -> Named {
    let dropped: Vec<_> = named.attributes().filter(|_| chance(rng, 0.67)).collect();
    dropped.into_iter().fold(named, |named, attribute| named.with(attribute, None))
}

/// Share of texts that are instructions.
const INSTRUCTIONS: f32 = 0.25;

impl Task for TextTask {
    type Model = WorldText;
    type Batch = TextBatch;

    fn identity(&self) -> Value {
        self.identity.clone()
    }

    fn batches(&self) -> Arc<dyn Fn(u64) -> TextBatch + Send + Sync> {
        let (seed, size, tokenizer) = (self.settings.seed, self.settings.batch, self.tokenizer.clone());
        Arc::new(move |number| {
            let mut rng = ChaCha12Rng::seed_from_u64(seed);
            rng.set_stream(number);
            let mut batch = TextBatch { ids: Vec::new(), named: Vec::new(), tasks: Vec::new() };
            for _ in 0..size {
                let scene = Scene::random_of(Split::Train, &mut rng);
                let (text, named, task) = if chance(&mut rng, INSTRUCTIONS) {
                    let task: InstructTask = pick(&mut rng);
                    let instructions = task.instructions(Split::Train, Some(scene.kind));
                    (instructions[below(&mut rng, instructions.len())].clone(), None, Some(task))
                } else {
                    let mut named = Named::some_of(&scene, &mut rng);
                    if chance(&mut rng, 0.5) {
                        named = thinned(named, &mut rng);
                    }
                    let wording: Wording = pick(&mut rng);
                    (named.caption(wording), Some(named), None)
                };
                batch.ids.push(padded(&tokenizer, &text));
                batch.named.push(named.unwrap_or_default());
                batch.tasks.push(task);
            }
            batch
        })
    }

    fn loss(&self, model: &WorldText, batch: TextBatch, device: &Device) -> Result<Tensor<1>, String> {
        let read = model.text.forward(&batch.ids).map_err(|error| error.to_string())?;
        let read = read.text_embeds.expect("the world's text encoder projects");
        let cross_entropy = |head: &Linear, expected: Vec<Option<usize>>| {
            let logits = head.forward(read.clone());
            let [rows, outputs] = logits.dims();
            let expected: Vec<i64> = expected.into_iter().map(|index| index.unwrap_or(outputs - 1) as i64).collect();
            let expected = Tensor::<2, Int>::from_data(TensorData::new(expected, [rows, 1]), device);
            log_softmax(logits, 1).gather(1, expected).mean().neg()
        };
        let task = cross_entropy(&model.task, batch.tasks.iter().map(|task| task.map(Factor::index)).collect());
        let factors = Attribute::ALL.into_iter().zip(&model.factors);
        Ok(factors.fold(task, |sum, (attribute, head)| {
            sum + cross_entropy(head, batch.named.iter().map(|named| named.index_of(attribute)).collect())
        }))
    }
}

/// Tokenizes a text, padded to one tokenizer window.
pub(super) fn padded(tokenizer: &ClipTokenizer, text: &str) -> Vec<u32> {
    let mut ids = vec![tokenizer.bos()];
    ids.extend(tokenizer.encode(text).expect("texts consist of the world's words"));
    ids.truncate(tokenizer.window() - 1);
    ids.resize(tokenizer.window(), tokenizer.eos());
    ids
}
