//! Fixtures made with diffusers: `control` (`tests/fixtures/make_control.py`) has ControlNet's guess mode, all types of
//! T2I-Adapter and whole inpainting runs; `control_xl` (`make_control_xl.py`) has SDXL ControlNets, one with global
//! pooling; `guidance_scale` (`make_guidance_scale.py`) has a U-Net that reads its guidance scale.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fabric::core::image::Image;
use fabric::core::models::{AddedConditions, Residuals, TextEmbedding, TextEncoder, TextOptions, UNetInput, UNetModel};
use fabric::core::noise::{Draw, RunNoise};
use fabric::core::pipeline::{Pipeline, Request, Settings, StepEvent};
use fabric::core::schedule::SchedulerConfig;
use fabric::models::control::{ControlNet, ControlNetConfig, T2IAdapter, T2IAdapterConfig};
use fabric::models::load::{
    Dtype, HostTensor, LoadError, LoadOptions, PublishedNames, TensorInfo, TensorSource, load_into,
};
use fabric::models::unet::{UNet, UNetConfig};
use serde_json::Value;

use super::harness::{Golden, device, fixtures};
use super::{controlnet, model};

/// Weight file with the fixture's tensors under a prefix.
#[derive(Debug)]
struct Weights {
    tensors: BTreeMap<String, TensorInfo>,
    values: BTreeMap<String, Vec<u8>>,
}

impl Weights {
    fn of(golden: &Golden, prefix: &str) -> Self {
        let (mut tensors, mut values) = (BTreeMap::new(), BTreeMap::new());
        for key in golden.keys() {
            let Some(name) = key.strip_prefix(prefix) else { continue };
            tensors.insert(name.to_owned(), TensorInfo { dtype: Dtype::F32, shape: golden.shape(&key) });
            let bytes = golden.values(&key).into_iter().flat_map(|value| (value as f32).to_le_bytes());
            values.insert(name.to_owned(), bytes.collect());
        }
        Self { tensors, values }
    }
}

impl TensorSource for Weights {
    fn place(&self) -> String {
        "the fixture".to_owned()
    }

    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&self, name: &str) -> Result<HostTensor, LoadError> {
        Ok(HostTensor { info: self.tensors[name].clone(), bytes: self.values[name].clone() })
    }
}

fn loaded<M: Module + PublishedNames>(module: M, weights: &Weights) -> M {
    load_into(module, weights, &LoadOptions::default()).unwrap_or_else(|e| panic!("{e}")).0
}

/// Folder of this repository's golden networks, with which the fixture was made. Ignores `FABRIC_GOLDENS`.
fn own_folder() -> PathBuf {
    fixtures().with_file_name("golden")
}

