//! Training, resuming and saving adapters, on the golden models.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;
use fabric::core::image::Image;
use fabric::core::models::UNetModel;
use fabric::core::schedule::SchedulerConfig;
use fabric::ipadapter::ResamplerConfig;
use fabric::ipadapter::train::{
    AdapterOptions, AdapterTask, Dataset, Partners, TaskOptions, first_weights, first_weights_of_instruct,
    published_settings,
};
use fabric::ipadapter::{AdapterConfig, AdapterFile, AdapterWeights, IpAdapter, ProjectionConfig, numbered_layers};
use fabric::models::clip::{ClipVision, ClipVisionConfig};
use fabric::models::load::{
    ComponentFolder, LoadDtype, LoadOptions, PublishedNames, SafetensorsFile, TensorSource, load_into,
};
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::train::{TrainError, TrainSettings, Trainer};
use fabric::models::unet::{UNet, UNetConfig};
use fabric::models::{ModelOptions, StableDiffusion};

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models")
}

fn devices() -> [Device; 2] {
    let plain = fabric::default_device().expect("a device");
    [plain.clone(), plain.autodiff()]
}

fn weights(name: &str) -> SafetensorsFile {
    SafetensorsFile::open(models().join(name)).expect("weights")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(models().join(name)).expect("settings")
}

fn loaded<M: Module + PublishedNames>(module: M, file: &SafetensorsFile) -> M {
    load_into(module, file, &LoadOptions::default()).expect("a network").0
}

fn unet(device: &Device) -> UNet {
    let config = UNetConfig::from_json(&text("unet/config.json")).expect("a configuration");
    loaded(config.init(device).expect("a network"), &weights("unet/diffusion_pytorch_model.safetensors"))
}

/// Returns the golden networks, frozen.
fn partners() -> Partners {
    let [plain, tracking] = devices();
    let options = ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() };
    let (model, _) = StableDiffusion::open(models(), &plain, &options).expect("a model");
    let vision = ComponentFolder::open(models().join("image_encoder"), None).expect("a folder");
    let network = vision.config::<ClipVisionConfig>().expect("settings").init(&plain).expect("a network");
    let vision: ClipVision = loaded(network, &weights("image_encoder/model.safetensors"));
    Partners {
        unet: Arc::new(model.unet.fork(&tracking).no_grad()),
        autoencoder: Arc::new(model.vae),
        text: Arc::new(model.text),
        vision: Arc::new(vision),
    }
}

fn scheduler() -> SchedulerConfig {
    SchedulerConfig::from_json(&text("scheduler/scheduler_config.json")).expect("a schedule")
}

/// Writes a data set of two single-coloured images.
fn data(folder: &Path) -> Dataset {
    for (name, colour) in [("red.png", [250, 20, 30]), ("blue.png", [20, 40, 240])] {
        Image::filled(40, 32, colour).expect("an image").save(folder.join(name)).expect("saved");
    }
    let lines = [
        r#"{"image": "red.png", "text": "red", "task": "colour"}"#,
        r#"{"image": "blue.png", "condition": "red.png", "text": "blue", "instruction": "use nothing"}"#,
    ];
    std::fs::write(folder.join("data.jsonl"), lines.join("\n")).expect("written");
    Dataset::open(folder.join("data.jsonl"), 0).expect("examples")
}

fn options() -> AdapterOptions {
    let colour = TaskOptions { instructions: vec!["use the colour".to_owned()], ..TaskOptions::default() };
    AdapterOptions { size: 32, tasks: [("colour".to_owned(), colour)].into(), ..AdapterOptions::default() }
}

fn settings(steps: u64) -> TrainSettings {
    // No weight decay: it would change weights that receive no gradient.
    TrainSettings { steps, batch: 2, rate: 3e-3, save_every: 4, weight_decay: 0.0, ..published_settings() }
}

/// Returns the configuration and the initial weights for training an adapter like a golden one.
fn begin(kind: &str) -> (AdapterConfig, AdapterWeights) {
    let [_, tracking] = devices();
    let file = AdapterFile::open(models().join(format!("ip_adapter/{kind}.safetensors"))).expect("a file");
    let config = file.config().expect("an adapter");
    let source = weights("unet/diffusion_pytorch_model.safetensors");
    let layers = unet(&tracking).cross_attentions();
    let first = match kind {
        "instruct" => {
            let place = tempfile::tempdir().expect("a folder");
            let plus = plus(&config, place.path());
            first_weights_of_instruct(&config, &AdapterFile::open(plus).expect("a file"), &tracking)
        }
        _ => first_weights(&config, &layers, &source, &tracking),
    };
    (config, first.expect("first weights"))
}

