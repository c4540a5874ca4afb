//! Weights and settings: from files into modules, and back.
//!
//! A file is a [`TensorSource`]: names with shapes and types, read one tensor at a time. A network says under
//! which names its parameters are published ([`PublishedNames`]), and [`load_into`] joins the two: it compares
//! every name and every shape before it reads anything, then fills the module and returns a [`LoadReport`].
//!
//! | on disk | read with |
//! |---|---|
//! | any file of weights, by its extension | [`open_weights`]; a VAE by itself: [`open_vae`] |
//! | one `.safetensors` file | [`SafetensorsFile`] |
//! | several, with an index (`.safetensors` or `.bin`) | [`ShardedSafetensors`] |
//! | `.ckpt`, `.bin`, `.pt` | `PickleFile`, with the feature `pickle` |
//! | a network's folder (`config.json` and weights) | [`ComponentFolder`] |
//! | a model's folder (`model_index.json`) | [`ModelFolder`] |
//! | a checkpoint in one file with the original names | [`SingleFile`] |
//!
//! [`MappedSource`] presents tensors under other names; old and foreign layouts are lists of names on top of it.
//! [`save_component`] and [`FolderWriter`] write the diffusers layout again.

mod apply;
mod component_folder;
mod compvis;
mod contents;
mod control_file;
mod convert;
mod device;
mod error;
mod family;
mod folder;
mod folder_writer;
mod header;
mod json;
mod mapped;
mod mismatch;
mod open;
mod options;
mod parameters;
#[cfg(feature = "pickle")]
mod pickle;
mod presets;
mod safetensors_file;
mod save;
mod sharded;
mod single_file;
mod source;
mod unsupported;
mod write;

pub(crate) use compvis::original_unet_names;
pub(crate) use contents::Contents;
pub(crate) use control_file::open_controlnet;
pub(crate) use json::{MAX_CONFIG_BYTES, read_json};
pub(crate) use mismatch::{nearest, shortened};

pub use apply::{LoadReport, load_into};
pub use component_folder::ComponentFolder;
pub use error::LoadError;
pub use family::{Component, Family};
pub use folder::ModelFolder;
pub use folder_writer::FolderWriter;
pub use mapped::{MappedSource, Part, Renamed};
pub use mismatch::{Mismatch, MissingTensor, ShapeMismatch};
pub use open::{open_vae, open_weights};
pub use options::{LoadDtype, LoadOptions, LoadProgress, ProgressCallback};
pub use parameters::{ParameterInfo, PublishedNames, parameters};
#[cfg(feature = "pickle")]
pub use pickle::PickleFile;
pub use safetensors::Dtype;
pub use safetensors_file::SafetensorsFile;
pub use save::{SaveOptions, save_component, save_weights};
pub use sharded::ShardedSafetensors;
pub use single_file::SingleFile;
pub use source::{HostTensor, TensorInfo, TensorSource};
pub use write::write_safetensors;
pub(crate) use write::write_text;
#[cfg(feature = "train")]
pub(crate) use {parameters::ModulePath, write::Partial};

#[cfg(test)]
mod tests;
