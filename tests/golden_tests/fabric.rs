//! Golden file `fabric`: results of the FABRIC authors' code, from one attention layer to whole generations.

use std::collections::VecDeque;

use burn::tensor::{Device, Tensor};
use fabric::backends::ops::weighted_attention;
use fabric::core::attention::{merge_heads, split_heads};
use fabric::core::denoise::ModelCall;
use fabric::core::fabric::{
    BlockWeights, CallWeights, FabricSettings, InBatchReferences, RecordedReferences, ReferenceNoise, ReferencePass,
    ReferencePosterior, ReferenceWeight, WeightedRows,
};
use fabric::core::image::{Fit, Image, vae_batch};
use fabric::core::models::{Record, UNetInput, UNetModel};
use fabric::core::noise::{Draw, RunNoise};
use fabric::core::pipeline::{FeedbackImage, Observer, Request, Settings, StepEvent};
use fabric::models::unet::UNet;

use super::harness::{Golden, device, json, meaning, numbers, relative_error};
use super::model::{pipeline, unet, unet_weight};
use super::pipeline::scheduler;

#[test]
fn fabric_equals_the_authors_code() {
    let golden = Golden::open("fabric");
    let cases = json("fabric.json");
    attention(&golden, cases["attn_module"].as_str().expect("attn_module"));
    let unet = unet();
    recording(&golden, &unet);
    forward(&golden, &unet);
    image_to_tensor(&golden);
    for (name, case) in cases["cases"].as_object().expect("cases") {
        generation(&golden, name, case);
    }
    golden.finish();
}

fn linear(x: Tensor<3>, weight: Tensor<2>) -> Tensor<3> {
    x.matmul(weight.transpose().unsqueeze())
}

/// Returns the number of heads of a layer. The configuration has one number for all levels, or one per level.
fn heads(module: &str) -> usize {
    let heads = &json("models/unet/config.json")["attention_head_dim"];
    let Some(levels) = heads.as_array() else { return heads.as_u64().expect("a number of heads") as usize };
    let block: Option<usize> = module.split('.').nth(1).and_then(|block| block.parse().ok());
    let level = match (module.split('.').next(), block) {
        (Some("down_blocks"), Some(block)) => block,
        (Some("up_blocks"), Some(block)) => levels.len() - 1 - block,
        _ => levels.len() - 1,
    };
    levels[level].as_u64().expect("a number of heads") as usize
}

/// Compares one attention layer with a weight per key.
fn attention(golden: &Golden, module: &str) {
    let device = device();
    let weight = |name: &str| unet_weight::<2>(&format!("{module}.{name}.weight"), &device);
    let heads = heads(module);
    for case in golden.cases_under("attn") {
        let key = |name: &str| format!("attn/{case}/{name}");
        let query = linear(golden.tensor(&key("query"), &device), weight("to_q"));
        let tokens: Tensor<3> = golden.tensor(&key("kv"), &device);
        let (k, v) = (linear(tokens.clone(), weight("to_k")), linear(tokens, weight("to_v")));
        let weights = golden.values(&key("weights"));
        let rows = query.dims()[0];
        let attend = |weighted: bool| {
            let each = (0..rows).map(|row| {
                let one = |x: &Tensor<3>| split_heads(x.clone().slice_dim(0, row..row + 1), heads);
                let keys = weights.len() / rows;
                let runs: Vec<(usize, f32)> =
                    weights[row * keys..(row + 1) * keys].iter().map(|&weight| (1, weight as f32)).collect();
                merge_heads(weighted_attention(one(&query), one(&k), one(&v), if weighted { &runs } else { &[] }))
            });
            let bias = unet_weight::<1>(&format!("{module}.to_out.0.bias"), &device);
            linear(Tensor::cat(each.collect(), 0), weight("to_out.0")) + bias.unsqueeze()
        };
        golden.compare(&key("out"), attend(true));
        golden.compare(&key("out_no_weights"), attend(false));
    }
}

