//! Golden file `ip_adapter`: tokens; single evaluations with scales, several images, masks and two adapters; a whole
//! run.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use burn::tensor::{Device, Tensor};
use fabric::core::attention::AttnProcessor;
use fabric::core::denoise::{Denoiser, ModelCall, NoiseSource};
use fabric::core::guidance::Guidance;
use fabric::core::models::{CrossAttention, UNetInput, UNetModel};
use fabric::core::samplers::sample;
use fabric::core::schedule::Schedule;
use fabric::ipadapter::{Features, ImagePromptKv, IpAdapter, LayerScales, Mask, MaskMode};
use fabric::models::clip::ClipVision;
use fabric::models::unet::UNet;

use super::harness::{Golden, device, folder, json, meaning, numbers};
use super::{model, pipeline, vision};

/// Data that all cases share.
struct World {
    golden: Golden,
    device: Device,
    unet: UNet,
    encoder: ClipVision,
}

/// An adapter, and the tokens of both rows of the golden batch: unconditional, then with the images.
struct Adapter {
    adapter: IpAdapter,
    /// `[images, tokens, context]` each.
    tokens: [Tensor<3>; 2],
}

impl World {
    fn open() -> Self {
        let device = device();
        Self { golden: Golden::open("ip_adapter"), unet: model::unet(), encoder: vision::load(&device), device }
    }

    fn adapter(&self, kind: &str) -> Adapter {
        let path = folder().join("models/ip_adapter").join(format!("{kind}.safetensors"));
        let adapter = IpAdapter::open(path, &self.device).unwrap_or_else(|e| panic!("{kind}: {e}"));
        let reads = adapter.config().reads();
        let pixels: Tensor<4> = self.golden.tensor("pixel_values", &self.device);
        let features = [
            Features::none_of(&self.encoder, &pixels, reads).expect("features of nothing"),
            Features::of(&self.encoder, pixels, reads).expect("features"),
        ];
        let embeds = format!("{kind}/embeds");
        match features.clone() {
            [Features::Pooled(none), Features::Pooled(some)] => {
                self.golden.compare(&embeds, Tensor::stack::<3>(vec![none, some], 0));
            }
            [Features::Tokens(none), Features::Tokens(some)] => {
                self.golden.compare(&embeds, Tensor::stack::<4>(vec![none, some], 0));
            }
            [other, _] => panic!("{kind}: reads {}", other.kind()),
        }
        let tokens = features.map(|features| adapter.tokens(&features).expect("tokens"));
        self.golden.compare(&format!("{kind}/tokens"), Tensor::stack::<4>(tokens.to_vec(), 0));
        Adapter { adapter, tokens }
    }

    /// Evaluates both rows with one pair of prompts per adapter: for the unconditional row and for the row with images.
    fn pass(&self, prompts: &[[ImagePromptKv; 2]]) -> Tensor<4> {
        let rows: Vec<_> = prompts
            .iter()
            .flat_map(|prompts| prompts.iter().zip([0..1, 1..2]).map(|(prompt, row)| prompt.on(row)))
            .collect();
        let processors: Vec<&dyn AttnProcessor> = rows.iter().map(|rows| rows as &dyn AttnProcessor).collect();
        let timesteps = self.golden.values("timestep");
        let sample = self.golden.tensor("sample", &self.device);
        let processor = processors.as_slice();
        let input = UNetInput {
            processor: &processor,
            ..UNetInput::new(sample, &timesteps, self.golden.tensor("context", &self.device))
        };
        self.unet.forward(input).sample.expect("a prediction")
    }

    fn layers(&self) -> Vec<CrossAttention> {
        self.unet.cross_attentions()
    }
}

impl Adapter {
    /// Returns the prompts of both rows for the first images.
    fn prompts(
        &self,
        world: &World,
        images: usize,
        change: impl Fn(ImagePromptKv) -> ImagePromptKv,
    ) -> [ImagePromptKv; 2] {
        self.tokens.clone().map(|tokens| {
            change(ImagePromptKv::new(&self.adapter, tokens.narrow(0, 0, images), &world.layers()).expect("a prompt"))
        })
    }

    fn scaled(&self, world: &World, images: usize, scale: f64) -> [ImagePromptKv; 2] {
        self.prompts(world, images, |prompt| prompt.with_scales(LayerScales::same(scale as f32)).expect("scales"))
    }
}

