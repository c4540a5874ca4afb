//! Writes a model with random weights in the diffusers layout, to test loading, memory and speed without a download:
//! `cargo run --release --example write_model -- out/random --size sd15`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use fabric::models::clip::ClipTextConfig;
use fabric::models::config::OneOrMany;
use fabric::models::load::{Component, FolderWriter, SaveDtype, SaveOptions};
use fabric::models::unet::{Depths, UNetConfig};
use fabric::models::vae::VaeConfig;

mod common;

/// Size of the networks.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Size {
    /// A few megabytes, in Stable Diffusion 1.5's layout.
    Tiny,
    /// A few megabytes, in Stable Diffusion XL's layout.
    TinyXl,
    /// The size of Stable Diffusion 1.5: 2 GB.
    Sd15,
}

/// Configurations of a model's networks, and its diffusers pipeline class.
struct Networks {
    pipeline: &'static str,
    unet: UNetConfig,
    vae: VaeConfig,
    texts: Vec<ClipTextConfig>,
}

impl Size {
    fn networks(self) -> Networks {
        let mut unet = UNetConfig::sd15();
        let mut vae = VaeConfig::sd15();
        let mut text = ClipTextConfig::vit_l();
        if self == Self::Sd15 {
            return Networks { pipeline: "StableDiffusionPipeline", unet, vae, texts: vec![text] };
        }
        unet.block_out_channels = vec![32, 64, 64, 64];
        unet.cross_attention_dim = 64.into();
        vae.block_out_channels = vec![32, 32, 64, 64];
        let small = |text: ClipTextConfig| ClipTextConfig {
            hidden_size: 64,
            intermediate_size: 128,
            projection_dim: 64,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            ..text
        };
        text = small(text);
        unet.sample_size = Some(16.into());
        if self == Self::Tiny {
            return Networks { pipeline: "StableDiffusionPipeline", unet, vae, texts: vec![text] };
        }
        let added = 8;
        let texts = vec![text, small(ClipTextConfig::big_g())];
        let unet = UNetConfig {
            block_out_channels: vec![32, 64, 64],
            // The concatenated channels of both text encoders.
            cross_attention_dim: 128.into(),
            transformer_layers_per_block: Depths::PerLevel([1, 1, 2].map(OneOrMany::One).to_vec()),
            attention_head_dim: 4.into(),
            addition_time_embed_dim: Some(added),
            projection_class_embeddings_input_dim: Some(64 + 6 * added),
            sample_size: unet.sample_size,
            ..UNetConfig::sdxl()
        };
        vae.scaling_factor = VaeConfig::sdxl().scaling_factor;
        Networks { pipeline: "StableDiffusionXLPipeline", unet, vae, texts }
    }
}

/// Writes a model with random weights in the diffusers layout.
#[derive(Parser)]
struct Arguments {
    /// Folder to write. It must not exist yet.
    out: PathBuf,
    /// Size of the networks.
    #[arg(long, value_enum, default_value = "tiny")]
    size: Size,
    /// Seed of the random weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn main() -> ExitCode {
    common::report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let device = fabric::default_device()?;
    device.seed(arguments.seed);
    let Networks { pipeline, unet, vae, texts } = arguments.size.networks();
    let options = SaveOptions { dtype: SaveDtype::F16, max_shard_bytes: None };
    let mut folder = FolderWriter::create(&arguments.out, pipeline)?;
    // Only one network is in memory at a time.
    for (text, component) in texts.iter().zip([Component::TextEncoder, Component::TextEncoder2]) {
        folder.component(component, &text.init(&device)?, &serde_json::to_value(text)?, &options)?;
        println!("text encoder written");
    }
    folder.component(Component::Vae, &vae.init(&device)?, &named("AutoencoderKL", &vae)?, &options)?;
    println!("VAE written");
    folder.component(Component::UNet, &unet.init(&device)?, &named("UNet2DConditionModel", &unet)?, &options)?;
    println!("U-Net written");
    let scheduler = fabric::core::schedule::SchedulerConfig::default();
    folder.scheduler(&serde_json::from_str(&scheduler.to_json())?)?;
    folder.finish()?;
    println!("{}", arguments.out.display());
    Ok(())
}

/// Returns a configuration as JSON, with the class name that diffusers expects in `_class_name`.
fn named(class: &str, config: &impl serde::Serialize) -> Result<serde_json::Value, serde_json::Error> {
    let mut config = serde_json::to_value(config)?;
    config["_class_name"] = class.into();
    Ok(config)
}
