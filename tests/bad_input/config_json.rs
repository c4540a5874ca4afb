//! Configurations in JSON: texts that are none, numbers that no network can have, and other types than expected.

use std::fs;
use std::path::Path;

use fabric::core::schedule::{Schedule, SchedulerConfig};
use fabric::models::clip::{ClipTextConfig, ClipVision, ClipVisionConfig};
use fabric::models::control::{ControlNetConfig, T2IAdapterConfig};
use fabric::models::load::ModelFolder;
use fabric::models::recommended_settings;
use fabric::models::unet::UNetConfig;
use fabric::models::vae::VaeConfig;
use serde_json::{Map, Value, json};

use crate::case::{Case, Outcome, nothing, said, sparse_file};
use crate::models::{config_text, device, fixture, golden};

pub(crate) const COUNT: usize = 289;

/// Configuration of a network: its golden text, and how it is read.
#[derive(Clone, Copy)]
struct Network {
    name: &'static str,
    folder: &'static str,
    read: fn(&str) -> Outcome,
}

const UNET: Network = Network { name: "U-Net", folder: "unet", read: |text| said(UNetConfig::from_json(text)) };
const VAE: Network = Network { name: "VAE", folder: "vae", read: |text| said(VaeConfig::from_json(text)) };
const TEXT: Network =
    Network { name: "CLIP text encoder", folder: "text_encoder", read: |text| said(ClipTextConfig::from_json(text)) };
const VISION: Network = Network {
    name: "CLIP image encoder",
    folder: "image_encoder",
    read: |text| said(ClipVisionConfig::from_json(text)),
};
const CONTROLNET: Network =
    Network { name: "ControlNet", folder: "controlnet", read: |text| said(ControlNetConfig::from_json(text)) };

/// Reads a scheduler's configuration and makes the noise levels of ten steps.
fn read_scheduler(text: &str) -> Outcome {
    let config = SchedulerConfig::from_json(text).map_err(|error| error.to_string())?;
    said(Schedule::new(&config, 10))
}

fn read_t2i(text: &str) -> Outcome {
    said(T2IAdapterConfig::from_json(text))
}

/// Returns the text of an object in which the given fields replace others. Values are written as they are, so they can
/// be what JSON does not have.
fn with_fields(text: &str, fields: &[(&str, &str)]) -> String {
    let mut object: Map<String, Value> = serde_json::from_str(text).expect("an object");
    object.retain(|name, _| fields.iter().all(|(other, _)| name != other));
    let rest = Value::Object(object).to_string();
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    let comma = if rest == "{}" { "" } else { "," };
    format!("{{{}{comma}{}", fields.join(","), &rest[1..])
}

impl Network {
    /// A golden configuration with other fields.
    fn with(self, name: &str, fields: &[(&str, &str)], words: &[&str]) -> Case {
        let text = with_fields(&config_text(self.folder), fields);
        let words = [words, &[self.name, "configuration"]].concat();
        Case::refused(format!("{}: {name}", self.name), &words, nothing, move |_| (self.read)(&text))
    }

    /// One case for each of these fields with each of these values.
    fn each(self, fields: &[&str], values: &[(&str, &str)]) -> Vec<Case> {
        let mut cases = Vec::new();
        for field in fields {
            for (name, value) in values {
                let word = format!("`{field}`");
                cases.push(self.with(
                    &format!("`{field}` is {name}"),
                    &[(*field, *value)],
                    &[word.as_str(), "expected"],
                ));
            }
        }
        cases
    }
}

/// A scheduler's configuration with these fields and the golden betas.
fn scheduler(name: &str, fields: &[(&str, &str)], words: &[&str]) -> Case {
    let text = fs::read_to_string(golden("scheduler/scheduler_config.json")).expect("a configuration");
    let text = with_fields(&text, fields);
    Case::refused(format!("scheduler: {name}"), words, nothing, move |_| read_scheduler(&text))
}

/// A configuration that is accepted with a documented fallback.
fn accepted(name: &str, text: String, read: fn(&str) -> Outcome, to: &str) -> Case {
    Case::falls_back(name, to, nothing, move |_| read(&text))
}

