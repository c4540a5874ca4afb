//! Tests of preference models: names and sizes of the published files, both layouts, scores and errors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fabric_backends::{DeviceKind, device};
use fabric_core::image::{Crop, Image, clip_batch};
use fabric_core::models::ImageEncoder;
use serde_json::json;

use super::*;
use crate::ModelError;
use crate::layers::Activation;
use crate::load::{
    ClipLayout, ClipModelFile, Dtype, HostTensor, LoadError, PublishedNames, TensorInfo, TensorSource, parameters,
    write_safetensors,
};

type Shapes = BTreeMap<String, Vec<usize>>;
type Tensors = BTreeMap<String, HostTensor>;

const PROMPT: &str = "a small red star on a blue square";

fn cpu() -> Device {
    device(DeviceKind::Flex).expect("the CPU")
}

// Published files: names and shapes.

/// Sizes of a published CLIP model.
struct Sizes {
    /// Width, layers and heads of the text encoder.
    text: [usize; 3],
    /// Width, layers and heads of the image encoder.
    vision: [usize; 3],
    embedding: usize,
    parameters: usize,
}

const VIT_H: Sizes = Sizes { text: [1024, 24, 16], vision: [1280, 32, 16], embedding: 1024, parameters: 986_109_441 };
const VIT_L: Sizes = Sizes { text: [768, 12, 12], vision: [1024, 24, 16], embedding: 768, parameters: 427_616_513 };

impl Sizes {
    /// Tensors of a `CLIPModel` of transformers.
    fn transformers(&self) -> Shapes {
        let mut all = Shapes::new();
        let mut add = |name: String, shape: &[usize]| assert_eq!(all.insert(name, shape.to_vec()), None);
        let mut layers = |model: &str, width: usize, layers: usize| {
            for layer in (0..layers).map(|layer| format!("{model}.encoder.layers.{layer}")) {
                for part in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"] {
                    add(format!("{layer}.{part}.weight"), &[width, width]);
                    add(format!("{layer}.{part}.bias"), &[width]);
                }
                for (part, kind) in [1, 2].into_iter().flat_map(|part| [(part, "weight"), (part, "bias")]) {
                    add(format!("{layer}.layer_norm{part}.{kind}"), &[width]);
                }
                add(format!("{layer}.mlp.fc1.weight"), &[4 * width, width]);
                add(format!("{layer}.mlp.fc1.bias"), &[4 * width]);
                add(format!("{layer}.mlp.fc2.weight"), &[width, 4 * width]);
                add(format!("{layer}.mlp.fc2.bias"), &[width]);
            }
        };
        let ([text, text_layers, _], [vision, vision_layers, _]) = (self.text, self.vision);
        layers("text_model", text, text_layers);
        layers("vision_model", vision, vision_layers);
        for kind in ["weight", "bias"] {
            add(format!("text_model.final_layer_norm.{kind}"), &[text]);
            add(format!("vision_model.pre_layrnorm.{kind}"), &[vision]);
            add(format!("vision_model.post_layernorm.{kind}"), &[vision]);
        }
        add("text_model.embeddings.token_embedding.weight".into(), &[49408, text]);
        add("text_model.embeddings.position_embedding.weight".into(), &[77, text]);
        add("vision_model.embeddings.class_embedding".into(), &[vision]);
        add("vision_model.embeddings.patch_embedding.weight".into(), &[vision, 3, 14, 14]);
        add("vision_model.embeddings.position_embedding.weight".into(), &[257, vision]);
        add("text_projection.weight".into(), &[self.embedding, text]);
        add("visual_projection.weight".into(), &[self.embedding, vision]);
        add("logit_scale".into(), &[]);
        all
    }

    /// Tensors of OpenCLIP and OpenAI.
    fn open_clip(&self) -> Shapes {
        let mut all = Shapes::new();
        let mut add = |name: String, shape: &[usize]| assert_eq!(all.insert(name, shape.to_vec()), None);
        for (prefix, [width, layers, _], positions) in [("", self.text, 77), ("visual.", self.vision, 257)] {
            for layer in (0..layers).map(|layer| format!("{prefix}transformer.resblocks.{layer}")) {
                add(format!("{layer}.attn.in_proj_weight"), &[3 * width, width]);
                add(format!("{layer}.attn.in_proj_bias"), &[3 * width]);
                add(format!("{layer}.attn.out_proj.weight"), &[width, width]);
                add(format!("{layer}.attn.out_proj.bias"), &[width]);
                for (part, kind) in [1, 2].into_iter().flat_map(|part| [(part, "weight"), (part, "bias")]) {
                    add(format!("{layer}.ln_{part}.{kind}"), &[width]);
                }
                add(format!("{layer}.mlp.c_fc.weight"), &[4 * width, width]);
                add(format!("{layer}.mlp.c_fc.bias"), &[4 * width]);
                add(format!("{layer}.mlp.c_proj.weight"), &[width, 4 * width]);
                add(format!("{layer}.mlp.c_proj.bias"), &[width]);
            }
            add(format!("{prefix}positional_embedding"), &[positions, width]);
        }
        let (text, vision) = (self.text[0], self.vision[0]);
        for kind in ["weight", "bias"] {
            add(format!("ln_final.{kind}"), &[text]);
            add(format!("visual.ln_pre.{kind}"), &[vision]);
            add(format!("visual.ln_post.{kind}"), &[vision]);
        }
        add("token_embedding.weight".into(), &[49408, text]);
        add("text_projection".into(), &[text, self.embedding]);
        add("visual.class_embedding".into(), &[vision]);
        add("visual.conv1.weight".into(), &[vision, 3, 14, 14]);
        add("visual.proj".into(), &[vision, self.embedding]);
        add("logit_scale".into(), &[]);
        all
    }
}

