//! Makes images that follow a control image, with ControlNet or T2I-Adapter:
//! `cargo run --release --example control -- --model stable-diffusion-v1-5 --network control_v11p_sd15_canny
//! --image edges.png "a house"`.
//!
//! The demo model has no control network. To try the command, give the tiny networks of the tests, whose random weights
//! make noise: `--model tests/golden/models --network tests/golden/models/controlnet`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use fabric::core::image::Image;
use fabric::core::pipeline::Window;
use fabric::models::control::{Control, ControlNet, ControlNetwork, T2IAdapter};

mod common;

/// Makes images that follow a control image, such as edges, a pose or a depth map.
#[derive(Parser)]
struct Arguments {
    /// Prompt: what the images should show.
    prompt: String,
    /// Folder or file of a ControlNet, or folder of a T2I-Adapter, made for the model. The demo model has none. To try
    /// the command, give `tests/golden/models/controlnet` with `--model tests/golden/models`: tiny networks with random
    /// weights, which make noise. Repeat the option for several networks.
    #[arg(long, required = true)]
    network: Vec<PathBuf>,
    /// Control image of each `--network`, in the same order.
    #[arg(long, required = true)]
    image: Vec<PathBuf>,
    /// Conditioning scale of all networks: 1 is as trained, 0 has no effect.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Fraction of the run, 0 to 1, after which the networks are switched off.
    #[arg(long, default_value_t = 1.0)]
    end: f64,
    /// Guess mode: ControlNets act only on the conditional branch, and more weakly at high resolutions.
    #[arg(long)]
    guess: bool,
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
    let (networks, given) = (arguments.network.len(), arguments.image.len());
    if networks != given {
        return Err(format!("--image: expected {networks}, one for each --network, got {given}").into());
    }
    let images = arguments.image.iter().map(Image::open).collect::<Result<Vec<_>, _>>()?;
    let mut request = arguments.series.request(&arguments.prompt, arguments.common.settings()?);
    let device = arguments.common.device()?;
    for (path, image) in arguments.network.iter().zip(&images) {
        // The class name in `config.json` tells a T2I-Adapter from a ControlNet.
        let t2i = std::fs::read_to_string(path.join("config.json")).is_ok_and(|text| text.contains("\"T2IAdapter\""));
        let network: ControlNetwork = if t2i {
            Arc::new(T2IAdapter::open(path, &device)?).into()
        } else {
            Arc::new(ControlNet::open(path, &device)?).into()
        };
        let control = Control::new(network, image.clone())
            .with_scale(arguments.scale)
            .with_window(Window::new(0.0, arguments.end)?);
        request = request.with(if arguments.guess { control.with_guess(true) } else { control });
    }
    let made = arguments.common.load()?.generate(&request)?;
    arguments.series.finish(&images, &made)
}
