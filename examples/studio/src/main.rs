//! Serves the studio on this machine: `cargo run --release -p fabric-studio`, then open `http://127.0.0.1:7860`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use fabric_studio::{Access, Model, Studio, StudioError, serve};

#[path = "../../common/mod.rs"]
mod common;

/// Serves a web page for rounds of images that are steered with votes, reasons and image prompts.
#[derive(Parser)]
struct Arguments {
    /// Port. 0 chooses a free one.
    #[arg(long, default_value_t = 7860)]
    port: u16,
    /// Address to listen at. One that other machines can reach needs --token.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// Secret text that every request must have. The address that is printed sets it in the browser.
    #[arg(long)]
    token: Option<String>,
    /// Folder of the sessions.
    #[arg(long, default_value = "out/studio")]
    folder: PathBuf,
    /// Largest number of rounds and comparisons that wait at once.
    #[arg(long, default_value_t = 16)]
    queue: usize,
    /// Adapter for image prompts and the reasons of votes. Its image encoder is `image_encoder` in the model's folder.
    /// Default: `ip_adapter/instruct.safetensors` in the model's folder, if it exists.
    #[arg(long)]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    common: common::Common,
}

fn main() -> ExitCode {
    common::report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let token = arguments.token.as_deref();
    // What is wrong with address, token or folder is told before the model is loaded.
    let address = SocketAddr::new(arguments.listen, arguments.port);
    Access::new(address, token)?;
    let listener = TcpListener::bind(address).map_err(|error| {
        let (expected, next) = ("an address of this machine with a free port", "choose another one with --port");
        format!("--listen, --port: expected {expected}, got {address}: {error}; {next}")
    })?;
    listener.set_nonblocking(true)?;
    std::fs::create_dir_all(&arguments.folder).map_err(|source| {
        let place = arguments.folder.display().to_string();
        StudioError::Folder { place, source }
    })?;

    let path = arguments.common.model()?;
    let pipeline = arguments.common.load()?.with_recommended_settings(arguments.common.settings()?)?;
    let mut model = Model::new(name_of(&path), pipeline);
    if let Some(adapter) = arguments.adapter.clone().or_else(|| Model::own_adapter(&path)) {
        model = model.with_adapter(adapter, path.join("image_encoder"))?;
    }
    let studio = Arc::new(Studio::open(model, &arguments.folder, arguments.queue)?);

    let address = listener.local_addr()?;
    let query = token.map(|token| format!("?token={token}")).unwrap_or_default();
    println!("open http://{address}/{query}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(async { serve(tokio::net::TcpListener::from_std(listener)?, studio, token).await })?)
}

/// Returns the last part of a path.
fn name_of(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