#[test]
fn adapters_equal_the_reference() {
    let world = World::open();
    let golden = &world.golden;
    let kinds: Vec<String> = golden.cases().into_iter().filter(|case| golden.has(&format!("{case}/tokens"))).collect();
    let adapters: BTreeMap<String, Adapter> =
        kinds.into_iter().map(|kind| (kind.clone(), world.adapter(&kind))).collect();
    let settings = json("ip_adapter.json");
    let masks = masks(&world);
    for (kind, adapter) in &adapters {
        let images = adapter.tokens[0].dims()[0];
        for case in golden.cases_under(kind) {
            let key = format!("{kind}/{case}/out");
            if !golden.has(&key) {
                continue;
            }
            let prompts = match case.as_str() {
                "two_images" => {
                    let scale = numbers(&meaning("ip_adapter", &key, "scale 0.7, both images, joint softmax"))[0];
                    adapter.scaled(&world, images, scale)
                }
                "per_block" => {
                    let scales = settings["cases"][format!("{kind}/per_block")].to_string();
                    let scales = LayerScales::from_json(&scales).expect("scales");
                    let resolved = &settings["cases"][format!("{kind}/per_block_resolved")];
                    for CrossAttention { site, .. } in world.layers() {
                        let expected = resolved[format!("{site}.processor")].as_f64().unwrap_or(0.0);
                        assert_eq!(scales.of(&site), expected as f32, "{site}");
                    }
                    adapter.prompts(&world, 1, |prompt| prompt.with_scales(scales.clone()).expect("scales"))
                }
                "masked" => {
                    let said = meaning("ip_adapter", &key, "two images with masks, scales [0.7, 0.4]");
                    let scales = numbers(&said).into_iter().map(|scale| LayerScales::same(scale as f32));
                    let masked: Vec<_> = masks.iter().cloned().zip(scales).collect();
                    adapter.prompts(&world, images, |prompt| prompt.with_masks(masked.clone(), &[]).expect("masks"))
                }
                other => {
                    let scale = other.strip_prefix("scale_").and_then(|scale| scale.parse().ok());
                    adapter.scaled(&world, 1, scale.unwrap_or_else(|| panic!("{key}: an unknown case")))
                }
            };
            golden.compare(&key, world.pass(&[prompts]));
        }
    }
    for case in golden.cases().into_iter().filter(|case| case.contains('+')) {
        let key = format!("{case}/out");
        let said = meaning("ip_adapter", &key, "base: image 0 at 0.5; plus: both images at 0.8");
        let parts = case.split('+').map(|kind| {
            let (_, part) = said.split_once(&format!("{kind}: ")).expect("a word on each adapter");
            let part = part.split(';').next().unwrap_or_default();
            let images = if part.contains("both") { adapters[kind].tokens[0].dims()[0] } else { 1 };
            adapters[kind].scaled(&world, images, *numbers(part).last().expect("a scale"))
        });
        golden.compare(&key, world.pass(&parts.collect::<Vec<_>>()));
    }
    run(&world, &adapters);
    golden.finish();
}

/// Returns the masks of the images. The resampled masks of the first are compared with diffusers' at each level.
fn masks(world: &World) -> Vec<Mask> {
    let shape = world.golden.shape("masks");
    let [images, height, width] = shape[1..] else { panic!("masks: {shape:?}") };
    let values: Vec<f32> = world.golden.values("masks").into_iter().map(|value| value as f32).collect();
    let mask =
        |values: &[f32]| Mask::new(width, height, values.to_vec()).expect("a mask").with_mode(MaskMode::Diffusers);
    let masks: Vec<Mask> = values.chunks_exact(height * width).map(mask).collect();
    assert_eq!(masks.len(), images);
    let sample = world.golden.shape("sample");
    for level in world.golden.cases_under("masks_down") {
        let key = format!("masks_down/{level}");
        let shrink = 1 << level.parse::<u32>().expect("a level");
        let got = masks[0].resampled([sample[2].div_ceil(shrink), sample[3].div_ceil(shrink)]);
        world.golden.compare_values(&key, &got.into_iter().map(f64::from).collect::<Vec<_>>());
    }
    masks
}

/// U-Net with classifier-free guidance and an image prompt.
struct Prompted<'a> {
    unet: &'a UNet,
    guidance: Guidance,
    /// Context of the prompt, then of the negative prompt.
    context: Tensor<3>,
    prompts: [ImagePromptKv; 2],
}

impl Denoiser for Prompted<'_> {
    fn predict(&mut self, latents: Tensor<4>, call: &ModelCall) -> Result<Tensor<4>, fabric::core::Error> {
        let [without, with] = &self.prompts;
        let (with, without) = (with.on(0..1), without.on(1..2));
        let processors: [&dyn AttnProcessor; 2] = [&with, &without];
        let processor = processors.as_slice();
        let timesteps = [call.level.timestep];
        let input = UNetInput {
            processor: &processor,
            ..UNetInput::new(latents.repeat_dim(0, 2), &timesteps, self.context.clone())
        };
        Ok(self.guidance.mix(self.unet.forward(input).sample.expect("a prediction")))
    }
}

/// Noise source for DDIM, which draws no noise.
pub(crate) struct Silent;

impl NoiseSource for Silent {
    fn draw(&mut self, _shape: [usize; 4]) -> Result<Tensor<4>, fabric::core::Error> {
        panic!("DDIM drew noise")
    }
}

fn run(world: &World, adapters: &BTreeMap<String, Adapter>) {
    let (golden, device) = (&world.golden, &world.device);
    let said =
        meaning("ip_adapter", "generate/steps", "plus, scale 0.6, DDIM 6 steps, guidance 5.0: latents after each");
    let kind = said.split(',').next().unwrap_or_default();
    let [scale, _steps, guidance] = numbers(&said)[..3] else { panic!("generate: {said}") };
    // DDIM has one state per step.
    let steps = golden.shape("generate/steps")[0];
    let context = ["prompt_embeds", "negative_embeds"].map(|name| golden.tensor(&format!("generate/{name}"), device));
    let mut denoiser = Prompted {
        unet: &world.unet,
        guidance: Guidance::classifier_free(guidance),
        context: Tensor::cat(context.to_vec(), 0),
        prompts: adapters[kind].scaled(world, 1, scale),
    };
    let schedule = Schedule::new(&pipeline::scheduler("ddim", "leading", None), steps).expect("a schedule");
    let latents: Tensor<4> = golden.tensor("generate/latents", device) * schedule.init_noise_sigma();
    let mut states = Vec::new();
    sample(&schedule, latents, &mut denoiser, &mut Silent, &mut |step| {
        states.push(step.state.clone());
        ControlFlow::Continue(())
    })
    .expect("a run");
    golden.compare("generate/steps", Tensor::stack::<5>(states, 0));
}