fn settings(name: &str) -> Value {
    let text = std::fs::read_to_string(fixtures().join(name)).expect("settings");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn control_networks_and_inpainting_equal_diffusers() {
    let (golden, device) = (Golden::fixture("control"), device());
    let settings = settings("control.json");
    guess_mode(&golden, &device);
    for (name, config) in settings["t2i"].as_object().expect("adapters") {
        t2i_adapter(&golden, name, config, &settings["unet"]);
    }
    let runs = settings["inpaint"].as_object().expect("runs");
    for (name, run) in runs {
        inpainting(&golden, name, run);
    }
    golden.finish();
}

#[test]
fn control_networks_of_the_large_model_equal_diffusers() {
    let (golden, device) = (Golden::fixture("control_xl"), device());
    let settings = settings("control_xl.json");
    let unet = UNetConfig::from_json(&settings["unet"].to_string()).expect("a configuration");
    let unet: UNet = loaded(unet.init(&device).expect("a network"), &Weights::of(&golden, "unet/"));
    let number = |name: &str| settings[name].as_f64().expect("a number");
    let timestep = [number("timestep")];
    let input = || {
        let added =
            AddedConditions { pooled: golden.tensor("pooled", &device), time_ids: golden.tensor("time_ids", &device) };
        let input = UNetInput::new(golden.tensor("sample", &device), &timestep, golden.tensor("context", &device));
        UNetInput { added: Some(added), ..input }
    };
    for (name, case) in settings["cases"].as_object().expect("cases") {
        let mut config = settings["control"].clone();
        config["global_pool_conditions"] = case["pools"].clone();
        let config = ControlNetConfig::from_json(&config.to_string()).expect("a configuration");
        let network: ControlNet = loaded(config.init(&device).expect("a network"), &Weights::of(&golden, "control/"));
        let hint = network.read(golden.tensor("cond", &device));
        let added = network.forward(&input(), hint, number("scale"), case["guess"] == true);
        for (index, x) in added.down.iter().enumerate() {
            golden.compare(&format!("{name}/down/{index}"), x.clone());
        }
        golden.compare(&format!("{name}/mid"), added.mid.clone().expect("a share for the middle"));
        let predicted = unet.forward(UNetInput { residuals: Some(&added), ..input() });
        golden.compare(&format!("{name}/out"), predicted.sample.expect("a prediction"));
    }
    golden.finish();
}

#[test]
fn a_network_that_reads_its_guidance_scale_equals_diffusers() {
    let (golden, device) = (Golden::fixture("guidance_scale"), device());
    let settings = settings("guidance_scale.json");
    let unet = UNetConfig::from_json(&settings["unet"].to_string()).expect("a configuration");
    let unet: UNet = loaded(unet.init(&device).expect("a network"), &Weights::of(&golden, "unet/"));
    assert!(unet.reads_guidance_scale());
    let timestep = [settings["timestep"].as_f64().expect("a number")];
    for scale in settings["scales"].as_array().expect("scales") {
        let input = UNetInput::new(golden.tensor("sample", &device), &timestep, golden.tensor("context", &device));
        let predicted = unet.forward(UNetInput { guidance_scale: scale.as_f64(), ..input });
        golden.compare(&format!("{scale}/out"), predicted.sample.expect("a prediction"));
    }
    golden.finish();
}

const TIME: [f64; 1] = [444.0];

fn guess_mode(golden: &Golden, device: &Device) {
    let network = controlnet::load_in(&own_folder());
    let hint = network.read(golden.tensor("guess/cond", device));
    let input = UNetInput::new(golden.tensor("guess/sample", device), &TIME, golden.tensor("guess/context", device));
    let added = network.forward(&input, hint, 0.7, true);
    for (index, x) in added.down.iter().enumerate() {
        golden.compare(&format!("guess/down/{index}"), x.clone());
    }
    golden.compare("guess/mid", added.mid.expect("a share for the middle"));
}

fn t2i_adapter(golden: &Golden, name: &str, config: &Value, large: &Value) {
    let device = device();
    let key = |part: &str| format!("t2i/{name}/{part}");
    let config = T2IAdapterConfig::from_json(&config.to_string()).expect("a configuration");
    let adapter: T2IAdapter = loaded(config.init(&device).expect("a network"), &Weights::of(golden, &key("weights/")));
    let levels = adapter.forward(golden.tensor(&key("picture"), &device));
    for (index, x) in levels.iter().enumerate() {
        golden.compare(&key(&format!("features/{index}")), x.clone());
    }
    if !golden.has(&key("out")) {
        return;
    }
    let own = golden.has(&key("sample"));
    let (unet, from) = if own {
        let config = UNetConfig::from_json(&large.to_string()).expect("a configuration");
        (loaded(config.init(&device).expect("a network"), &Weights::of(golden, &key("unet/"))), format!("t2i/{name}"))
    } else {
        (model::unet_in(&own_folder()), "guess".to_owned())
    };
    let (sample, context) =
        (golden.tensor(&format!("{from}/sample"), &device), golden.tensor(&format!("{from}/context"), &device));
    let residuals = Residuals { levels, ..Residuals::default() };
    let input = UNetInput { residuals: Some(&residuals), ..UNetInput::new(sample, &TIME, context) };
    golden.compare(&key("out"), unet.forward(input).sample.expect("a prediction"));
}

/// Text encoder that returns the fixture's recorded embeddings.
struct Said {
    prompt: Tensor<3>,
    negative: Tensor<3>,
}

impl TextEncoder for Said {
    fn encode(&self, prompts: &[String], _options: &TextOptions) -> Result<TextEmbedding, fabric::core::Error> {
        let rows =
            prompts.iter().map(|text| if text == "prompt" { self.prompt.clone() } else { self.negative.clone() });
        Ok(TextEmbedding { context: Tensor::cat(rows.collect(), 0), pooled: None, truncated: Vec::new() })
    }
}

/// Noise source that replays diffusers' recorded noise in its order.
struct Recorded<'a> {
    golden: &'a Golden,
    name: &'a str,
    /// Whether diffusers' pipeline encodes the init image.
    start: bool,
}

