//! Runs the experiments of the papers: `cargo run --release -p fabric-experiments -- all --limit 50`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn::tensor::Device;
use clap::{Args, Parser, Subcommand};
use fabric::core::pipeline::Settings;
use fabric::core::printable_lines;
use fabric::core::schedule::SamplerKind;
use fabric::models::{LoraChoice, demo_folder, recommended_settings};
use fabric::{DeviceError, DeviceKind};
use fabric_experiments::{
    ADAPTER_NAMES, AdapterExperiment, AdapterPlan, AdapterWorld, Against, Experiment, ExperimentError, ImageRecord,
    Inputs, NAMES, Plan, Progress, PromptFormat, PromptInputs, PromptSet, PromptSetSubject, ReasonAdapter, RunFolder,
    Shard, SmallWorld, Subject, SummaryRow, Work, across_runs, adapter_tables, against_presets, configured,
    configured_adapters, merge, read_run, run, run_adapters, summary, table, write_report, write_tables,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// Runs the experiments of the papers and compares their arms.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The papers' experiments, one after the other: FABRIC's, and those of the adapters that the model has.
    All(RunArguments),
    /// FABRIC 5.1: feedback from a preference model.
    Preference(RunArguments),
    /// FABRIC 5.2: feedback from similarity to a target image.
    Target(RunArguments),
    /// FABRIC 5.3: feedback in the first half of the steps, the second, or all.
    Window(RunArguments),
    /// FABRIC 5.4: words of the prompt left out at random.
    Dropout(RunArguments),
    /// IP-Adapter: an image prompt at several scales, alone and against a text. Needs a model of the small world with
    /// `ip_adapter/plus.safetensors`.
    ImagePrompt(RunArguments),
    /// IPAdapter-Instruct: what each instruction takes from an image. Needs a model of the small world with
    /// `ip_adapter/instruct.safetensors`.
    Instruct(RunArguments),
    /// Liked and disliked images apart, and disliked ones with other weights. Not part of `all`.
    Sides(RunArguments),
    /// Disliked images at guidance scale 1: with the sign of their values turned, or extrapolated. Not part of `all`.
    WithoutGuidance(RunArguments),
    /// A sweep over FABRIC's settings. Not part of `all`.
    Sweep(RunArguments),
    /// Options against the loss of diversity. Not part of `all`.
    Diversity(RunArguments),
    /// Votes that say which aspect of an image is right or wrong, against plain votes. Needs a model of the small world
    /// with `ip_adapter/instruct.safetensors`. Not part of `all`.
    Reasons(RunArguments),
    /// FABRIC's settings searched during a session, from scores or from likes, against each published preset. Not part
    /// of `all`.
    Search(RunArguments),
    /// First rounds that are the nearest drawings of a folder, against generated ones. Needs a model of the small
    /// world. Not part of `all`.
    Corpus(RunArguments),
    /// Prints the tables of runs, one below the other, and changes nothing.
    Compare {
        /// Folders of the runs.
        #[arg(required = true)]
        runs: Vec<PathBuf>,
        /// Arm that the others are compared with, by its name in the tables, such as `liked`. Default: the control of
        /// the experiment.
        #[arg(long, conflicts_with = "arm")]
        control: Option<String>,
        /// Arm of which one table is printed, with a column per run and the differences from the first run, prompt by
        /// prompt: for runs of two models or adapters.
        #[arg(long)]
        arm: Option<String>,
    },
    /// Merges the shards of a run into a new folder.
    Merge {
        /// The new folder.
        into: PathBuf,
        /// The folders of the shards.
        #[arg(required = true)]
        shards: Vec<PathBuf>,
    },
}