/// Writes a plus adapter with an Instruct adapter's sizes, which the golden set lacks: random, with the U-Net's key and
/// value weights.
fn plus(config: &AdapterConfig, folder: &Path) -> PathBuf {
    let ProjectionConfig::Instruct { resampler, .. } = config.projection else { panic!("{config}") };
    let plus = AdapterConfig { projection: ProjectionConfig::Resampler(resampler), ..config.clone() };
    let [plain, _] = devices();
    let source = weights("unet/diffusion_pytorch_model.safetensors");
    let random = first_weights(&plus, &unet(&plain).cross_attentions(), &source, &plain).expect("first weights");
    let path = folder.join("plus.safetensors");
    IpAdapter::new(plus, random).expect("an adapter").save(&path, LoadDtype::F32).expect("saved");
    path
}

/// Creates a trainer that starts from the weights in a file, so that two runs start from identical bits.
fn trainer(first: &Path, folder: &Path, steps: u64) -> Result<Trainer<AdapterTask>, TrainError> {
    let [_, tracking] = devices();
    let first = IpAdapter::open(first, &tracking).expect("an adapter");
    let (settings, data) = (settings(steps), data(folder));
    let task = AdapterTask::new(first.config(), partners(), &scheduler(), data, &settings, &options()).expect("a task");
    Trainer::new(task, first.weights().clone(), &settings, folder.join("run"), &tracking, 1)
}

fn bits(weights: &AdapterWeights, folder: &Path) -> Vec<u8> {
    let path = folder.join("bits.safetensors");
    fabric::models::load::save_weights(weights, &path, LoadDtype::F32).expect("saved");
    std::fs::read(path).expect("a file")
}

#[test]
fn adapters_learn_and_a_resumed_run_ends_with_the_same_bits() {
    for kind in ["base", "plus", "instruct"] {
        let (whole, cut) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let (config, first) = begin(kind);
        let begun = whole.path().join("first.safetensors");
        IpAdapter::new(config.clone(), first).expect("an adapter").save(&begun, LoadDtype::F32).expect("saved");
        let mut at_once = trainer(&begun, whole.path(), 8).expect("a trainer");
        let before = bits(at_once.model(), whole.path());
        while !at_once.is_done() {
            at_once.step().expect("a step");
        }
        let after = bits(&at_once.averaged(), whole.path());
        assert!(before != after, "{kind} learned nothing");

        let mut first = trainer(&begun, cut.path(), 8).expect("a trainer");
        for _ in 0..6 {
            first.step().expect("a step");
        }
        drop(first);
        let mut second = trainer(&begun, cut.path(), 8).expect("a trainer");
        assert_eq!(second.steps_done(), 4, "{kind}: the last checkpoint");
        while !second.is_done() {
            second.step().expect("a step");
        }
        assert!(bits(&second.averaged(), cut.path()) == after, "{kind}: other bits");

        // The trained adapter can be saved and loaded like any other.
        let path = whole.path().join("adapter.safetensors");
        let learned = IpAdapter::new(config, at_once.averaged()).expect("an adapter");
        learned.save(&path, LoadDtype::F16).expect("saved");
        let opened = IpAdapter::open(&path, &devices()[0]).expect("an adapter");
        assert_eq!(opened.config(), learned.config(), "{kind}");
    }
}

#[test]
fn lines_whose_images_cannot_be_read_are_left_out_as_often_as_allowed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (config, first) = begin("base");
    data(folder.path());
    // A truncated file: it has an image's name and header, but cannot be decoded.
    let whole = std::fs::read(folder.path().join("red.png")).expect("an image");
    std::fs::write(folder.path().join("cut.png"), &whole[..40]).expect("written");
    let lines = [r#"{"image": "cut.png", "text": "red"}"#, r#"{"image": "blue.png", "text": "blue"}"#];
    std::fs::write(folder.path().join("data.jsonl"), lines.join("\n")).expect("written");
    let (settings, options) = (settings(4), AdapterOptions { size: 32, ..AdapterOptions::default() });
    let run = |most: usize| {
        let data = Dataset::open(folder.path().join("data.jsonl"), most).expect("examples");
        let task = AdapterTask::new(&config, partners(), &scheduler(), data, &settings, &options).expect("a task");
        let [_, tracking] = devices();
        let place = folder.path().join(format!("run-{most}"));
        let mut trainer = Trainer::new(task, first.clone(), &settings, place, &tracking, 1).expect("a trainer");
        while !trainer.is_done() {
            trainer.step()?;
        }
        Ok::<_, TrainError>(trainer.task().broken())
    };
    let broken = run(1).expect("the other line is enough");
    assert_eq!(broken.len(), 1, "{broken:?}");
    assert!(broken[0].line == 1 && broken[0].reason.contains("cut.png"), "{broken:?}");
    let message = run(0).expect_err("none may be broken").to_string();
    assert!(message.contains("lines that cannot be used: expected at most 0, got 1"), "{message}");
    assert!(message.contains("line 1: ") && message.contains("cut.png"), "{message}");
    std::fs::write(folder.path().join("data.jsonl"), lines[0]).expect("written");
    let message = run(9).expect_err("none can be read").to_string();
    assert!(message.contains("no image of the data can be read; line 1") && message.contains("cut.png"), "{message}");
    // An example that is almost never drawn must be found when all others are skipped.
    let rare = r#"{"image": "blue.png", "text": "blue", "task": "rare"}"#;
    std::fs::write(folder.path().join("data.jsonl"), [lines[0], rare].join("\n")).expect("written");
    let task = TaskOptions { weight: 1e-20, ..TaskOptions::default() };
    let options = AdapterOptions { tasks: [("rare".to_owned(), task)].into(), ..options };
    let data = Dataset::open(folder.path().join("data.jsonl"), 1).expect("examples");
    let task = AdapterTask::new(&config, partners(), &scheduler(), data, &settings, &options).expect("a task");
    let place = folder.path().join("rare");
    let mut trainer = Trainer::new(task, first, &settings, place, &devices()[1], 1).expect("a trainer");
    trainer.step().expect("a step");
}