impl RunNoise for Recorded<'_> {
    fn draw(&mut self, what: Draw<'_>, shape: [usize; 4]) -> Result<Tensor<4>, fabric::core::Error> {
        let index = match what {
            Draw::StartPosterior if self.start => 0,
            Draw::StartPosterior => return Ok(Tensor::zeros(shape, &device())),
            Draw::StartNoise => usize::from(self.start),
            Draw::MaskedPosterior => 1 + usize::from(self.start),
            other => panic!("{}: no draw of {other:?}", self.name),
        };
        Ok(self.golden.tensor(&format!("inpaint/{}/drawn/{index}", self.name), &device()))
    }
}

fn inpainting(golden: &Golden, name: &str, run: &Value) {
    let device = device();
    let image = |key: &str| {
        let bytes = golden.values(key).into_iter().map(|value| value as u8).collect();
        let shape = golden.shape(key);
        Image::from_rgb(shape[1], shape[0], bytes).expect("an image")
    };
    let (start, mask) = (image("inpaint/picture"), image("inpaint/mask"));
    let strength = run["strength"].as_f64().expect("a strength");
    let nine = run["nine"] == true;
    let unet = if nine { nine_channels(golden) } else { model::unet_in(&own_folder()) };
    let text =
        Said { prompt: golden.tensor("inpaint/prompt", &device), negative: golden.tensor("inpaint/negative", &device) };
    let scheduler = SchedulerConfig::from_json(&run["scheduler"].to_string()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let vae = Arc::new(model::vae_in(&own_folder()));
    let pipeline = Pipeline::new(Arc::new(unet), vae, Arc::new(text), scheduler, start.width()).expect("a pipeline");
    let settings = Settings { steps: 6, guidance_scale: 5.0, ..Settings::default() };
    let request = Request::new("prompt")
        .with_negative_prompt("negative")
        .with_settings(settings)
        .with_inpainting(start, mask, strength);
    let states = RefCell::new(Vec::new());
    let mut watch = |event: &StepEvent<'_>| {
        states.borrow_mut().push(event.state.clone());
        ControlFlow::Continue(())
    };
    // diffusers does not encode the init image for a nine-channel U-Net that starts from pure noise.
    let encoded = !(nine && strength == 1.0);
    let mut noise = Recorded { golden, name, start: encoded };
    pipeline.generate_with(&request, &mut noise, &mut watch).unwrap_or_else(|e| panic!("{name}: {e}"));
    golden.compare(&format!("inpaint/{name}/states"), Tensor::stack::<5>(states.into_inner(), 0));
    // diffusers also draws noise for the masked image where the U-Net does not use it; mark it as read.
    let unused = format!("inpaint/{name}/drawn/2");
    if !nine && golden.has(&unused) {
        golden.values(&unused);
    }
}

/// Returns the golden U-Net with five additional input channels.
fn nine_channels(golden: &Golden) -> UNet {
    let path = own_folder().join("models/unet");
    let text = std::fs::read_to_string(path.join("config.json")).expect("config.json");
    let config = UNetConfig { in_channels: 9, ..UNetConfig::from_json(&text).expect("a configuration") };
    let file = fabric::models::load::SafetensorsFile::open(path.join("diffusion_pytorch_model.safetensors"));
    let file = file.expect("weights");
    let mut weights = Weights { tensors: file.tensors().clone(), values: BTreeMap::new() };
    for name in file.tensors().keys() {
        weights.values.insert(name.clone(), file.read(name).expect("a tensor").bytes);
    }
    let own = Weights::of(golden, "inpaint/conv_in");
    weights.tensors.insert("conv_in.weight".to_owned(), own.tensors[".weight"].clone());
    weights.values.insert("conv_in.weight".to_owned(), own.values[".weight"].clone());
    loaded(config.init(&device()).expect("a network"), &weights)
}