/// A text that is no configuration of a U-Net.
fn text(name: &str, text: impl Into<String>, words: &[&str]) -> Case {
    let text = text.into();
    Case::refused(name, &[words, &["U-Net configuration"]].concat(), nothing, move |_| (UNET.read)(&text))
}

pub(crate) fn check_base() {
    for Network { name, folder, read } in [UNET, VAE, TEXT, VISION, CONTROLNET] {
        assert_eq!(read(&config_text(folder)), Ok(()), "{name}");
        assert_eq!(read(&with_fields(&config_text(folder), &[("unknown", "1")])), Ok(()), "{name}");
    }
    let text = fs::read_to_string(golden("scheduler/scheduler_config.json")).expect("a configuration");
    assert_eq!(read_scheduler(&text), Ok(()));
    assert_eq!(read_t2i(r#"{"channels": [32, 64]}"#), Ok(()));
    let place = tempfile::tempdir().expect("a folder");
    model_folder(place.path());
    ModelFolder::open(place.path()).expect("a model");
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = texts();
    cases.extend(numbers());
    cases.extend(unets());
    cases.extend(vaes());
    cases.extend(controls());
    cases.extend(schedulers());
    cases.extend(accepted_schedulers());
    cases.extend(files());
    cases.extend(indices());
    cases
}

/// Texts that are no object, or that other programs call JSON.
fn texts() -> Vec<Case> {
    let json = "not a JSON object";
    let good = config_text("unet");
    let twice = good.replacen('{', "{\"in_channels\": 0,", 1);
    let deep = |count: usize| format!("{}{}", "[".repeat(count), "]".repeat(count));
    let nested = with_fields(&good, &[("other", &deep(100_000))]);
    let many: Vec<String> = (0..330_000).map(|at| format!("\"k{at:06}\":0")).collect();
    let many = format!("{{{}}}", many.join(","));
    let wide = format!("{{\"a\":\"{}\"}}", "x".repeat(4 << 20));
    let long = format!("[{}8]", "8,".repeat(100_000));
    vec![
        text("an empty text", "", &[json, "EOF"]),
        text("white space", " \n\t", &[json, "EOF"]),
        text("an object that does not end", "{", &[json, "EOF"]),
        text("a list", "[1]", &[json, "it holds [1]"]),
        text("a number", "3", &[json, "it holds 3"]),
        text("null", "null", &[json, "it holds null"]),
        text("Python's NaN alone", "NaN", &[json, "NaN"]),
        text("a text in quotes", "\"config\"", &[json, "config"]),
        text("a comma at the end", r#"{"in_channels": 4,}"#, &[json, "trailing comma"]),
        text("a comment", "{\"in_channels\": 4 /* latents */}", &[json, "line 1"]),
        text("names in single quotes", "{'in_channels': 4}", &[json, "key must be a string"]),
        text("names without quotes", "{in_channels: 4}", &[json, "key must be a string"]),
        text("Python's True", r#"{"use_linear_projection": True}"#, &[json, "expected value"]),
        text("a number with a plus", r#"{"in_channels": +4}"#, &[json, "expected value"]),
        text("a number in base 16", r#"{"in_channels": 0x4}"#, &[json, "line 1"]),
        text("a number with a zero in front", r#"{"in_channels": 04}"#, &[json, "invalid number"]),
        text("a number beyond f64", r#"{"norm_eps": 1e999}"#, &[json, "number out of range"]),
        text("infinity with a plus", r#"{"norm_eps": +Infinity}"#, &[json, "expected value"]),
        text("a line break in a text", "{\"act_fn\": \"si\nlu\"}", &[json, "control character"]),
        text("a zero byte", "{\"act_fn\": \"silu\"}\0", &[json, "trailing characters"]),
        text("half of a pair of surrogates", r#"{"act_fn": "\ud800"}"#, &[json, "line 1"]),
        text("two objects", "{}{}", &[json, "trailing characters"]),
        text("two byte-order marks", "\u{feff}\u{feff}{}", &[json, "expected value"]),
        text("lists nested 100,000 times", deep(100_000), &[json, "recursion limit"]),
        text("lists nested 100,000 times in an unknown field", nested, &[json, "recursion limit"]),
        UNET.with(
            "a list of a hundred thousand numbers",
            &[("block_out_channels", &long)],
            &["`block_out_channels`", "100001"],
        ),
        accepted("a byte-order mark", format!("\u{feff}{good}"), UNET.read, "a byte-order mark is skipped"),
        accepted("a field twice", twice, UNET.read, "of a field that occurs twice the last value counts"),
        accepted(
            "Python's numbers in fields that are not read",
            with_fields(&good, &[("a", "NaN"), ("b", "[Infinity, -Infinity]")]),
            UNET.read,
            "`NaN` and `Infinity` are read as texts",
        ),
        text("4 MB of unknown fields", many, &[json, "would take", "bytes of memory, expected at most 8388608"]),
        accepted("a text of 4 MB in an unknown field", wide, UNET.read, "unknown fields are kept for saving"),
    ]
}

/// Whole numbers of each network with values that none can have.
fn numbers() -> Vec<Case> {
    let values = [
        ("NaN", "NaN"),
        ("infinite", "Infinity"),
        ("below zero", "-1"),
        ("zero", "0"),
        ("a fraction", "1.5"),
        ("far beyond all integers", "1e30"),
        ("the largest integer", "18446744073709551615"),
        ("a text", "\"4\""),
        ("an object", "{}"),
    ];
    let few = [values[0], values[2], values[3], values[4], values[6]];
    let mut cases = UNET.each(&["in_channels", "norm_num_groups", "layers_per_block", "cross_attention_dim"], &values);
    cases.extend(UNET.each(&["out_channels", "attention_head_dim", "sample_size"], &few));
    cases.extend(TEXT.each(
        &["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"],
        &few,
    ));
    cases.extend(VISION.each(&["image_size", "patch_size", "intermediate_size"], &few));
    cases.extend(VAE.each(&["latent_channels", "layers_per_block", "norm_num_groups"], &few));
    cases
}

/// Other settings of U-Nets.
fn unets() -> Vec<Case> {
    let levels = "`block_out_channels`";
    let xxx = format!("\"{}\"", "x".repeat(5000));
    let one = |name: &str, field: &str, value: &str, words: &[&str]| UNET.with(name, &[(field, value)], words);
    let mut cases = UNET.each(
        &["norm_eps"],
        &[
            ("NaN", "NaN"),
            ("infinite", "Infinity"),
            ("zero", "0"),
            ("one", "1"),
            ("zero as f32", "1e-40"),
            ("a text", "\"1e-5\""),
        ],
    );
    cases.extend(UNET.each(&["freq_shift"], &[("NaN", "NaN"), ("1e300", "1e300"), ("-1e300", "-1e300")]));
    cases.extend(UNET.each(&["conv_in_kernel", "conv_out_kernel"], &[("zero", "0"), ("even", "2"), ("17", "17")]));
    cases.extend([
        one("no levels", "block_out_channels", "[]", &[levels, "got 0"]),
        one("17 levels", "block_out_channels", &format!("[{}8]", "8,".repeat(16)), &[levels, "1 to 16", "got 17"]),
        one("a level without channels", "block_out_channels", "[32, 0]", &[levels, "got 0"]),
        one(
            "channels that groups do not divide",
            "block_out_channels",
            "[32, 65]",
            &["`norm_num_groups`", "65 channels"],
        ),
        one(
            "channels that heads do not divide",
            "attention_head_dim",
            "5",
            &["`attention_head_dim`", "divide the channels"],
        ),
        one("an odd number of channels", "block_out_channels", "[33, 64]", &[levels, "an even number"]),
        one("a shift of all frequencies", "freq_shift", "16", &[levels, "`freq_shift`"]),
        one("one block for two levels", "down_block_types", "[\"DownBlock2D\"]", &["`down_block_types`", "1 blocks"]),
        one(
            "three blocks for two levels",
            "up_block_types",
            "[\"UpBlock2D\",\"UpBlock2D\",\"UpBlock2D\"]",
            &["`up_block_types`", "3 blocks"],
        ),
        one(
            "an unknown block",
            "down_block_types",
            "[\"SkipDownBlock2D\"]",
            &["`down_block_types`", "SkipDownBlock2D"],
        ),
        one("an unknown middle block", "mid_block_type", "\"UNetMidBlock2DSimpleCrossAttn\"", &["`mid_block_type`"]),
        one("an unknown activation", "act_fn", "\"sigh\"", &["`act_fn`", "sigh"]),
        one("an activation that clears the terminal", "act_fn", "\"\\u001b[2J\"", &["`act_fn`", "\\u{1b}[2J"]),
        one("an activation of 5000 letters", "act_fn", &xxx, &["`act_fn`", "xxx"]),
        one("padding of two", "downsample_padding", "2", &["`downsample_padding`", "0 or 1"]),
        one("no width of the time embedding", "time_embedding_dim", "0", &["`time_embedding_dim`"]),
        one(
            "257 layers in a transformer",
            "transformer_layers_per_block",
            "257",
            &["`transformer_layers_per_block`", "at most 256"],
        ),
        one(
            "depths for three levels",
            "transformer_layers_per_block",
            "[1, 2, 3]",
            &["`transformer_layers_per_block`", "3 values"],
        ),
        one(
            "depths of each transformer one way",
            "transformer_layers_per_block",
            "[[1, 2], 1]",
            &["`reverse_transformer_layers_per_block`"],
        ),
        one(
            "added conditions without their width",
            "addition_embed_type",
            "\"text_time\"",
            &["`addition_time_embed_dim`", "got nothing"],
        ),
        one("added conditions of another kind", "addition_embed_type", "\"image\"", &["`addition_embed_type`"]),
        one("classes", "class_embed_type", "\"timestep\"", &["`class_embed_type`", "another family"]),
        one("two attentions in a block", "dual_cross_attention", "true", &["`dual_cross_attention`", "another family"]),
        one(
            "another class of network",
            "_class_name",
            "\"UNet3DConditionModel\"",
            &["`_class_name`", "UNet3DConditionModel"],
        ),
        UNET.with(
            "256 resnets of 256 layers in each block",
            &[("layers_per_block", "256"), ("transformer_layers_per_block", "256")],
            &["`transformer_layers_per_block`", "1 to 2048"],
        ),
    ]);
    cases
}

/// Other settings of VAEs.
fn vaes() -> Vec<Case> {
    let mut cases = VAE.each(
        &["scaling_factor"],
        &[
            ("NaN", "NaN"),
            ("infinite", "Infinity"),
            ("zero", "0"),
            ("below zero", "-0.18"),
            ("near zero", "1e-300"),
            ("1e300", "1e300"),
        ],
    );
    cases.extend(VAE.each(&["shift_factor"], &[("NaN", "NaN"), ("1e300", "1e300"), ("-1e300", "-1e300")]));
    let means = ("latents_mean", "[0, 0, 0, 0]");
    cases.extend([
        VAE.with("means without deviations", &[means], &["`latents_std`", "got nothing"]),
        VAE.with("deviations without means", &[("latents_std", "[1, 1, 1, 1]")], &["`latents_mean`", "got nothing"]),
        VAE.with(
            "a deviation of zero",
            &[means, ("latents_std", "[1, 0, 1, 1]")],
            &["`latents_std`", "per latent channel"],
        ),
        VAE.with(
            "three means for four channels",
            &[("latents_mean", "[0, 0, 0]"), ("latents_std", "[1, 1, 1, 1]")],
            &["`latents_mean`"],
        ),
        VAE.with(
            "means beside a shift",
            &[means, ("latents_std", "[1, 1, 1, 1]"), ("shift_factor", "0.1")],
            &["`shift_factor`"],
        ),
        VAE.with("grey images", &[("in_channels", "1")], &["`in_channels`", "expected 3, got 1"]),
        VAE.with(
            "64 levels",
            &[("block_out_channels", &format!("[{}8]", "8,".repeat(63)))],
            &["`block_out_channels`", "1 to 16"],
        ),
        VAE.with(
            "256 resnets in each block",
            &[("layers_per_block", "256")],
            &["`layers_per_block`", "at most 1024 resnets"],
        ),
        VAE.with(
            "another class of VAE",
            &[("_class_name", "\"AutoencoderTiny\"")],
            &["`_class_name`", "AutoencoderTiny"],
        ),
    ]);
    cases
}

/// Settings of ControlNets and T2I-Adapters.
fn controls() -> Vec<Case> {
    let t2i = |name: &str, text: &'static str, words: &[&str]| {
        let words = [words, &["T2I-Adapter configuration"]].concat();
        Case::refused(format!("T2I-Adapter: {name}"), &words, nothing, move |_| read_t2i(text))
    };
    let widths = "conditioning_embedding_out_channels";
    vec![
        CONTROLNET.with("no channels of the image", &[("conditioning_channels", "0")], &["`conditioning_channels`"]),
        CONTROLNET.with("no layers for the image", &[(widths, "[]")], &["`conditioning_embedding_out_channels`"]),
        CONTROLNET.with("a layer without channels", &[(widths, "[8, 0]")], &["`conditioning_embedding_out_channels`"]),
        CONTROLNET.with("green first", &[("controlnet_conditioning_channel_order", "\"gbr\"")], &["gbr"]),
        CONTROLNET.with(
            "a flag that is a text",
            &[("global_pool_conditions", "\"yes\"")],
            &["`global_pool_conditions`"],
        ),
        t2i("no levels", r#"{"channels": []}"#, &["`channels`", "got 0"]),
        t2i("a level without channels", r#"{"channels": [8, 0]}"#, &["`channels`", "got 0"]),
        t2i("257 blocks in a level", r#"{"num_res_blocks": 257}"#, &["`num_res_blocks`", "1 to 256"]),
        t2i("1280 blocks", r#"{"num_res_blocks": 256}"#, &["`num_res_blocks`", "1280 resnets"]),
        t2i("a factor of zero", r#"{"downscale_factor": 0}"#, &["`downscale_factor`"]),
        t2i("a factor of 65", r#"{"downscale_factor": 65}"#, &["`downscale_factor`", "1 to 64"]),
        t2i("an unknown kind", r#"{"adapter_type": "heavy_adapter"}"#, &["`adapter_type`", "heavy_adapter"]),
        t2i(
            "two levels for XL",
            r#"{"adapter_type": "full_adapter_xl", "channels": [8, 8]}"#,
            &["`channels`", "3 levels"],
        ),
    ]
}

/// Settings of schedulers.
fn schedulers() -> Vec<Case> {
    let one = |name: &str, field: &str, value: &str, words: &[&str]| {
        let field_word = format!("field `{field}`");
        scheduler(name, &[(field, value)], &[words, &[field_word.as_str()]].concat())
    };
    let class = |class: &str| ("_class_name", format!("\"{class}\""));
    let of = |name: &str, kind: &str, field: &str, value: &str, words: &[&str]| {
        let (key, class) = class(kind);
        scheduler(name, &[(key, class.as_str()), (field, value)], words)
    };
    let mut cases = Vec::new();
    for field in ["beta_start", "beta_end"] {
        for (name, value) in [
            ("NaN", "NaN"),
            ("infinite", "Infinity"),
            ("zero", "0"),
            ("one", "1"),
            ("below zero", "-0.1"),
            ("a text", "\"a\""),
        ] {
            cases.push(one(&format!("`{field}` is {name}"), field, value, &["expected"]));
        }
    }
    cases.extend([
        scheduler(
            "betas that are zero as f32",
            &[("beta_start", "1e-300"), ("beta_end", "1e-300")],
            &["`beta_schedule`", "0 at step 0"],
        ),
        one("no training steps", "num_train_timesteps", "0", &["1 to 1000000"]),
        one("a billion training steps", "num_train_timesteps", "1000000000", &["1 to 1000000"]),
        one("training steps below zero", "num_train_timesteps", "-1", &["expected"]),
        one("an offset of all training steps", "steps_offset", "1000", &["less than `num_train_timesteps`"]),
        one("betas of another number", "trained_betas", "[0.1, 0.2]", &["2 values", "1000 values"]),
        one("betas with a NaN", "trained_betas", "[NaN]", &["expected"]),
        scheduler(
            "a beta above one",
            &[("trained_betas", "[0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,2.0]"), ("num_train_timesteps", "10")],
            &["`trained_betas`", "got 2 at step 9"],
        ),
        one("an unknown curve of betas", "beta_schedule", "\"steep\"", &["steep"]),
        one("an unknown prediction", "prediction_type", "\"flow\"", &["flow"]),
        one(
            "a class that does not exist",
            "_class_name",
            "\"TeaLeafScheduler\"",
            &["TeaLeafScheduler", "name a sampler"],
        ),
        one("a class that is a number", "_class_name", "7", &["got 7"]),
        one("a class that is null", "_class_name", "null", &["got nothing"]),
        one("a spacing that does not exist", "timestep_spacing", "\"random\"", &["random"]),
        of(
            "a solver of order 9",
            "DPMSolverMultistepScheduler",
            "solver_order",
            "9",
            &["field `solver_order`", "got 9"],
        ),
        of(
            "a corrector of order 0",
            "UniPCMultistepScheduler",
            "solver_order",
            "0",
            &["field `solver_order`", "got 0"],
        ),
        of(
            "another kind of solver",
            "DPMSolverMultistepScheduler",
            "algorithm_type",
            "\"dpmsolver\"",
            &["field `algorithm_type`"],
        ),
        of(
            "a bound that is NaN",
            "DPMSolverMultistepScheduler",
            "lambda_min_clipped",
            "NaN",
            &["field `lambda_min_clipped`", "a number or -Infinity"],
        ),
        of(
            "a bound above all levels",
            "DPMSolverMultistepScheduler",
            "lambda_min_clipped",
            "100",
            &["field `lambda_min_clipped`", "two or more training steps"],
        ),
        of("thresholds", "DDIMScheduler", "thresholding", "true", &["field `thresholding`", "false"]),
        of(
            "a flow",
            "EulerDiscreteScheduler",
            "use_flow_sigmas",
            "true",
            &["field `use_flow_sigmas`", "rectified flow"],
        ),
        of(
            "a curve that is a number",
            "EulerDiscreteScheduler",
            "use_karras_sigmas",
            "1",
            &["field `use_karras_sigmas`", "true or false"],
        ),
        of("a range that is NaN", "DDIMScheduler", "clip_sample_range", "NaN", &["field `clip_sample_range`"]),
        of("a range below zero", "DDIMScheduler", "clip_sample_range", "-1", &["field `clip_sample_range`", "above 0"]),
        of("more noise than there is", "DDIMScheduler", "eta", "2", &["field `eta`", "0 to 1"]),
        of("no derivatives", "LMSDiscreteScheduler", "lms_order", "0", &["field `lms_order`", "1 to 4"]),
        of("a largest level of 1e30", "EulerDiscreteScheduler", "sigma_max", "1e30", &["field `sigma_max`"]),
        of("a smallest level of zero", "EulerDiscreteScheduler", "sigma_min", "0", &["field `sigma_min`"]),
        of("no boundary", "LCMScheduler", "timestep_scaling", "0", &["field `timestep_scaling`"]),
        of("no teacher", "LCMScheduler", "original_inference_steps", "0", &["field `original_inference_steps`"]),
        of(
            "a teacher of more steps than there are",
            "LCMScheduler",
            "original_inference_steps",
            "1001",
            &["field `original_inference_steps`"],
        ),
        of(
            "more steps than a student makes",
            "LCMScheduler",
            "original_inference_steps",
            "9",
            &["steps of lcm", "at most 9"],
        ),
        of(
            "a corrector that is below zero",
            "UniPCMultistepScheduler",
            "disable_corrector",
            "[-1]",
            &["field `disable_corrector`"],
        ),
        scheduler(
            "levels in the wrong order",
            &[("_class_name", "\"EulerDiscreteScheduler\""), ("sigma_min", "2"), ("sigma_max", "1")],
            &["field `sigma_min`", "less than `sigma_max`"],
        ),
        scheduler(
            "two curves",
            &[
                ("_class_name", "\"EulerDiscreteScheduler\""),
                ("use_karras_sigmas", "true"),
                ("use_beta_sigmas", "true"),
            ],
            &["at most one of the sigma curves"],
        ),
        scheduler(
            "no signal at the first step",
            &[
                ("_class_name", "\"DDIMScheduler\""),
                ("rescale_betas_zero_snr", "true"),
                ("timestep_spacing", "\"trailing\""),
            ],
            &["timestep 999", "no signal", "v_prediction"],
        ),
        Case::refused("scheduler: no signal at the only training step", &["rescale_betas_zero_snr"], nothing, |_| {
            let text = r#"{"_class_name": "DDIMScheduler", "num_train_timesteps": 1, "rescale_betas_zero_snr": true}"#;
            let config = SchedulerConfig::from_json(text).map_err(|error| error.to_string())?;
            said(Schedule::new(&config, 1))
        }),
    ]);
    for (name, text, word) in [
        ("an empty text", "", "EOF"),
        ("a list", "[]", "expected a map"),
        ("null", "null", "expected a map"),
        ("an object that does not end", "{\"beta_start\":", "EOF"),
    ] {
        let words = ["the scheduler configuration is not a JSON object", word];
        cases.push(Case::refused(format!("scheduler: {name}"), &words, nothing, move |_| read_scheduler(text)));
    }
    cases
}

/// Files of schedulers that are accepted.
fn accepted_schedulers() -> Vec<Case> {
    let infinite = fs::read_to_string(fixture("schedulers/dpm-solver-infinity.json")).expect("a configuration");
    let text = fs::read_to_string(golden("scheduler/scheduler_config.json")).expect("a configuration");
    let unread = with_fields(&text, &[("sample_max_value", "NaN"), ("trained_betas", "null")]);
    vec![
        accepted("scheduler: a bound of -Infinity", infinite, read_scheduler, "-Infinity is no bound"),
        accepted("scheduler: NaN in a field that is not read", unread, read_scheduler, "`NaN` is read as a text"),
    ]
}

/// Writes an image encoder's folder with this file as its configuration.
fn encoder_folder(config: impl FnOnce(&Path) + 'static) -> impl FnOnce(&Path) + 'static {
    move |place: &Path| {
        fs::copy(golden("image_encoder/model.safetensors"), place.join("model.safetensors")).expect("copied");
        config(place);
    }
}

fn open_encoder(place: &Path) -> Outcome {
    said(ClipVision::open(place, &device()))
}

/// Files that are no text, too long, or no files.
fn files() -> Vec<Case> {
    let good = config_text("image_encoder");
    let bytes = |name: &str, bytes: Vec<u8>, words: &[&str]| {
        let prepare = encoder_folder(move |place| fs::write(place.join("config.json"), bytes).expect("a written file"));
        Case::refused(name, &[words, &["config.json"]].concat(), prepare, open_encoder)
    };
    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let latin1: Vec<u8> = good.replace("gelu", "g\u{e9}lu").chars().map(|letter| letter as u8).collect();
    let settings = "the JSON that diffusers or transformers write";
    vec![
        bytes("a file in UTF-16", utf16, &["settings", settings]),
        bytes("a file in Latin-1", latin1, &["settings", settings]),
        bytes("a compressed file", b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec(), &["settings", settings]),
        bytes("a pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1".to_vec(), &["settings", settings]),
        bytes("a web page", b"<!DOCTYPE html>".to_vec(), &["settings", settings]),
        Case::refused(
            "a file longer than the limit",
            &["at most 4194304 bytes of JSON", "config.json"],
            encoder_folder(sparse_file("config.json", Vec::new(), 5 << 20)),
            open_encoder,
        ),
        Case::refused(
            "a file far longer than the limit",
            &["at most 4194304 bytes of JSON", "config.json"],
            encoder_folder(sparse_file("config.json", Vec::new(), 1 << 33)),
            open_encoder,
        ),
        Case::refused(
            "a folder in place of a configuration",
            &["there is no config.json"],
            encoder_folder(|place| fs::create_dir(place.join("config.json")).expect("a folder")),
            open_encoder,
        ),
        Case::refused("no configuration", &["there is no config.json"], encoder_folder(nothing), open_encoder),
    ]
}

/// Writes a model folder with configurations and empty weights.
fn model_folder(place: &Path) {
    fs::copy(golden("model_index.json"), place.join("model_index.json")).expect("copied");
    for (part, weights) in [
        ("unet", "diffusion_pytorch_model.safetensors"),
        ("vae", "diffusion_pytorch_model.safetensors"),
        ("text_encoder", "model.safetensors"),
        ("image_encoder", "model.safetensors"),
    ] {
        fs::create_dir(place.join(part)).expect("a folder");
        fs::copy(golden(part).join("config.json"), place.join(part).join("config.json")).expect("copied");
        fs::write(place.join(part).join(weights), "").expect("a written file");
    }
}

/// `model_index.json`, which lists the parts of a model.
fn indices() -> Vec<Case> {
    let open = |place: &Path| said(ModelFolder::open(place));
    let index = |name: &str, text: String, words: &[&str]| {
        let prepare = move |place: &Path| {
            model_folder(place);
            fs::write(place.join("model_index.json"), text).expect("a written file");
        };
        Case::refused(format!("index: {name}"), &[words, &["model_index.json"]].concat(), prepare, open)
    };
    let changed = |field: &str, value: Value| {
        let text = fs::read_to_string(golden("model_index.json")).expect("an index");
        let mut object: Map<String, Value> = serde_json::from_str(&text).expect("an index");
        object.insert(field.to_owned(), value);
        Value::Object(object).to_string()
    };
    let settings = |name: &str, value: Value, words: &[&str]| {
        let text = changed("_recommended_settings", value);
        let prepare = move |place: &Path| {
            model_folder(place);
            fs::write(place.join("model_index.json"), text).expect("a written file");
        };
        let words = [words, &["`_recommended_settings` of model_index.json"]].concat();
        Case::refused(format!("recommended settings: {name}"), &words, prepare, |place| {
            said(recommended_settings(place))
        })
    };
    let class = "class of `vae`";
    vec![
        index("an empty text", String::new(), &["settings", "EOF"]),
        index("a list", "[]".to_owned(), &["settings", "expected a map"]),
        index(
            "a part of another class",
            changed("vae", json!(["diffusers", "AutoencoderTiny"])),
            &[class, "AutoencoderTiny"],
        ),
        index("a part that is a text", changed("vae", json!("AutoencoderKL")), &[class, "got null"]),
        index("a part that is a number", changed("vae", json!(7)), &[class, "got null"]),
        index("a part that is one name", changed("vae", json!(["AutoencoderKL"])), &[class, "got null"]),
        index("a part whose class is a list", changed("vae", json!(["diffusers", ["AutoencoderKL"]])), &[class]),
        index("a class that clears the terminal", changed("vae", json!(["diffusers", "\u{1b}[2J"])), &[class]),
        index("a class of 5000 letters", changed("vae", json!(["diffusers", "x".repeat(5000)])), &[class, "xxx"]),
        index("no U-Net", changed("unet", Value::Null), &["no `unet`", "StableDiffusionPipeline"]),
        index("no VAE", changed("vae", Value::Null), &["no `vae`", "get the whole model"]),
        index("no text encoder", changed("text_encoder", json!([null, null])), &["no `text_encoder`"]),
        Case::refused(
            "index: a variant that is a path",
            &["variant", "`../x`", "a word such as `fp16`"],
            model_folder,
            |place| said(ModelFolder::open_variant(place, Some("../x"))),
        ),
        settings("a list", json!([20]), &["got [20]"]),
        settings("a setting that does not exist", json!({"stepz": 7}), &["unknown field `stepz`"]),
        settings("a number of another type", json!({"steps": "many"}), &["many"]),
        settings("a number out of range", json!({"guidance_scale": 1e300}), &["guidance_scale"]),
    ]
}