#[test]
fn one_batch_again_and_again_is_learned() {
    use fabric::models::train::{Optimizer, Task};
    let [_, tracking] = devices();
    let settings = settings(60);
    let options = AdapterOptions { drop_image: 0.0, drop_text: 0.0, drop_both: 0.0, ..options() };
    for kind in ["base", "plus", "instruct"] {
        let folder = tempfile::tempdir().expect("a folder");
        let (config, mut model) = begin(kind);
        let data = data(folder.path());
        let task = AdapterTask::new(&config, partners(), &scheduler(), data, &settings, &options).expect("a task");
        let batches = task.batches();
        let mut optimizer = Optimizer::new(&model, &settings);
        let mut losses = Vec::new();
        for step in 0..60 {
            let loss = task.loss(&model, batches(3), &tracking).expect("a loss");
            losses.push(loss.clone().into_scalar::<f64>());
            let gradients = burn::optim::GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(model, gradients, 3e-3, step).0;
        }
        let (first, last) = (losses[0], losses[59]);
        assert!(last < 0.9 * first, "{kind}: {first} to {last}");
    }
}

#[test]
fn smaller_scales_of_the_image_prompt_change_the_loss_continuously() {
    use fabric::models::train::Task;
    let [_, tracking] = devices();
    let settings = TrainSettings { batch: 1, ..settings(4) };
    let folder = tempfile::tempdir().expect("a folder");
    let (config, model) = begin("base");
    let loss = |least_scale: f64| {
        let kept = AdapterOptions { drop_image: 0.0, drop_text: 0.0, drop_both: 0.0, ..options() };
        let options = AdapterOptions { least_scale, ..kept };
        let data = data(folder.path());
        let task = AdapterTask::new(&config, partners(), &scheduler(), data, &settings, &options).expect("a task");
        task.loss(&model, task.batches()(3), &tracking).expect("a loss").into_scalar::<f64>()
    };
    let whole = loss(1.0);
    assert!((loss(0.999_999) - whole).abs() < 1e-4 * whole, "the same example, with almost the same scale");
    assert!((loss(0.01) - whole).abs() > 1e-4 * whole, "a scale between 0.01 and 1");
}

