//! Pictures that follow a control picture: `cargo run --release --example control -- --network control_v11p_sd15_canny --picture edges.png "a house"`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use fabric::core::picture::Picture;
use fabric::core::pipeline::Window;
use fabric::models::control::{Control, ControlNet, ControlNetwork, T2IAdapter};

mod common;

/// Makes pictures that follow edges, poses, depths or whatever the control network reads.
#[derive(Parser)]
struct Arguments {
    /// What the pictures should show.
    prompt: String,
    /// A ControlNet's folder or file, or a T2I-Adapter's folder; may be given several times.
    #[arg(long, required = true)]
    network: Vec<PathBuf>,
    /// The picture that it reads, one for each network.
    #[arg(long, required = true)]
    picture: Vec<PathBuf>,
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
    series: common::pictures::Series,
    #[command(flatten)]
    common: common::Common,
}

fn main() -> ExitCode {
    common::report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    arguments.series.prepare()?;
    let (networks, given) = (arguments.network.len(), arguments.picture.len());
    if networks != given {
        return Err(format!("--picture: found {given}, wanted {networks}, one for each --network").into());
    }
    let pictures = arguments.picture.iter().map(Picture::open).collect::<Result<Vec<_>, _>>()?;
    let mut request = arguments.series.request(&arguments.prompt, arguments.common.settings()?);
    let device = arguments.common.device()?;
    for (path, picture) in arguments.network.iter().zip(&pictures) {
        // The two kinds tell themselves by what their settings say.
        let t2i = std::fs::read_to_string(path.join("config.json")).is_ok_and(|text| text.contains("\"T2IAdapter\""));
        let network: ControlNetwork = if t2i {
            Arc::new(T2IAdapter::open(path, &device)?).into()
        } else {
            Arc::new(ControlNet::open(path, &device)?).into()
        };
        let control = Control::new(network, picture.clone())
            .with_scale(arguments.scale)?
            .with_window(Window::new(0.0, arguments.end)?);
        request = request.with_steering(if arguments.guess { control.with_guess(true) } else { control });
    }
    let made = arguments.common.load()?.generate(&request)?;
    arguments.series.finish(&pictures, &made)
}
