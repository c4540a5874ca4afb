//! Runs with prompts of a file, on a small random model with a small random preference model.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use burn::tensor::Device;
use fabric::DeviceKind;
use fabric::core::image::Image;
use fabric::core::pipeline::Settings;
use fabric::core::schedule::SchedulerConfig;
use fabric::models::LoraChoice;
use fabric::models::clip::{ClipTextConfig, ClipVisionConfig};
use fabric::models::load::{
    Component, Dtype, FolderWriter, HostTensor, SaveOptions, TensorInfo, parameters, write_safetensors,
};
use fabric::models::unet::UNetConfig;
use fabric::models::vae::VaeConfig;
use fabric_experiments::{
    Experiment, ExperimentError, Feedback, ImageRecord, Inputs, PromptInputs, PromptSet, PromptSetSubject, RunFolder,
    Shard, Subject, Work, configured, read_run, run,
};
use serde_json::Value;
use tempfile::TempDir;

/// Rounds of a session, and images of a round.
const SIZES: [usize; 2] = [2, 2];

/// A temporary folder with both models.
struct Place {
    folder: TempDir,
    device: Device,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            folder: tempfile::tempdir().expect("a folder"),
            device: fabric::default_device().expect("a device"),
        };
        place.device.seed(0);
        write_model(&place.path("model"), &place.device);
        write_preference(&place.path("clip.safetensors"), &place.device);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of prompts.
    fn prompts(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).expect("a file");
        self.path(name)
    }

    fn subject(&self, prompts: &PromptSet) -> PromptSetSubject {
        let preference = self.path("clip.safetensors");
        let inputs = PromptInputs { path: Path::new("prompts"), format: None, prompts, preference: &preference };
        PromptSetSubject::open(&self.path("model"), inputs, None, &self.device).expect("a model")
    }

    /// Runs the last arm of an experiment on up to `limit` prompts, in a folder named like the file of prompts.
    fn run(&self, experiment: &str, path: &Path, limit: usize) -> Result<Vec<ImageRecord>, ExperimentError> {
        let experiment = Experiment::named(experiment, &BTreeMap::new())?;
        let prompts = PromptSet::open(path).expect("prompts");
        experiment.check_prompts(&prompts)?;
        let (model, preference) = (self.path("model"), self.path("clip.safetensors"));
        let of_file = PromptInputs { path, format: None, prompts: &prompts, preference: &preference };
        let inputs = Inputs {
            model: &model,
            prompts: Some(of_file),
            lora: None,
            negative_prompt: Some("blurry"),
            device: &DeviceKind::Flex,
        };
        let settings = Settings { steps: 2, ..Settings::default() };
        let (config, plan) = configured(&experiment, &inputs.identify()?, &settings, SIZES, 0, 0);
        let out = path.with_extension("run");
        let mut folder = RunFolder::open(&out, &config, SIZES.iter().product())?;
        let arms = &experiment.arms[experiment.arms.len() - 1..];
        let work = Work { arms, cases: limit, shard: Shard::default(), keep_images: 0 };
        run(&self.subject(&prompts), &plan, &work, &mut folder, &mut |_| {})?;
        Ok(read_run(&out)?.1)
    }
}

/// Writes a model with random weights, which makes images of 64x64.
fn write_model(path: &Path, device: &Device) {
    let text = ClipTextConfig {
        hidden_size: 64,
        intermediate_size: 128,
        projection_dim: 64,
        num_hidden_layers: 1,
        num_attention_heads: 4,
        ..ClipTextConfig::vit_l()
    };
    let unet = UNetConfig {
        block_out_channels: vec![32, 64, 64, 64],
        cross_attention_dim: 64.into(),
        sample_size: Some(8.into()),
        ..UNetConfig::sd15()
    };
    let vae = VaeConfig { block_out_channels: vec![32, 32, 64, 64], ..VaeConfig::sd15() };
    let options = SaveOptions::default();
    let named = |class: &str, mut config: Value| {
        config["_class_name"] = class.into();
        config
    };
    let text_json = serde_json::to_value(&text).expect("a configuration");
    let unet_json = named("UNet2DConditionModel", serde_json::to_value(&unet).expect("a configuration"));
    let vae_json = named("AutoencoderKL", serde_json::to_value(&vae).expect("a configuration"));
    let scheduler: Value = serde_json::from_str(&SchedulerConfig::default().to_json()).expect("JSON");

    let mut folder = FolderWriter::create(path, "StableDiffusionPipeline").expect("a folder");
    let text = text.init(device).expect("a text encoder");
    folder.component(Component::TextEncoder, &text, &text_json, &options).expect("a written text encoder");
    let unet = unet.init(device).expect("a U-Net");
    folder.component(Component::UNet, &unet, &unet_json, &options).expect("a written U-Net");
    let vae = vae.init(device).expect("a VAE");
    folder.component(Component::Vae, &vae, &vae_json, &options).expect("a written VAE");
    folder.scheduler(&scheduler).expect("a written scheduler");
    folder.finish().expect("a written model");
}

