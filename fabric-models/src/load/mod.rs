//! Loading and saving of weights and configurations.
//!
//! Every file of weights is read through a [`TensorSource`]: tensor names with shapes and types, and a method that
//! reads one tensor. [`PublishedNames`] maps the parameters of a network to their names in published files.
//! [`load_into`] compares every name and every shape before it reads any values, then fills the module and returns
//! a [`LoadReport`].
//!
//! | on disk | read with |
//! |---|---|
//! | any file of weights, by its extension (`.ckpt`, `.bin` and `.pt` with the feature `pickle`) | [`open_weights`] |
//! | one `.safetensors` file | [`SafetensorsFile`] |
//! | folder of one network (`config.json` and weights) | [`ComponentFolder`] |
//! | folder of a model (`model_index.json`) | [`ModelFolder`] |
//!
//! [`MappedSource`] renames the tensors of another source; old and foreign layouts are tables of names on top of
//! it. [`save_component`] and [`FolderWriter`] write the diffusers layout, [`ConvertedSource`] one file with the
//! tensors of any source.
//!
//! Weights can be stored with 8 bits ([`SaveDtype::Int8`]), in the layout of optimum-quanto; networks compute with
//! floats whatever their files contain.

mod apply;
mod clip_file;
mod component_folder;
mod compvis;
mod contents;
mod control_file;
mod convert;
mod converted;
mod device;
mod error;
mod family;
mod folder;
mod folder_writer;
mod header;
mod int8;
mod int8_source;
mod json;
mod mapped;
mod matched;
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

pub(crate) use clip_file::{ClipLayout, ClipModelFile};
pub(crate) use compvis::original_unet_names;
pub(crate) use contents::Contents;
pub(crate) use control_file::open_controlnet;
pub(crate) use json::{MAX_CONFIG_BYTES, read_json};
pub(crate) use mismatch::nearest;

pub use apply::{LoadReport, load_into};
pub use component_folder::ComponentFolder;
#[cfg(feature = "hub")]
pub(crate) use component_folder::{pickle_names, safetensors_names};
pub use converted::ConvertedSource;
pub(crate) use converted::saved_tensors;
pub use error::LoadError;
pub use family::{Component, Family};
pub use folder::ModelFolder;
#[cfg(feature = "hub")]
pub(crate) use folder::listed_components;
pub use folder_writer::FolderWriter;
pub use mapped::{MappedSource, Part, Renamed};
pub use matched::{MatchedTensors, match_tensors};
pub use mismatch::{Mismatch, MissingTensor, ShapeMismatch};
pub(crate) use open::open_vae;
pub use open::open_weights;
pub use options::{LoadDtype, LoadOptions, LoadProgress, ProgressCallback};
#[cfg(feature = "train")]
pub(crate) use parameters::ModulePath;
pub use parameters::{ParameterInfo, PublishedNames, parameters};
#[cfg(feature = "pickle")]
use pickle::PickleFile;
pub use safetensors::Dtype;
pub use safetensors_file::SafetensorsFile;
pub use save::{SaveDtype, SaveOptions, save_component, save_weights};
use sharded::ShardedSafetensors;
#[cfg(feature = "hub")]
pub(crate) use sharded::shard_names;
pub use sharded::weights_bytes;
pub(crate) use single_file::SingleFile;
pub use source::{HostTensor, TensorInfo, TensorSource};
#[cfg(any(feature = "hub", feature = "train"))]
pub(crate) use write::Partial;
pub use write::write_safetensors;
pub(crate) use write::write_text;
#[cfg(feature = "train")]
pub(crate) use write::{is_stale, sweep, write_json};

#[cfg(test)]
mod tests;
