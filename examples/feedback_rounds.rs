//! Makes rounds of images with FABRIC: each round is steered by the images that you liked and disliked before.
//!
//! - In the terminal: `cargo run --release --example feedback_rounds -- "a red star"`. After each round, look at
//!   `out/round-1.png` (`round-2.png`, ...) and answer with image numbers. `out/round-1-image-1.png` and so on are the
//!   images, which say how they were made (example `image_metadata`).
//! - With given reference images: `--like a.png --dislike b.png`.
//! - With simulated feedback: `-- "a star" --wants "a small red star on blue"`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use fabric::core::fabric::{FabricSettings, ReferencePass};
use fabric::core::image::Image;
use fabric::core::pipeline::{Generation, Pipeline, Request, Settings, StepEvent};
use fabric::core::session::{FeedbackSession, Round};
use fabric_world::{Judge, Person};

mod common;

/// FABRIC settings of a published program or experiment.
#[derive(Clone, Copy, ValueEnum)]
enum Preset {
    /// Defaults of the official Python interface.
    OfficialApi,
    /// The paper's first experiment (preference model): weight 0.1 in all steps.
    PaperPreference,
    /// The paper's second experiment (target image): weight 0.8 in all steps.
    PaperTarget,
    /// Defaults of the official demo page.
    OfficialDemo,
    /// Defaults of the web UI extension.
    WebUi,
}

/// How the U-Net computes the references' keys and values.
#[derive(Clone, Copy, ValueEnum)]
enum Pass {
    /// In the same batch as the images: the fastest way without a cache.
    Interleaved,
    /// In a pass before that of the images, one reference at a time: needs the least memory.
    TwoPasses,
    /// Computed once and cached from round to round, in up to 4 GB.
    Cached,
    /// Cached in half precision: twice as many references fit into the same memory.
    CachedInHalf,
}

/// Makes rounds of images that are steered by liked and disliked images (FABRIC).
#[derive(Parser)]
pub(crate) struct Arguments {
    /// Prompt: what the images should show. Optional with `--continue-from`, where it replaces the prompt of the
    /// session.
    prompt: Option<String>,
    /// Negative prompt: what the images should not show.
    #[arg(long)]
    negative: Option<String>,
    /// Liked reference image. Repeat the option for several images.
    #[arg(long)]
    like: Vec<PathBuf>,
    /// Disliked reference image. Repeat the option for several images.
    #[arg(long)]
    dislike: Vec<PathBuf>,
    /// Caption of the small world for simulated feedback: in each round, the image that matches it best is liked and
    /// the one that matches it worst is disliked.
    #[arg(long, conflicts_with_all = ["like", "dislike"])]
    wants: Option<String>,
    /// Number of rounds, at least 1. Has no effect in a terminal session, which ends when you like and dislike nothing.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Images per round. Default: 4, or with `--continue-from` as many as in the last round.
    #[arg(long)]
    images: Option<usize>,
    /// Seed of the session. A continued session keeps its own.
    #[arg(long, default_value_t = 0, conflicts_with = "continue_from")]
    seed: u64,
    /// FABRIC settings. Default: `official-demo`, or with `--continue-from` those of the session.
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// How the references' keys and values are computed. Default: `interleaved`, or with `--continue-from` as before.
    #[arg(long, value_enum)]
    pass: Option<Pass>,
    /// Token merging: fraction of each reference's tokens to merge with similar ones, 0 to 0.75. Higher is faster and
    /// less exact.
    #[arg(long)]
    token_merge_ratio: Option<f64>,
    /// Folder for cached keys and values that do not fit into the memory of `--pass cached`. Takes up to 20 GB on
    /// disk and is emptied at the end.
    #[arg(long)]
    spill: Option<PathBuf>,
    /// Output folder for contact sheets and the session.
    #[arg(long, default_value = "out")]
    out: PathBuf,
    /// Session folder to continue. Its settings are kept, except those given on the command line.
    #[arg(long)]
    continue_from: Option<PathBuf>,
    /// Overwrite the session of an earlier run in `--out`.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    common: common::Common,
}

