//! Model folders, whole and wanting.

use std::fs;

use fabric_core::schedule::SchedulerConfig;
use serde_json::{Value, json};

use super::*;
use crate::load::{Component, ComponentFolder, Family, ModelFolder, open_weights};

/// A model of Stable Diffusion 1 whose networks are all [`Tiny`].
fn model(path: &Path) {
    let index = json!({
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "requires_safety_checker": true,
        "safety_checker": [null, null],
        "image_encoder": [null, null],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    });
    fs::write(path.join("model_index.json"), index.to_string()).expect("written");
    for (name, file) in [
        ("unet", "diffusion_pytorch_model.safetensors"),
        ("vae", "diffusion_pytorch_model.safetensors"),
        ("text_encoder", "model.safetensors"),
    ] {
        fs::create_dir(path.join(name)).expect("a folder");
        fs::write(path.join(name).join("config.json"), r#"{"use_linear_projection":false}"#).expect("written");
        write(&path.join(name).join(file), &tiny_tensors());
    }
    fs::create_dir(path.join("scheduler")).expect("a folder");
    fs::write(path.join("scheduler/scheduler_config.json"), r#"{"steps_offset":1}"#).expect("written");
}

fn edit_index(path: &Path, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let index = path.join("model_index.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&index).expect("read")).expect("JSON");
    change(value.as_object_mut().expect("an object"));
    fs::write(index, value.to_string()).expect("written");
}

#[test]
fn a_model_folder_gives_its_parts() {
    let folder = tempfile::tempdir().expect("a folder");
    model(folder.path());
    let model = ModelFolder::open(folder.path()).expect("opens");
    assert_eq!(model.family(), Family::Sd1);
    assert!(model.require(Family::Sd1).is_ok());
    assert_says(model.require(Family::Sdxl), &["expected Stable Diffusion XL, got Stable Diffusion 1"]);
    for component in Family::Sd1.components() {
        assert_eq!(read_all(&model.weights(*component).expect("weights")), tiny_tensors());
    }
    assert_eq!(model.scheduler_config::<Value>().expect("settings")["steps_offset"], 1);
    assert!(model.tokenizer_path(Component::TextEncoder).is_none());
    fs::create_dir(folder.path().join("tokenizer")).expect("a folder");
    assert!(model.tokenizer_path(Component::TextEncoder).is_some());
    assert_says(model.weights(Component::ImageEncoder), &["`image_encoder`", "load one from its own folder"]);
}

#[test]
fn the_unets_settings_tell_the_family() {
    for (config, family) in [
        (json!({ "cross_attention_dim": 768 }), Family::Sd1),
        (json!({ "use_linear_projection": false, "addition_embed_type": null }), Family::Sd1),
        (json!({ "use_linear_projection": true }), Family::Sd2),
        (json!({ "use_linear_projection": true, "addition_embed_type": "text_time" }), Family::Sdxl),
    ] {
        assert_eq!(Family::of_unet_config(&config), family, "{config}");
    }
}

#[test]
fn a_missing_part_is_named_before_anything_is_read() {
    let cases: [(&str, &[&str]); 6] = [
        ("model_index.json", &["model_index.json", "diffusers layout"]),
        ("unet/config.json", &["unet", "no config.json"]),
        ("vae/diffusion_pytorch_model.safetensors", &["vae", "weights", "config.json", "model.safetensors"]),
        ("text_encoder", &["text_encoder", "folder of a network", "get this part"]),
        ("vae", &["vae", "folder of a network"]),
        ("scheduler", &[]),
    ];
    for (part, says) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        model(folder.path());
        let path = folder.path().join(part);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("removed");
        match ModelFolder::open(folder.path()) {
            Ok(model) => {
                assert!(says.is_empty(), "{part}");
                assert_says(model.scheduler_config::<Value>(), &["scheduler_config.json", "no such file"]);
            }
            error => drop(assert_says(error, says)),
        }
    }
}

#[test]
fn another_kind_of_model_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    model(folder.path());
    edit_index(folder.path(), |index| {
        index.insert("vae".into(), json!(["diffusers", "AutoencoderTiny"]));
    });
    assert_says(ModelFolder::open(folder.path()), &["class of `vae`", "AutoencoderTiny", "\"AutoencoderKL\""]);
    edit_index(folder.path(), |index| {
        index.insert("vae".into(), json!("vae"));
    });
    assert_says(ModelFolder::open(folder.path()), &["class of `vae`", "null"]);
    edit_index(folder.path(), |index| {
        index.remove("vae");
        index.remove("unet");
        index.insert("_class_name".into(), json!("FluxPipeline"));
    });
    assert_says(ModelFolder::open(folder.path()), &["no `unet`", "FluxPipeline", "not supported"]);
}

#[test]
fn an_xl_unet_without_its_text_encoders_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    model(folder.path());
    fs::write(folder.path().join("unet/config.json"), r#"{"addition_embed_type":"text_time"}"#).expect("written");
    assert_says(ModelFolder::open(folder.path()), &["no `text_encoder_2`", "Stable Diffusion XL", "whole model"]);
    edit_index(folder.path(), |index| {
        index.insert("text_encoder".into(), json!([null, null]));
    });
    assert_says(ModelFolder::open(folder.path()), &["no `text_encoder`", "refiner"]);
}

#[test]
fn the_index_never_becomes_a_path() {
    let folder = tempfile::tempdir().expect("a folder");
    model(folder.path());
    edit_index(folder.path(), |index| {
        index.insert("../../etc".into(), json!(["diffusers", "UNet2DConditionModel"]));
        index.insert("unet".into(), json!(["../../etc", "UNet2DConditionModel"]));
    });
    let model = ModelFolder::open(folder.path()).expect("opens");
    let unet = model.component(Component::UNet).expect("a unet");
    assert_eq!(unet.path(), folder.path().join("unet"));
    assert_says(ModelFolder::open_variant(folder.path(), Some("../x")), &["variant", "`../x`", "fp16"]);
}

#[test]
fn settings_are_read_as_python_writes_them() {
    let folder = tempfile::tempdir().expect("a folder");
    model(folder.path());
    let scheduler = folder.path().join("scheduler/scheduler_config.json");
    fs::copy(fixture("schedulers/dpm-solver-infinity.json"), scheduler).expect("copied");
    let model = ModelFolder::open(folder.path()).expect("opens");
    let config: SchedulerConfig = model.scheduler_config().expect("settings");
    let written: serde_json::Value = serde_json::from_str(&config.to_json()).expect("settings");
    assert!(written["beta_end"] == 0.012 && written["lambda_min_clipped"].is_null(), "{written}");
    for file in ["model_index.json", "unet/config.json"] {
        let path = folder.path().join(file);
        let text = fs::read_to_string(&path).expect("read");
        fs::write(&path, format!("\u{feff}{{\"_x\": [NaN, Infinity, -Infinity], {}", &text[1..])).expect("written");
    }
    let model = ModelFolder::open(folder.path()).expect("opens");
    assert_eq!(
        model.config::<Value>(Component::UNet).expect("settings")["_x"],
        json!(["NaN", "Infinity", "-Infinity"])
    );
}

#[test]
fn settings_that_are_no_json_too_long_or_too_deep_are_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    model(folder.path());
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(5 << 20));
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for (text, part) in [("", "EOF"), ("{", "EOF"), ("[1]", "map"), (&long, "at most"), (&deep, "recursion")] {
        fs::write(folder.path().join("model_index.json"), text).expect("written");
        assert_says(ModelFolder::open(folder.path()), &["model_index.json", part]);
    }
}

