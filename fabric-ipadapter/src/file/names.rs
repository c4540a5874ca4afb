//! The names that adapters have been published under, as the one set that this library reads.

use std::path::Path;
use std::sync::Arc;

use fabric_models::load::{LoadError, MappedSource, Part, Renamed, TensorSource, open_weights};

/// Other names of the two halves of a file: of a training checkpoint, and of what this library reads.
const PREFIXES: [(&str, &str); 2] = [("image_proj_model.", "image_proj."), ("adapter_modules.", "ip_adapter.")];

/// Opens an adapter's file: `.safetensors`, or with the feature `pickle` a nested `.bin`.
///
/// The names of a training checkpoint (`image_proj_model.`, `adapter_modules.`) become the published ones
/// (`image_proj.`, `ip_adapter.`); the frozen U-Net that travels along in one is left out.
///
/// # Errors
///
/// When there is no such file, or it is broken.
pub fn open_adapter(path: impl AsRef<Path>) -> Result<Arc<dyn TensorSource>, LoadError> {
    with_published_names(open_weights(path)?)
}

pub(super) fn with_published_names(source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>, LoadError> {
    let is_training = |name: &String| PREFIXES.iter().any(|(from, _)| name.starts_with(from));
    if !source.tensors().keys().any(is_training) {
        return Ok(source);
    }
    let renamed = source.tensors().keys().filter(|name| !name.starts_with("unet.")).map(|from| {
        let other = PREFIXES.iter().find_map(|(prefix, to)| Some(format!("{to}{}", from.strip_prefix(prefix)?)));
        Renamed { name: other.unwrap_or_else(|| from.clone()), from: from.clone(), part: Part::Whole }
    });
    let renamed: Vec<Renamed> = renamed.collect();
    Ok(Arc::new(MappedSource::new(source, renamed)?))
}