/// Writes a whole CLIP model with random weights, with the names of transformers.
fn write_preference(path: &Path, device: &Device) {
    let text = ClipTextConfig {
        architectures: vec!["CLIPTextModelWithProjection".to_owned()],
        hidden_size: 64,
        intermediate_size: 96,
        projection_dim: 24,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        ..ClipTextConfig::default()
    };
    let vision = ClipVisionConfig {
        hidden_size: 128,
        intermediate_size: 160,
        projection_dim: 24,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        image_size: 32,
        patch_size: 8,
        ..ClipVisionConfig::default()
    };
    let mut all = parameters(&text.init(device).expect("a text encoder"));
    all.extend(parameters(&vision.init(device).expect("an image encoder")));
    let info = |shape: Vec<usize>| TensorInfo { dtype: Dtype::F32, shape };
    let mut tensors: Vec<(String, TensorInfo)> = all.into_iter().map(|one| (one.name, info(one.shape))).collect();
    tensors.push(("logit_scale".to_owned(), info(Vec::new())));
    let infos: BTreeMap<String, TensorInfo> = tensors.iter().cloned().collect();
    let read = |name: &str| Ok(random(name, infos[name].clone()));
    write_safetensors(path, &BTreeMap::new(), &tensors, read).expect("a written file");
}

/// Returns values that look random and are the same in every run: about 1 for the weights of norms, else about 0.
fn random(name: &str, info: TensorInfo) -> HostTensor {
    let middle: f32 = if info.shape.len() == 1 && name.ends_with(".weight") { 1.0 } else { 0.0 };
    let mut state = name.bytes().fold(7_u64, |state, byte| state.wrapping_mul(31).wrapping_add(byte.into()));
    let mut value = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        middle + 0.3 * ((state >> 40) as f32 / (1 << 23) as f32 - 1.0)
    };
    let bytes = (0..info.elements()).flat_map(|_| value().to_le_bytes()).collect();
    HostTensor { info, bytes }
}

fn cat_and_dog(records: &[ImageRecord]) {
    // Both prompts are run, though more were asked for.
    assert_eq!(records.len(), 2 * SIZES.iter().product::<usize>());
    for record in records {
        assert_eq!(record.prompt, ["a cat", "a dog"][record.case]);
        assert!(record.score.is_some_and(|score| (-100.0..=100.0).contains(&score)), "{record:?}");
        assert_eq!(record.liked_similarity.is_some(), record.round > 0);
    }
}

