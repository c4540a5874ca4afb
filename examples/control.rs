//! Images that follow a control image: `cargo run --release --example control -- --network control_v11p_sd15_canny --image edges.png "a house"`.

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

/// Makes images that follow edges, poses, depths or whatever the control network reads.
#[derive(Parser)]
struct Arguments {
    /// What the images should show.
    prompt: String,
    /// A ControlNet's folder or file, or a T2I-Adapter's folder; may be given several times.
    #[arg(long, required = true)]
    network: Vec<PathBuf>,
    /// The image that it reads, one for each network.
    #[arg(long, required = true)]
    image: Vec<PathBuf>,
    /// How strongly they act.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Share of the run after which they act no more, 0 to 1.
    #[arg(long, default_value_t = 1.0)]
    end: f64,
    /// ControlNets act under the prompt alone, and weaker at high resolutions.
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
        return Err(format!("--image: expected {networks}, got {given}, one for each --network").into());
    }
    let images = arguments.image.iter().map(Image::open).collect::<Result<Vec<_>, _>>()?;
    let mut request = arguments.series.request(&arguments.prompt, arguments.common.settings()?);
    let device = arguments.common.device()?;
    for (path, image) in arguments.network.iter().zip(&images) {
        // The two kinds tell themselves by what their settings say.
        let t2i = std::fs::read_to_string(path.join("config.json")).is_ok_and(|text| text.contains("\"T2IAdapter\""));
        let network: ControlNetwork = if t2i {
            Arc::new(T2IAdapter::open(path, &device)?).into()
        } else {
            Arc::new(ControlNet::open(path, &device)?).into()
        };
        let control = Control::new(network, image.clone())
            .with_scale(arguments.scale)?
            .with_window(Window::new(0.0, arguments.end)?);
        request = request.with_steering(if arguments.guess { control.with_guess(true) } else { control });
    }
    let made = arguments.common.load()?.generate(&request)?;
    arguments.series.finish(&images, &made)
}
