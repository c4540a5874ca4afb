//! Trains the small world's networks, one stage after the other, and goes on where it was stopped:
//! `cargo run --release --features train --example train_world -- --stage all`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::Device;
use clap::{Parser, ValueEnum};
use fabric::core::models::LatentCodec;
use fabric::core::picture::{Mark, contact_sheet};
use fabric::core::pipeline::{Request, Settings};
use fabric::core::schedule::{SchedulerConfig, training_levels};
use fabric::models::load::{
    Component, ComponentFolder, FolderWriter, LoadDtype, LoadOptions, PublishedNames, SafetensorsFile, SaveOptions,
    load_into, save_component,
};
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::train::{Task, Trainer};
use fabric::models::vae::Vae;
use fabric::models::world::learn::{
    ClipTask, Stage, StageConfig, UNetTask, VaeTask, WorldClip, WorldConfig, world_tokenizer,
};
use fabric::models::world::{Judge, SIDE, Split, full_caption, sample};
use fabric::models::{ModelOptions, load_folder};

mod common;

/// Which stages to run.
#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Stages {
    /// Text and image encoder.
    Clip,
    /// Pictures to latents and back.
    Vae,
    /// Latents from text.
    Unet,
    /// All of them, then the model folder.
    All,
    /// Only the model folder, from stages that are done.
    Ship,
}

/// Trains the small world's networks.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which stages to run.
    #[arg(long, value_enum, default_value = "all")]
    stage: Stages,
    /// A folder with `clip.json`, `vae.json` and `unet.json`.
    #[arg(long, default_value = "examples/world")]
    configs: PathBuf,
    /// Where checkpoints, curves and samples go; the same folder goes on with the same run.
    #[arg(long, default_value = "out/world")]
    out: PathBuf,
    /// Begins with the weights of this model, as the last stage writes it, instead of random ones.
    #[arg(long)]
    from: Option<PathBuf>,
    /// Stops after so many minutes, with a checkpoint.
    #[arg(long)]
    minutes: Option<f64>,
    /// Threads that draw batches.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Batches of one step that are worked on at once, each on one thread: for several CPU cores, together with
    /// `accumulate` in the settings.
    #[arg(long, default_value_t = 1)]
    replicas: usize,
    /// Where to compute: flex, ndarray, cuda, cuda:N, wgpu; the first that this build has if absent.
    #[arg(long)]
    device: Option<String>,
}

/// Nothing, or why not.
type Done = Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    common::report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let device = common::device(arguments.device.as_deref())?;
    let job = Job {
        arguments,
        device: device.clone(),
        training: device.autodiff(),
        deadline: arguments.minutes.map(deadline).transpose()?,
        world: WorldConfig::small()?,
        tokenizer: world_tokenizer()?,
    };
    let wants = |stage| arguments.stage == stage || arguments.stage == Stages::All;
    if wants(Stages::Clip) && !job.clip()? || wants(Stages::Vae) && !job.vae()? || wants(Stages::Unet) && !job.unet()? {
        println!("stopped in time; the same command goes on");
        return Ok(());
    }
    if wants(Stages::Ship) {
        let folder = job.folder("unet").join("model");
        job.write_model(&folder, &job.finished("unet", job.world.unet.init(&job.device)?)?)?;
        println!("{}", folder.display());
    }
    Ok(())
}