#[derive(Debug, Clone, Args)]
struct RunArguments {
    /// Number of prompts. Of a file with fewer, all are run. For `image-prompt`, the number of condition images; for
    /// `instruct`, of pairs of each task, with trained and with held-out wordings. Default: 200.
    #[arg(long)]
    limit: Option<usize>,
    /// Model folder in the diffusers layout, or with `--prompts` also a single checkpoint file. Without `--prompts`, it
    /// must be a model of the small world. Default: the model that ships.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Prompts to use instead of the small world's: a file of HPS v1, PartiPrompts or GenEval, a CSV file with the
    /// columns `image` and `prompt` (needed for all experiments with target images), or one prompt per line.
    #[arg(long, requires = "preference")]
    prompts: Option<PathBuf>,
    /// Format of the prompts: hps, geneval, parti, prompthero or lines. Default: told by the file.
    #[arg(long, requires = "prompts")]
    prompts_format: Option<PromptFormat>,
    /// Preference model that scores the images of the prompts, and whose image encoder compares images: a folder or
    /// file of PickScore, HPS, HPS v2 or CLIP. FABRIC's paper compares with CLIP ViT-L/14 at 336 pixels.
    #[arg(long, requires = "prompts")]
    preference: Option<PathBuf>,
    /// LoRA file or folder. The experiment `preference` then has arms with it, for which the model is loaded a second
    /// time.
    #[arg(long)]
    lora: Option<PathBuf>,
    /// Scale of the LoRA.
    #[arg(long, default_value_t = 1.0, requires = "lora")]
    lora_scale: f32,
    /// Negative prompt. Default: none.
    #[arg(long)]
    negative: Option<String>,
    /// Output folder; each experiment has a folder in it. Give the same folder again to resume a run.
    #[arg(long, default_value = "out/experiments")]
    out: PathBuf,
    /// Number of rounds of feedback; the experiments of adapters have one round. Default: 3, for `reasons` 4, for
    /// `search` 8.
    #[arg(long)]
    rounds: Option<usize>,
    /// Number of images of a round. Default: 4, for the experiments of adapters 1.
    #[arg(long)]
    images: Option<usize>,
    /// Number of sampler steps. Default: the model's recommendation.
    #[arg(long)]
    steps: Option<usize>,
    /// Sampler, for example `euler_a`. Default: the model's own.
    #[arg(long)]
    sampler: Option<SamplerKind>,
    /// Guidance scale. Default: the model's recommendation.
    #[arg(long)]
    guidance: Option<f64>,
    /// Arm to run beside the control, by its name in the tables, such as `reasons`. Repeat the option for several.
    /// Default: all arms of the experiment.
    #[arg(long = "arm")]
    arms: Vec<String>,
    /// Setting of FABRIC to change in all arms, as NAME=VALUE, such as `max_weight=0.4`. Repeat the option for several.
    /// An experiment refuses it if its arms differ in the setting.
    #[arg(long = "set", value_parser = setting)]
    settings: Vec<(String, Value)>,
    /// Seed of the run.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Share of the prompts that this process runs, as I/N; `merge` joins the shares.
    #[arg(long, default_value = "1/1")]
    shard: Shard,
    /// Number of prompts whose images are kept, counted as by `--limit`.
    #[arg(long, default_value_t = 4)]
    keep_images: usize,
    /// Device: flex, ndarray, cuda, cuda:N or wgpu. Default: the first one that this build supports.
    #[arg(long)]
    device: Option<String>,
}

fn main() -> ExitCode {
    let Err(error) = start(&Arguments::parse().command) else { return ExitCode::SUCCESS };
    // The lines of a message are indented, so that a text from a file cannot pass for another message.
    eprintln!("error: {}", printable_lines(&error.to_string()).replace('\n', "\n  "));
    ExitCode::FAILURE
}

