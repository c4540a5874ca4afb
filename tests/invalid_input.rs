//! Invalid input: each invalid folder, file, image or setting gives a typed error, before generation, that says where
//! it is and what to do.

use std::fs;
use std::path::{Path, PathBuf};

use fabric::core::Error;
use fabric::core::fabric::{FabricSettings, ReferencePass};
use fabric::core::image::Image;
use fabric::core::pipeline::{Pipeline, Request, Settings};
use fabric::core::schedule::Prediction;
use fabric::core::session::{FeedbackSession, MAX_SESSION_PIXELS, SessionError};
use fabric::models::load::{Dtype, HostTensor, TensorInfo, write_safetensors};
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::{LoraChoice, ModelOptions, StableDiffusion, load_model};
use tempfile::TempDir;

#[path = "common/copies.rs"]
mod copies;

use copies::copy_all;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models")
}

fn options() -> ModelOptions {
    ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() }
}

fn load(path: &Path, options: &ModelOptions) -> Result<Pipeline, String> {
    let device = fabric::default_device().expect("a device");
    load_model(path, &device, options).map(|(pipeline, _)| pipeline).map_err(|error| error.to_string())
}

/// Copies the golden model, so that a test can damage it.
fn copy() -> TempDir {
    let place = tempfile::tempdir().expect("a folder");
    for name in ["model_index.json", "scheduler", "text_encoder", "unet", "vae", "image_encoder"] {
        copy_all(&golden().join(name), &place.path().join(name));
    }
    place
}

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

fn spoil(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).expect("a file");
    change(&mut bytes);
    fs::write(file, bytes).expect("a written file");
}

fn replace(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).expect("a text");
    assert!(text.contains(from), "{}: has no {from}", file.display());
    fs::write(file, text.replace(from, to)).expect("a written file");
}