/// Compares the recorded inputs of each self-attention, through the keys and values computed from them.
fn recording(golden: &Golden, unet: &UNet) {
    let device = device();
    let references: Tensor<4> = golden.tensor("ref/z", &device);
    let rows = references.dims()[0];
    let context = golden.tensor::<3>("ref/context", &device).repeat_dim(0, rows);
    let timesteps = [timestep()];
    let mut input = UNetInput::new(references, &timesteps, context);
    input.record = Record::SelfAttentionOnly;
    let recorded = unet.forward(input).recorded;
    assert_eq!(recorded.len(), golden.cases_under("ref/hidden").len(), "self-attention layers");
    for (index, tokens) in recorded.into_iter().enumerate() {
        let name = format!("ref/hidden/{index}");
        let mut worst: f64 = 0.0;
        for (got, projection) in [(tokens.key, "to_k"), (tokens.value, "to_v")] {
            let weight = unet_weight::<2>(&format!("{}.{projection}.weight", tokens.site), &device);
            let expected = linear(golden.tensor(&name, &device), weight);
            assert_eq!(got.dims(), expected.dims());
            let values = |x: Tensor<3>| -> Vec<f64> { x.into_data().convert::<f64>().try_to_vec().expect("f64 data") };
            worst = worst.max(relative_error(&values(got), &values(expected)));
        }
        golden.note(&name, worst);
    }
}

fn timestep() -> f64 {
    let said = meaning("fabric", "forward/both/out", "t=611, pos_weights=(0.8, 0.8), neg_weights=(0.4, 0.4)");
    numbers(&said)[0]
}

/// Compares the U-Net's output with injected references, in the same batch and recorded.
fn forward(golden: &Golden, unet: &UNet) {
    let device = device();
    let counts = numbers(&meaning("fabric", "ref/z", "2 liked then 1 disliked"));
    let (liked, disliked) = (counts[0] as usize, counts[1] as usize);
    let fallback = |case: &str| match case {
        "bottleneck" => "t=611, pos_weights=(0.9, 0.3), neg_weights=(0.5, 0.1)",
        _ => "t=611, pos_weights=(0.8, 0.8), neg_weights=(0.4, 0.4)",
    };
    let sample: Tensor<4> = golden.tensor("forward/z", &device);
    let context: Tensor<3> = golden.tensor("forward/context", &device);
    let references: Tensor<4> = golden.tensor("ref/z", &device);
    let null: Tensor<3> = golden.tensor("ref/context", &device);
    assert_eq!(references.dims()[0], liked + disliked);
    for case in golden.cases_under("forward").into_iter().filter(|case| golden.has(&format!("forward/{case}/out"))) {
        let name = format!("forward/{case}/out");
        let said = numbers(&meaning("fabric", &name, fallback(&case)));
        let timesteps = [said[0]];
        let reference = |rows, at: usize| {
            let to = vec![WeightedRows { rows, weights: CallWeights { shallow: said[at], deep: said[at + 1] } }];
            ReferenceWeight { to, blocks: BlockWeights::default(), dislike: None }
        };
        let mut chosen: Vec<(usize, ReferenceWeight)> = Vec::new();
        if matches!(case.as_str(), "both" | "bottleneck" | "pos_only") {
            chosen.extend((0..liked).map(|row| (row, reference(0..1, 1))));
        }
        if matches!(case.as_str(), "both" | "bottleneck" | "neg_only") {
            chosen.extend((liked..liked + disliked).map(|row| (row, reference(1..2, 3))));
        }
        if chosen.is_empty() {
            assert_eq!(case, "plain", "a case of this name says nothing about its references");
            let input = UNetInput::new(sample.clone(), &timesteps, context.clone());
            golden.compare(&name, unet.forward(input).sample.expect("a prediction"));
            continue;
        }
        let picked =
            Tensor::cat(chosen.iter().map(|(row, _)| references.clone().slice_dim(0, *row..row + 1)).collect(), 0);
        let count = chosen.len();
        let levels = unet.levels();
        let weights: Vec<ReferenceWeight> = chosen.into_iter().map(|(_, weight)| weight).collect();

        let in_batch = InBatchReferences { first: 2, references: weights.clone(), token_merge_ratio: 0.0, levels };
        let input = UNetInput {
            processor: &in_batch,
            reference_rows: count,
            ..UNetInput::new(
                Tensor::cat(vec![sample.clone(), picked.clone()], 0),
                &timesteps,
                Tensor::cat(vec![context.clone(), null.clone().repeat_dim(0, count)], 0),
            )
        };
        let interleaved = unet.forward(input).sample.expect("a prediction");

        let mut input = UNetInput::new(picked, &timesteps, null.clone().repeat_dim(0, count));
        input.record = Record::SelfAttentionOnly;
        let tokens = RecordedReferences::split(unet.forward(input).recorded, 0.0).into_iter().map(std::sync::Arc::new);
        let stored = RecordedReferences { references: weights.into_iter().zip(tokens).collect(), levels };
        let input = UNetInput { processor: &stored, ..UNetInput::new(sample.clone(), &timesteps, context.clone()) };
        let two_passes = unet.forward(input).sample.expect("a prediction");

        golden.compare(&name, interleaved);
        let first = golden.error(&name);
        golden.compare(&name, two_passes);
        golden.note(&name, first.max(golden.error(&name)));
    }
}

