//! Makes images from image prompts with an IP-Adapter:
//! `cargo run --release --example image_prompt -- --model MODEL --adapter ADAPTER --image a.png "a cat"`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use burn::tensor::Tensor;
use clap::Parser;
use fabric::core::image::{Crop, Image, clip_batch};
use fabric::core::models::{ImageEncoder, TextOptions};
use fabric::core::pipeline::{Pipeline, Window};
use fabric::ipadapter::{
    FeatureKind, Features, ImagePrompt, InstructTexts, Instruction, IpAdapter, LayerPreset, LayerScales,
};

mod common;

/// Makes images from image prompts with an IP-Adapter. FaceID adapters are not supported here.
#[derive(Parser)]
struct Arguments {
    /// Text prompt, in addition to the image prompt.
    #[arg(default_value = "best quality, high quality")]
    prompt: String,
    /// File of the IP-Adapter.
    #[arg(long)]
    adapter: PathBuf,
    /// Folder of the image encoder. Default: `image_encoder` in the model's folder.
    #[arg(long)]
    encoder: Option<PathBuf>,
    /// Image prompt. Repeat the option for several images.
    #[arg(long, required = true)]
    image: Vec<PathBuf>,
    /// Instruction for an Instruct adapter, for example "use the style". Required there, an error with other adapters.
    #[arg(long)]
    instruction: Option<String>,
    /// Scale of the image prompt: a number, or JSON with a number per block, for example {"up": {"block_1": 1.0}}.
    #[arg(long, default_value = "1.0")]
    scale: String,
    /// Layer preset, for example "ease in" or "style transfer": sets the scale per layer from `--scale`, which must
    /// then be a number.
    #[arg(long)]
    preset: Option<LayerPreset>,
    /// Weight of each image in the softmax that all images share, in the order of `--image`: 2 counts an image twice.
    /// Repeat the option for each image.
    #[arg(long)]
    weight: Vec<f32>,
    /// Fraction of the run, 0 to 1, after which the image prompt is switched on.
    #[arg(long, default_value_t = 0.0)]
    start: f64,
    /// Fraction of the run, 0 to 1, after which the image prompt is switched off.
    #[arg(long, default_value_t = 1.0)]
    end: f64,
    #[command(flatten)]
    series: common::images::Series,
    #[command(flatten)]
    common: common::Common,
}

fn main() -> ExitCode {
    common::report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    arguments.series.prepare()?;
    let settings = arguments.common.settings()?;
    let device = arguments.common.device()?;
    let adapter = IpAdapter::open(&arguments.adapter, &device)?;
    println!("{}; it reads {}", adapter.config(), adapter.config().reads());
    let encoder = match &arguments.encoder {
        Some(folder) => common::images::encoder(folder, &device)?,
        None => common::images::encoder(&arguments.common.model()?.join("image_encoder"), &device)?,
    };
    let paths = arguments.image.iter();
    let images = paths.map(Image::open).collect::<Result<Vec<_>, _>>()?;
    let pixels = clip_batch(&images, encoder.image_size(), Crop::Centre, &device)?;
    let pipeline = arguments.common.load()?;
    let prompt = prompt(arguments, &adapter, &encoder, pixels, &pipeline, &settings.text)?;
    let prompt = match arguments.preset {
        Some(preset) => prompt.with_preset(preset, arguments.scale.parse()?, None)?,
        None => prompt.with_scales(&LayerScales::from_json(&arguments.scale)?)?,
    };
    let prompt = if arguments.weight.is_empty() { prompt } else { prompt.with_weights(&arguments.weight)? };
    let prompt = prompt.with_window(Window::new(arguments.start, arguments.end)?);
    let request = arguments.series.request(&arguments.prompt, settings).with_steering(prompt);
    let made = pipeline.generate(&request)?;
    arguments.series.finish(&images, &made)
}

/// Makes the image prompt for all branches, with the instruction if it is an Instruct adapter.
fn prompt(
    arguments: &Arguments,
    adapter: &IpAdapter,
    encoder: &dyn ImageEncoder,
    pixels: Tensor<4>,
    pipeline: &Pipeline,
    text: &TextOptions,
) -> Result<ImagePrompt, Box<dyn Error>> {
    let layers = pipeline.cross_attentions();
    let reads = adapter.config().reads();
    if let FeatureKind::Instructed(..) = reads {
        let query =
            arguments.instruction.as_deref().ok_or("--instruction: this adapter wants one, as \"use the style\"")?;
        let instruction = Instruction::new(query);
        let negative = arguments.series.negative.as_deref().unwrap_or_default();
        let (reader, prompt) = (pipeline.text_encoder(), &*arguments.prompt);
        let texts = InstructTexts::encode(reader, adapter.config(), prompt, negative, &instruction, text)?;
        let [with, without] = [pixels.clone(), pixels.zeros_like()].map(|pixels| encoder.penultimate(pixels));
        return Ok(ImagePrompt::instructed(adapter, &layers, [&with, &without], &texts, instruction.guidance)?);
    }
    if arguments.instruction.is_some() {
        return Err("--instruction: expected none, got one: only Instruct adapters read instructions".into());
    }
    if matches!(reads, FeatureKind::Pooled(_)) && !encoder.has_projection() {
        let expected = "an image encoder that projects pooled features";
        return Err(format!("{}: expected {expected}, got one without `visual_projection`", adapter.config()).into());
    }
    let unreadable =
        || format!("{}: expected features of images, got {reads}: faces are not read here", adapter.config());
    let with = Features::of(encoder, pixels.clone(), reads).ok_or_else(unreadable)?;
    let without = Features::none_of(encoder, &pixels, reads).ok_or_else(unreadable)?;
    Ok(ImagePrompt::new(adapter, &layers, &with, &without)?)
}
