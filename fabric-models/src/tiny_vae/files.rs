//! The files of a tiny autoencoder, in either published layout.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;

use super::names::{DECODER, ENCODER, blocks_of, from_author};
use super::{TinyAutoencoder, TinyAutoencoderConfig, TinyDecoder};
use crate::ModelError;
use crate::load::{
    ComponentFolder, HostTensor, LoadError, LoadOptions, LoadReport, MAX_CONFIG_BYTES, MappedSource, TensorInfo,
    TensorSource, load_into, open_weights, read_json,
};

/// Configuration and opened weights of a tiny autoencoder.
///
/// ```no_run
/// use fabric_models::tiny_vae::TinyAutoencoderFiles;
///
/// let device = fabric_backends::default_device()?;
/// let files = TinyAutoencoderFiles::open("taesd/taesd_decoder.safetensors")?;
/// let (decoder, _) = files.load_decoder(&device, &Default::default())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TinyAutoencoderFiles {
    path: PathBuf,
    config: TinyAutoencoderConfig,
    /// Tensors under diffusers' names.
    weights: Arc<dyn TensorSource>,
}

impl TinyAutoencoderFiles {
    /// Opens a tiny autoencoder. No values are read yet. `path` is one of:
    ///
    /// - a folder in the diffusers layout, with `config.json`;
    /// - one of the author's files, such as `taesd_decoder.safetensors`, or their folder. The other file, with
    ///   `encoder` in its name, is opened too if it lies beside it; previews do not need it;
    /// - a file with diffusers' names. Its sizes are read from the tensors unless `config.json` lies beside it.
    ///
    /// # Errors
    ///
    /// Returns an error if a file is missing, damaged or of another kind, or if the configuration is not supported.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        if path.is_dir()
            && !path.join("config.json").is_file()
            && let Some(file) = author_file(path)?
        {
            return Self::open(file);
        }
        if !path.is_file() {
            let folder = ComponentFolder::open(path, None)?;
            let config: serde_json::Value = folder.config()?;
            let config = TinyAutoencoderConfig::from_json(&config.to_string())?;
            return Ok(Self { path: path.to_owned(), config, weights: folder.weights()? });
        }
        let source = open_weights(path)?;
        let is_whole = [ENCODER, DECODER].iter().any(|prefix| source.tensors().keys().any(|n| n.starts_with(prefix)));
        let weights = if is_whole { source } else { author_files(path, source)? };
        let beside = path.with_file_name("config.json");
        let config = if is_whole && beside.is_file() {
            let config: serde_json::Value = read_json(&beside, MAX_CONFIG_BYTES)?;
            TinyAutoencoderConfig::from_json(&config.to_string())?
        } else {
            config_of(path, weights.tensors())?
        };
        Ok(Self { path: path.to_owned(), config, weights })
    }

    /// Configuration, from `config.json` or from the shapes of the tensors.
    pub fn config(&self) -> &TinyAutoencoderConfig {
        &self.config
    }

    /// Path of the folder or file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Loads encoder and decoder.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no encoder, and the errors of [`load_into`].
    pub fn load(&self, device: &Device, options: &LoadOptions) -> Result<(TinyAutoencoder, LoadReport), ModelError> {
        if !self.weights.tensors().keys().any(|name| name.starts_with(ENCODER)) {
            let what = "encoder of the tiny autoencoder".to_owned();
            let next = "put the file with `encoder` in its name beside it".to_owned();
            return Err(LoadError::NotFound { what, path: self.path.clone(), next }.into());
        }
        Ok(load_into(self.config.init(device)?, &self.weights, options)?)
    }

    /// Loads the decoder alone.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`load_into`].
    pub fn load_decoder(
        &self,
        device: &Device,
        options: &LoadOptions,
    ) -> Result<(TinyDecoder, LoadReport), ModelError> {
        Ok(load_into(self.config.init_decoder(device)?, &self.weights, options)?)
    }
}

