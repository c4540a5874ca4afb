//! Opens files of weights as tensor sources.

use std::path::Path;
use std::sync::Arc;

use super::compvis::{KeyTable, vae};
use super::int8_source::with_float_weights;
use super::mapped::{MappedSource, Part, Renamed};
use super::safetensors_file::open_file;
use super::{LoadError, SafetensorsFile, ShardedSafetensors, TensorSource};

/// Opens a file of weights. The format follows from the extension: `.safetensors`, `.safetensors.index.json`, or,
/// with the feature `pickle`, `.ckpt`, `.bin`, `.bin.index.json`, `.pt` and `.pth`.
///
/// Attention projections of old VAE files (`query`, `key`, `value`, `proj_attn`) are renamed to diffusers' current
/// names. Weights with 8 bits in the layout of optimum-quanto (`X._data` with `X._scale`) are presented as f32 tensors
/// `X`.
///
/// # Errors
///
/// Returns an error if the file does not exist, has another extension, is damaged, or is quantised in another way.
pub fn open_weights(path: impl AsRef<Path>) -> Result<Arc<dyn TensorSource>, LoadError> {
    let path = path.as_ref();
    drop(open_file(path)?);
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let is = |extension: &str| name.ends_with(extension);
    let source: Arc<dyn TensorSource> = if is(".safetensors") || is(".sft") {
        Arc::new(SafetensorsFile::open(path)?)
    } else if is(".json") && (name.contains(".safetensors.index.") || name.contains(".bin.index.")) {
        Arc::new(ShardedSafetensors::open(path)?)
    } else if is_pickle(&name) {
        open_pickle(path)?
    } else {
        let expected = "`.safetensors`, `.safetensors.index.json`, `.ckpt`, `.bin`, `.bin.index.json`, `.pt` or `.pth`";
        let next = "get the weights in one of these formats";
        return Err(LoadError::malformed(path, "kind of file", format!("`{name}`"), expected, next));
    };
    with_current_names(with_float_weights(source)?)
}

/// Returns whether a file name (in lower case) has an extension of PyTorch's pickle files.
pub(super) fn is_pickle(name: &str) -> bool {
    [".ckpt", ".bin", ".pt", ".pth"].iter().any(|extension| name.ends_with(extension))
}

#[cfg(feature = "pickle")]
pub(super) fn open_pickle(path: &Path) -> Result<Arc<dyn TensorSource>, LoadError> {
    Ok(Arc::new(super::PickleFile::open(path)?))
}

#[cfg(not(feature = "pickle"))]
pub(super) fn open_pickle(path: &Path) -> Result<Arc<dyn TensorSource>, LoadError> {
    Err(LoadError::FeatureOff { path: path.to_owned(), what: "a PyTorch pickle file".into(), feature: "pickle" })
}

/// Opens the weights of a VAE under diffusers' names. The file has diffusers' names, or the names of the original
/// code, with which replacement VAEs are often published.
///
/// # Errors
///
/// Same as [`open_weights`].
pub(crate) fn open_vae(path: impl AsRef<Path>) -> Result<Arc<dyn TensorSource>, LoadError> {
    let source = open_weights(path)?;
    if !source.tensors().keys().any(|name| name.starts_with("encoder.down.") || name.starts_with("decoder.up.")) {
        return Ok(source);
    }
    // The original files also contain tensors that only training uses.
    let weights = || source.tensors().keys().filter(|n| !n.starts_with("loss.") && !n.starts_with("model_ema."));
    let renamed = compvis_vae(weights().map(String::as_str), |name| {
        source.tensors().get(name).is_some_and(|info| info.shape.len() == 4)
    });
    Ok(Arc::new(MappedSource::new(source, renamed)?))
}

/// Maps the names of the original code's VAE to diffusers' names. `is_kernel` returns whether a tensor has four axes.
pub(super) fn compvis_vae<'a>(
    names: impl Iterator<Item = &'a str> + Clone,
    is_kernel: impl Fn(&str) -> bool,
) -> Vec<Renamed> {
    let table = KeyTable::to_diffusers(vae::pairs(names.clone()));
    names
        .map(|from| {
            let name = table.translate(from).unwrap_or_else(|| from.to_owned());
            let squeezed = vae::is_attention_projection(&name) && is_kernel(from);
            Renamed { part: if squeezed { Part::Squeezed } else { Part::Whole }, name, from: from.to_owned() }
        })
        .collect()
}

/// Renames attention projections with old names to diffusers' current names; returns other sources unchanged.
fn with_current_names(source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>, LoadError> {
    if source.tensors().keys().all(|name| vae::current_name(name).is_none()) {
        return Ok(source);
    }
    let renamed: Vec<Renamed> = source
        .tensors()
        .iter()
        .map(|(from, info)| {
            let name = vae::current_name(from).unwrap_or_else(|| from.clone());
            let squeezed = vae::is_attention_projection(&name) && info.shape.len() == 4;
            Renamed { part: if squeezed { Part::Squeezed } else { Part::Whole }, name, from: from.clone() }
        })
        .collect();
    Ok(Arc::new(MappedSource::new(source, renamed)?))
}
