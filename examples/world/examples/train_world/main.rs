//! Trains the small world's networks, one stage after the other, and resumes a run that was stopped:
//! `cargo run --release -p fabric-world --features train --example train_world -- --stage all`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::Device;
use clap::{Parser, ValueEnum};
use fabric::models::load::{
    ComponentFolder, LoadDtype, LoadOptions, PublishedNames, SaveDtype, SaveOptions, load_into, open_weights,
    save_component,
};
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::train::{Task, Trainer};
use fabric_world::InstructTask;
use fabric_world::learn::{Stage, StageConfig, WorldConfig, world_tokenizer};

mod adapters;
mod clip;
#[path = "../../../common/mod.rs"]
mod common;
mod model;
mod readers;
mod text;
mod tiny_vae;
mod unet;
mod vae;

use adapters::Adapter;

/// Stages to run.
#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Stages {
    /// Readers, which classify the factors of an image.
    Readers,
    /// Text encoder.
    Text,
    /// Image encoder.
    Clip,
    /// VAE.
    Vae,
    /// Tiny autoencoder, which decodes previews; needs `vae`.
    TinyVae,
    /// U-Net.
    Unet,
    /// IP-Adapter Plus.
    Plus,
    /// IP-Adapter Instruct; needs `plus`.
    Instruct,
    /// All stages in this order, then the model folder.
    All,
    /// Only write the model folder, from the finished stages.
    Ship,
}

/// Trains the small world's networks.
#[derive(Debug, Parser)]
struct Arguments {
    /// Stage to run.
    #[arg(long, value_enum, default_value = "all")]
    stage: Stages,
    /// Folder with a settings file for each stage, named like `readers.json`.
    #[arg(long, default_value = "examples/world/configs")]
    configs: PathBuf,
    /// Output folder for checkpoints, loss curves and samples. Give the same folder again to resume a run.
    #[arg(long, default_value = "out/world")]
    out: PathBuf,
    /// Folder with finished weights as `STAGE.safetensors`. These stages are not trained.
    #[arg(long)]
    done: Option<PathBuf>,
    /// Model folder, as written by `--stage ship`, whose weights initialise the networks and adapters instead of random ones.
    #[arg(long)]
    from: Option<PathBuf>,
    /// Settings file of stage `instruct`. Default: `instruct.json` of `--configs`.
    #[arg(long)]
    instruct: Option<PathBuf>,
    /// Tasks of stage `instruct`, separated by commas, for comparisons with adapters of fewer tasks. Default: all.
    #[arg(long, value_delimiter = ',')]
    tasks: Vec<InstructTask>,
    /// Gives each task of stage `instruct` a single wording, for comparisons with varied wordings.
    #[arg(long)]
    one_wording: bool,
    /// Stop after this many minutes and save a checkpoint.
    #[arg(long)]
    minutes: Option<f64>,
    /// Number of threads that draw training batches.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Number of batches of one step that are computed in parallel, each on one thread. For a CPU with several cores,
    /// and at most `accumulate` in the settings.
    #[arg(long, default_value_t = 1)]
    replicas: usize,
    /// Device: flex, ndarray, cuda, cuda:N or wgpu. Default: the first one that this build supports.
    #[arg(long)]
    device: Option<String>,
}

/// Result of a function that only has effects.
type Done = Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    common::report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let device = common::device(arguments.device.as_deref())?;
    let mut job = Job {
        arguments,
        device: device.clone(),
        training: device.autodiff(),
        deadline: arguments.minutes.map(deadline).transpose()?,
        world: WorldConfig::small()?,
        tokenizer: world_tokenizer()?,
    };
    job.world.vae = job.config("vae", Stage::Vae)?.with_changes(&job.world.vae)?;
    job.world.tiny_vae = job.config(tiny_vae::NAME, Stage::TinyVae)?.with_changes(&job.world.tiny_vae)?;
    job.world.unet = job.config("unet", Stage::Unet)?.with_changes(&job.world.unet)?;
    let wants = |stage| arguments.stage == stage || arguments.stage == Stages::All;
    let is_stopped = wants(Stages::Readers) && !job.readers()?
        || wants(Stages::Text) && !job.text()?
        || wants(Stages::Clip) && !job.clip()?
        || wants(Stages::Vae) && !job.vae()?
        || wants(Stages::TinyVae) && !job.tiny_vae()?
        || wants(Stages::Unet) && !job.unet()?
        || wants(Stages::Plus) && !job.adapter(Adapter::Plus)?
        || wants(Stages::Instruct) && !job.adapter(Adapter::Instruct)?;
    if is_stopped {
        println!("stopped in time; the same command goes on");
        return Ok(());
    }
    if wants(Stages::Ship) {
        println!("{}", job.ship()?.display());
    }
    Ok(())
}

/// Returns the time this many minutes from now.
fn deadline(minutes: f64) -> Result<Instant, Box<dyn Error>> {
    let left = Duration::try_from_secs_f64(minutes * 60.0).ok().and_then(|left| Instant::now().checked_add(left));
    left.ok_or_else(|| format!("--minutes: expected a number of minutes, 0 or more, got {minutes}").into())
}

