//! Models by name from Hugging Face's hub, downloaded once into the cache that the hub's other tools share.
//!
//! [`ModelHub::fetch`] downloads the files of a model in the diffusers layout that the loaders read. It returns their
//! folder, which [`StableDiffusion::open`](crate::StableDiffusion::open) opens like any other:
//!
//! ```no_run
//! use fabric_models::StableDiffusion;
//! use fabric_models::hub::ModelHub;
//!
//! let hub = ModelHub::new()?.with_variant("fp16").with_progress(|progress| {
//!     println!("{}: {} of {} bytes", progress.file, progress.done_bytes, progress.total_bytes);
//! });
//! let folder = hub.fetch("stable-diffusion-v1-5/stable-diffusion-v1-5")?;
//! let device = fabric_backends::default_device()?;
//! let (model, _) = StableDiffusion::open(folder, &device, &Default::default())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! An interrupted download is continued by the next fetch; until then it is a file in the model's `blobs` folder whose name
//! ends in `.partial`, which may be deleted. Files have the size that the server gives, and the SHA-256
//! where it gives one, which is the case for files of weights. A complete model in the cache is used if the hub cannot
//! be reached.
//!
//! Names that a server sends (of files, commits and contents) are untrusted: only names that cannot lead out of the
//! cache's folder are accepted, and the token is sent to no server but the hub itself.

mod address;
mod cache;
mod client;
mod download;
mod environment;
mod error;
mod listing;
mod model_hub;
mod names;
mod partial_file;
mod progress;
mod remote_file;
mod select;
#[cfg(test)]
mod tests;
mod token;

pub use error::HubError;
pub use model_hub::ModelHub;
pub use progress::HubProgress;