/// Returns the name of a file without its extension.
fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns the author's file of a decoder in a folder, if there is exactly one.
fn author_file(folder: &Path) -> Result<Option<PathBuf>, LoadError> {
    let list = |error| LoadError::io(folder, "list", error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(list)? {
        let path = entry.map_err(list)?.path();
        let is_weights = path.extension().is_some_and(|extension| extension == "safetensors" || extension == "pth");
        if is_weights && stem(&path).ends_with("_decoder") {
            found.push(path);
        }
    }
    found.sort();
    match found.len() {
        0 | 1 => Ok(found.pop()),
        _ => {
            let names: Vec<String> = found.iter().map(|path| stem(path)).collect();
            let next = "give the path of the file that belongs to the model";
            Err(LoadError::malformed(folder, "files of decoders", names.join(", "), "one", next))
        }
    }
}

/// Joins the author's two files under diffusers' names. `source` is the file at `path`, the other lies beside it.
fn author_files(path: &Path, source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>, LoadError> {
    // The decoder's first layer has no weights.
    let has = |name: &str| source.tensors().contains_key(name);
    let ((own, prefix), (other, other_prefix)) = match (has("0.weight"), has("1.weight")) {
        (true, _) => (("_encoder", ENCODER), ("_decoder", DECODER)),
        (false, true) => (("_decoder", DECODER), ("_encoder", ENCODER)),
        (false, false) => return Err(no_tiny_autoencoder(path)),
    };
    let mut sources = vec![named(source, prefix)?];
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let beside = stem(path).strip_suffix(own).map(|stem| path.with_file_name(format!("{stem}{other}.{extension}")));
    match beside.filter(|beside| beside.is_file()) {
        Some(beside) => sources.push(named(open_weights(beside)?, other_prefix)?),
        None if prefix == ENCODER => {
            let what = "decoder beside this file of an encoder".to_owned();
            let next = "give the path of the file with `decoder` in its name".to_owned();
            return Err(LoadError::NotFound { what, path: path.to_owned(), next });
        }
        None => {}
    }
    Ok(Arc::new(Joined::new(path, sources)))
}

fn named(source: Arc<dyn TensorSource>, prefix: &str) -> Result<MappedSource<Arc<dyn TensorSource>>, LoadError> {
    let renamed = from_author(source.tensors(), prefix);
    MappedSource::new(source, renamed)
}

/// Reads the sizes of a network off its tensors. An absent encoder mirrors the decoder.
fn config_of(path: &Path, tensors: &BTreeMap<String, TensorInfo>) -> Result<TinyAutoencoderConfig, ModelError> {
    let first = |prefix: &str| tensors.get(&format!("{prefix}0.weight")).map(|info| info.shape.as_slice());
    let (Some(decoder), Some(&[channels, latent_channels, 3, 3])) = (blocks_of(tensors, DECODER), first(DECODER))
    else {
        return Err(no_tiny_autoencoder(path).into());
    };
    let (encoder, encoder_channels) = match (blocks_of(tensors, ENCODER), first(ENCODER)) {
        (Some(blocks), Some(&[channels, _, 3, 3])) => (blocks, channels),
        _ => (decoder.iter().rev().copied().collect(), channels),
    };
    let config = TinyAutoencoderConfig {
        encoder_block_out_channels: vec![encoder_channels; encoder.len()],
        decoder_block_out_channels: vec![channels; decoder.len()],
        num_encoder_blocks: encoder,
        num_decoder_blocks: decoder,
        latent_channels,
        ..TinyAutoencoderConfig::default()
    };
    config.validate()?;
    Ok(config)
}

fn no_tiny_autoencoder(path: &Path) -> LoadError {
    let expected = "the layers of a tiny autoencoder (`decoder.layers.0.weight`, or the author's `1.weight`)";
    let next = "give a folder of diffusers' `AutoencoderTiny`, or a file such as `taesd_decoder.safetensors`";
    LoadError::malformed(path, "tensors", "those of another network", expected, next)
}

/// Tensors of several files, whose names differ.
#[derive(Debug)]
struct Joined<S> {
    place: String,
    sources: Vec<S>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl<S: TensorSource> Joined<S> {
    fn new(path: &Path, sources: Vec<S>) -> Self {
        let all = sources.iter().flat_map(|source| source.tensors());
        let tensors = all.map(|(name, info)| (name.clone(), info.clone())).collect();
        Self { place: path.display().to_string(), sources, tensors }
    }
}

impl<S: TensorSource> TensorSource for Joined<S> {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&self, name: &str) -> Result<HostTensor, LoadError> {
        match self.sources.iter().find(|source| source.tensors().contains_key(name)) {
            Some(source) => source.read(name),
            None => Err(LoadError::NoSuchTensor { place: self.place.clone(), tensor: name.to_owned() }),
        }
    }
}