fn image_to_tensor(golden: &Golden) {
    let shape = golden.shape("image_to_tensor/in");
    let image = image(golden, "image_to_tensor/in", &shape, 0);
    let expected = golden.shape("image_to_tensor/out_strided");
    // The official code resizes to 512x512; the file keeps every 8th pixel.
    let pixels = vae_batch(&[image], 512, 512, Fit::Squash, &device()).expect("pixels");
    let stride = 512 / expected[1];
    let strided = pixels.slice(burn::tensor::s![0..1, 0..3, 0..512;stride as i32, 0..512;stride as i32]);
    golden.compare("image_to_tensor/out_strided", strided.squeeze_dim::<3>(0));
}

/// Image `index` of a uint8 tensor `[(images,) height, width, 3]`.
pub(super) fn image(golden: &Golden, key: &str, shape: &[usize], index: usize) -> Image {
    let [height, width] = [shape[shape.len() - 3], shape[shape.len() - 2]];
    let bytes: Vec<u8> = golden.values(key).into_iter().map(|x| x as u8).collect();
    let size = height * width * 3;
    Image::from_rgb(width, height, bytes[index * size..(index + 1) * size].to_vec()).expect("an image")
}

/// Noise source that replays the noise of a recorded run, in its order.
struct Recorded<'a> {
    golden: &'a Golden,
    case: &'a str,
    device: Device,
    steps: VecDeque<String>,
}

impl RunNoise for Recorded<'_> {
    fn draw(&mut self, what: Draw<'_>, shape: [usize; 4]) -> Result<Tensor<4>, fabric::core::Error> {
        let name = match what {
            Draw::Latents => "z".to_owned(),
            Draw::Step => self.steps.pop_front().expect("a draw for every step"),
            Draw::ReferencePosterior { liked: true, .. } => "vae_pos".to_owned(),
            Draw::ReferencePosterior { liked: false, .. } => "vae_neg".to_owned(),
            Draw::Reference { call, .. } => format!("ref/{}", call.index),
            Draw::StartPosterior | Draw::StartNoise | Draw::MaskedPosterior => {
                panic!("no draw of {what:?} in this file")
            }
        };
        let noise: Tensor<4> = self.golden.tensor(&format!("{}/noise/{name}", self.case), &self.device);
        assert_eq!(noise.dims(), shape, "{}/noise/{name}", self.case);
        Ok(noise)
    }
}

/// Compares the intermediate values of a run, step by step.
struct Watch<'a> {
    golden: &'a Golden,
    case: &'a str,
    timesteps: Vec<f64>,
    predictions: Vec<Tensor<4>>,
    states: Vec<Tensor<4>>,
    passes: u64,
}

impl Observer for Watch<'_> {
    fn step(&mut self, event: &StepEvent<'_>) -> std::ops::ControlFlow<()> {
        self.states.push(event.state.clone());
        std::ops::ControlFlow::Continue(())
    }

    fn references(&mut self, call: &ModelCall, noised: &Tensor<4>) {
        self.passes += 1;
        self.golden.compare(&format!("{}/ref_noised/{}", self.case, call.index), noised.clone());
    }

    fn predictions(&mut self, call: &ModelCall, predictions: &Tensor<4>) {
        self.timesteps.push(call.level.timestep);
        self.predictions.push(predictions.clone());
    }
}