/// Tensor source with names and shapes; no values can be read.
#[derive(Debug)]
struct Listing(BTreeMap<String, TensorInfo>);

impl Listing {
    fn open(shapes: Shapes) -> ClipModelFile {
        let info = |(name, shape)| (name, TensorInfo { dtype: Dtype::F16, shape });
        ClipModelFile::new(Arc::new(Self(shapes.into_iter().map(info).collect()))).expect("a whole CLIP model")
    }
}

impl TensorSource for Listing {
    fn place(&self) -> String {
        "listing.safetensors".to_owned()
    }

    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.0
    }

    fn read(&self, name: &str) -> Result<HostTensor, LoadError> {
        panic!("tensor {name} was read")
    }
}

fn shapes_of<M: Module + PublishedNames>(module: &M) -> Shapes {
    parameters(module).into_iter().map(|parameter| (parameter.name, parameter.shape)).collect()
}

#[test]
fn every_name_and_shape_of_the_published_files_is_a_parameter_of_the_networks() {
    use ClipLayout::{OpenClip, Transformers};
    use PreferenceKind::{Clip, Hps, HpsV2, PickScore};
    let published = [
        (&VIT_H, Transformers, PickScore, Activation::Gelu),
        (&VIT_H, OpenClip, HpsV2, Activation::Gelu),
        (&VIT_L, OpenClip, Hps, Activation::QuickGelu),
        (&VIT_L, Transformers, Clip, Activation::QuickGelu),
    ];
    for (sizes, layout, kind, activation) in published {
        let listing = if layout == OpenClip { sizes.open_clip() } else { sizes.transformers() };
        let count: usize = listing.values().map(|shape| shape.iter().product::<usize>()).sum();
        assert_eq!(count, sizes.parameters, "parameters of {kind:?}");
        let file = Listing::open(listing);
        assert_eq!(file.layout, layout);
        let (text, vision) = preference::configs(&file, &PreferenceOptions::default()).expect("configurations");
        assert_eq!(PreferenceKind::detect(layout, &text, &vision), kind);
        assert_eq!((text.hidden_act, vision.hidden_act), (activation, activation));
        assert_eq!(text.num_attention_heads, sizes.text[2]);
        assert_eq!(vision.num_attention_heads, sizes.vision[2]);

        let mut networks = shapes_of(&text.init(&cpu()).expect("a text encoder"));
        networks.extend(shapes_of(&vision.init(&cpu()).expect("an image encoder")));
        networks.insert("logit_scale".into(), vec![]);
        let stored = file.weights.tensors().iter().map(|(name, info)| (name.clone(), info.shape.clone()));
        assert_eq!(stored.collect::<Shapes>(), networks, "{kind:?}");
    }
}