#[test]
fn several_image_prompts_of_an_example_share_one_softmax() {
    use fabric::models::train::Task;
    let [_, tracking] = devices();
    let settings = TrainSettings { batch: 1, ..settings(4) };
    let folder = tempfile::tempdir().expect("a folder");
    data(folder.path());
    let (config, model) = begin("base");
    let kept = AdapterOptions { drop_image: 0.0, drop_text: 0.0, drop_both: 0.0, most_images: 3, ..options() };
    // Losses of the first batches, whose numbers of image prompts are random.
    let losses = |more: &str| -> Vec<f64> {
        let line = format!(r#"{{"image": "red.png", "text": "red", "more": [{more}]}}"#);
        std::fs::write(folder.path().join("data.jsonl"), line).expect("written");
        let data = Dataset::open(folder.path().join("data.jsonl"), 0).expect("an example");
        let task = AdapterTask::new(&config, partners(), &scheduler(), data, &settings, &kept).expect("a task");
        let loss = |number| task.loss(&model, task.batches()(number), &tracking).expect("a loss").into_scalar::<f64>();
        (0..6).map(loss).collect()
    };
    let alone = losses("");
    let near = |a: &f64, b: &f64| (a - b).abs() < 1e-4 * b;
    let same = losses(r#"{"condition": "red.png"}, {"condition": "red.png"}"#);
    assert!(
        alone.iter().zip(&same).all(|(a, b)| near(a, b)),
        "the same image again changes nothing: {alone:?} {same:?}"
    );
    let other = losses(r#"{"condition": "blue.png"}, {"condition": "blue.png"}"#);
    let changed = alone.iter().zip(&other).filter(|(a, b)| !near(a, b)).count();
    assert!((1..6).contains(&changed), "batches with several have another loss: {alone:?} {other:?}");
}

#[test]
fn instruct_begins_as_the_plus_adapter_that_hardly_hears_instructions() {
    let [plain, _] = devices();
    let config = begin("instruct").0;
    let folder = tempfile::tempdir().expect("a folder");
    let plus = plus(&config, folder.path());
    let first = first_weights_of_instruct(&config, &AdapterFile::open(&plus).expect("a file"), &plain);
    let path = folder.path().join("first.safetensors");
    let first = IpAdapter::new(config.clone(), first.expect("first weights")).expect("an adapter");
    first.save(&path, LoadDtype::F32).expect("saved");
    let saved = SafetensorsFile::open(path).expect("a file");
    let plus = SafetensorsFile::open(plus).expect("a file");
    for name in plus.tensors().keys() {
        assert!(saved.read(name).expect("a tensor") == plus.read(name).expect("a tensor"), "{name}");
    }
    let largest = |name: &str| {
        let bytes = saved.read(name).expect("a tensor").bytes;
        bytes.as_chunks::<4>().0.iter().fold(0.0_f32, |most, value| most.max(f32::from_le_bytes(*value).abs()))
    };
    let mut quiet = 0;
    for name in saved.tensors().keys().filter(|name| name.ends_with(".1.3.weight")) {
        let new = name.contains("prompt_layers") || name.contains("new_input_layers");
        assert_eq!(largest(name) < 1e-3, new, "{name}: {}", largest(name));
        quiet += usize::from(new);
    }
    assert!(quiet >= 2, "{quiet}");
    // Instruct weights cannot be initialised from a base adapter.
    let base = AdapterFile::open(models().join("ip_adapter/base.safetensors")).expect("a file");
    let message = first_weights_of_instruct(&config, &base, &plain).expect_err("a base adapter").to_string();
    assert!(
        message.contains("got an adapter of pooled features") && message.contains("expected a plus adapter"),
        "{message}"
    );
}

#[test]
fn training_begins_with_the_u_nets_own_keys_and_values() {
    let [plain, tracking] = devices();
    let (config, first) = begin("base");
    let source = weights("unet/diffusion_pytorch_model.safetensors");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("first.safetensors");
    IpAdapter::new(config, first).expect("an adapter").save(&path, LoadDtype::F32).expect("saved");
    let saved = SafetensorsFile::open(path).expect("a file");
    for (index, layer) in numbered_layers(&unet(&tracking).cross_attentions()).iter().enumerate() {
        let number = 2 * index + 1;
        for half in ["to_k", "to_v"] {
            let own = saved.read(&format!("ip_adapter.{number}.{half}_ip.weight")).expect("a tensor");
            assert_eq!(own, source.read(&format!("{}.{half}.weight", layer.site)).expect("a tensor"));
        }
    }
    // An adapter for another U-Net cannot be initialised from this U-Net's weights.
    let (config, _) = begin("base");
    let other = AdapterConfig { widths: config.widths[1..].to_vec(), ..config };
    let layers = unet(&plain).cross_attentions();
    assert!(first_weights(&other, &layers, &source, &plain).is_err());
    // FaceID adapters cannot be trained, and image sizes must fit the VAE.
    let face = AdapterConfig { projection: ProjectionConfig::Face { identity: 8, tokens: 2 }, ..begin("base").0 };
    let new = |config: &AdapterConfig, options: &AdapterOptions| {
        let (data, settings) = (data(folder.path()), settings(1));
        AdapterTask::new(config, partners(), &scheduler(), data, &settings, options).map_err(|error| error.to_string())
    };
    assert!(new(&face, &options()).expect_err("a face").contains("identities of faces"));
    let odd = AdapterOptions { size: 33, ..options() };
    assert!(new(&begin("base").0, &odd).expect_err("33 pixels").contains("got 33"));
    let resampler = ResamplerConfig { features: 1, channels: 64, heads: 1, depth: 1, factor: 1, tokens: 1, context: 1 };
    let wrong = AdapterConfig { projection: ProjectionConfig::Resampler(resampler), ..begin("base").0 };
    assert!(
        first_weights_of_instruct(
            &wrong,
            &AdapterFile::open(models().join("ip_adapter/plus.safetensors")).expect("a file"),
            &plain
        )
        .is_err()
    );
}
