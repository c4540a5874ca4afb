//! Mapping of module paths to published tensor names, and the layouts in which CLIP's encoders are published.

use std::collections::BTreeMap;

use super::{ClipText, ClipVision};
use crate::load::{Part, PublishedNames, Renamed, TensorInfo};

type Tensors = BTreeMap<String, TensorInfo>;

impl PublishedNames for ClipText {
    fn published_name(path: &str) -> String {
        match path.split('.').next() {
            Some("token_embedding" | "position_embedding") => format!("text_model.embeddings.{path}"),
            Some("layers") => format!("text_model.encoder.{path}"),
            Some("text_projection") => path.to_owned(),
            _ => format!("text_model.{path}"),
        }
    }

    fn layout(&self, stored: &Tensors) -> Option<Vec<Renamed>> {
        let projects = self.projection().is_some();
        TEXT.layout(stored, |name| name == PROJECTION_OF_TEXT && !projects)
    }
}

impl PublishedNames for ClipVision {
    fn published_name(path: &str) -> String {
        match path.split_once('.') {
            None => format!("vision_model.embeddings.{path}"),
            Some(("patch_embedding" | "position_embedding", _)) => format!("vision_model.embeddings.{path}"),
            Some(("layers", _)) => format!("vision_model.encoder.{path}"),
            // Misspelt in the published files.
            Some(("pre_layernorm", rest)) => format!("vision_model.pre_layrnorm.{rest}"),
            Some(("visual_projection", _)) => path.to_owned(),
            Some(_) => format!("vision_model.{path}"),
        }
    }

    fn layout(&self, stored: &Tensors) -> Option<Vec<Renamed>> {
        VISION.layout(stored, |name| name == PROJECTION_OF_TEXT)
    }

    /// Drops the projection, which transformers' `CLIPVisionModel` lacks, if the file has none.
    fn without_absent(self, stored: &Tensors) -> Self {
        if stored.contains_key(PROJECTION_OF_IMAGES) { self } else { self.without_projection() }
    }
}

const PROJECTION_OF_TEXT: &str = "text_projection.weight";
const PROJECTION_OF_IMAGES: &str = "visual_projection.weight";

/// Names of one of CLIP's two encoders in files of transformers.
struct Side {
    /// Module that contains the encoder; transformers 5 omits it from the names.
    module: &'static str,
    /// Prefixes of the names inside that module.
    inner: &'static [&'static str],
    /// Tensor whose presence identifies the encoder in a file without the module prefix.
    landmark: &'static str,
    /// Prefixes of the other encoder's names in a file of a whole `CLIPModel`.
    other: &'static [&'static str],
}

const TEXT: Side = Side {
    module: "text_model.",
    inner: &["embeddings.", "encoder.", "final_layer_norm."],
    landmark: "embeddings.token_embedding.weight",
    other: &["vision_model.", "visual_projection."],
};

const VISION: Side = Side {
    module: "vision_model.",
    inner: &["embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm."],
    landmark: "embeddings.patch_embedding.weight",
    other: &["text_model."],
};

impl Side {
    /// Returns the names as in transformers 4, without those of the other encoder, the `logit_scale` of a whole
    /// model, and those for which `unused` holds. Returns `None` if the file has exactly these names, or no tensor of
    /// this encoder.
    fn layout(&self, stored: &Tensors, unused: impl Fn(&str) -> bool) -> Option<Vec<Renamed>> {
        let is_bare = stored.contains_key(self.landmark);
        if !is_bare && !stored.keys().any(|name| name.starts_with(self.module)) {
            // A different kind of file; the comparison of names reports that best.
            return None;
        }
        let inner = |name: &str| self.inner.iter().any(|prefix| name.starts_with(prefix));
        let foreign = |name: &str| {
            name == "logit_scale" || unused(name) || self.other.iter().any(|prefix| name.starts_with(prefix))
        };
        if !is_bare && !stored.keys().any(|name| foreign(name)) {
            return None;
        }
        let kept = stored.keys().filter(|name| !foreign(name)).map(|from| {
            let name = if is_bare && inner(from) { format!("{}{from}", self.module) } else { from.clone() };
            Renamed { name, from: from.clone(), part: Part::Whole }
        });
        Some(kept.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_published_names() {
        let text = [
            ("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
            ("layers.3.self_attn.q_proj.bias", "text_model.encoder.layers.3.self_attn.q_proj.bias"),
            ("final_layer_norm.bias", "text_model.final_layer_norm.bias"),
            ("text_projection.weight", "text_projection.weight"),
        ];
        for (path, name) in text {
            assert_eq!(ClipText::published_name(path), name);
        }
        let vision = [
            ("class_embedding", "vision_model.embeddings.class_embedding"),
            ("patch_embedding.weight", "vision_model.embeddings.patch_embedding.weight"),
            ("pre_layernorm.weight", "vision_model.pre_layrnorm.weight"),
            ("layers.0.mlp.fc1.weight", "vision_model.encoder.layers.0.mlp.fc1.weight"),
            ("post_layernorm.bias", "vision_model.post_layernorm.bias"),
            ("visual_projection.weight", "visual_projection.weight"),
        ];
        for (path, name) in vision {
            assert_eq!(ClipVision::published_name(path), name);
        }
    }
}
