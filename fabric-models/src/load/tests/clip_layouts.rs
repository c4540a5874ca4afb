//! CLIP's encoders in the layouts of other versions and classes of transformers.

use burn::tensor::Tensor;
use fabric_core::models::ImageEncoder;
use serde_json::{Value, json};

use super::*;
use crate::clip::{ClipText, ClipTextConfig, ClipVision, ClipVisionConfig};
use crate::load::{ComponentFolder, LoadDtype, LoadOptions, load_into, open_weights, save_weights};

type Tensors = BTreeMap<String, HostTensor>;

fn text_config() -> ClipTextConfig {
    ClipTextConfig {
        vocab_size: 50,
        hidden_size: 12,
        intermediate_size: 20,
        projection_dim: 7,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        max_position_embeddings: 9,
        ..ClipTextConfig::default()
    }
}

fn vision_config() -> ClipVisionConfig {
    ClipVisionConfig {
        hidden_size: 12,
        intermediate_size: 20,
        projection_dim: 7,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        image_size: 8,
        patch_size: 4,
        ..ClipVisionConfig::default()
    }
}

/// The tensors of a network, by published name.
fn tensors_of<M: Module + PublishedNames>(network: &M) -> Tensors {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.safetensors");
    save_weights(network, &path, LoadDtype::Keep).expect("a written file");
    read_all(&open_weights(&path).expect("weights"))
}

fn without(tensors: &Tensors, prefix: &str) -> Tensors {
    let bare = |name: &str| name.strip_prefix(prefix).unwrap_or(name).to_owned();
    tensors.iter().map(|(name, tensor)| (bare(name), tensor.clone())).collect()
}

/// A folder with these settings and weights.
fn folder(config: &Value, tensors: &Tensors) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("config.json"), config.to_string()).expect("written");
    write(&folder.path().join("model.safetensors"), tensors);
    folder
}

/// The text encoder that a folder holds, and the names that were left out.
fn text_of(folder: &tempfile::TempDir) -> Result<(ClipText, Vec<String>), LoadError> {
    let folder = ComponentFolder::open(folder.path(), None)?;
    let config = ClipTextConfig::from_json(&folder.config::<Value>()?.to_string()).expect("settings");
    let (network, report) =
        load_into(config.init(&cpu()).expect("a network"), &*folder.weights()?, &LoadOptions::default())?;
    Ok((network, report.ignored))
}

#[test]
fn encoders_load_without_the_module_around_them() {
    let text = tensors_of(&text_config().init(&cpu()).expect("a network"));
    let stored = folder(&serde_json::to_value(text_config()).expect("settings"), &without(&text, "text_model."));
    let (network, ignored) = text_of(&stored).expect("loads");
    assert_eq!((tensors_of(&network), ignored), (text, vec![]));

    let projecting = ClipTextConfig { architectures: vec!["CLIPTextModelWithProjection".into()], ..text_config() };
    let text = tensors_of(&projecting.init(&cpu()).expect("a network"));
    let stored = folder(&serde_json::to_value(&projecting).expect("settings"), &without(&text, "text_model."));
    assert_eq!(tensors_of(&text_of(&stored).expect("loads").0), text);

    let vision = tensors_of(&vision_config().init(&cpu()).expect("a network"));
    let stored = folder(&serde_json::to_value(vision_config()).expect("settings"), &without(&vision, "vision_model."));
    assert_eq!(tensors_of(&ClipVision::open(stored.path(), &cpu()).expect("loads")), vision);
}

#[test]
fn a_whole_clip_model_serves_as_either_encoder() {
    let projecting = ClipTextConfig { architectures: vec!["CLIPTextModelWithProjection".into()], ..text_config() };
    let text = tensors_of(&projecting.init(&cpu()).expect("a network"));
    let vision = tensors_of(&vision_config().init(&cpu()).expect("a network"));
    let mut whole: Tensors = text.clone().into_iter().chain(vision.clone()).collect();
    whole.insert("logit_scale".into(), floats(&[], &[4.6]));
    // As transformers writes them: the width of the projections is the whole model's, and defaults are null.
    let part = |config: Value, name: &str| {
        let mut config = config;
        config["projection_dim"] = json!(512);
        config["architectures"] = Value::Null;
        config["model_type"] = json!(name);
        config
    };
    let config = json!({
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": 7,
        "text_config": part(serde_json::to_value(text_config()).expect("settings"), "clip_text_model"),
        "vision_config": part(serde_json::to_value(vision_config()).expect("settings"), "clip_vision_model"),
    });
    let stored = folder(&config, &whole);
    let (network, ignored) = text_of(&stored).expect("loads");
    assert_eq!(tensors_of(&network), text);
    assert!(ignored.contains(&"logit_scale".to_owned()) && ignored.contains(&"visual_projection.weight".to_owned()));
    assert_eq!(ignored.len(), vision.len() + 1);
    assert_eq!(tensors_of(&ClipVision::open(stored.path(), &cpu()).expect("loads")), vision);
    // The settings mean the same to those who read them by type.
    let opened = ComponentFolder::open(stored.path(), None).expect("a folder");
    assert_eq!(opened.config::<ClipVisionConfig>().expect("settings"), vision_config());

    // With an encoder's own settings the whole file will do, too: what is not the encoder's is left out.
    let stored = folder(&serde_json::to_value(text_config()).expect("settings"), &whole);
    let (network, ignored) = text_of(&stored).expect("loads");
    assert!(!tensors_of(&network).contains_key("text_projection.weight"));
    assert!(ignored.contains(&"text_projection.weight".to_owned()));
}

#[test]
fn an_image_encoder_without_projection_gives_tokens_and_says_that_it_projects_nothing() {
    let full = vision_config().init(&cpu()).expect("a network");
    let mut tensors = tensors_of(&full);
    tensors.remove("visual_projection.weight").expect("a projection");
    let mut config = serde_json::to_value(vision_config()).expect("settings");
    config["architectures"] = json!(["CLIPVisionModel"]);
    let bare = ClipVision::open(folder(&config, &tensors).path(), &cpu()).expect("loads");
    assert!(full.has_projection() && !bare.has_projection());
    let pixels = Tensor::<4>::ones([1, 3, 8, 8], &cpu());
    let same = |one: Tensor<3>, other: Tensor<3>| (one - other).abs().max().into_scalar::<f32>() == 0.0;
    assert!(same(full.penultimate(pixels.clone()), bare.penultimate(pixels.clone())));
    assert_eq!(bare.embed(pixels).dims(), [1, 12]);
    // Any other tensor is still missed.
    tensors.remove("vision_model.post_layernorm.bias").expect("a bias");
    let error = ClipVision::open(folder(&config, &tensors).path(), &cpu()).expect_err("not whole").to_string();
    assert!(error.contains("vision_model.post_layernorm.bias"), "{error}");
}

#[test]
fn the_other_encoder_alone_is_still_another_file() {
    let vision = tensors_of(&vision_config().init(&cpu()).expect("a network"));
    let stored = folder(&serde_json::to_value(text_config()).expect("settings"), &vision);
    assert_says(text_of(&stored), &["looks like a CLIP image encoder", "missing `text_model."]);
}