fn start(command: &Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::All(arguments) => run_named(&NAMES, &possible_adapters(arguments)?, arguments),
        Command::Preference(arguments) => run_named(&["preference"], &[], arguments),
        Command::Target(arguments) => run_named(&["target"], &[], arguments),
        Command::Window(arguments) => run_named(&["window"], &[], arguments),
        Command::Dropout(arguments) => run_named(&["dropout"], &[], arguments),
        Command::ImagePrompt(arguments) => run_named(&[], &["image-prompt"], arguments),
        Command::Instruct(arguments) => run_named(&[], &["instruct"], arguments),
        Command::Sides(arguments) => run_named(&["sides"], &[], arguments),
        Command::WithoutGuidance(arguments) => run_named(&["without-guidance"], &[], arguments),
        Command::Sweep(arguments) => run_named(&["sweep"], &[], arguments),
        Command::Diversity(arguments) => run_named(&["diversity"], &[], arguments),
        Command::Reasons(arguments) => run_named(&["reasons"], &[], arguments),
        Command::Search(arguments) => run_named(&["search"], &[], arguments),
        Command::Corpus(arguments) => run_named(&["corpus"], &[], arguments),
        Command::Compare { runs, arm: Some(arm), .. } => compare_arm(runs, arm),
        Command::Compare { runs, control, arm: None } => {
            runs.iter().try_for_each(|folder| compare_arms(folder, control.as_deref()))
        }
        Command::Merge { into, shards } => {
            println!("merged {} sessions", merge(into, shards)?);
            finish(into)
        }
    }
}

/// Prints the tables of a run, whose arms are compared with the control or with another one of them.
fn compare_arms(folder: &Path, control: Option<&str>) -> Result<(), Box<dyn Error>> {
    let (mut config, records) = read_run(folder)?;
    if let Some(control) = control {
        let arms: BTreeSet<&str> = records.iter().map(|record| record.arm.as_str()).collect();
        if !arms.contains(control) {
            let arms = arms.into_iter().collect::<Vec<_>>().join("; ");
            return Err(format!("--control: {}: expected one of {arms}, got {control}", folder.display()).into());
        }
        config["experiment"]["control"] = control.into();
    }
    println!("{}", folder.display());
    print(&config, &records);
    Ok(())
}

/// Prints the tables of one arm of several runs.
fn compare_arm(runs: &[PathBuf], arm: &str) -> Result<(), Box<dyn Error>> {
    let named = |folder: &PathBuf| -> Result<(String, Vec<ImageRecord>), ExperimentError> {
        Ok((folder.display().to_string(), read_run(folder)?.1))
    };
    let runs: Vec<(String, Vec<ImageRecord>)> = runs.iter().map(named).collect::<Result<_, _>>()?;
    let records = across_runs(&runs, arm)?;
    println!("{arm}");
    print(&json!({ "experiment": { "control": runs[0].0 } }), &records);
    Ok(())
}

/// Parses NAME=VALUE; a value that is not JSON is a text.
fn setting(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("expected NAME=VALUE, got {text}"))?;
    Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}

/// Number of prompts if none is given.
const LIMIT: usize = 200;

/// Number of images of a round of feedback if none is given.
const IMAGES: usize = 4;

/// An experiment that is ready to run, and its folder.
enum Prepared {
    Feedback { experiment: Experiment, plan: Plan, folder: RunFolder },
    Adapter { experiment: AdapterExperiment, plan: AdapterPlan, folder: RunFolder },
}

/// Returns the names of the experiments whose adapters the model has, and prints in one line which others are left out,
/// and why.
fn possible_adapters(arguments: &RunArguments) -> Result<Vec<&'static str>, Box<dyn Error>> {
    let model = model_of(arguments)?;
    let (mut possible, mut left_out) = (Vec::new(), Vec::new());
    for name in ADAPTER_NAMES {
        let adapter = AdapterExperiment::named(name)?.cases.adapter();
        if arguments.prompts.is_some() {
            left_out.push(format!("{name}, which needs the drawings of the small world"));
        } else if !model.join(adapter).is_file() {
            left_out.push(format!("{name}, because {} has no {adapter}", model.display()));
        } else {
            possible.push(name);
        }
    }
    if !left_out.is_empty() {
        println!("left out: {}", left_out.join("; "));
    }
    Ok(possible)
}

