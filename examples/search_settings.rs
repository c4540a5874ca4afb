//! Searches the settings with which a model makes the reddest image of a prompt:
//! `cargo run --release --example search_settings -- "a star"`.
//!
//! Each round has a few candidates, which differ in the guidance scale and in the initial noise, and with `--like` also
//! in the weight of that image. Each image gets a score, and the search proposes better candidates for the next round.
//! A search that was stopped goes on with the same command. Replace `redness` by a score of your own.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fabric::core::image::Image;
use fabric::core::pipeline::{Request, SearchedSettings, SettingsSearch};
use fabric::core::search::Dimension;

mod common;

/// Searches the settings that give the reddest image of a prompt.
#[derive(Parser)]
struct Arguments {
    /// Prompt: what the images should show.
    prompt: String,
    /// Liked reference image (FABRIC), whose weight is then searched, too.
    #[arg(long)]
    like: Option<PathBuf>,
    /// Number of rounds.
    #[arg(long, default_value_t = 6)]
    rounds: u64,
    /// Images per round.
    #[arg(long, default_value_t = 4)]
    images: usize,
    /// Output folder for contact sheets and the search. A search that is there already goes on.
    #[arg(long, default_value = "out")]
    out: PathBuf,
    #[command(flatten)]
    common: common::Common,
}

fn main() -> ExitCode {
    common::report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut base = Request::new(&arguments.prompt).with_settings(arguments.common.settings()?);
    let mut settings = vec![Dimension::logarithmic("guidance_scale", 1.5, 12.0)];
    if let Some(path) = &arguments.like {
        base = base.with_liked(Image::open(path)?);
        settings.push(Dimension::linear("fabric.max_weight", 0.0, 1.0));
    }
    common::prepare(&arguments.out, ["search.json".to_owned()])?;
    let place = arguments.out.join("search.json");
    let mut search: SettingsSearch = if place.exists() {
        common::read_json(&place)?
    } else {
        SettingsSearch::new(&base, SearchedSettings::new(settings).with_noise_of(0..4), 0)?
    };
    let pipeline = arguments.common.load()?;
    while search.rounds() < arguments.rounds || !search.candidates().is_empty() {
        if search.candidates().is_empty() {
            search.propose(arguments.images)?;
            // A search that is stopped while it makes these images makes them again.
            std::fs::write(&place, serde_json::to_string_pretty(&search)?)?;
        }
        let round = search.generate(&pipeline, &base)?;
        common::save_sheet(round.contact_sheet(), &arguments.out.join(format!("search-{}.png", round.index + 1)));
        let scores: Vec<(usize, f64)> = round.images.iter().map(redness).enumerate().collect();
        println!("scores {}", scores.iter().map(|(_, score)| format!("{score:.3}")).collect::<Vec<_>>().join(", "));
        search.record_scores(&scores)?;
        std::fs::write(&place, serde_json::to_string_pretty(&search)?)?;
    }
    let best = search.best().ok_or("--rounds: expected at least 1, got 0; leave it out for 6")?;
    println!("best: {best}");
    pipeline.generate(&best.request(&base)?)?.images[0].save(arguments.out.join("best.png"))?;
    Ok(())
}

/// Returns how red an image is: the mean of red less the stronger one of green and blue, from -1 to 1.
fn redness(image: &Image) -> f64 {
    let of_pixel = |pixel: &[u8]| f64::from(pixel[0]) - f64::from(pixel[1].max(pixel[2]));
    image.rgb().chunks_exact(3).map(of_pixel).sum::<f64>() / (255.0 * (image.rgb().len() / 3) as f64)
}
