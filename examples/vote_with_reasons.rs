//! Compares votes that say why with plain votes:
//! `cargo run --release --example vote_with_reasons -- "a star" --like 2:colour --like 4:composition
//! --dislike 1:background`.
//!
//! Makes a round of four images, and from the same seeds the next round twice: after plain votes, which are about whole
//! images (FABRIC), and after votes with their reasons (IPAdapter-Instruct). Without votes, makes the first round only.
//! With `--wants "a small red star on a blue background"`, a simulated person votes, and the program prints how much of
//! that the images show.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fabric::core::image::labelled_sheet;
use fabric::prelude::*;
use fabric_world::{Judge, Person, Reasons};

mod common;
use common::votes::{IMAGES, Votes};

/// Compares votes that say why with plain votes.
#[derive(Parser)]
pub(crate) struct Arguments {
    /// Prompt: what the images should show.
    prompt: String,
    #[command(flatten)]
    votes: Votes,
    /// Caption of the small world for a simulated person, who votes on the best and the worst image of each round.
    #[arg(long, conflicts_with_all = ["like", "dislike"])]
    wants: Option<String>,
    /// Number of rounds with `--wants`.
    #[arg(long, default_value_t = 3, requires = "wants")]
    rounds: usize,
    /// Seed of the session.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Output folder for the sheet `reasons.png`.
    #[arg(long, default_value = "out")]
    out: PathBuf,
    #[command(flatten)]
    files: common::adapter::AdapterFiles,
    #[command(flatten)]
    common: common::Common,
}

fn main() -> ExitCode {
    common::report(run(&Arguments::parse()))
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    common::prepare(&arguments.out, ["reasons.png".to_owned()])?;
    let settings = Settings { fabric: FabricSettings::official_demo(), ..arguments.common.settings()? };
    let session = FeedbackSession::new(&arguments.prompt).with_seed(arguments.seed).with_generation_settings(&settings);
    let device = arguments.common.device()?;
    let adapter = arguments.files.open(&arguments.common, common::adapter::INSTRUCT, &device)?;
    let pipeline = arguments.common.load_on(&device)?.with_adapter(adapter);
    let Some(wants) = &arguments.wants else { return compare(arguments, session, &pipeline) };
    let judge = Judge::load(arguments.common.model()?, &device)?;
    let person = Person::new(wants, judge).map_err(|error| format!("--wants: {error}"))?;
    measure(person, arguments.rounds, &session, &pipeline)
}

/// Makes the first round and, from its seeds, the next one after plain votes and after votes with reasons.
fn compare(arguments: &Arguments, mut session: FeedbackSession, pipeline: &Pipeline) -> Result<(), Box<dyn Error>> {
    let first = session.generate(pipeline, IMAGES)?;
    let votes = arguments.votes.all();
    let next = |has_reasons: bool| -> Result<Vec<Image>, Box<dyn Error>> {
        let mut session = session.clone();
        for (index, vote) in &votes {
            let plain = Vote::new(vote.strength())?;
            session.vote(&first[*index], if has_reasons { vote.clone() } else { plain })?;
        }
        let request = session.next_request(pipeline, IMAGES)?.with_seeds(first.seeds.clone());
        Ok(pipeline.generate(&request)?.images)
    };
    let mut rows = vec![("first round".to_owned(), first.images.clone())];
    if votes.is_empty() {
        println!("look at the images, then vote, for example with --like 2:colour --dislike 1:background");
    } else {
        rows.push(("plain votes".to_owned(), next(false)?));
        rows.push(("with reasons".to_owned(), next(true)?));
    }
    common::save_sheet(labelled_sheet(&arguments.votes.labels(), &rows, 8), &arguments.out.join("reasons.png"));
    Ok(())
}

/// Prints how much of what a person wants the images of each round show, from the same seeds with and without votes.
fn measure(
    mut person: Person,
    rounds: usize,
    session: &FeedbackSession,
    pipeline: &Pipeline,
) -> Result<(), Box<dyn Error>> {
    println!("share of what is wanted, in each round:");
    let arms = [("no votes", None), ("plain votes", Some(Reasons::None)), ("with reasons", Some(Reasons::Factors))];
    for (label, reasons) in arms {
        print!("{label:<12}");
        let mut session = session.clone();
        person = person.with_reasons(reasons.unwrap_or_default());
        for _ in 0..rounds {
            let round = session.generate(pipeline, IMAGES)?;
            for (index, vote) in person.judge(&round)?.into_iter().filter(|_| reasons.is_some()) {
                session.vote(&round[index], vote)?;
            }
            print!("{:4.0} %", 100.0 * person.shares().iter().sum::<f64>() / IMAGES as f64);
        }
        println!();
    }
    Ok(())
}
