//! Laws of the effects of image conditions, on a network of two cross-attention layers.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use super::*;
use crate::Error;
use crate::attention::{AttnCall, AttnExtras, AttnKind, AttnProcessor, Block, DecoupledTokens, NoProcessor, attend};
use crate::denoise::ModelCall;
use crate::guidance::Branch;
use crate::image::Image;
use crate::models::{
    Autoencoder, Posterior, TextEmbedding, TextEncoder, TextOptions, UNetInput, UNetModel, UNetOutput,
};
use crate::pipeline::{
    Conditioning, Generation, ImageAdapter, Pipeline, PreparedConditioning, Report, Request, RunContext, Settings,
};
use crate::schedule::{SamplerKind, SchedulerConfig};

/// Channels of the latents, of the text and of the layers.
const CHANNELS: usize = 4;
/// Number of evaluations of a run.
const STEPS: usize = 4;

fn device() -> Device {
    fabric_backends::default_device().expect("a device")
}

/// U-Net whose tokens are the pixels of the latents, and whose text is not projected.
struct TwoLayers;

impl UNetModel for TwoLayers {
    fn forward(&self, input: UNetInput<'_>) -> UNetOutput {
        let [rows, channels, height, width] = input.sample.dims();
        let mut x = input.sample.reshape([rows, channels, height * width]).swap_dims(1, 2);
        let text = input.context;
        for site in self.attention_sites() {
            let call = AttnCall { site, query: &x, key: &text, value: &text, grid: [height, width], heads: 1 };
            let extras = input.processor.extras(&call);
            x = attend(x, text.clone(), text.clone(), 1, &extras);
        }
        let sample = x.swap_dims(1, 2).reshape([rows, channels, height, width]);
        UNetOutput { sample: Some(sample), recorded: Vec::new() }
    }

    fn attention_sites(&self) -> Vec<AttnSite> {
        let site = |block| AttnSite { block, attention: 0, layer: 0, kind: AttnKind::CrossAttention };
        vec![site(Block::Down(0)), site(Block::Mid)]
    }

    fn cross_attentions(&self) -> Vec<CrossAttention> {
        let layer = |site| CrossAttention { site, channels: CHANNELS, context: CHANNELS };
        self.attention_sites().into_iter().map(layer).collect()
    }

    fn skip_channels(&self) -> Vec<usize> {
        Vec::new()
    }

    fn level_channels(&self) -> Vec<usize> {
        vec![CHANNELS]
    }

    fn levels(&self) -> usize {
        1
    }

    fn in_channels(&self) -> usize {
        CHANNELS
    }

    fn device(&self) -> Device {
        device()
    }
}

/// Autoencoder whose images are the first channels of the latents.
struct FirstChannels;

impl Autoencoder for FirstChannels {
    fn encode(&self, _pixels: Tensor<4>, _posterior: Posterior) -> Tensor<4> {
        unreachable!("these requests have no image to encode")
    }

    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        latents.narrow(1, 0, 3)
    }

    fn scale_factor(&self) -> usize {
        1
    }

    fn latent_channels(&self) -> usize {
        CHANNELS
    }
}

/// Text encoder whose embeddings are waves that depend on the length of the prompt.
struct Waves;

impl TextEncoder for Waves {
    fn encode(&self, prompts: &[String], _options: &TextOptions) -> Result<TextEmbedding, Error> {
        let wave = |prompt: &String| {
            let first = 5 * prompt.len();
            (first..first + 3 * CHANNELS).map(|at| (at as f32 * 0.7).sin()).collect::<Vec<_>>()
        };
        let values: Vec<f32> = prompts.iter().flat_map(wave).collect();
        let context = Tensor::from_data(TensorData::new(values, [prompts.len(), 3, CHANNELS]), &device());
        Ok(TextEmbedding { context, pooled: None, truncated: Vec::new() })
    }
}

/// Adapter whose image tokens have the brightness of the image's first value, and those of "no image" a low one.
#[derive(Debug)]
struct Brightness {
    reads_instructions: bool,
}

impl ImageAdapter for Brightness {
    fn reads_instructions(&self) -> bool {
        self.reads_instructions
    }

    fn conditioning(&self, images: &[ImageCondition], _layers: &[CrossAttention]) -> Vec<Arc<dyn Conditioning>> {
        images.iter().map(|one| Arc::new(Prompt(one.clone())) as Arc<dyn Conditioning>).collect()
    }
}

#[derive(Debug, Clone)]
struct Prompt(ImageCondition);

