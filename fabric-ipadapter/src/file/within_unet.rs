//! Adapters saved within a U-Net: by diffusers, and by training scripts that save shared tensors only once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fabric_core::InvalidValue;
use fabric_models::load::{HostTensor, LoadError, TensorInfo, TensorSource};

const PROJECTION: &str = "encoder_hid_proj.image_projection_layers.";

/// Returns the number of adapters that diffusers saved within a U-Net with these tensors.
pub(super) fn count(tensors: &BTreeMap<String, TensorInfo>) -> usize {
    let numbers = tensors.keys().filter_map(|name| name.strip_prefix(PROJECTION)?.split('.').next()?.parse().ok());
    numbers.max().map_or(0, |last: usize| last.saturating_add(1))
}

/// Selects one of them, under the published names.
///
/// # Errors
///
/// Returns an error if the tensors are not those of such an adapter.
pub(super) fn adapter(source: Arc<dyn TensorSource>, index: usize) -> Result<Stacked, LoadError> {
    let mut stacked: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let prefix = format!("{PROJECTION}{index}.");
    let projection: Vec<&str> = source.tensors().keys().filter_map(|name| name.strip_prefix(&prefix)).collect();
    // Full-face normalises each token; FaceID splits one vector into several tokens first, so its norm is
    // narrower.
    let side = |name: &str| source.tensors().get(&format!("{prefix}{name}")).and_then(|info| info.shape.first());
    let full = side("ff.net.2.weight").is_some() && side("ff.net.2.weight") == side("norm.weight");
    let face = projection.contains(&"proj.net.2.weight");
    for name in projection {
        stacked
            .entry(format!("image_proj.{}", published(name, full, face)))
            .or_default()
            .push(format!("{prefix}{name}"));
    }
    let numbers = numbers(source.tensors());
    for name in source.tensors().keys() {
        let Some((path, rest)) = name.split_once(".processor.") else { continue };
        let Some(number) = numbers.get(path) else { continue };
        for half in ["to_k_ip", "to_v_ip"] {
            if rest == format!("{half}.{index}.weight") {
                stacked.insert(format!("ip_adapter.{number}.{half}.weight"), vec![name.clone()]);
            }
        }
    }
    Stacked::new(source, stacked)
}

/// Returns the published names of layer tensors, for a checkpoint that has them only within its U-Net
/// (`unet.down_blocks.0...attn2.processor.to_k_ip.weight`).
pub(super) fn of_training(tensors: &BTreeMap<String, TensorInfo>) -> BTreeMap<String, String> {
    let numbers = numbers(tensors);
    let named = tensors.keys().filter_map(|name| {
        let (path, rest) = name.split_once(".processor.")?;
        let number = numbers.get(path)?;
        rest.contains("_ip.").then(|| (name.clone(), format!("ip_adapter.{number}.{rest}")))
    });
    named.collect()
}

/// Numbers each cross-attention layer that has image keys, by its path: down, up, then middle.
fn numbers(tensors: &BTreeMap<String, TensorInfo>) -> BTreeMap<String, usize> {
    let paths: BTreeSet<&str> = tensors
        .keys()
        .filter_map(|name| name.split_once(".processor.to_k_ip.").map(|(path, _)| path))
        .filter(|path| path.ends_with(".attn2"))
        .collect();
    let mut paths: Vec<&str> = paths.into_iter().collect();
    // Cached, because computing a key takes time proportional to the length of the name.
    paths.sort_by_cached_key(|path| {
        let path = path.strip_prefix("unet.").unwrap_or(path);
        let way = ["down_blocks.", "up_blocks.", "mid_block."].iter().position(|way| path.starts_with(way));
        let places: Vec<usize> = path.split('.').filter_map(|part| part.parse().ok()).collect();
        (way, places)
    });
    paths.into_iter().enumerate().map(|(index, path)| (path.to_owned(), 2 * index + 1)).collect()
}