/// Checks the options that experiments of adapters cannot use. `all` uses them for FABRIC's experiments.
fn check_adapter(experiment: &AdapterExperiment, model: &Path, arguments: &RunArguments) -> Result<(), Box<dyn Error>> {
    let name = &experiment.name;
    if arguments.prompts.is_some() {
        return Err(ExperimentError::NeedsSmallWorld { experiment: name.clone() }.into());
    }
    experiment.adapter_of(model)?;
    if arguments.lora.is_some() {
        println!("{name}: without the LoRA, which only the experiment `preference` uses");
    }
    Ok(())
}

/// Returns an experiment of FABRIC for a model, and prints what is left out of it.
fn feedback_experiment(
    name: &str,
    changes: &BTreeMap<String, Value>,
    model: &Path,
    arguments: &RunArguments,
) -> Result<Experiment, Box<dyn Error>> {
    let experiment = Experiment::named(name, changes)?;
    if experiment.needs_small_world() && arguments.prompts.is_some() {
        return Err(ExperimentError::NeedsSmallWorld { experiment: experiment.name }.into());
    }
    let (mut experiment, left_out) = experiment.for_model(model)?;
    for arm in left_out {
        let file = arm.adapter().map_or("its adapter", ReasonAdapter::file);
        println!("{name}: without the arm `{}`, because {} has no {file}", arm.name, model.display());
    }
    if arguments.lora.is_some() {
        experiment = experiment.with_lora();
        if !experiment.uses_lora() {
            println!("{name}: without the LoRA, which only the experiment `preference` uses");
        }
    }
    Ok(experiment.with_arms(&arguments.arms)?)
}

/// Checks the options that only FABRIC's experiments use.
fn check_without_feedback(adapters: &[&str], arguments: &RunArguments) -> Result<(), Box<dyn Error>> {
    let name = adapters.join(", ");
    if let Some(rounds) = arguments.rounds.filter(|rounds| *rounds != 1) {
        return Err(format!("--rounds: {name}: expected 1 round, got {rounds}; leave the option out").into());
    }
    if let Some(arm) = arguments.arms.first() {
        return Err(format!("--arm: {name}: expected no arm of FABRIC's experiments, got {arm}; leave it out").into());
    }
    if let Some((setting, _)) = arguments.settings.first() {
        return Err(format!("--set: {name}: expected no setting of FABRIC, got {setting}; leave the option out").into());
    }
    Ok(())
}

/// Returns the model of the command line, or the one that ships.
fn model_of(arguments: &RunArguments) -> Result<PathBuf, Box<dyn Error>> {
    Ok(arguments.model.clone().map_or_else(demo_folder, Ok)?)
}