fn main() -> ExitCode {
    common::report(run(&Arguments::parse()))
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if arguments.rounds == 0 {
        return Err("--rounds: expected at least 1, got 0; leave it out for 3".into());
    }
    if arguments.images == Some(0) {
        return Err("--images: expected at least 1, got 0; leave it out for 4".into());
    }
    let mut session = session(arguments)?;
    for path in &arguments.like {
        session.like(&Image::open(path)?)?;
    }
    for path in &arguments.dislike {
        session.dislike(&Image::open(path)?)?;
    }
    let place = place(arguments)?;
    let images = arguments.images.unwrap_or_else(|| session.rounds().last().map_or(4, Round::len));
    let mut person = person(arguments)?;
    let given = person.is_some() || !arguments.like.is_empty() || !arguments.dislike.is_empty();
    let asks = !given && std::io::stdin().is_terminal();
    let mut pipeline = arguments.common.load()?;
    if let Some(folder) = &arguments.spill {
        pipeline = pipeline.with_spill(folder, 20 << 30)?;
    }
    for made in 1.. {
        let request = session.next_request(&pipeline, images)?;
        let generation = make(&pipeline, &request)?;
        let round = session.record(&request, &generation)?;
        // Saves before asking, so that an error or an aborted answer does not lose the round.
        session.save(&place)?;
        for index in 0..round.len() {
            let name = format!("round-{}-image-{}.png", round.index + 1, index + 1);
            common::save_image(&generation, &request, index, &arguments.out.join(name))?;
        }
        common::save_sheet(round.contact_sheet(), &arguments.out.join(format!("round-{}.png", round.index + 1)));
        common::print_report(&generation.report);
        if let Some(person) = &mut person {
            session.judge_with(person)?;
            let shares: Vec<_> = person.shares().iter().map(|share| format!("{:.0} %", 100.0 * share)).collect();
            println!("images show {} of what is wanted", shares.join(", "));
        }
        let goes_on = if asks { judge(&mut session, &round)? } else { made < arguments.rounds };
        session.save(&place)?;
        common::save_sheet(session.contact_sheet(), &arguments.out.join("session.png"));
        if !goes_on {
            break;
        }
    }
    println!("go on with --continue-from {}", place.display());
    Ok(())
}

/// Returns the session's folder, after checking that it is writable and that no other session would be overwritten.
fn place(arguments: &Arguments) -> Result<PathBuf, Box<dyn Error>> {
    let place = arguments.out.join("session");
    let is_it = |from: &PathBuf| matches!((from.canonicalize(), place.canonicalize()), (Ok(a), Ok(b)) if a == b);
    let goes_on = arguments.continue_from.as_ref().is_some_and(is_it);
    if place.join("session.json").exists() && !goes_on && !arguments.replace {
        let place = place.display();
        let got =
            format!("--out {}: expected a folder without a session, got a session in {place}", arguments.out.display());
        return Err(
            format!("{got}; go on with --continue-from {place}, choose another folder, or give --replace").into()
        );
    }
    common::prepare(&arguments.out, [])?;
    common::prepare(&place, ["session.json".to_owned()])?;
    common::prepare(&place.join("images"), [])?;
    Ok(place)
}

/// Returns the simulated person of `--wants`, if it is given.
fn person(arguments: &Arguments) -> Result<Option<Person>, Box<dyn Error>> {
    let Some(wants) = &arguments.wants else { return Ok(None) };
    let judge = Judge::load(arguments.common.model()?, &arguments.common.device()?)?;
    Ok(Some(Person::new(wants, judge).map_err(|error| format!("--wants: {error}"))?))
}

