//! Measures how prompt weights change the images of the demo model, with each weight normalisation:
//! `cargo run --release --example weigh_prompts`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use fabric::core::image::Image;
use fabric::core::models::WeightNormalisation;
use fabric::core::pipeline::{Pipeline, Request, Settings};
use fabric::models::{ModelOptions, demo_folder, load_model};
use fabric_world::{Attribute, Judge, Named, Split, full_caption, sample};

mod common;

/// Measures how prompt weights change the images of the demo model.
#[derive(Parser)]
struct Arguments {
    /// Number of captions. In each, the word of one factor gets a weight; captions without that word are skipped.
    #[arg(long, default_value_t = 100)]
    captions: u64,
    /// Weights to measure, separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = [0.7, 1.3, 1.6, 2.0])]
    weights: Vec<f32>,
    /// Number of sampler steps.
    #[arg(long, default_value_t = 10)]
    steps: usize,
    /// Device: flex, ndarray, cuda, cuda:N or wgpu. Default: the first one that this build supports.
    #[arg(long)]
    device: Option<String>,
}

/// Seed of the captions' scenes; training uses another one.
const SEED: u64 = 990_011;
/// Factors whose words get a weight, in rotation over the captions.
const WEIGHTED: [Attribute; 4] = [Attribute::Kind, Attribute::Colour, Attribute::Texture, Attribute::Size];

/// A caption, the factors that it names, and the factor whose word gets a weight.
struct Case {
    caption: String,
    named: Named,
    attribute: Attribute,
    seed: u64,
}

impl Case {
    /// Returns the first `count` cases, without those whose caption does not name the factor.
    fn all(count: u64) -> Vec<Self> {
        let case = |index: u64| {
            let scene = sample(SEED, index, Split::Train).scene;
            let (named, attribute) = (Named::of(&scene), WEIGHTED[index as usize % WEIGHTED.len()]);
            named.index_of(attribute)?;
            let case = Self { caption: full_caption(&scene), named, attribute, seed: index };
            case.caption.contains(case.word()).then_some(case)
        };
        (0..count).filter_map(case).collect()
    }

    fn word(&self) -> &'static str {
        self.named.index_of(self.attribute).map_or("", |index| self.attribute.values()[index])
    }

    fn weighted(&self, weight: f32) -> String {
        self.caption.replacen(self.word(), &format!("({}:{weight})", self.word()), 1)
    }
}

/// Sums of the measurements over all images.
#[derive(Default)]
struct Measured {
    images: f64,
    /// Distance from the image without a weight, divided by the distance between images of two seeds.
    change: f64,
    largest: f64,
    /// Number of images in which the weighted factor is correct.
    weighted: f64,
    /// Sum of the fractions of the other factors that are correct.
    others: f64,
}

impl Measured {
    fn add(&mut self, case: &Case, change: f64, seen: &Named) {
        self.images += 1.0;
        self.change += change;
        self.largest = self.largest.max(change);
        self.weighted += f64::from(case.named.index_of(case.attribute) == seen.index_of(case.attribute));
        self.others += case.named.with(case.attribute, None).agreement(seen);
    }

    fn row(&self, name: &str) {
        let share = |sum: f64| 100.0 * sum / self.images;
        let (change, largest) = (self.change / self.images, self.largest);
        println!("| {name} | {change:.2} | {largest:.2} | {:.1} | {:.1} |", share(self.weighted), share(self.others));
    }
}

fn main() -> ExitCode {
    common::report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let device = common::device(arguments.device.as_deref())?;
    let model = demo_folder()?;
    let judge = Judge::load(&model, &device)?;
    let (pipeline, _) = load_model(&model, &device, &ModelOptions::default())?;
    let cases = Case::all(arguments.captions);
    let mut settings = Settings { steps: arguments.steps, guidance_scale: 3.0, ..Settings::default() };
    settings.text.weights = true;

    let mut unweighted = Measured::default();
    let mut plain = Vec::new();
    for case in &cases {
        let [image, other] =
            [case.seed, case.seed + 1_000_000].map(|seed| make(&pipeline, &case.caption, seed, &settings));
        let (image, other) = (image?, other?);
        unweighted.add(case, 0.0, &judge.read(std::slice::from_ref(&image))?[0]);
        plain.push((distance(&image, &other), image));
    }
    println!("{} captions. Change: of 1, as far as another seed's image is.\n", cases.len());
    println!("| normalisation, weight | change | largest | weighted factor right, % | others right, % |");
    println!("|---|---|---|---|---|");
    unweighted.row("no weight");
    for rule in [WeightNormalisation::None, WeightNormalisation::Mean, WeightNormalisation::Comfy] {
        settings.text.weight_normalisation = rule;
        for weight in &arguments.weights {
            let mut measured = Measured::default();
            for (case, (other, unweighted)) in cases.iter().zip(&plain) {
                let image = make(&pipeline, &case.weighted(*weight), case.seed, &settings)?;
                let change = distance(&image, unweighted) / other;
                measured.add(case, change, &judge.read(std::slice::from_ref(&image))?[0]);
            }
            measured.row(&format!("{rule}, {weight}"));
        }
    }
    Ok(())
}

fn make(pipeline: &Pipeline, caption: &str, seed: u64, settings: &Settings) -> Result<Image, Box<dyn Error>> {
    let request = Request::new(caption).with_seeds([seed]).with_settings(settings.clone());
    pipeline.generate(&request)?.images.pop().ok_or_else(|| "no image was made".into())
}

/// Root mean square difference of two images' pixels.
fn distance(a: &Image, b: &Image) -> f64 {
    let square = |(a, b): (&u8, &u8)| (f64::from(*a) - f64::from(*b)).powi(2);
    (a.rgb().iter().zip(b.rgb()).map(square).sum::<f64>() / a.rgb().len() as f64).sqrt()
}