impl Prompt {
    fn is_led_by_image(&self, branch: Branch) -> bool {
        (branch == Branch::Unconditional) == self.0.away
    }
}

impl Conditioning for Prompt {
    fn prepare(&self, _run: &RunContext<'_>) -> Result<Box<dyn PreparedConditioning>, Error> {
        Ok(Box::new(self.clone()))
    }
}

impl PreparedConditioning for Prompt {
    fn attention<'a>(&'a self, call: &ModelCall, layout: &BatchLayout) -> Box<dyn AttnProcessor + 'a> {
        if !self.0.window.contains(call) {
            return Box::new(NoProcessor);
        }
        let tokens = |(branch, rows)| {
            let (image, scale) = (&self.0.image, self.0.scale as f32);
            let brightness = if self.is_led_by_image(branch) { f32::from(image.rgb()[0]) / 255.0 } else { 0.05 };
            let x = Tensor::<3>::full([1, 2, CHANNELS], brightness, &device());
            DecoupledTokens {
                rows,
                key: x.clone(),
                value: x,
                scale,
                mask: None,
                weights: Vec::new(),
                shares_softmax: false,
            }
        };
        Box::new(Tokens(layout.groups().into_iter().map(tokens).collect()))
    }

    fn attends_to_image(&self, branch: Branch, _site: &AttnSite) -> bool {
        self.is_led_by_image(branch)
    }
}

#[derive(Debug)]
struct Tokens(Vec<DecoupledTokens>);

impl AttnProcessor for Tokens {
    fn extras(&self, _call: &AttnCall<'_>) -> AttnExtras {
        AttnExtras { joint: Vec::new(), decoupled: self.0.clone() }
    }
}

fn condition() -> ImageCondition {
    ImageCondition::new(Image::filled(8, 8, [200; 3]).expect("an image"))
}

/// Request for one image with these conditions. Its negative prompt is its prompt, so that both branches begin alike.
fn request(conditions: impl IntoIterator<Item = ImageCondition>) -> Request {
    let settings = Settings {
        steps: STEPS,
        sampler: Some(SamplerKind::Ddim),
        guidance_scale: 5.0,
        measure_attention: true,
        ..Settings::default()
    };
    let request = Request::new("a star").with_negative_prompt("a star").with_settings(settings);
    conditions.into_iter().fold(request, Request::with_image_condition)
}

fn generate(request: &Request) -> Generation {
    let (unet, autoencoder, text) = (Arc::new(TwoLayers), Arc::new(FirstChannels), Arc::new(Waves));
    let pipeline = Pipeline::new(unet, autoencoder, text, SchedulerConfig::default(), 8).expect("a pipeline");
    let pipeline = pipeline.with_adapter(Brightness { reads_instructions: false });
    pipeline.with_adapter(Brightness { reads_instructions: true }).generate(request).expect("images")
}

fn effects(request: &Request) -> Vec<ImagePromptEffect> {
    generate(request).report.image_prompts
}

/// Returns the effect of one image condition.
fn effect(condition: ImageCondition) -> ImagePromptEffect {
    effects(&request([condition])).remove(0)
}

/// Returns the share in the first layer at the first evaluation, which depends on no other layer.
fn first_share(effect: &ImagePromptEffect) -> f64 {
    effect.layers[0].shares[0]
}

#[test]
fn a_scale_of_0_contributes_0_and_twice_the_scale_raises_the_share() {
    let off = effect(condition().with_scale(0.0));
    assert_eq!((off.scale, off.mean), (0.0, 0.0));
    assert!(off.layers.iter().all(|layer| layer.shares == [0.0; STEPS]), "{off:?}");
    for scale in [0.1, 0.5, 1.0] {
        let [one, twice] = [scale, 2.0 * scale].map(|scale| first_share(&effect(condition().with_scale(scale))));
        // With a ratio r of the contribution to the text, the shares are r / (1 + r) and 2 r / (1 + 2 r).
        let expected = 2.0 * one / (1.0 + one);
        assert!(one > 0.0 && (twice - expected).abs() < 1e-5, "{one} and {twice}, {expected} expected");
    }
}

#[test]
fn nothing_is_measured_unless_asked_and_measuring_changes_no_image() {
    let measured = request([condition().using(Aspect::Style), condition().away().with_scale(0.7)]);
    let mut plain = measured.clone();
    plain.settings.measure_attention = false;
    let [with, without] = [&measured, &plain].map(generate);
    assert_eq!((with.report.image_prompts.len(), without.report.image_prompts.len()), (2, 0));
    let values = |made: &Generation| -> Vec<f32> { made.latents.to_data().try_to_vec().expect("f32 latents") };
    assert_eq!(values(&with), values(&without));
    assert_eq!(with.images, without.images);
    assert!(effects(&request([])).is_empty(), "there is nothing to measure");
}