/// Runs the experiments of these names, one after the other, on models that are loaded once: FABRIC's, then those of
/// adapters. All experiments and their folders are checked before the models are loaded.
fn run_named(names: &[&str], adapters: &[&str], arguments: &RunArguments) -> Result<(), Box<dyn Error>> {
    if arguments.rounds == Some(0) || arguments.images == Some(0) || arguments.limit == Some(0) {
        return Err(
            "--rounds, --images, --limit: expected at least 1 of each, got 0; leave them out for the paper's".into()
        );
    }
    if names.is_empty() {
        check_without_feedback(adapters, arguments)?;
    }
    let model = model_of(arguments)?;
    let adapters: Vec<AdapterExperiment> =
        adapters.iter().map(|name| AdapterExperiment::named(name)).collect::<Result<_, _>>()?;
    adapters.iter().try_for_each(|experiment| check_adapter(experiment, &model, arguments))?;
    let changes: BTreeMap<String, Value> = arguments.settings.iter().cloned().collect();
    let experiments: Vec<Experiment> =
        names.iter().map(|name| feedback_experiment(name, &changes, &model, arguments)).collect::<Result<_, _>>()?;
    let prompts = arguments.prompts.as_deref().map(|path| read_prompts(path, arguments)).transpose()?;
    if let Some(prompts) = &prompts {
        experiments.iter().try_for_each(|experiment| experiment.check_prompts(prompts))?;
    }
    let settings = settings_of(&model, arguments)?;
    for experiment in &experiments {
        experiment.check_settings(&settings)?;
    }
    let (kind, device) = device_of(arguments.device.as_deref())?;
    let lora = arguments.lora.clone().filter(|_| experiments.iter().any(Experiment::uses_lora));
    let lora = lora.map(|path| LoraChoice { path, scale: arguments.lora_scale });
    let inputs = Inputs {
        model: &model,
        prompts: match (&arguments.prompts, &prompts, &arguments.preference) {
            (Some(path), Some(prompts), Some(preference)) => {
                Some(PromptInputs { path, format: arguments.prompts_format, prompts, preference })
            }
            _ => None,
        },
        lora: lora.as_ref(),
        negative_prompt: arguments.negative.as_deref(),
        device: &kind,
    };
    let identified = inputs.identify()?;
    let (keep_images, seed) = (arguments.keep_images, arguments.seed);
    let mut prepared = Vec::new();
    for experiment in experiments {
        let rounds = arguments.rounds.unwrap_or_else(|| experiment.default_rounds());
        let sizes = [rounds, arguments.images.unwrap_or(IMAGES)];
        let (config, plan) = configured(&experiment, &identified, &settings, sizes, keep_images, seed);
        let path = arguments.out.join(&experiment.name);
        let folder = RunFolder::open(&path, &config, sizes.iter().product())?;
        prepared.push(Prepared::Feedback { experiment, plan, folder });
    }
    for experiment in adapters {
        let images = arguments.images.unwrap_or(1);
        let (config, plan) = configured_adapters(&experiment, &identified, &settings, images, keep_images, seed);
        let path = arguments.out.join(&experiment.name);
        let folder = RunFolder::open(&path, &config, images)?;
        prepared.push(Prepared::Adapter { experiment, plan, folder });
    }
    let subject = open(&inputs, &prepared, &device)?;
    for one in &prepared {
        if let Prepared::Adapter { experiment, .. } = one {
            // An adapter that cannot be used is refused before the first experiment runs.
            AdapterWorld::open(&*subject, &model, experiment)?;
        }
    }
    prepared.into_iter().try_for_each(|one| run_one(&*subject, &model, one, arguments))
}

/// Returns the settings of generation: the model's recommendation, with the changes of the command line.
fn settings_of(model: &Path, arguments: &RunArguments) -> Result<Settings, Box<dyn Error>> {
    let mut settings: Settings = recommended_settings(model)?;
    settings.steps = arguments.steps.unwrap_or(settings.steps);
    settings.sampler = arguments.sampler.or(settings.sampler);
    settings.guidance_scale = arguments.guidance.unwrap_or(settings.guidance_scale);
    settings.validate()?;
    Ok(settings)
}

/// Returns the device of this name with its kind. Without a name, it is the one that `fabric::default_device` returns.
fn device_of(name: Option<&str>) -> Result<(DeviceKind, Device), DeviceError> {
    if let Some(name) = name.map(str::to_owned).or_else(|| std::env::var("FABRIC_DEVICE").ok()) {
        let kind: DeviceKind = name.parse()?;
        let device = fabric::device(kind.clone())?;
        return Ok((kind, device));
    }
    for kind in [DeviceKind::Flex, DeviceKind::NdArray, DeviceKind::Cuda(0), DeviceKind::Wgpu(None)] {
        match fabric::device(kind.clone()) {
            Err(DeviceError::NotBuilt { .. }) => {}
            device => return Ok((kind, device?)),
        }
    }
    Err(DeviceError::NoneBuilt)
}

/// Reads the prompts, and prints their number and the lines that were left out.
fn read_prompts(path: &Path, arguments: &RunArguments) -> Result<PromptSet, Box<dyn Error>> {
    const SHOWN: usize = 20;
    let set = PromptSet::open_as(path, arguments.prompts_format)?;
    let (count, skipped) = (set.prompts.len(), set.skipped.len());
    println!("{}: {count} prompts, {skipped} lines left out", path.display());
    for line in set.skipped.iter().take(SHOWN) {
        println!("  {line}");
    }
    if skipped > SHOWN {
        println!("  and {} more", skipped - SHOWN);
    }
    if let Some(limit) = arguments.limit.filter(|limit| *limit > count) {
        println!("--limit {limit}: the file has {count} prompts, all of them are run");
    }
    Ok(set)
}

