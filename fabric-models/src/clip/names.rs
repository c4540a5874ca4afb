//! Module paths to published names.

use super::{ClipText, ClipVision};
use crate::load::PublishedNames;

impl PublishedNames for ClipText {
    fn published_name(path: &str) -> String {
        match path.split('.').next() {
            Some("token_embedding" | "position_embedding") => format!("text_model.embeddings.{path}"),
            Some("layers") => format!("text_model.encoder.{path}"),
            Some("text_projection") => path.to_owned(),
            _ => format!("text_model.{path}"),
        }
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