/// Asserts that loading fails with a message that contains each of `said`.
#[track_caller]
fn refused(path: &Path, options: &ModelOptions, said: &[&str]) {
    let message = load(path, options).map(|_| ()).expect_err("an error");
    for word in said {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

#[test]
fn the_copy_is_good_before_it_is_spoilt() {
    assert!(load(copy().path(), &options()).is_ok());
}

#[test]
fn missing_files_are_named() {
    refused(Path::new("no/such/model"), &options(), &["no/such/model", "there is no"]);
    for name in ["model_index.json", "unet/config.json", UNET, "vae/config.json", "text_encoder/config.json"] {
        let place = copy();
        fs::remove_file(place.path().join(name)).expect("a removed file");
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        refused(place.path(), &options(), &[folder, ";"]);
    }
    let empty = tempfile::tempdir().expect("a folder");
    refused(empty.path(), &options(), &["model_index.json"]);
}

#[test]
fn damaged_weights_are_refused() {
    type Change = fn(&mut Vec<u8>);
    let cases: [(Change, &str); 6] = [
        (|bytes| bytes.clear(), "got"),
        (|bytes| bytes.truncate(5), "got"),
        (|bytes| bytes.truncate(100), "got"),
        (|bytes| bytes.truncate(bytes.len() / 2), "got"),
        (|bytes| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes()), "got"),
        (|bytes| bytes[8..40].fill(b'{'), "got"),
    ];
    for (change, word) in cases {
        let place = copy();
        spoil(&place.path().join(UNET), change);
        refused(place.path(), &options(), &[UNET, word, "expected", ";"]);
    }
    let place = copy();
    spoil(&place.path().join(UNET), |bytes| {
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    refused(place.path(), &options(), &[UNET, "NaN", "get it again"]);
}

#[test]
fn a_folder_cannot_reach_outside_itself() {
    let place = copy();
    fs::remove_file(place.path().join(UNET)).expect("a removed file");
    let index = r#"{"metadata": {}, "weight_map": {"conv_in.weight": "../vae/diffusion_pytorch_model.safetensors"}}"#;
    fs::write(place.path().join(format!("{UNET}.index.json")), index).expect("an index");
    refused(place.path(), &options(), &["index.json", "../vae", "expected"]);
}

#[test]
fn wrong_settings_of_networks_are_named_by_field() {
    for (file, from, to, said) in [
        ("unet/config.json", "\"in_channels\": 4", "\"in_channels\": 0", "in_channels"),
        ("unet/config.json", "\"norm_num_groups\": ", "\"norm_num_groups\": 7", "norm_num_groups"),
        ("unet/config.json", "\"act_fn\": \"silu\"", "\"act_fn\": \"sigh\"", "sigh"),
        ("vae/config.json", "\"latent_channels\": 4", "\"latent_channels\": 5", "`vae` has latents of 5"),
        (
            "scheduler/scheduler_config.json",
            "\"beta_schedule\": \"scaled_linear\"",
            "\"beta_schedule\": \"steep\"",
            "steep",
        ),
        ("unet/config.json", "{", "[", "config.json"),
    ] {
        let place = copy();
        replace(&place.path().join(file), from, to);
        refused(place.path(), &options(), &[said]);
    }
}

#[test]
fn parts_of_different_models_are_refused_when_they_are_joined() {
    let place = copy();
    // The widths must be checked before the weights, which still have the old width and would fail on their own.
    replace(&place.path().join("text_encoder/config.json"), "\"hidden_size\": 32", "\"hidden_size\": 64");
    refused(place.path(), &options(), &["`unet` reads text of 32 channels, got 64 (`text_encoder` 64)", "one model"]);

    let device = fabric::default_device().expect("a device");
    let load = |path: &Path| StableDiffusion::open(path, &device, &options()).expect("a model").0;
    let world = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/world");
    let mixed = || StableDiffusion { text: load(&world).text, ..load(&golden()) };
    for joined in [mixed().into_pipeline(), mixed().into_offloaded(&device)] {
        let message = joined.map(|_| ()).expect_err("parts of two models").to_string();
        assert!(message.contains("`unet` reads text of 32 channels, got 128 (`text_encoder` 128)"), "{message}");
    }
}

#[test]
fn the_caller_may_say_what_a_network_predicts() {
    let said = ModelOptions { prediction: Some(Prediction::Velocity), ..options() };
    let prediction = |options| load(&golden(), options).expect("a model").scheduler().prediction;
    assert_eq!((prediction(&options()), prediction(&said)), (Prediction::Epsilon, Prediction::Velocity));
}

#[test]
fn files_of_another_kind_are_refused_as_what_they_are() {
    let golden = golden();
    for (path, said) in [
        (golden.join("unet/config.json"), "config.json"),
        (golden.join(UNET), "expected"),
        (golden.join("vae"), "model_index.json"),
        (golden.join("../../../examples/images/coffee.jpg"), "coffee.jpg"),
    ] {
        refused(&path, &options(), &[said, ";"]);
    }
    let lora = |path: PathBuf| ModelOptions { loras: vec![LoraChoice { path, scale: 1.0 }], ..options() };
    refused(&golden, &lora(golden.join(UNET)), &["safetensors"]);
    refused(&golden, &lora(golden.join("no.safetensors")), &["no.safetensors"]);
}

#[test]
fn a_lora_for_a_network_that_the_model_lacks_is_an_error() {
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("xl.safetensors");
    let info = |shape: [usize; 2]| TensorInfo { dtype: Dtype::F32, shape: shape.to_vec() };
    let module = "lora_te2_text_model_encoder_layers_0_mlp_fc1";
    let tensors =
        [(format!("{module}.lora_down.weight"), info([1, 32])), (format!("{module}.lora_up.weight"), info([32, 1]))];
    let zeros = |name: &str| {
        let info = tensors.iter().find(|(other, _)| other == name).expect("a tensor").1.clone();
        Ok(HostTensor { bytes: vec![0; info.bytes()], info })
    };
    write_safetensors(&path, &Default::default(), &tensors, zeros).expect("a written file");
    let options = ModelOptions { loras: vec![LoraChoice { path, scale: 1.0 }], ..options() };
    let said = ["xl.safetensors", "`text_encoder_2`", "Stable Diffusion 1 does not have", "no effect", "use a LoRA"];
    refused(&golden(), &options, &said);
}

#[test]
fn a_scheduler_that_we_lack_needs_a_named_sampler() {
    let place = copy();
    let scheduler = place.path().join("scheduler/scheduler_config.json");
    let fixture = |name: &str| golden().join("../../fixtures/schedulers").join(name);
    fs::copy(fixture("deis.json"), &scheduler).expect("copied");
    refused(place.path(), &options(), &["DEISMultistepScheduler", "name a sampler", "--sampler"]);
    let named = ModelOptions { sampler: "ddim".parse().ok(), ..options() };
    load(place.path(), &named).expect("a pipeline on the file's betas");
    // Infinities, which diffusers writes by default, are accepted.
    fs::copy(fixture("dpm-solver-infinity.json"), &scheduler).expect("copied");
    load(place.path(), &options()).expect("a pipeline");
}

#[test]
fn unusable_requests_are_refused_by_name_before_any_work() {
    let pipeline = load(&golden(), &options()).expect("a pipeline");
    let good = || {
        let settings = Settings { width: Some(32), height: Some(32), steps: 2, ..Settings::default() };
        Request::new("a cat").with_settings(settings)
    };
    let refused = |change: &dyn Fn(&mut Request), said: &str| {
        let mut request = good();
        change(&mut request);
        let mut steps = 0;
        let mut count = |_: &fabric::core::pipeline::StepEvent<'_>| {
            steps += 1;
            std::ops::ControlFlow::Continue(())
        };
        let message = pipeline.generate_observed(&request, &mut count).expect_err(said).to_string();
        assert!(message.contains(said), "`{said}` is not in: {message}");
        assert_eq!(steps, 0, "{said}");
    };
    refused(&|r| r.settings.steps = 0, "steps");
    refused(&|r| r.settings.steps = 1001, "steps");
    refused(&|r| r.settings.width = Some(0), "width");
    refused(&|r| r.settings.height = Some(33), "height");
    refused(&|r| r.settings.guidance_scale = f64::NAN, "guidance_scale");
    refused(&|r| r.settings.guidance_rescale = f64::INFINITY, "guidance_rescale");
    refused(&|r| r.settings.fabric = FabricSettings { start: 0.9, end: 0.1, ..FabricSettings::default() }, "start");
    refused(&|r| r.settings.fabric.max_weight = f64::NAN, "max_weight");
    refused(&|r| r.settings.fabric.execution.pass = ReferencePass::TwoPasses { chunk: 0 }, "chunk");
    refused(&|r| r.settings.batch = Some(0), "batch");
    refused(&|r| r.settings.text.clip_skip = Some(1000), "clip_skip");
    refused(&|r| r.settings.memory_limit = Some(1000), "memory");
    refused(&|r| r.seeds.clear(), "seeds");
    let image = || Image::from_rgb(1, 1, vec![1, 2, 3]).expect("an image");
    refused(&|r| *r = r.clone().with_feedback(image(), f64::NAN), "strength");
    refused(&|r| *r = r.clone().with_init_image(image(), 1.5), "strength");
    // Unusual but valid requests are accepted.
    assert!(pipeline.generate(&good().with_liked(image()).with_init_image(image(), 0.5)).is_ok());
    assert!(pipeline.generate(&Request { prompt: String::new(), ..good() }).is_ok());
}

#[test]
fn a_weighted_prompt_is_read_before_its_words_are_left_out() {
    let pipeline = load(&golden(), &options()).expect("a pipeline");
    let mut settings = Settings { width: Some(32), height: Some(32), steps: 2, ..Settings::default() };
    settings.text.weights = true;
    settings.prompt_dropout = 0.5;
    // If "night" were dropped before parsing, "1984" would be parsed as the weight of the bracket.
    for prompt in ["(year :1984 night )", "a (small (red star:1.5) on:1.2) blue"] {
        let request = Request::new(prompt).with_seeds(0..128).with_settings(settings.clone());
        pipeline.generate(&request).expect("images");
    }
}

#[test]
fn a_size_that_no_machine_can_hold_is_refused_and_not_tried() {
    let pipeline = load(&golden(), &options()).expect("a pipeline");
    let settings = Settings { width: Some(16384), height: Some(16384), steps: 2, ..Settings::default() };
    let request = Request::new("a cat").with_seeds(0..10_000).with_settings(settings);
    let message = pipeline.generate(&request).expect_err("an error").to_string();
    assert!(message.contains("memory") && message.contains("GB") && message.contains("smaller"), "{message}");
}

#[test]
fn a_full_session_is_noticed_before_a_step_is_made() {
    let settings = Settings { width: Some(1024), height: Some(1024), steps: 1, batch: Some(1), ..Settings::default() };
    let pipeline = load(&golden(), &options()).expect("a pipeline");
    let mut session = FeedbackSession::new("a cat").with_seed(7).with_generation_settings(&settings);
    let most = MAX_SESSION_PIXELS / (1024 * 1024);
    let mut steps = 0;
    let mut watch = |_: &fabric::core::pipeline::StepEvent<'_>| {
        steps += 1;
        std::ops::ControlFlow::Break(())
    };
    let error = session.generate_observed(&pipeline, most + 1, &mut watch).expect_err("a full session");
    assert!(matches!(error, Error::Session(SessionError::Full { .. })), "{error}");
    assert_eq!(steps, 0);
    // A failed call does not use up a seed.
    assert_eq!(session.next_seed(), FeedbackSession::new("").with_seed(7).next_seed());
}

#[test]
fn settings_of_a_session_that_are_a_list_are_refused() {
    for settings in [serde_json::json!([]), serde_json::json!([64, 64])] {
        let session = FeedbackSession::new("a cat").with_settings(settings);
        let message = session.generation_settings().expect_err("a list").to_string();
        assert!(
            message.starts_with("the session's settings: expected") && message.contains("got no JSON object"),
            "{message}"
        );
    }
}

#[test]
fn a_session_refuses_what_it_cannot_hold_and_stays_whole() {
    let pipeline = load(&golden(), &options()).expect("a pipeline");
    let mut session = FeedbackSession::new("a cat");
    assert!(session.generate(&pipeline, 0).is_err());
    session.set_settings(serde_json::json!({"steps": "many"}));
    let message = session.generate(&pipeline, 1).expect_err("an error").to_string();
    assert!(message.contains("settings") && message.contains("many"), "{message}");
    assert_eq!(session.rounds().len(), 0);
    let place = tempfile::tempdir().expect("a folder");
    let message = FeedbackSession::load(place.path().join("none")).expect_err("an error").to_string();
    assert!(message.contains("none"), "{message}");
}
