//! Serves this machine's device to other machines:
//! `cargo run --release --features remote --example serve_device -- --listen 127.0.0.1:3000`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::net::TcpListener;
use std::process::ExitCode;

use clap::Parser;
use fabric::backends::ServeOptions;

mod common;

/// Serves this machine's device to other machines. Connections are not encrypted: listen only on a trusted network.
///
/// If the environment variable `FABRIC_REMOTE_TOKEN` is set, clients must present its value, which they take from the
/// same variable. Without it, the program listens only where no other machine can connect.
#[derive(Parser)]
struct Arguments {
    /// Address and port to listen on. Port 0 chooses a free port.
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: String,
    /// Device to serve: flex, ndarray, cuda, cuda:N or wgpu. Default: the first one that this build supports.
    #[arg(long)]
    device: Option<String>,
    /// Most connections at a time. A client has one for each of its devices.
    #[arg(long, default_value_t = 32)]
    connections: usize,
}

fn main() -> ExitCode {
    common::report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let device = common::device(arguments.device.as_deref())?;
    let listener = TcpListener::bind(&arguments.listen)
        .map_err(|error| format!("--listen {}: {error}; choose another address or port", arguments.listen))?;
    let address = listener.local_addr()?;
    let mut options = ServeOptions::default().with_connections(arguments.connections);
    match std::env::var("FABRIC_REMOTE_TOKEN") {
        Ok(token) => options = options.with_token(token),
        Err(_) if address.ip().is_loopback() => {}
        Err(_) => {
            let why = "other machines can connect, and no token is set";
            return Err(format!("--listen {address}: {why}; set FABRIC_REMOTE_TOKEN, or listen on 127.0.0.1").into());
        }
    }
    println!("ws://{address} serves {}", fabric::describe(&device));
    fabric::backends::serve_with(&device, listener, &options)?;
    Ok(())
}