fn session(arguments: &Arguments) -> Result<FeedbackSession, Box<dyn Error>> {
    let Some(folder) = &arguments.continue_from else {
        let mut settings = arguments.common.settings()?;
        settings.fabric = FabricSettings::official_demo();
        change(arguments, &mut settings);
        settings.validate()?;
        let prompt = arguments.prompt.as_deref().ok_or("give a prompt: what should the images show?")?;
        let mut session = FeedbackSession::new(prompt).with_seed(arguments.seed).with_generation_settings(&settings);
        if let Some(negative) = &arguments.negative {
            session = session.with_negative_prompt(negative);
        }
        return Ok(session);
    };
    let mut session = FeedbackSession::load(folder)?;
    if let Some(prompt) = &arguments.prompt {
        session.set_prompt(prompt);
    }
    if let Some(negative) = &arguments.negative {
        session.set_negative_prompt(negative);
    }
    let mut settings = session.generation_settings()?;
    arguments.common.change(&mut settings);
    change(arguments, &mut settings);
    settings.validate()?;
    session.set_settings(serde_json::to_value(&settings)?);
    Ok(session)
}

/// Changes the FABRIC settings that the command line gives, and no others.
fn change(arguments: &Arguments, settings: &mut Settings) {
    if let Some(preset) = arguments.preset {
        let execution = settings.fabric.execution;
        let preset = match preset {
            Preset::OfficialApi => FabricSettings::official_api(),
            Preset::PaperPreference => FabricSettings::paper_preference(),
            Preset::PaperTarget => FabricSettings::paper_target(),
            Preset::OfficialDemo => FabricSettings::official_demo(),
            Preset::WebUi => FabricSettings::web_ui(),
        };
        settings.fabric = FabricSettings { execution, ..preset };
    }
    if let Some(pass) = arguments.pass {
        settings.fabric.execution.pass = match pass {
            Pass::Interleaved => ReferencePass::Interleaved,
            Pass::TwoPasses => ReferencePass::TwoPasses { chunk: 1 },
            Pass::Cached => ReferencePass::Cached { chunk: 4, budget: 4 << 30, half: false },
            Pass::CachedInHalf => ReferencePass::Cached { chunk: 4, budget: 4 << 30, half: true },
        };
    }
    settings.fabric.execution.token_merge_ratio =
        arguments.token_merge_ratio.unwrap_or(settings.fabric.execution.token_merge_ratio);
}

fn make(pipeline: &Pipeline, request: &Request) -> Result<Generation, fabric::core::Error> {
    let bar = common::bar(0);
    let mut watch = |event: &StepEvent<'_>| {
        bar.set_length(event.evaluations as u64);
        bar.set_position(event.evaluation as u64);
        ControlFlow::Continue(())
    };
    let generation = pipeline.generate_observed(request, &mut watch);
    bar.finish_and_clear();
    generation
}

/// Asks which images are liked and disliked. Returns false if the answer is none for both.
fn judge(session: &mut FeedbackSession, round: &Round) -> Result<bool, Box<dyn Error>> {
    let liked = ask("like which (numbers from 1, empty for none)?", round.len())?;
    let disliked = ask("dislike which?", round.len())?;
    for &index in &liked {
        session.like(&round[index])?;
    }
    for &index in &disliked {
        session.dislike(&round[index])?;
    }
    Ok(!(liked.is_empty() && disliked.is_empty()))
}

fn ask(question: &str, images: usize) -> Result<Vec<usize>, Box<dyn Error>> {
    loop {
        print!("{question} ");
        std::io::stdout().flush()?;
        let mut answer = String::new();
        if std::io::stdin().read_line(&mut answer)? == 0 {
            return Ok(Vec::new());
        }
        let words = answer.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
        let numbers: Option<Vec<usize>> =
            words.map(|word| word.parse().ok().filter(|number| (1..=images).contains(number))).collect();
        match numbers {
            Some(numbers) => return Ok(numbers.into_iter().map(|number| number - 1).collect()),
            None => println!("numbers from 1 to {images}, please"),
        }
    }
}
