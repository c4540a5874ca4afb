//! Names of whole CLIP models, with both encoders, in the layouts of OpenCLIP and transformers.

use super::{KeyTable, Pairs, text};
use crate::load::mapped::{Part, Renamed};

/// Module of the image encoder in OpenCLIP's names; the text encoder has none.
const VISION: &str = "visual.";

/// Integers that OpenAI's own files have beside the weights.
const SIZES: [&str; 3] = ["context_length", "input_resolution", "vocab_size"];

/// Returns whether these are the names of OpenCLIP or OpenAI, which are the same.
pub(in super::super) fn is_open_clip<'a>(mut names: impl Iterator<Item = &'a str>) -> bool {
    names.any(|name| name.starts_with(VISION))
}

/// Maps the names of OpenCLIP to those of transformers' `CLIPModel`. Unknown names stay as they are, so that a strict
/// load reports them.
pub(in super::super) fn open_clip_model<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Vec<Renamed> {
    let mut pairs = text::open_clip_pairs(text::open_clip_layers(names.clone()));
    pairs.extend(vision_pairs(vision_layers(names.clone())));
    let table = KeyTable::to_diffusers(pairs);
    let renamed = |name: &str, from: &str, part| vec![Renamed { name: name.to_owned(), from: from.to_owned(), part }];
    names
        .filter(|name| !SIZES.contains(name))
        .flat_map(|name| match name {
            "logit_scale" => renamed(name, name, Part::Whole),
            "visual.proj" => renamed("visual_projection.weight", name, Part::Transposed),
            _ => text::open_clip(&table, name, true),
        })
        .collect()
}

/// Number of layers of the image encoder; the limit is explained at [`text::open_clip_layers`].
fn vision_layers<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    super::count(names, "visual.transformer.resblocks.").min(256)
}

/// Lists the corresponding prefixes of an OpenCLIP image encoder with this number of layers.
fn vision_pairs(layers: usize) -> Pairs {
    let outer = [
        ("embeddings.class_embedding", "class_embedding"),
        ("embeddings.patch_embedding", "conv1"),
        ("embeddings.position_embedding.weight", "positional_embedding"),
        // Misspelt in the published files.
        ("pre_layrnorm", "ln_pre"),
        ("post_layernorm", "ln_post"),
    ];
    let mut pairs: Pairs =
        outer.map(|(left, right)| (format!("vision_model.{left}"), format!("{VISION}{right}"))).into();
    pairs.extend(text::layer_pairs("vision_model.encoder.layers", "visual.transformer.resblocks", layers));
    pairs
}
