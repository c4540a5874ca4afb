//! Opening of ControlNets in the diffusers layout or that of the original releases.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::compvis::{KeyTable, control};
use super::contents::Contents;
use super::mapped::{MappedSource, Part, Renamed};
use super::{ComponentFolder, LoadError, TensorSource, open_weights, presets};
use fabric_core::InvalidValue;

/// Prefix of the tensor names of the original releases.
const PREFIX: &str = "control_model.";

/// Opens a ControlNet: a folder in the diffusers layout, or one file with diffusers' names or those of the original
/// releases (`control_v11p_sd15_canny.pth`, with the feature `pickle`). Returns its configuration, from `config.json`
/// or derived from the tensors, and its weights under diffusers' names.
///
/// # Errors
///
/// Returns an error if a file is missing or damaged, or does not contain a ControlNet.
pub(crate) fn open_controlnet(path: &Path) -> Result<(Value, Arc<dyn TensorSource>), LoadError> {
    if path.is_dir() {
        let folder = ComponentFolder::open(path, None)?;
        let weights = folder.weights()?;
        check_whole(&*weights)?;
        return Ok((folder.config()?, weights));
    }
    let source = open_weights(path)?;
    check_whole(&*source)?;
    if contents(&*source) == Some(Contents::ControlLora) {
        return Err(not_a_controlnet(&*source));
    }
    let source = with_current_names(source)?;
    let config = presets::controlnet(source.tensors());
    Ok((config, source))
}

/// Rejects files that do not contain the full weights of one ControlNet, recognized by marker tensors of their authors.
/// Loaded as full weights, they would produce noise.
fn check_whole(source: &dyn TensorSource) -> Result<(), LoadError> {
    let tensors = source.tensors();
    let marked = |mark: &str| tensors.contains_key(mark) || tensors.contains_key(&format!("{PREFIX}{mark}"));
    let (got, next) = if marked("difference") {
        (
            "the difference of a ControlNet to a base model (tensor `difference`)",
            "difference files are not supported: get the whole ControlNet, as its authors published it",
        )
    } else if marked("lora_controlnet") {
        ("a Control-LoRA (tensor `lora_controlnet`)", "Control-LoRAs are not supported: get a whole ControlNet")
    } else if tensors.keys().any(|name| name.starts_with("control_add_embedding.") || name == "task_embedding") {
        (
            "a union of several ControlNets (`task_embedding`)",
            "unions are not supported: get the ControlNet for one task",
        )
    } else if tensors.keys().any(|name| name.starts_with("lllite_")) {
        ("a ControlNet-LLLite", "this network is not supported: get a whole ControlNet")
    } else {
        return Ok(());
    };
    Err(LoadError::WrongFamily {
        place: source.place(),
        value: InvalidValue::new("tensors", got, "the weights of a whole ControlNet", next),
    })
}

fn with_current_names(source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>, LoadError> {
    let tensors = source.tensors();
    if tensors.keys().any(|name| name.starts_with("controlnet_cond_embedding.")) {
        return Ok(source);
    }
    let bare = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
    let prefixed = tensors.keys().any(|name| name.starts_with(PREFIX));
    let names: Vec<(String, &String)> =
        tensors.keys().filter(|name| name.starts_with(PREFIX) || !prefixed).map(|name| (bare(name), name)).collect();
    let Some(pairs) = control::pairs(names.iter().map(|(bare, _)| bare.as_str())) else {
        return Err(not_a_controlnet(&*source));
    };
    let table = KeyTable::to_diffusers(pairs);
    let renamed = names.iter().map(|(bare, from)| Renamed {
        name: table.translate(bare).unwrap_or_else(|| bare.clone()),
        from: (*from).clone(),
        part: Part::Whole,
    });
    let renamed: Vec<Renamed> = renamed.collect();
    Ok(Arc::new(MappedSource::new(source, renamed)?))
}

fn contents(source: &dyn TensorSource) -> Option<Contents> {
    Contents::of(source.tensors().iter().map(|(name, info)| (name.as_str(), info.shape.as_slice())))
}

fn not_a_controlnet(source: &dyn TensorSource) -> LoadError {
    LoadError::WrongFamily {
        place: source.place(),
        value: InvalidValue::new(
            "tensors",
            contents(source).map_or_else(|| "something else".into(), |contents| contents.to_string()),
            "a ControlNet with diffusers' names, or those of the original releases",
            "Control-LoRA, ControlNet-XS and lite versions are other networks, and not supported",
        ),
    }
}