/// So many minutes from now.
fn deadline(minutes: f64) -> Result<Instant, Box<dyn Error>> {
    let left = Duration::try_from_secs_f64(minutes * 60.0).ok().and_then(|left| Instant::now().checked_add(left));
    left.ok_or_else(|| format!("--minutes: found {minutes}, wanted a number of minutes, 0 or more").into())
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
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let config: StageConfig =
            serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        if config.stage != stage {
            return Err(format!("{}: found stage {:?}, wanted {stage:?}", path.display(), config.stage).into());
        }
        Ok(config)
    }

    fn folder(&self, stage: &str) -> PathBuf {
        self.arguments.out.join(stage)
    }

    /// Runs a stage to its end, or to the deadline; whether it is done.
    fn train<T: Task>(
        &self,
        name: &str,
        trainer: Trainer<T>,
        every: u64,
        look: &mut dyn FnMut(&Trainer<T>) -> Done,
    ) -> Result<bool, Box<dyn Error>> {
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
                return Ok(false);
            }
        }
        look(&trainer)?;
        let options = SaveOptions { dtype: LoadDtype::F32, max_shard_bytes: None };
        save_component(&trainer.averaged(), self.folder(name).join("done"), &serde_json::json!({}), &options)?;
        Ok(true)
    }

    /// A network with the weights that a stage is to begin with, from a part of the model's folder.
    fn begun<M: Module + PublishedNames>(&self, part: &str, module: M) -> Result<M, Box<dyn Error>> {
        let Some(model) = &self.arguments.from else { return Ok(module) };
        let folder = ComponentFolder::open(model.join(part), None)?;
        println!("{part} begins with {}", model.display());
        Ok(load_into(module, &*folder.weights()?, &LoadOptions::default().with_dtype(LoadDtype::F32))?.0)
    }

    /// A network of a stage that is done.
    fn finished<M: Module + PublishedNames>(&self, stage: &str, module: M) -> Result<M, Box<dyn Error>> {
        let path = self.folder(stage).join("done/model.safetensors");
        let file = SafetensorsFile::open(&path).map_err(|error| format!("{error}: is stage {stage} done?"))?;
        Ok(load_into(module, &file, &LoadOptions::default().with_dtype(LoadDtype::F32))?.0)
    }

    fn is_done(&self, stage: &str) -> bool {
        self.folder(stage).join("done/model.safetensors").is_file()
    }

    fn clip(&self) -> Result<bool, Box<dyn Error>> {
        if self.is_done("clip") {
            return Ok(true);
        }
        let config = self.config("clip", Stage::Clip)?;
        let settings = config.training;
        self.training.seed(settings.seed);
        let task = ClipTask::new(&self.world, self.tokenizer.clone(), &settings, &config.options);
        let mut model = WorldClip::new(&self.world, &self.training)?;
        model.text = self.begun("text_encoder", model.text)?;
        model.vision = self.begun("image_encoder", model.vision)?;
        model.readers = self.begun("readers", model.readers)?;
        let trainer =
            Trainer::new(task, model, &settings, self.folder("clip"), &self.training, self.arguments.workers)?;
        self.train("clip", trainer, 250, &mut |trainer| {
            let clip = trainer.averaged();
            let samples = |seed, count, split| -> Vec<_> { (0..count).map(|i| sample(seed, i, split)).collect() };
            let parts = (&clip.text, &clip.vision);
            let asked = samples(777, 512, Split::Train);
            let share = 100.0 * common::world::retrieval(parts, &self.tokenizer, &asked, &self.device)?;
            println!("clip: {share:.1} % of captions find their own picture among 64");
            let judge = Judge::new(clip.vision.clone(), clip.readers.clone(), &self.device);
            for split in Split::ALL {
                let right = common::world::readers(&judge, &samples(776, 1024, split))?;
                println!("clip: readers right in percent, {split}: {right}");
            }
            Ok(())
        })
    }

    fn vae(&self) -> Result<bool, Box<dyn Error>> {
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
            println!("vae: {:.2} dB on held-out pictures", common::world::fidelity(&vae, &held, &self.device)?);
            let drawn = common::world::drawn(&held[..12])?;
            let latents = vae.encode_distribution(common::world::pixels(&drawn, &self.device)?).mean;
            let back = fabric::core::picture::from_tensor(vae.decode_unscaled(latents))?;
            let rows = [drawn, back];
            let rows: Vec<Vec<_>> =
                rows.iter().map(|row| row.iter().map(|picture| (picture, Mark::None)).collect()).collect();
            contact_sheet(&rows, 4)?.save(folder.join("pictures.png"))?;
            Ok(())
        })
    }

    fn unet(&self) -> Result<bool, Box<dyn Error>> {
        if self.is_done("unet") {
            return Ok(true);
        }
        let config = self.config("unet", Stage::Unet)?;
        let clip = self.finished("clip", WorldClip::new(&self.world, &self.device)?)?;
        let (vae, scale) = self.scaled_vae()?;
        println!("latents are scaled by {scale:.4}");
        if config.options.pool == 0 {
            return Err("unet.json: pool: found 0 pictures, wanted as many as there are to learn from".into());
        }
        let pool = self.pool(&vae, config.training.seed, config.options.pool)?;
        let levels = training_levels(&scheduler())?;
        let side = SIDE as usize / vae.downscale();
        let shape = [vae.latent_channels(), side, side];
        let task = UNetTask::new(
            &self.world,
            &config.training,
            &config.options,
            (self.tokenizer.clone(), clip.text),
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

    /// The VAE of its stage, with latents of about unit variance, and the factor that makes them so.
    fn scaled_vae(&self) -> Result<(Vae, f64), Box<dyn Error>> {
        let vae = self.finished("vae", self.world.vae.init(&self.device)?)?;
        let samples: Vec<_> = (0..256).map(|index| sample(779, index, Split::Train)).collect();
        let drawn = common::world::drawn(&samples)?;
        let latents = vae.encode_distribution(common::world::pixels(&drawn, &self.device)?).mean;
        let scale = 1.0 / latents.square().mean().into_scalar::<f64>().sqrt();
        let mut config = self.world.vae.clone();
        config.scaling_factor = scale;
        Ok((self.finished("vae", config.init(&self.device)?)?, scale))
    }

    /// Encodes the pictures that the U-Net learns from.
    fn pool(&self, vae: &Vae, seed: u64, count: usize) -> Result<Vec<f32>, Box<dyn Error>> {
        let mut pool = Vec::new();
        let clock = Instant::now();
        for first in (0..count).step_by(64) {
            let samples: Vec<_> =
                (first..count.min(first + 64)).map(|i| sample(seed, i as u64, Split::Train)).collect();
            let pixels = common::world::pixels(&common::world::drawn(&samples)?, &self.device)?;
            let latents = vae.encode(pixels, fabric::core::models::Posterior::Mean);
            pool.extend(latents.into_data().convert::<f32>().try_to_vec::<f32>()?);
            if first % 6400 == 0 {
                println!("encoded {first} of {count} pictures, {:.0} s", clock.elapsed().as_secs_f64());
            }
        }
        Ok(pool)
    }

    /// The whole model as a folder, in f16.
    fn write_model(&self, folder: &Path, unet: &fabric::models::unet::UNet) -> Result<(), Box<dyn Error>> {
        if folder.join("model_index.json").is_file() {
            fs::remove_dir_all(folder)?;
        } else if folder.exists() {
            return Err(format!("{}: found a folder that is no model, wanted none: move it", folder.display()).into());
        }
        let clip = self.finished("clip", WorldClip::new(&self.world, &self.device)?)?;
        let (vae, scale) = self.scaled_vae()?;
        let mut vae_config = self.world.vae.clone();
        vae_config.scaling_factor = scale;
        let options = SaveOptions { dtype: LoadDtype::F16, max_shard_bytes: None };
        let named = |class: &str, mut config: serde_json::Value| {
            config["_class_name"] = class.into();
            config
        };
        let mut writer = FolderWriter::create(folder, "StableDiffusionPipeline")?;
        let world = &self.world;
        writer.component(Component::TextEncoder, &clip.text, &serde_json::to_value(&world.text)?, &options)?;
        writer.component(Component::ImageEncoder, &clip.vision, &serde_json::to_value(&world.vision)?, &options)?;
        writer.component(
            Component::Vae,
            &vae,
            &named("AutoencoderKL", serde_json::to_value(&vae_config)?),
            &options,
        )?;
        let unet_config = named("UNet2DConditionModel", serde_json::to_value(&world.unet)?);
        writer.component(Component::UNet, unet, &unet_config, &options)?;
        let tokenizer = self.arguments.out.join("tokenizer");
        fs::create_dir_all(&tokenizer)?;
        self.tokenizer.save(&tokenizer)?;
        writer.tokenizer(Component::TextEncoder, &tokenizer)?;
        writer.scheduler(&serde_json::from_str(&scheduler().to_json())?)?;
        writer.finish()?;
        Judge::save_readers(&clip.readers, folder)?;
        Ok(())
    }

    /// Pictures from captions that training never showed, on one sheet.
    fn samples(&self, model: &Path, sheet: &Path) -> Result<(), Box<dyn Error>> {
        let (pipeline, _) = load_folder(model, &self.device, &ModelOptions::default())?;
        let samples: Vec<_> = (0..32).map(|index| sample(780, index, Split::HeldOut)).collect();
        let mut rows = Vec::new();
        for (row, samples) in samples.chunks(8).enumerate() {
            let mut pictures = Vec::new();
            for (column, drawn) in common::world::drawn(samples)?.into_iter().enumerate() {
                let settings = Settings { steps: 20, guidance_scale: 3.0, ..Settings::default() };
                let request = Request::new(full_caption(&samples[column].scene))
                    .with_seeds([(row * 8 + column) as u64])
                    .with_settings(settings);
                pictures.push(drawn);
                pictures.extend(pipeline.generate(&request)?.pictures);
            }
            rows.push(pictures);
        }
        let rows: Vec<Vec<_>> =
            rows.iter().map(|row| row.iter().map(|picture| (picture, Mark::None)).collect()).collect();
        contact_sheet(&rows, 4)?.save(sheet)?;
        println!("{} (drawn, then made, by turns)", sheet.display());
        Ok(())
    }
}

/// Velocity over the published noise schedule, without a rest of signal at its noisy end.
fn scheduler() -> SchedulerConfig {
    let json = r#"{"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
        "beta_end": 0.012, "prediction_type": "v_prediction", "clip_sample": false, "set_alpha_to_one": false,
        "steps_offset": 1, "timestep_spacing": "trailing", "rescale_betas_zero_snr": true}"#;
    SchedulerConfig::from_json(json).expect("a scheduler that this library knows")
}