struct Job<'a> {
    arguments: &'a Arguments,
    device: Device,
    training: Device,
    deadline: Option<Instant>,
    world: WorldConfig,
    tokenizer: ClipTokenizer,
}

impl Job<'_> {
    fn config(&self, name: &str, stage: Stage) -> Result<StageConfig, Box<dyn Error>> {
        let path = self.arguments.configs.join(format!("{name}.json"));
        let config: StageConfig = common::read_json(&path)?;
        if config.stage != stage {
            return Err(format!("{}: stage: expected {stage:?}, got {:?}", path.display(), config.stage).into());
        }
        Ok(config)
    }

    fn folder(&self, stage: &str) -> PathBuf {
        self.arguments.out.join(stage)
    }

    /// Trains a stage and saves its weights. Returns false if the deadline came first.
    fn train<T: Task>(
        &self,
        name: &str,
        trainer: Trainer<T>,
        every: u64,
        look: &mut dyn FnMut(&Trainer<T>) -> Done,
    ) -> Result<bool, Box<dyn Error>> {
        let Some(trainer) = self.run(name, trainer, every, look)? else { return Ok(false) };
        // In f16, as the text encoder and the VAE are in the model folder: later stages must train with the same rounded
        // weights. The folder has U-Net and image encoder in 8 bits.
        let options = SaveOptions { dtype: SaveDtype::F16, max_shard_bytes: None };
        save_component(&trainer.averaged(), self.folder(name).join("done"), &serde_json::json!({}), &options)?;
        Ok(true)
    }

    /// Runs a trainer to its end and returns it, or saves a checkpoint at the deadline and returns `None`.
    fn run<T: Task>(
        &self,
        name: &str,
        trainer: Trainer<T>,
        every: u64,
        look: &mut dyn FnMut(&Trainer<T>) -> Done,
    ) -> Result<Option<Trainer<T>>, Box<dyn Error>> {
        let mut trainer = trainer.with_replicas(self.arguments.replicas)?;
        while !trainer.is_done() {
            let progress = trainer.step()?;
            let step = progress.step;
            if step % 20 == 0 || trainer.is_done() {
                let left = progress.seconds_left / 60.0;
                println!(
                    "{name} {step}/{}: loss {:.4}, gradient {:.2}, rate {:.1e}, {:.2} s a step, {left:.0} min left",
                    progress.steps, progress.loss, progress.gradient, progress.rate, progress.seconds
                );
            }
            if step % every == 0 && !trainer.is_done() {
                look(&trainer)?;
            }
            if self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
                trainer.save()?;
                look(&trainer)?;
                return Ok(None);
            }
        }
        look(&trainer)?;
        Ok(Some(trainer))
    }

    /// Initialises a network from a subfolder of `--from`, if it is given.
    fn begun<M: Module + PublishedNames>(&self, part: &str, module: M) -> Result<M, Box<dyn Error>> {
        let Some(model) = &self.arguments.from else { return Ok(module) };
        let folder = ComponentFolder::open(model.join(part), None)?;
        println!("{part} begins with {}", model.display());
        Ok(load_into(module, &*folder.weights()?, &LoadOptions::default().with_dtype(LoadDtype::F32))?.0)
    }

    /// Returns the weights file of a stage that must be finished. The networks of a model folder will do, too, which may
    /// have 8 bits.
    fn finished_file(&self, stage: &str) -> Result<PathBuf, Box<dyn Error>> {
        let path = self.done(stage);
        Ok(path.ok_or_else(|| format!("stage {stage} is not done: run it first, or name a folder with --done"))?)
    }

    /// Loads the network of a finished stage.
    fn finished<M: Module + PublishedNames>(&self, stage: &str, module: M) -> Result<M, Box<dyn Error>> {
        let file = open_weights(self.finished_file(stage)?)?;
        Ok(load_into(module, &*file, &LoadOptions::default().with_dtype(LoadDtype::F32))?.0)
    }

    /// Loads the encoder of a finished stage. The file of the stage also has parts that only training needs, such as heads
    /// for factors; a file with the encoder alone will do.
    fn encoder<M: Module + PublishedNames>(&self, stage: &str, module: M) -> Result<M, Box<dyn Error>> {
        let file = open_weights(self.finished_file(stage)?)?;
        let options = LoadOptions::default().with_dtype(LoadDtype::F32).with_strict(false);
        let (encoder, report) = load_into(module, &*file, &options)?;
        let missing = report.missing.iter().map(|tensor| &tensor.name);
        match missing.chain(report.mismatched.iter().map(|tensor| &tensor.name)).next() {
            None => Ok(encoder),
            Some(name) => {
                Err(format!("{}: tensor {name}: missing, or of another shape than this encoder's", report.place).into())
            }
        }
    }

    /// Returns the weights file of a finished stage.
    fn done(&self, stage: &str) -> Option<PathBuf> {
        let elsewhere = self.arguments.done.as_ref().map(|folder| folder.join(format!("{stage}.safetensors")));
        let places = [Some(self.folder(stage).join("done/model.safetensors")), elsewhere];
        places.into_iter().flatten().find(|path| path.is_file())
    }

    fn is_done(&self, stage: &str) -> bool {
        self.done(stage).is_some()
    }
}