#[test]
fn the_sizes_of_vit_h_are_those_of_its_published_configuration() {
    let (_, vision) =
        preference::configs(&Listing::open(VIT_H.open_clip()), &PreferenceOptions::default()).expect("configurations");
    assert_eq!(vision, ClipVisionConfig::vit_h());
}

#[test]
fn an_unknown_tensor_is_reported() {
    let mut stored = Model::new().open_clip();
    stored.insert("visual.adapter.weight".into(), floats(&[1], &[0.0]));
    assert_says(open(&stored, PreferenceKind::HpsV2), &["unexpected", "visual.adapter.weight"]);
}

// A small model with random weights, in both layouts.

struct Model {
    text: ClipTextConfig,
    vision: ClipVisionConfig,
    /// The tensors, with the names of transformers.
    tensors: Tensors,
}

impl Model {
    fn new() -> Self {
        let text = ClipTextConfig {
            architectures: vec!["CLIPTextModelWithProjection".into()],
            hidden_size: 64,
            intermediate_size: 96,
            projection_dim: 24,
            num_hidden_layers: 2,
            num_attention_heads: 1,
            ..ClipTextConfig::default()
        };
        let vision = ClipVisionConfig {
            hidden_size: 128,
            intermediate_size: 160,
            projection_dim: 24,
            num_hidden_layers: 3,
            num_attention_heads: 2,
            image_size: 32,
            patch_size: 8,
            ..ClipVisionConfig::default()
        };
        let mut shapes = shapes_of(&text.init(&cpu()).expect("a text encoder"));
        shapes.extend(shapes_of(&vision.init(&cpu()).expect("an image encoder")));
        let mut tensors: Tensors = shapes.iter().map(|(name, shape)| (name.clone(), weights(name, shape))).collect();
        tensors.insert("logit_scale".into(), floats(&[], &[2.5]));
        Self { text, vision, tensors }
    }

    /// Writes a folder as transformers does.
    fn write_folder(&self, folder: &Path) {
        let part = |mut config: serde_json::Value| {
            config["architectures"] = serde_json::Value::Null;
            config
        };
        let config = json!({
            "architectures": ["CLIPModel"],
            "model_type": "clip",
            "projection_dim": 24,
            "logit_scale_init_value": 2.6592,
            "text_config": part(serde_json::to_value(&self.text).expect("a configuration")),
            "vision_config": part(serde_json::to_value(&self.vision).expect("a configuration")),
        });
        std::fs::write(folder.join("config.json"), config.to_string()).expect("a written file");
        write(&folder.join("model.safetensors"), &self.tensors);
    }

    /// The tensors, with the names of OpenCLIP.
    fn open_clip(&self) -> Tensors {
        let mut all = Tensors::new();
        for (name, tensor) in &self.tensors {
            let parts = [
                ("vision_model.embeddings.patch_embedding", "visual.conv1"),
                ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
                ("vision_model.embeddings.", "visual."),
                ("vision_model.encoder.layers.", "visual.transformer.resblocks."),
                ("vision_model.pre_layrnorm", "visual.ln_pre"),
                ("vision_model.post_layernorm", "visual.ln_post"),
                ("visual_projection.weight", "visual.proj"),
                ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
                ("text_model.embeddings.", ""),
                ("text_model.encoder.layers.", "transformer.resblocks."),
                ("text_model.final_layer_norm", "ln_final"),
                ("text_projection.weight", "text_projection"),
                (".layer_norm", ".ln_"),
                (".self_attn.", ".attn."),
                (".fc1.", ".c_fc."),
                (".fc2.", ".c_proj."),
            ];
            let renamed = parts.iter().fold(name.clone(), |name, (from, to)| name.replace(from, to));
            if renamed.contains(".k_proj.") || renamed.contains(".v_proj.") {
                continue;
            }
            if renamed.contains(".q_proj.") {
                let others = ["k_proj", "v_proj"].map(|part| &self.tensors[&name.replace("q_proj", part)]);
                let mut fused = tensor.clone();
                fused.info.shape[0] *= 3;
                others.iter().for_each(|other| fused.bytes.extend_from_slice(&other.bytes));
                all.insert(renamed.replace(".q_proj.", ".in_proj_"), fused);
            } else if renamed.ends_with("proj") || renamed.ends_with("projection") {
                all.insert(renamed, transposed(tensor));
            } else {
                all.insert(renamed, tensor.clone());
            }
        }
        all
    }
}