/// Returns the published name of a tensor of diffusers' projections.
fn published(name: &str, full: bool, face: bool) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let new = match parts[..] {
        ["image_embeds", rest] => vec!["proj", rest],
        ["norm", rest] if full => vec!["proj", "3", rest],
        ["ff", "net", "0", "proj", rest] | ["proj", "net", "0", "proj", rest] => vec!["proj", "0", rest],
        ["ff", "net", "2", rest] | ["proj", "net", "2", rest] => vec!["proj", "2", rest],
        ["layers", layer, "ln0", rest] => vec!["layers", layer, "0", "norm1", rest],
        ["layers", layer, "ln1", rest] => vec!["layers", layer, "0", "norm2", rest],
        // Keys are stacked before values, which is also their alphabetical order.
        ["layers", layer, "attn", "to_k" | "to_v", rest] => vec!["layers", layer, "0", "to_kv", rest],
        ["layers", layer, "attn", "to_out", "0", rest] => vec!["layers", layer, "0", "to_out", rest],
        ["layers", layer, "attn", other, rest] => vec!["layers", layer, "0", other, rest],
        ["layers", layer, "ff", "0", rest] => vec!["layers", layer, "1", "0", rest],
        ["layers", layer, "ff", "1", "net", "0", "proj", rest] => vec!["layers", layer, "1", "1", rest],
        ["layers", layer, "ff", "1", "net", "2", rest] => vec!["layers", layer, "1", "3", rest],
        _ => parts.clone(),
    };
    let new = new.join(".");
    // In FaceID plus, all other tensors belong to the inner resampler.
    let own = new.starts_with("proj.") || new.starts_with("norm.");
    if face && !own { format!("perceiver_resampler.{new}") } else { new }
}

/// Tensor source in which each tensor is one tensor of another source, or several stacked along their first
/// axis.
#[derive(Debug)]
pub(super) struct Stacked {
    source: Arc<dyn TensorSource>,
    origin: BTreeMap<String, Vec<String>>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Stacked {
    fn new(source: Arc<dyn TensorSource>, origin: BTreeMap<String, Vec<String>>) -> Result<Self, LoadError> {
        let mut tensors = BTreeMap::new();
        for (name, parts) in &origin {
            let mut whole: Option<TensorInfo> = None;
            for part in parts {
                let Some(info) = source.tensors().get(part) else {
                    return Err(LoadError::NoSuchTensor { place: source.place(), tensor: part.clone() });
                };
                whole = Some(match whole {
                    None => info.clone(),
                    Some(mut whole) => {
                        let rows = |info: &TensorInfo| info.shape.first().copied();
                        let sum = rows(&whole).zip(rows(info)).and_then(|(one, two)| one.checked_add(two));
                        let alike = whole.dtype == info.dtype && whole.shape.get(1..) == info.shape.get(1..);
                        let Some(sum) = sum.filter(|_| alike) else {
                            return Err(LoadError::Malformed {
                                path: source.place().into(),
                                value: InvalidValue::new(
                                    format!("tensors {}", parts.join(" and ")),
                                    format!("{:?} and {:?}", whole.shape, info.shape),
                                    "the same type and, but for the first axis, shape",
                                    "get the file again, or another one",
                                ),
                            });
                        };
                        whole.shape[0] = sum;
                        whole
                    }
                });
            }
            tensors.extend(whole.map(|whole| (name.clone(), whole)));
        }
        Ok(Self { source, origin, tensors })
    }

    /// Names of the tensors in the file that are used.
    pub(super) fn origins(&self) -> BTreeSet<&str> {
        self.origin.values().flatten().map(String::as_str).collect()
    }
}

impl TensorSource for Stacked {
    fn place(&self) -> String {
        self.source.place()
    }

    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&self, name: &str) -> Result<HostTensor, LoadError> {
        let (Some(info), Some(parts)) = (self.tensors.get(name), self.origin.get(name)) else {
            return Err(LoadError::NoSuchTensor { place: self.place(), tensor: name.to_owned() });
        };
        let mut bytes = Vec::with_capacity(info.bytes());
        for part in parts {
            bytes.extend(self.source.read(part)?.bytes);
        }
        Ok(HostTensor { info: info.clone(), bytes })
    }
}