#[test]
fn files_are_taken_in_a_fixed_order_and_variants_on_demand() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    fs::write(path.join("config.json"), "{}").expect("written");
    let chosen = |variant: Option<&str>| {
        ComponentFolder::open(path, variant)
            .map(|folder| folder.weights_path().file_name().expect("a name").to_string_lossy().into_owned())
    };
    // From the least to the most wanted.
    for name in [
        "pytorch_model.bin.index.fp16.json",
        "pytorch_model.fp16.bin",
        "pytorch_model.bin.index.json",
        "pytorch_model.bin",
        "diffusion_pytorch_model.bin.index.json",
        "diffusion_pytorch_model.bin",
        "model.fp16.safetensors",
        "model.safetensors.index.json",
        "model.safetensors",
        "diffusion_pytorch_model.safetensors",
    ] {
        fs::write(path.join(name), "").expect("written");
        assert_eq!(chosen(None).expect("weights"), name);
    }
    assert_eq!(chosen(Some("fp16")).expect("weights"), "model.fp16.safetensors");
    fs::remove_file(path.join("model.fp16.safetensors")).expect("removed");
    assert_eq!(chosen(Some("fp16")).expect("weights"), "pytorch_model.fp16.bin");
    fs::remove_file(path.join("pytorch_model.fp16.bin")).expect("removed");
    assert_eq!(chosen(Some("fp16")).expect("weights"), "pytorch_model.bin.index.fp16.json");
    assert_says(chosen(Some("ema")), &["variant `ema`", "only config.json, diffusion", "diffusion_pytorch_model.ema"]);
}

#[test]
fn a_file_a_network_and_an_empty_folder_are_no_model_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    model(folder.path());
    let file = folder.path().join("unet/diffusion_pytorch_model.safetensors");
    assert_says(ModelFolder::open(file), &["model_index.json", "`SingleFile`"]);
    assert_says(ModelFolder::open(folder.path().join("unet")), &["`ComponentFolder`"]);
    assert_says(ModelFolder::open(folder.path().join("nowhere")), &["diffusers layout"]);
}

#[test]
fn old_names_of_the_vaes_attention_are_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = ["query", "key", "value", "proj_attn", "group_norm"];
    let tensors = old.iter().enumerate().map(|(i, part)| {
        let shape: &[usize] = if i == 0 { &[1, 2, 1, 1] } else { &[1, 2] };
        (format!("encoder.mid_block.attentions.0.{part}.weight"), floats(shape, &[i as f32, 1.0]))
    });
    let source = open_weights(write(&folder.path().join("a.safetensors"), &tensors.collect())).expect("opens");
    let names: Vec<&str> =
        source.tensors().keys().map(|name| &name["encoder.mid_block.attentions.0.".len()..]).collect();
    assert_eq!(names, ["group_norm.weight", "to_k.weight", "to_out.0.weight", "to_q.weight", "to_v.weight"]);
    let query = source.read("encoder.mid_block.attentions.0.to_q.weight").expect("a tensor");
    assert_eq!(query, floats(&[1, 2], &[0.0, 1.0]));
    let out = source.read("encoder.mid_block.attentions.0.to_out.0.weight").expect("a tensor");
    assert_eq!(out, floats(&[1, 2], &[3.0, 1.0]));
}