fn floats(shape: &[usize], values: &[f32]) -> HostTensor {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    HostTensor { info: TensorInfo { dtype: Dtype::F32, shape: shape.to_vec() }, bytes }
}

fn transposed(tensor: &HostTensor) -> HostTensor {
    let (rows, columns) = (tensor.info.shape[0], tensor.info.shape[1]);
    let at = |row: usize, column: usize| (row * columns + column) * 4;
    let places = (0..columns).flat_map(|column| (0..rows).map(move |row| at(row, column)));
    let bytes = places.flat_map(|at| tensor.bytes[at..at + 4].to_vec()).collect();
    HostTensor { info: TensorInfo { dtype: Dtype::F32, shape: vec![columns, rows] }, bytes }
}

/// Weights that look random and are the same in every run.
fn weights(name: &str, shape: &[usize]) -> HostTensor {
    let (middle, radius) = match shape {
        [_] if name.ends_with(".weight") => (1.0, 0.4),
        [_] => (0.0, 0.3),
        _ if name.contains("embedding.weight") && shape.len() == 2 => (0.0, 0.5),
        [_, inputs @ ..] => (0.0, (3.0 / inputs.iter().product::<usize>() as f32).sqrt()),
        [] => (0.0, 1.0),
    };
    let mut state = name.bytes().fold(7_u64, |state, byte| state.wrapping_mul(31).wrapping_add(byte.into()));
    let mut value = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        middle + radius * ((state >> 40) as f32 / (1 << 23) as f32 - 1.0)
    };
    floats(shape, &(0..shape.iter().product()).map(|_| value()).collect::<Vec<f32>>())
}

fn write(path: &Path, tensors: &Tensors) -> PathBuf {
    let infos: Vec<(String, TensorInfo)> = tensors.iter().map(|(name, t)| (name.clone(), t.info.clone())).collect();
    write_safetensors(path, &BTreeMap::new(), &infos, |name| Ok(tensors[name].clone())).expect("a written file");
    path.to_owned()
}

/// Writes one file and opens it.
fn open(tensors: &Tensors, kind: PreferenceKind) -> Result<PreferenceModel, ModelError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = write(&folder.path().join("model.safetensors"), tensors);
    PreferenceModel::open_with(path, &PreferenceOptions { kind: Some(kind), ..Default::default() }, &cpu())
}

#[track_caller]
fn assert_says<T: std::fmt::Debug, E: std::fmt::Display>(result: Result<T, E>, parts: &[&str]) {
    let message = result.map(|_| ()).map_err(|error| error.to_string()).expect_err("an error");
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

fn images() -> Vec<Image> {
    let image = |seed: usize, width: usize, height: usize| {
        let byte = |at: usize| ((at / 3 % width * (3 + seed) + at / 3 / width * 5 + at % 3 * 40 * seed) % 256) as u8;
        Image::from_rgb(width, height, (0..width * height * 3).map(byte).collect()).expect("an image")
    };
    vec![image(1, 40, 40), image(2, 50, 30), image(3, 32, 48)]
}

fn rows(embeddings: Tensor<2>) -> Vec<Vec<f64>> {
    let [_, dim] = embeddings.dims();
    let values: Vec<f64> = embeddings.into_data().iter::<f64>().collect();
    values.chunks(dim).map(<[f64]>::to_vec).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[track_caller]
fn assert_close(a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < tolerance), "{a:?} and {b:?}");
}

