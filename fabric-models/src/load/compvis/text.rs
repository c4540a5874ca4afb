//! Names of text encoders in the layouts of OpenCLIP and transformers.

use super::{KeyTable, Pairs, numbered};
use crate::load::mapped::{Part, Renamed};

/// Last layer of OpenCLIP's ViT-H. Stable Diffusion 2 does not use it, because it takes the penultimate hidden states.
const UNUSED_LAYER: usize = 23;

/// Prefixes of transformers' CLIP text encoder names inside the outermost module `text_model`.
pub(in super::super) const INNER_OF_CLIP: [&str; 3] = ["embeddings.", "encoder.", "final_layer_norm."];

/// Converts the name of a CLIP text encoder parameter to that of transformers 4, by adding `text_model.`, which some
/// versions omit.
pub(in super::super) fn clip_name(name: &str) -> String {
    let bare = INNER_OF_CLIP.iter().any(|prefix| name.starts_with(prefix));
    if bare { format!("text_model.{name}") } else { name.to_owned() }
}

/// Maps one tensor of an OpenCLIP text encoder to one tensor, three tensors (fused QKV projection), or none (unused).
///
/// `projected` states whether the encoder is used with its projection: true for SDXL, false for Stable Diffusion 2,
/// whose files contain an unused projection.
pub(in super::super) fn open_clip(table: &KeyTable, name: &str, projected: bool) -> Vec<Renamed> {
    let renamed = |name: String, from: &str, part| Renamed { name, from: from.to_owned(), part };
    match name {
        "logit_scale" => return Vec::new(),
        "text_projection" if !projected => return Vec::new(),
        "text_projection" => return vec![renamed("text_projection.weight".into(), name, Part::Transposed)],
        "text_projection.weight" if !projected => return Vec::new(),
        _ => {}
    }
    if !projected && numbered(name, "transformer.resblocks.").is_some_and(|(layer, _)| layer == UNUSED_LAYER) {
        return Vec::new();
    }
    let joint = ["weight", "bias"]
        .into_iter()
        .find_map(|kind| Some((name.strip_suffix(kind)?.strip_suffix(".attn.in_proj_")?, kind)));
    if let Some((layer, kind)) = joint
        && let Some(layer) = table.translate(layer)
    {
        let thirds = ["q_proj", "k_proj", "v_proj"].into_iter().enumerate();
        return thirds
            .map(|(third, part)| renamed(format!("{layer}.self_attn.{part}.{kind}"), name, Part::Third(third)))
            .collect();
    }
    let new = table.translate(name).unwrap_or_else(|| name.to_owned());
    vec![renamed(new, name, Part::Whole)]
}

/// Lists the corresponding prefixes of an OpenCLIP text encoder with this number of layers.
pub(in super::super) fn open_clip_pairs(layers: usize) -> Pairs {
    let mut pairs: Pairs = [
        ("text_model.embeddings.token_embedding", "token_embedding"),
        ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
        ("text_model.final_layer_norm", "ln_final"),
    ]
    .map(|(left, right)| (left.to_owned(), right.to_owned()))
    .into();
    pairs.extend(layer_pairs("text_model.encoder.layers", "transformer.resblocks", layers));
    pairs
}

/// Lists the corresponding prefixes of transformer layers below these two prefixes.
pub(super) fn layer_pairs(left: &str, right: &str, layers: usize) -> Pairs {
    let mut pairs = Pairs::new();
    for layer in 0..layers {
        let (left, right) = (format!("{left}.{layer}"), format!("{right}.{layer}"));
        pairs.push((left.clone(), right.clone()));
        let parts = [
            ("layer_norm1", "ln_1"),
            ("layer_norm2", "ln_2"),
            ("self_attn.out_proj", "attn.out_proj"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
        ];
        pairs.extend(parts.map(|(l, r)| (format!("{left}.{l}"), format!("{right}.{r}"))));
    }
    pairs
}

/// Number of layers in the names.
pub(in super::super) fn open_clip_layers<'a>(names: impl IntoIterator<Item = &'a str>) -> usize {
    // Real files have fewer layers; the limit bounds the size of the table for malicious files.
    super::count(names, "transformer.resblocks.").min(256)
}