/// Compares a whole run of the authors' `generate`, with their noise.
fn generation(golden: &Golden, name: &str, case: &serde_json::Value) {
    let number = |key: &str, default: f64| case.get(key).map_or(default, |value| value.as_f64().expect("a number"));
    let count = |key: &str| case[key].as_u64().expect("a count") as usize;
    let text = |key: &str| case.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    // Missing settings have the defaults of the authors' `generate`.
    let official = FabricSettings::official_api();
    let fabric = FabricSettings {
        start: number("feedback_start", official.start),
        end: number("feedback_end", official.end),
        min_weight: number("min_weight", official.min_weight),
        max_weight: number("max_weight", official.max_weight),
        negative_scale: number("neg_scale", official.negative_scale),
        liked_bottleneck_scale: number("pos_bottleneck_scale", 1.0),
        disliked_bottleneck_scale: number("neg_bottleneck_scale", 1.0),
        noise: ReferenceNoise::Fresh,
        posterior: ReferencePosterior::Sample,
        execution: ReferencePass::Interleaved.into(),
        ..official
    };
    let shape = golden.shape(&format!("{name}/images"));
    let settings = Settings {
        width: Some(shape[2]),
        height: Some(shape[1]),
        steps: count("denoising_steps"),
        guidance_scale: number("guidance_scale", 8.0),
        fabric,
        ..Settings::default()
    };
    let mut feedback = Vec::new();
    for (side, strength) in [("liked", 1.0), ("disliked", -1.0)] {
        for index in 0..count(side) {
            let key = format!("{name}/{side}");
            let image = image(golden, &key, &golden.shape(&key), index);
            feedback.push(FeedbackImage::new(image, strength));
        }
    }
    let said = text("scheduler");
    let mut words = said.split(", ");
    let (Some(sampler), Some(spacing)) = (words.next(), words.next()) else { panic!("{name}: scheduler {said:?}") };
    let offset = words.find_map(|word| word.strip_prefix("steps_offset ")?.parse().ok());
    let pipeline = pipeline().clone().with_scheduler(scheduler(sampler, spacing, offset));
    for pass in [ReferencePass::Interleaved, ReferencePass::TwoPasses { chunk: 2 }] {
        let fabric = settings.fabric.clone().with_pass(pass);
        let request = Request {
            feedback: feedback.clone(),
            ..Request::new(text("prompt"))
                .with_negative_prompt(text("negative_prompt"))
                .with_seeds(0..count("n_images") as u64)
                .with_settings(Settings { fabric, ..settings.clone() })
        };
        let mut steps: Vec<String> =
            golden.cases_under(&format!("{name}/noise/step")).into_iter().map(|step| format!("step/{step}")).collect();
        steps.sort_by_key(|step| step["step/".len()..].parse::<usize>().expect("a step"));
        let mut noise = Recorded { golden, case: name, device: device(), steps: steps.into() };
        let mut watch =
            Watch { golden, case: name, timesteps: Vec::new(), predictions: Vec::new(), states: Vec::new(), passes: 0 };
        let made = pipeline.generate_with(&request, &mut noise, &mut watch).expect("a generation");
        assert_eq!(Some(watch.passes), case["reference_passes"].as_u64(), "{name}: passes with references");
        let timesteps = serde_json::to_value(&watch.timesteps).expect("numbers");
        assert_eq!(timesteps, case["timesteps"], "{name}: timesteps");
        let stack = |all: &[Tensor<4>]| Tensor::stack::<5>(all.to_vec(), 0);
        golden.compare_also(&format!("{name}/unet_out"), stack(&watch.predictions));
        golden.compare_also(&format!("{name}/z"), stack(&watch.states));
        let bytes: Vec<f64> =
            made.images.iter().flat_map(|image| image.rgb().iter().map(|&byte| f64::from(byte))).collect();
        let expected = golden.values(&format!("{name}/images"));
        // Rounding to 8 bits can turn an error of 1e-6 into a difference of 1, but never of 2.
        let off: Vec<f64> = bytes.iter().zip(&expected).map(|(a, b)| (a - b).abs()).collect();
        let worst = off.iter().fold(0.0_f64, |m, &x| m.max(x));
        let share = off.iter().filter(|&&x| x > 0.0).count() as f64 / off.len() as f64;
        assert!(worst <= 1.0 && share < 1e-3, "{name}: images differ by {worst} in {share:.1e} of their bytes");
    }
}