#[test]
fn both_layouts_of_the_same_weights_give_the_same_scores() {
    let model = Model::new();
    let folder = tempfile::tempdir().expect("a folder");
    model.write_folder(folder.path());
    for kind in [PreferenceKind::PickScore, PreferenceKind::Hps, PreferenceKind::HpsV2, PreferenceKind::Clip] {
        let options = PreferenceOptions { kind: Some(kind), ..Default::default() };
        let whole = PreferenceModel::open_with(folder.path(), &options, &cpu()).expect("a folder");
        let expected = whole.score(PROMPT, &images()).expect("scores");
        assert!((expected[0] - expected[1]).abs() > 1e-4, "images are told apart: {expected:?}");
        for tensors in [&model.open_clip(), &model.tensors] {
            let single = open(tensors, kind).expect("a file");
            assert_eq!(single.kind(), kind);
            assert_close(&single.score(PROMPT, &images()).expect("scores"), &expected, 1e-5);
        }
    }
}

#[test]
fn scores_are_the_cosine_of_the_embeddings_times_the_factor_of_the_kind() {
    let stored = Model::new().open_clip();
    let factors = [
        (PreferenceKind::PickScore, 2.5_f64.exp()),
        (PreferenceKind::Hps, 100.0),
        (PreferenceKind::HpsV2, 1.0),
        (PreferenceKind::Clip, 100.0),
    ];
    for (kind, factor) in factors {
        let model = open(&stored, kind).expect("a model");
        let text = rows(model.embed_text(&[PROMPT]).expect("a text")).concat();
        let seen = rows(model.embed_images(&images()).expect("embeddings"));
        let expected: Vec<f64> = seen.iter().map(|image| factor * cosine(&text, image)).collect();
        assert_close(&model.score(PROMPT, &images()).expect("scores"), &expected, 1e-9 * factor);
        assert_eq!((text.len(), seen.len()), (24, 3));
    }
}

#[test]
fn only_hps_v2_sees_the_whole_image() {
    let stored = Model::new().open_clip();
    let wide = images().remove(1);
    let seen =
        |kind| rows(open(&stored, kind).expect("a model").embed_images(slice::from_ref(&wide)).expect("one")).concat();
    let cropped = seen(PreferenceKind::PickScore);
    assert_eq!(cropped, seen(PreferenceKind::Hps));
    assert!(cosine(&cropped, &seen(PreferenceKind::HpsV2)) < 0.9999);
}

#[test]
fn embeddings_are_those_of_the_two_encoders() {
    let model = Model::new();
    let folder = tempfile::tempdir().expect("a folder");
    model.write_folder(folder.path());
    let whole = PreferenceModel::open(folder.path(), &cpu()).expect("a model");
    assert_eq!(whole.kind(), PreferenceKind::Clip, "a small model is none of the published ones");
    let vision = ClipVision::open(folder.path(), &cpu()).expect("an image encoder");
    let pixels = clip_batch(&images(), 32, Crop::Centre, &cpu()).expect("pixels");
    assert_eq!(rows(whole.embed_images(&images()).expect("embeddings")), rows(vision.embed(pixels)));
}

#[test]
fn a_text_has_the_same_embedding_beside_longer_ones_and_beyond_77_tokens_is_cut_off() {
    let model = open(&Model::new().open_clip(), PreferenceKind::PickScore).expect("a model");
    let long = "star ".repeat(75);
    let texts = [PROMPT.to_owned(), long.clone(), format!("{long} and more of them"), String::new()];
    let together = rows(model.embed_text(&texts).expect("embeddings"));
    for (text, embedding) in texts.iter().zip(&together) {
        assert_close(&rows(model.embed_text(&[text]).expect("one")).concat(), embedding, 1e-4);
    }
    assert_close(&together[1], &together[2], 1e-6);
    assert!(cosine(&together[0], &together[1]) < 0.9999);
}

#[test]
fn many_images_are_scored_as_each_alone_is() {
    let model = open(&Model::new().open_clip(), PreferenceKind::HpsV2).expect("a model");
    let many: Vec<Image> = images().into_iter().cycle().take(35).collect();
    let scores = model.score(PROMPT, &many).expect("scores");
    let alone: Vec<f64> =
        many.iter().flat_map(|image| model.score(PROMPT, slice::from_ref(image)).expect("one")).collect();
    assert_close(&scores, &alone, 1e-5);
}

