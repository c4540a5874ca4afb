//! Serves this machine's device to other machines:
//! `cargo run --release --features remote --example serve_device -- --listen 127.0.0.1:3000`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::net::TcpListener;
use std::process::ExitCode;

use clap::Parser;

mod common;

/// Serves this machine's device to other machines. The connection has no encryption and no authentication: listen
/// only on a trusted network.
#[derive(Parser)]
struct Arguments {
    /// Address and port to listen on. Port 0 chooses a free port.
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: String,
    /// Device to serve: flex, ndarray, cuda, cuda:N or wgpu. Default: the first one that this build supports.
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
