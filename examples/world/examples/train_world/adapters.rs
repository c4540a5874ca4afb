//! Stages `plus` and `instruct`: train IP-Adapters on pairs of drawings, with the finished model frozen.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use fabric::ipadapter::ResamplerConfig;
use fabric::ipadapter::train::{
    AdapterOptions, AdapterTask, Dataset, Partners, first_weights, first_weights_of_instruct,
};
use fabric::ipadapter::{AdapterConfig, AdapterFile, AdapterWeights, IpAdapter, ProjectionConfig, numbered_layers};
use fabric::models::clip::ClipVision;
use fabric::models::load::{Component, LoadDtype, ModelFolder};
use fabric::models::train::{TrainSettings, Trainer};
use fabric::models::{ModelOptions, StableDiffusion};
use fabric_world::learn::PromptTokensTask;
use fabric_world::{
    Curriculum, InstructTask, MOST_PROMPTS, Pair, Scene, SeveralPrompts, Split, Variation, measure, several_prompts,
};
use serde::Deserialize;
use serde_json::json;

use super::{Arguments, Job, common};

/// Kind of adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Adapter {
    /// IP-Adapter Plus: the text overrides the image prompt in the factors that it names.
    Plus,
    /// IP-Adapter Instruct: an instruction says what to take from the image prompt.
    Instruct,
}

/// Settings of an adapter's stage.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    stage: Adapter,
    training: TrainSettings,
    options: AdapterOptions,
    /// Number of pairs of drawings per task.
    pairs: u64,
    /// Number of examples with several image prompts, for Instruct.
    #[serde(default)]
    several: u64,
    /// Settings of training the projection on the tokens of captions first.
    start: Option<TrainSettings>,
}

/// Seed of the examples; `evaluate_world` uses another one.
const SEED: u64 = 71;

/// Name of the task of examples with several image prompts, by which the options give them a weight.
const SEVERAL: &str = "several";

/// Numbers of image prompts of these examples, in turn: with four, the text names other factors.
const PROMPTS: [usize; 2] = [4, MOST_PROMPTS];

impl Adapter {
    /// Returns the name of the stage, which is also that of the adapter's file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plus => "plus",
            Self::Instruct => "instruct",
        }
    }

    /// Returns the tasks and wordings of the stage: those of the command line, which only Instruct has.
    fn curriculum(self, arguments: &Arguments) -> Curriculum {
        match self {
            Self::Plus => Curriculum { tasks: vec![InstructTask::Everything], one_wording: false },
            Self::Instruct if arguments.tasks.is_empty() => {
                Curriculum { one_wording: arguments.one_wording, ..Curriculum::default() }
            }
            Self::Instruct => Curriculum { tasks: arguments.tasks.clone(), one_wording: arguments.one_wording },
        }
    }
}