#[test]
fn no_images_have_no_scores_and_nothing_has_no_embedding() {
    let model = open(&Model::new().open_clip(), PreferenceKind::HpsV2).expect("a model");
    assert_eq!(model.score(PROMPT, &[]).expect("scores"), [0.0; 0]);
    assert_says(model.embed_images(&[]), &["images to embed: expected at least one, got none"]);
    assert_says(model.embed_text(&[] as &[&str]), &["texts to embed: expected at least one, got none"]);
}

#[test]
fn other_files_are_refused_and_named() {
    let one = |name: &str, shape: &[usize]| (name.to_owned(), floats(shape, &vec![0.0; shape.iter().product()]));
    let refused = |tensors: &[(String, HostTensor)], parts: &[&str]| {
        assert_says(open(&tensors.iter().cloned().collect(), PreferenceKind::PickScore), parts);
    };
    let expected = "expected a whole CLIP model";
    let unet = [one("down_blocks.0.resnets.0.conv1.weight", &[1]), one("time_embedding.linear_1.weight", &[1, 1])];
    refused(&unet, &[expected, "got the U-Net of Stable Diffusion 1"]);
    let adapter = [one("image_proj.proj.weight", &[1, 1]), one("ip_adapter.1.to_k_ip.weight", &[1, 1])];
    refused(&adapter, &[expected, "got an IP-Adapter"]);
    refused(&[one("something", &[1])], &[expected, "got tensors of another kind of network"]);

    let model = Model::new();
    let only = |prefixes: [&str; 2]| -> Vec<(String, HostTensor)> {
        let within = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        model.tensors.clone().into_iter().filter(|(name, _)| within(name)).collect()
    };
    refused(&only(["text_model.", "text_projection."]), &[expected, "got a CLIP text encoder"]);
    refused(&only(["vision_model.", "visual_projection."]), &[expected, "got a CLIP image encoder"]);
}

#[test]
fn a_model_that_lacks_a_part_says_which() {
    let model = Model::new();
    let lacking = |mut tensors: Tensors, name: &str| {
        tensors.remove(name).expect("a tensor");
        open(&tensors, PreferenceKind::HpsV2)
    };
    for name in ["logit_scale", "text_projection.weight", "visual_projection.weight"] {
        let message = format!("got no tensor `{name}`; get the model again");
        assert_says(lacking(model.tensors.clone(), name), &[&message]);
    }
    for name in ["logit_scale", "text_projection", "visual.proj"] {
        let message = format!("got no tensor `{name}`; get the model again");
        assert_says(lacking(model.open_clip(), name), &[&message]);
    }
    let layer = "vision_model.encoder.layers.1.mlp.fc1.bias";
    assert_says(lacking(model.tensors.clone(), layer), &["missing", layer]);
}

#[test]
fn a_score_that_is_no_number_is_an_error() {
    let mut stored = Model::new().tensors;
    stored.insert("visual_projection.weight".into(), floats(&[24, 128], &[3e38; 24 * 128]));
    let model = open(&stored, PreferenceKind::PickScore).expect("finite weights");
    assert_says(model.score(PROMPT, &images()), &["preference score of image 0: expected a finite number, got NaN"]);
}

#[test]
fn a_logit_scale_without_a_finite_exponential_is_refused() {
    for scale in [floats(&[], &[1000.0]), floats(&[2], &[1.0, 2.0])] {
        let mut stored = Model::new().open_clip();
        stored.insert("logit_scale".into(), scale);
        assert_says(open(&stored, PreferenceKind::PickScore), &["tensor `logit_scale`: expected one number"]);
    }
}

#[test]
fn the_activation_of_a_file_without_configuration_may_be_given() {
    let model = Model::new();
    let folder = tempfile::tempdir().expect("a folder");
    let path = write(&folder.path().join("model.safetensors"), &model.open_clip());
    let scores = |activation| {
        let options = PreferenceOptions { activation, ..Default::default() };
        PreferenceModel::open_with(&path, &options, &cpu()).expect("a model").score(PROMPT, &images()).expect("scores")
    };
    assert_eq!(scores(None), scores(Some(Activation::QuickGelu)), "OpenAI's models are narrow");
    assert_ne!(scores(None), scores(Some(Activation::Gelu)));
}