#[test]
fn prompts_of_every_format_are_run_and_more_than_there_are_is_all() {
    let place = Place::new();
    let files = [
        ("hps.json", r#"[{"prompt": "a cat", "human_preference": 0}, {"prompt": "a dog", "human_preference": 1}]"#),
        ("parti.tsv", "Prompt\tCategory\na cat\tAnimals\na dog\tAnimals\n"),
        ("lines.txt", "a cat\na dog\n"),
    ];
    for (name, text) in files {
        cat_and_dog(&place.run("preference", &place.prompts(name, text), 9).expect(name));
    }
    for (name, colour) in [("0.png", [200, 30, 30]), ("1.png", [30, 30, 200])] {
        Image::filled(48, 48, colour).expect("an image").save(place.path(name)).expect("a file");
    }
    let table = place.prompts("prompthero.csv", "image,prompt\n0.png,a cat\n1.png,a dog\n");
    cat_and_dog(&place.run("target", &table, 9).expect("targets"));
}

#[test]
fn experiments_with_target_images_refuse_prompts_without() {
    let place = Place::new();
    let path = place.prompts("lines.txt", "a cat\na dog\n");
    let from_run = place.run("window", &path, 2).expect_err("no targets");
    let prompts = PromptSet::open(&path).expect("prompts");
    let subject = place.subject(&prompts);
    let from_subject = subject.case(0, Feedback::Target).expect_err("no target");
    for error in [from_run, from_subject] {
        assert!(matches!(error, ExperimentError::NoTarget { .. }), "{error:?}");
        let message = error.to_string();
        assert!(
            message.contains("\"a cat\"")
                && message.contains(
                    "run one of preference, sides, sweep, diversity, without-guidance, search, or give a CSV"
                ),
            "{message}"
        );
    }
    assert!(!path.with_extension("run").exists(), "nothing was begun");
    assert!(subject.case(1, Feedback::Preference).is_ok());
    let message = subject.case(2, Feedback::Preference).expect_err("too far").to_string();
    assert!(message.contains("expected less than 2"), "{message}");
}

#[test]
fn a_run_is_resumed_only_with_the_same_files() {
    let place = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = place.path().join(name);
        fs::write(&path, text).expect("a file");
        path
    };
    let (model, preference, lora) = (file("model", "m"), file("clip", "c"), file("lora", "l"));
    let table = file("prompts.csv", "image,prompt\n0.png,a cat\n");
    file("0.png", "one image");
    let experiment = Experiment::named("preference", &BTreeMap::new()).expect("an experiment").with_lora();
    let open_on = |device: &DeviceKind,
                   keep_images: usize,
                   scale: f32,
                   negative_prompt: Option<&str>|
     -> Result<RunFolder, ExperimentError> {
        let prompts = PromptSet::open(&table).expect("prompts");
        let lora = LoraChoice { path: lora.clone(), scale };
        let inputs = Inputs {
            model: &model,
            prompts: Some(PromptInputs { path: &table, format: None, prompts: &prompts, preference: &preference }),
            lora: Some(&lora),
            negative_prompt,
            device,
        };
        let settings = Settings::default();
        let (config, _) = configured(&experiment, &inputs.identify()?, &settings, SIZES, keep_images, 0);
        RunFolder::open(&place.path().join("run"), &config, SIZES.iter().product())
    };
    let open = |scale: f32, negative_prompt: Option<&str>| open_on(&DeviceKind::Cuda(0), 4, scale, negative_prompt);
    #[track_caller]
    fn refused(opened: Result<RunFolder, ExperimentError>, name: &str) {
        let error = opened.expect_err("other inputs");
        assert!(matches!(error, ExperimentError::OtherSettings { .. }), "{error:?}");
        assert!(error.to_string().contains(&format!(" {name} was ")), "{error}");
    }

    drop(open(0.8, None).expect("a new run"));
    drop(open(0.8, None).expect("the same run"));
    refused(open(1.0, None), "lora.scale");
    refused(open(0.8, Some("blurry")), "negative_prompt");
    refused(open_on(&DeviceKind::Flex, 4, 0.8, None), "computation.device");
    refused(open_on(&DeviceKind::Cuda(0), 5, 0.8, None), "keep_images");
    // Shards of one run may use several GPUs.
    drop(open_on(&DeviceKind::Cuda(1), 4, 0.8, None).expect("another GPU"));
    for (name, text, other, setting) in [
        ("model", "m", "M", "model.hash"),
        ("clip", "c", "C", "preference.hash"),
        ("lora", "l", "L", "lora.hash"),
        ("0.png", "one image", "another", "prompts.hash"),
        ("prompts.csv", "image,prompt\n0.png,a cat\n", "image,prompt\n0.png,a dog\n", "prompts.hash"),
    ] {
        file(name, other);
        refused(open(0.8, None), setting);
        file(name, text);
    }
    drop(open(0.8, None).expect("the first files again"));
}

#[test]
fn the_program_names_broken_lines_and_says_which_experiments_can_run() {
    let place = Place::new();
    let prompts = place.prompts("prompts.jsonl", "{\"prompt\": \"a cat\"}\nno JSON\n");
    let program = |experiment: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fabric-experiments"));
        command.args([experiment, "--limit", "5", "--rounds", "1", "--images", "2", "--steps", "2"]);
        command.arg("--model").arg(place.path("model")).arg("--prompts").arg(&prompts);
        command.arg("--preference").arg(place.path("clip.safetensors")).arg("--out").arg(place.path("out"));
        let output = command.output().expect("the program");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let (is_done, out, error) = program("preference");
    assert!(is_done, "{error}");
    assert!(out.contains("prompts.jsonl: 1 prompts, 1 lines left out"), "{out}");
    assert!(out.contains("line 2: not valid JSON"), "{out}");
    assert!(out.contains("--limit 5: the file has 1 prompts"), "{out}");
    let report = fs::read_to_string(place.path("out/preference/report.html")).expect("a report");
    assert!(
        report.contains("--limit 1") && report.contains("--model model --prompts prompts.jsonl"),
        "the command names the prompts"
    );

    let (is_done, _, error) = program("all");
    assert!(
        !is_done
            && error
                .contains("run one of preference, sides, sweep, diversity, without-guidance, search, or give a CSV"),
        "{error}"
    );
}
