//! Offers this machine's device to others: `cargo run --release --features remote --example serve_device -- --listen 127.0.0.1:3000`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::net::TcpListener;
use std::process::ExitCode;

use clap::Parser;

mod common;

/// Offers this machine's device to others, neither encrypted nor guarded: listen only where friends alone can reach it.
#[derive(Parser)]
struct Arguments {
    /// Where to listen; port 0 is any free one.
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: String,
    /// Which device: flex, ndarray, cuda, cuda:N, wgpu; the first that this build has if absent.
    #[arg(long)]
    device: Option<String>,
}

fn main() -> ExitCode {
    common::report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let device = common::device(arguments.device.as_deref())?;
    let listener = TcpListener::bind(&arguments.listen)
        .map_err(|error| format!("--listen {}: {error}; choose another address or port", arguments.listen))?;
    println!("ws://{} serves {}", listener.local_addr()?, fabric::describe(&device));
    fabric::backends::serve(&device, listener)?;
    Ok(())
}