#[test]
fn a_condition_that_leads_away_acts_on_the_branch_that_guidance_leads_away_from() {
    let (towards, away) = (effect(condition()), effect(condition().away()));
    assert!(away.away && !towards.away);
    // Both branches begin alike, so the same image has the same share in either.
    let shares = [&towards, &away].map(first_share);
    assert!(shares[0] > 0.1 && (shares[0] - shares[1]).abs() < 1e-5, "{shares:?}");
    // Without guidance that branch does not run.
    let mut alone = request([condition(), condition().away()]);
    alone.settings.guidance_scale = 1.0;
    let effects = effects(&alone);
    assert!(effects[0].mean > 0.1 && effects[1].mean == 0.0, "{effects:?}");
    assert!(effects[1].layers.iter().all(|layer| layer.shares == [0.0; STEPS]), "{effects:?}");
}

#[test]
fn all_image_prompts_of_a_row_and_its_text_share_one_sum() {
    let (half, whole) = (condition().with_scale(0.5), condition());
    let got = effects(&request([half.clone(), whole.clone()]));
    let shares = [&got[0], &got[1]].map(first_share);
    assert!((shares[1] - 2.0 * shares[0]).abs() < 1e-5 && shares[0] + shares[1] < 1.0, "{shares:?}");
    let alone = [half, whole].map(|condition| first_share(&effect(condition)));
    assert!(alone[0] > shares[0] && alone[1] > shares[1], "{alone:?}, together {shares:?}");
}

#[test]
fn shares_are_by_layer_and_evaluation_and_0_outside_of_the_window() {
    let window = Window::new(0.0, 0.5).expect("a window");
    let got = effect(condition().with_window(window));
    let names: Vec<&str> = got.layers.iter().map(|layer| layer.layer.as_str()).collect();
    let name = |block: &str| format!("{block}.attentions.0.transformer_blocks.0.attn2");
    let expected = ["down_blocks.0", "mid_block"].map(name);
    assert!(names == expected && got.window == window, "{names:?}");
    let mut sum = 0.0;
    for layer in &got.layers {
        let [inside, outside] = [&layer.shares[..2], &layer.shares[2..]];
        assert!(inside.iter().all(|share| *share > 0.0) && *outside == [0.0; 2], "{layer:?}");
        sum += inside.iter().sum::<f64>();
    }
    assert!((got.mean - sum / 4.0).abs() < 1e-12, "{got:?}");
}

#[test]
fn effects_have_the_order_of_the_conditions_whichever_adapter_realises_them() {
    let conditions = [
        condition().using(Aspect::Style),
        condition().with_scale(0.0),
        condition().using(Aspect::Pose).with_scale(0.3).away(),
    ];
    let got = effects(&request(conditions));
    let described: Vec<_> = got.iter().map(|one| (one.aspect.clone(), one.away, one.scale, one.mean > 0.0)).collect();
    let expected =
        [(Some(Aspect::Style), false, 1.0, true), (None, false, 0.0, false), (Some(Aspect::Pose), true, 0.3, true)];
    assert_eq!(described, expected);
}

#[test]
fn effects_do_not_depend_on_the_batch() {
    let together = request([condition(), condition().away().with_scale(0.4)]).with_seeds([1, 2, 3]);
    let mut apart = together.clone();
    apart.settings.batch = Some(2);
    for (together, apart) in effects(&together).iter().zip(effects(&apart)) {
        assert!((together.mean - apart.mean).abs() < 1e-4, "{together:?} and {apart:?}");
        for (one, other) in together.layers.iter().zip(&apart.layers) {
            let is_near = one.shares.iter().zip(&other.shares).all(|(a, b)| (a - b).abs() < 1e-4);
            assert!(is_near && one.shares.len() == other.shares.len(), "{one:?} and {other:?}");
        }
    }
}

#[test]
fn effects_survive_json_and_reports_from_before_have_none() {
    let report = generate(&request([condition().using("its light").away()])).report;
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(serde_json::from_value::<Report>(json.clone()).unwrap(), report);
    let mut older = json;
    assert!(older.as_object_mut().unwrap().remove("image_prompts").is_some());
    assert!(serde_json::from_value::<Report>(older).unwrap().image_prompts.is_empty());
}