/// Loads the model of the experiments, with its prompts, or with the adapters and the drawings that the arms need.
fn open(inputs: &Inputs<'_>, prepared: &[Prepared], device: &Device) -> Result<Box<dyn Subject>, ExperimentError> {
    let Some(prompts) = inputs.prompts else {
        let mut world = SmallWorld::open(inputs.model, inputs.lora, device)?;
        for one in prepared {
            if let Prepared::Feedback { experiment, .. } = one {
                world = world.with_adapters(inputs.model, &experiment.arms)?;
                world = world.with_drawings(inputs.model, &experiment.arms)?;
            }
        }
        return Ok(Box::new(world));
    };
    let subject = PromptSetSubject::open(inputs.model, prompts, inputs.lora, device)?;
    println!("{}: preference model of the kind {:?}", prompts.preference.display(), subject.preference_kind());
    Ok(Box::new(subject))
}

/// Runs an experiment, or what is left of it.
fn run_one(
    subject: &dyn Subject,
    model: &Path,
    prepared: Prepared,
    arguments: &RunArguments,
) -> Result<(), Box<dyn Error>> {
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("session {pos}/{len} {bar:40} {elapsed} left {eta}")?);
    let mut first = true;
    let mut show = |Progress { done, total }: Progress| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        if std::mem::take(&mut first) {
            // Time left is estimated from the sessions of this process.
            bar.reset_eta();
        }
    };
    let announce = |title: &str, folder: &RunFolder| {
        println!("{title}: {} of {}", folder.path().display(), model.display());
    };
    let &RunArguments { limit, shard, keep_images, .. } = arguments;
    let cases = limit.unwrap_or(LIMIT);
    let folder = match prepared {
        Prepared::Feedback { experiment, plan, mut folder } => {
            announce(&experiment.title, &folder);
            let work = Work { arms: &experiment.arms, cases, shard, keep_images };
            run(subject, &plan, &work, &mut folder, &mut show)?;
            folder
        }
        Prepared::Adapter { experiment, plan, mut folder } => {
            announce(&experiment.title, &folder);
            let world = AdapterWorld::open(subject, model, &experiment)?;
            let work = Work { arms: &experiment.arms, cases, shard, keep_images };
            run_adapters(&world, &plan, &work, &mut folder, &mut show)?;
            folder
        }
    };
    bar.finish_and_clear();
    let path = folder.path().to_owned();
    drop(folder);
    finish(&path)
}

/// Prints the summary of a run, and writes its tables and its report.
fn finish(folder: &Path) -> Result<(), Box<dyn Error>> {
    let (config, records) = read_run(folder)?;
    let rows = print(&config, &records);
    let against = against_presets(&config, &records);
    let named = against.iter().flat_map(Against::named_rows);
    write_tables(folder, &records, &rows.iter().cloned().chain(named).collect::<Vec<_>>())?;
    println!("{}", write_report(folder, &config, &records, &rows)?.display());
    Ok(())
}

/// Prints the summary of a run and returns its rows.
fn print(config: &Value, records: &[ImageRecord]) -> Vec<SummaryRow> {
    let control = config["experiment"]["control"].as_str().unwrap_or_default();
    let rows = summary(records, control);
    if records.iter().any(|record| record.adapter.is_some()) {
        let tables = adapter_tables(&rows, control);
        tables.iter().for_each(|table| println!("{}", printable_lines(&table.to_string())));
        return rows;
    }
    print!("{}", printable_lines(&table(&rows, control)));
    for Against { control, title, rows } in against_presets(config, records) {
        print!("{}", printable_lines(&format!("\n{title}\n\n{}", table(&rows, &control))));
    }
    rows
}
