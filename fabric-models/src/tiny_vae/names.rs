//! Names of a tiny autoencoder's tensors: diffusers' and those of the author's two files.

use std::collections::BTreeMap;

use super::{TinyAutoencoder, TinyDecoder};
use crate::load::{Part, PublishedNames, Renamed, TensorInfo};

type Tensors = BTreeMap<String, TensorInfo>;

/// Prefixes of diffusers' names.
pub(super) const ENCODER: &str = "encoder.layers.";
pub(super) const DECODER: &str = "decoder.layers.";

impl PublishedNames for TinyAutoencoder {
    /// The files number the layers of PyTorch's `Sequential`, as the modules here do; inside of a block, they number
    /// the activations too.
    fn published_name(path: &str) -> String {
        let parts: Vec<&str> = path.split('.').collect();
        let mut name: Vec<String> = Vec::with_capacity(parts.len());
        for (index, part) in parts.iter().enumerate() {
            match (index.checked_sub(1).map(|before| parts[before]), part.parse::<usize>()) {
                (Some("conv"), Ok(number)) => name.push((2 * number).to_string()),
                _ if ["Conv", "Block"].contains(part) => {}
                _ => name.push((*part).to_owned()),
            }
        }
        name.join(".")
    }
}

impl PublishedNames for TinyDecoder {
    fn published_name(path: &str) -> String {
        TinyAutoencoder::published_name(&format!("decoder.{path}"))
    }

    /// Takes the decoder out of a file with both networks.
    fn layout(&self, stored: &Tensors) -> Option<Vec<Renamed>> {
        let whole = |name: &String| Renamed { name: name.clone(), from: name.clone(), part: Part::Whole };
        let has_encoder = stored.keys().any(|name| name.starts_with(ENCODER));
        has_encoder.then(|| stored.keys().filter(|name| name.starts_with(DECODER)).map(whole).collect())
    }
}

/// Returns diffusers' names of the tensors of the author's file of an encoder, or of a decoder. The author counts the
/// decoder's soft clamp as a layer; diffusers does not. Names of another form are kept.
pub(super) fn from_author(stored: &Tensors, prefix: &str) -> Vec<Renamed> {
    let clamp = usize::from(prefix == DECODER);
    let renamed = stored.keys().map(|from| {
        let numbered = from.split_once('.').and_then(|(number, rest)| {
            let layer = number.parse::<usize>().ok()?.checked_sub(clamp)?;
            Some(format!("{prefix}{layer}.{rest}"))
        });
        Renamed { name: numbered.unwrap_or_else(|| from.clone()), from: from.clone(), part: Part::Whole }
    });
    renamed.collect()
}

/// Returns the blocks of each stage of a network under diffusers' names; `None` if it is no such network.
///
/// Every stage of a decoder ends with a convolution, and the first of its layers is one. The stages of an encoder
/// begin with a convolution, and a last one follows, so that the order of blocks and convolutions is the same.
pub(super) fn blocks_of(stored: &Tensors, prefix: &str) -> Option<Vec<usize>> {
    let mut is_block: BTreeMap<usize, bool> = BTreeMap::new();
    for name in stored.keys() {
        let Some((number, rest)) = name.strip_prefix(prefix).and_then(|name| name.split_once('.')) else { continue };
        is_block.insert(number.parse().ok()?, rest.starts_with("conv."));
    }
    let mut layers = is_block.into_iter();
    if layers.next() != Some((0, false)) {
        return None;
    }
    let (mut stages, mut blocks) = (Vec::new(), 0);
    for (_, is_block) in layers {
        if is_block {
            blocks += 1;
        } else {
            stages.push(std::mem::take(&mut blocks));
        }
    }
    (blocks == 0 && !stages.is_empty()).then_some(stages)
}