impl Job<'_> {
    /// Trains an adapter, with the finished model frozen. Returns false if the deadline came first.
    pub(crate) fn adapter(&self, adapter: Adapter) -> Result<bool, Box<dyn Error>> {
        let name = adapter.name();
        if self.is_done(name) {
            return Ok(true);
        }
        let path = self.arguments.configs.join(format!("{name}.json"));
        let path = self.arguments.instruct.clone().filter(|_| adapter == Adapter::Instruct).unwrap_or(path);
        let config: Config = common::read_json(&path)?;
        if config.stage != adapter {
            return Err(format!("{}: stage: expected {adapter:?}, got {:?}", path.display(), config.stage).into());
        }
        let folder = self.folder(name);
        // The folder's name has what the data depend on, so that others are never taken for them.
        let curriculum = adapter.curriculum(self.arguments);
        let data = format!("data-{}-{}-{}", curriculum.label(), config.pairs, config.several);
        let data = write_examples(&folder.join(data), &config, &curriculum)?;
        let model = self.ship()?;
        let (networks, _) = StableDiffusion::open(&model, &self.device, &ModelOptions::default())?;
        let partners = Partners {
            unet: Arc::new(networks.unet.fork(&self.training).no_grad()),
            autoencoder: Arc::new(networks.vae),
            text: Arc::new(networks.text),
            vision: Arc::new(ClipVision::open(model.join("image_encoder"), &self.device)?),
        };
        let encoders = (partners.vision.clone(), partners.text.clone());
        let layers = partners.unet.cross_attentions();
        let (features, context) = (self.world.vision.hidden_size, self.world.text.hidden_size);
        let resampler = ResamplerConfig { features, channels: 128, heads: 2, depth: 2, factor: 4, tokens: 16, context };
        let projection = match adapter {
            Adapter::Plus => ProjectionConfig::Resampler(resampler),
            Adapter::Instruct => ProjectionConfig::Instruct { resampler, text: context },
        };
        let widths = numbered_layers(&layers).iter().map(|layer| layer.channels).collect();
        let kind = AdapterConfig { projection, widths, context, lora_rank: None };
        self.training.seed(config.training.seed);
        let first = match (self.begun_adapter(name, &kind)?, adapter) {
            (Some(first), _) => first,
            (None, Adapter::Plus) => {
                first_weights(&kind, &layers, &*ModelFolder::open(&model)?.weights(Component::UNet)?, &self.training)?
            }
            (None, Adapter::Instruct) => {
                let plus = self.done(Adapter::Plus.name()).ok_or("stage plus is not done: run it first")?;
                first_weights_of_instruct(&kind, &AdapterFile::open(plus)?, &self.training)?
            }
        };
        let first = match &config.start {
            None => first,
            Some(settings) => {
                let folder = folder.join("start");
                let task = PromptTokensTask::new(&kind, resampler.tokens, encoders, self.tokenizer.clone(), settings)
                    .with_curriculum(curriculum);
                let trainer = Trainer::new(task, first, settings, &folder, &self.training, self.arguments.workers)?;
                let Some(trainer) = self.run("start", trainer, 500, &mut |_| Ok(()))? else { return Ok(false) };
                trainer.averaged().train()
            }
        };
        let data = Dataset::open(data, 0)?;
        let task = AdapterTask::new(&kind, partners, &networks.scheduler, data, &config.training, &config.options)?;
        let trainer = Trainer::new(task, first, &config.training, &folder, &self.training, self.arguments.workers)?;
        let save = |trainer: &Trainer<AdapterTask>, path: &Path| -> Result<(), Box<dyn Error>> {
            fs::create_dir_all(path)?;
            Ok(IpAdapter::new(kind.clone(), trainer.averaged())?
                .save(path.join("model.safetensors"), LoadDtype::F16)?)
        };
        let mut look = |trainer: &Trainer<AdapterTask>| save(trainer, &folder.join("preview"));
        let Some(trainer) = self.run(name, trainer, 500, &mut look)? else { return Ok(false) };
        save(&trainer, &folder.join("done"))?;
        Ok(true)
    }

    /// Returns the weights of this adapter in `--from`, if it has the adapter.
    fn begun_adapter(&self, name: &str, kind: &AdapterConfig) -> Result<Option<AdapterWeights>, Box<dyn Error>> {
        let Some(model) = &self.arguments.from else { return Ok(None) };
        let path = model.join(format!("ip_adapter/{name}.safetensors"));
        if !path.is_file() {
            return Ok(None);
        }
        let adapter = IpAdapter::open(&path, &self.device)?;
        if adapter.config() != kind {
            return Err(format!("{}: expected {kind}, got {}", path.display(), adapter.config()).into());
        }
        println!("{name} begins with {}", path.display());
        Ok(Some(adapter.weights().clone().train()))
    }
}

/// Draws the examples and writes them as a data set, unless it exists already. Returns the path of its list.
fn write_examples(folder: &Path, config: &Config, curriculum: &Curriculum) -> Result<PathBuf, Box<dyn Error>> {
    let list = folder.join("data.jsonl");
    if list.is_file() {
        return Ok(list);
    }
    fs::create_dir_all(folder)?;
    let draw = |drawn: &(Scene, Variation), name: String| -> Result<String, Box<dyn Error>> {
        measure::drawing(drawn)?.save(folder.join(&name))?;
        Ok(name)
    };
    let mut lines = String::new();
    for &task in &curriculum.tasks {
        for index in 0..config.pairs {
            let Pair { condition, target, text, instruction, .. } = curriculum.pair(SEED, index, task);
            let condition = draw(&condition, format!("{task}-{index}-condition.png"))?;
            let target = draw(&target, format!("{task}-{index}-target.png"))?;
            let mut line = json!({ "image": target, "condition": condition, "text": text });
            if config.stage == Adapter::Instruct {
                line["task"] = task.to_string().into();
                line["instruction"] = instruction.into();
            }
            lines.push_str(&format!("{line}\n"));
        }
        println!("drew {} pairs for the task {task}", config.pairs);
    }
    for (index, number) in (0..config.several).zip(PROMPTS.into_iter().cycle()) {
        let SeveralPrompts { prompts, target, text, .. } = several_prompts(SEED, index, number, Split::Train);
        let target = draw(&target, format!("{SEVERAL}-{index}-target.png"))?;
        let mut prompts = prompts.into_iter().enumerate().map(|(at, prompt)| {
            let condition = draw(&prompt.image, format!("{SEVERAL}-{index}-condition-{at}.png"))?;
            Ok(json!({ "condition": condition, "instruction": prompt.instruction }))
        });
        let mut line = prompts.next().expect("there are several")?;
        line["image"] = target.into();
        line["text"] = text.into();
        line["task"] = SEVERAL.into();
        line["more"] = prompts.collect::<Result<Vec<_>, Box<dyn Error>>>()?.into();
        lines.push_str(&format!("{line}\n"));
    }
    // Written last, so that the list only names images that exist.
    fs::write(&list, lines)?;
    Ok(list)
}
