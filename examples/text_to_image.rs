//! Makes images from a prompt: `cargo run --release --example text_to_image -- "a small red star on blue"`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use fabric::core::image::{Mark, contact_sheet};
use fabric::core::pipeline::{DevicePool, MAX_SEEDS, PoolStep, Pooled, Request};
use fabric::core::printable_value;

mod common;

/// Makes images from a prompt, and optionally from an init image.
#[derive(Parser)]
pub(crate) struct Arguments {
    /// Prompt: what the images should show.
    prompt: String,
    /// Negative prompt: what the images should not show.
    #[arg(long)]
    negative: Option<String>,
    /// Number of images, up to 65536.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=MAX_SEEDS as u64))]
    images: u64,
    /// Seed of the first image. The following images use the following seeds.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Init image to start from (image to image).
    #[arg(long)]
    from: Option<PathBuf>,
    /// Denoising strength with `--from`, 0 to 1: 0 keeps the init image, 1 starts from pure noise.
    #[arg(long, default_value_t = 0.7)]
    strength: f64,
    /// Output folder.
    #[arg(long, default_value = "out")]
    out: PathBuf,
    /// Further device that makes a share of the images, named as in `--device`. Repeat the option for several devices.
    #[arg(long)]
    also: Vec<String>,
    /// Seconds without a finished step after which a device counts as lost, if one of them is another machine's.
    #[arg(long, default_value_t = 600)]
    patience: u64,
    #[command(flatten)]
    common: common::Common,
}

fn main() -> ExitCode {
    common::report(run(Arguments::parse()))
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let Arguments { prompt, negative, images, seed, from, strength, out, also, patience, common } = arguments;
    let settings = common.settings()?;
    let mut request = Request::new(prompt).with_seeds((0..images).map(|i| seed.wrapping_add(i)));
    request.negative_prompt = negative;
    request.settings = settings;
    if let Some(path) = from {
        request = request.with_init_image(fabric::core::image::Image::open(path)?, strength);
    }
    request.validate()?;
    common::prepare(&out, request.seeds.iter().map(|seed| format!("seed-{seed}.png")))?;
    let is_remote = common.is_remote() || also.iter().any(|name| common::is_remote(name));
    let mut members = vec![("the first device".to_owned(), common.load()?)];
    for name in also {
        let pipeline = common.load_on(&common::device(Some(&name))?)?;
        members.push((name, pipeline));
    }
    let bar = common::bar(0);
    let seen = bar.clone();
    let watch = move |step: PoolStep<'_>| {
        // Shows the progress of the device that reported last.
        seen.set_length(step.event.steps as u64);
        seen.set_position(step.event.step as u64);
        ControlFlow::Continue(())
    };
    let mut pool = DevicePool::new(members)?;
    if is_remote {
        // A machine that stops answering would be waited for without end.
        pool = pool.with_patience(Duration::from_secs(patience));
    }
    let Pooled { made, lost, .. } = pool.generate_observed(std::slice::from_ref(&request), watch)?;
    bar.finish_and_clear();
    for (device, said) in lost {
        println!("{device} was lost, and others made its images: {}", printable_value(said));
    }
    let made = made.into_iter().next().ok_or("no images")?;
    for (index, seed) in made.seeds.iter().enumerate() {
        common::save_image(&made, &request, index, &out.join(format!("seed-{seed}.png")))?;
    }
    if made.images.len() > 1 {
        let row = made.images.iter().map(|image| (image, Mark::None)).collect();
        common::save_sheet(contact_sheet(&[row], 8), &out.join("sheet.png"));
    }
    common::print_report(&made.report);
    Ok(())
}
