//! Properties of image prompts, on the tiny networks of `tests/golden/models` and random features.

#[path = "../common/mod.rs"]
mod common;
mod files;
mod instruct;
mod pairings;
mod sessions;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use burn::tensor::{DType, Int, Tensor, TensorData};
use common::{assert_again, distance};
use fabric::core::attention::AttnCall;
use fabric::core::denoise::{ModelCall, NoiseLevel};
use fabric::core::fabric::{FabricSettings, ReferencePass};
use fabric::core::guidance::Branch;
use fabric::core::image::Image;
use fabric::core::models::{CrossAttention, TextOptions, UNetModel};
use fabric::core::pipeline::{
    BatchLayout, Generation, Pipeline, PreparedConditioning, Request, RunContext, Settings, Window,
};
use fabric::ipadapter::ResamplerConfig;
use fabric::ipadapter::{
    AdapterConfig, AdapterError, AdapterFile, FaceVersion, FeatureKind, Features, ImagePrompt, InstructGuidance,
    InstructTexts, Instruction, IpAdapter, LayerPreset, LayerScales, Mask, PreparedImagePrompt, ProjectionConfig,
    ScaleSchedule, numbered_layers, tiles,
};
use fabric::models::load::{LoadDtype, SafetensorsFile, parameters};
use fabric::models::lora::merge;
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::unet::UNetConfig;
use fabric::models::{ModelOptions, StableDiffusion, load_model};
use safetensors::SafeTensors;
use safetensors::tensor::{TensorView, serialize_to_file};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models")
}

fn pipeline() -> &'static Pipeline {
    static PIPELINE: OnceLock<Pipeline> = OnceLock::new();
    PIPELINE.get_or_init(|| {
        let device = fabric::default_device().expect("a device");
        let options = ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() };
        load_model(folder(), &device, &options).expect("a pipeline").0
    })
}

fn adapter(kind: &str) -> IpAdapter {
    let path = folder().join("ip_adapter").join(format!("{kind}.safetensors"));
    IpAdapter::open(path, &fabric::default_device().expect("a device")).expect("an adapter")
}

/// Random features of `images` images; seed 0 gives the features for no image.
fn features(adapter: &IpAdapter, images: usize, seed: usize) -> Features {
    let device = fabric::default_device().expect("a device");
    let values = |count: usize| -> Vec<f32> {
        (0..count).map(|at| if seed == 0 { 0.0 } else { ((at * 7 + seed * 31) as f32 * 0.37).sin() }).collect()
    };
    match adapter.config().reads() {
        FeatureKind::Pooled(channels) => {
            Features::Pooled(Tensor::from_data(TensorData::new(values(images * channels), [images, channels]), &device))
        }
        FeatureKind::Tokens(channels) => {
            let data = TensorData::new(values(images * 5 * channels), [images, 5, channels]);
            Features::Tokens(Tensor::from_data(data, &device))
        }
        FeatureKind::Instructed(channels, text) => {
            let tensor = |tokens: usize, channels: usize, seed: usize| {
                let values =
                    (0..images * tokens * channels).map(|at| ((at * 7 + seed * 31) as f32 * 0.37).sin()).collect();
                Tensor::from_data(TensorData::new(values, [images, tokens, channels]), &device)
            };
            let [tokens, prompt, instruction] = [(5, channels, seed), (6, text, 11), (6, text, 12)]
                .map(|(tokens, channels, seed): (usize, usize, usize)| tensor(tokens, channels, seed));
            Features::Instructed { tokens, prompt, instruction }
        }
        other => panic!("not in these tests: {other}"),
    }
}

fn image() -> Image {
    Image::from_rgb(64, 64, (0..64 * 64 * 3).map(|at| (at * 5 % 251) as u8).collect()).expect("an image")
}

fn prompt(adapter: &IpAdapter, images: &Features) -> ImagePrompt {
    adapter.prompt_from_features(images.clone(), Some(features(adapter, 1, 0)))
}

fn request() -> Request {
    let settings = Settings { width: Some(64), height: Some(64), steps: 3, guidance_scale: 5.0, ..Settings::default() };
    Request::new("a red star").with_seeds([3, 4]).with_settings(settings)
}

fn make(request: &Request) -> Vec<f32> {
    latents(&pipeline().generate(request).expect("images"))
}

fn latents(made: &Generation) -> Vec<f32> {
    made.latents.clone().into_data().convert::<f32>().try_to_vec().expect("f32")
}

/// Largest allowed difference of values around 1.
const ROUNDING: f32 = 1e-4;

/// Image prompt of an Instruct adapter with this guidance.
fn instructed(adapter: &IpAdapter, guidance: InstructGuidance) -> ImagePrompt {
    let Features::Instructed { tokens, .. } = features(adapter, 1, 3) else { panic!("no Instruct adapter") };
    let none = Features::Tokens(tokens.zeros_like());
    let instruction = Instruction::new("use the pose").with_guidance(guidance);
    let prompt = adapter.prompt_from_features(Features::Tokens(tokens), Some(none));
    prompt.with_instruction(instruction).without_scale_correction()
}

/// Returns the error with which a run refuses a prompt.
fn refusal(prompt: ImagePrompt) -> String {
    pipeline().generate(&request().with(prompt)).expect_err("a refusal").to_string()
}

#[test]
fn an_adapter_of_scale_zero_is_none() {
    let plain = make(&request());
    for kind in ["base", "plus", "full-face"] {
        let adapter = adapter(kind);
        let prompt = prompt(&adapter, &features(&adapter, 1, 1));
        assert_again(&make(&request().with(prompt.clone().with_scale(0.0))), &plain, kind);
        assert!(distance(&make(&request().with(prompt)), &plain) > 1e-3, "{kind}");
    }
}

#[test]
fn a_mask_of_ones_is_no_mask() {
    let adapter = adapter("plus");
    let prompt = prompt(&adapter, &features(&adapter, 1, 1));
    let mask = Mask::new(5, 3, vec![1.0; 15]).expect("a mask");
    let masked = prompt.clone().with_masks([(mask, LayerScales::same(1.0))]);
    let [masked, whole] = [masked, prompt].map(|prompt| make(&request().with(prompt)));
    assert!(distance(&masked, &whole) < ROUNDING);
}

#[test]
fn one_image_several_times_is_that_image() {
    let adapter = adapter("base");
    let one = features(&adapter, 1, 1);
    let Features::Pooled(pooled) = one.clone() else { panic!("base reads pooled features") };
    let three = Features::Pooled(pooled.repeat_dim(0, 3));
    let [one, three] = [one, three].map(|images| make(&request().with(prompt(&adapter, &images))));
    assert!(distance(&one, &three) < ROUNDING);
}

#[test]
fn a_weight_of_two_is_the_image_twice() {
    let adapter = adapter("base");
    let Features::Pooled(two) = features(&adapter, 2, 1) else { panic!("base reads pooled features") };
    let row = |at| two.clone().narrow(0, at, 1);
    let made = |rows: Vec<Tensor<2>>, weights: &[f32]| {
        let images = Features::Pooled(Tensor::cat(rows, 0));
        let prompt = prompt(&adapter, &images).with_weights(weights);
        make(&request().with(prompt))
    };
    let twice = made(vec![row(0), row(1), row(1)], &[1.0; 3]);
    assert!(distance(&made(vec![row(0), row(1)], &[1.0, 2.0]), &twice) < ROUNDING);
    let one = made(vec![row(0)], &[1.0]);
    assert!(distance(&twice, &one) > 1e-3);
    assert_again(&made(vec![row(0), row(1)], &[1.0, 0.0]), &one, "one of two");
    assert_again(&made(vec![row(0), row(1)], &[0.0, 0.0]), &make(&request()), "none of two");
    let two = prompt(&adapter, &Features::Pooled(two));
    for wrong in [&[1.0][..], &[1.0, -1.0], &[1.0, f32::NAN]] {
        assert!(refusal(two.clone().with_weights(wrong)).starts_with("weights of images: expected"), "{wrong:?}");
    }
}

#[test]
fn a_course_and_a_preset_are_scales_over_time_and_layers() {
    let adapter = adapter("plus");
    let prompt = prompt(&adapter, &features(&adapter, 1, 1));
    let with = |prompt: ImagePrompt| make(&request().with(prompt));
    let half = with(prompt.clone().with_scale(0.5));
    assert_eq!(with(prompt.clone().with_scale_schedule(ScaleSchedule::new([0.5]).expect("a schedule"))), half);
    assert_eq!(with(prompt.clone().with_preset(LayerPreset::Linear, 0.5, None)), half);
    // Active in the first of three steps only, once by a window and once by a scale schedule.
    let first = Window::new(0.0, 0.34).expect("a window");
    let schedule = ScaleSchedule::new([1.0, 0.0, 0.0]).expect("a schedule");
    assert_eq!(with(prompt.clone().with_window(first)), with(prompt.clone().with_scale_schedule(schedule)));
    let eased = with(prompt.clone().with_preset(LayerPreset::EaseIn, 1.0, None));
    assert!(distance(&eased, &with(prompt.clone())) > 1e-3);
    let message = refusal(prompt.with_preset(LayerPreset::StyleTransfer, 1.0, None));
    assert!(
        message.starts_with("preset `style transfer`: expected") && message.contains("got a U-Net with 6 transformers"),
        "{message}"
    );
}

#[test]
fn what_a_precise_preset_leads_away_from_is_seen_on_all_other_branches() {
    let device = fabric::default_device().expect("a device");
    // As many transformer blocks as Stable Diffusion, with few channels.
    let unet = UNetConfig {
        block_out_channels: vec![8; 4],
        norm_num_groups: 4,
        attention_head_dim: 2.into(),
        cross_attention_dim: 12.into(),
        ..UNetConfig::default()
    };
    let unet = unet.init(&device).expect("a network");
    let layers = unet.cross_attentions();
    let widths = numbered_layers(&layers).iter().map(|layer| layer.channels).collect();
    let projection = ProjectionConfig::Pooled { features: 6, tokens: 2 };
    let config = AdapterConfig { projection, widths, context: 12, lora_rank: None };
    let adapter = IpAdapter::new(config.clone(), config.init(&device)).expect("an adapter");
    let pooled = |value: f32| Features::Pooled(Tensor::ones([1, 6], &device) * value);
    let prompt = adapter.prompt_from_features(pooled(1.0), Some(pooled(0.0)));
    let prompt = prompt.with_preset(LayerPreset::StyleTransferPrecise, 1.0, Some(0.5));
    let request = request();
    let run = RunContext::new(&request, &unet, pipeline().text_encoder(), [8, 8]);
    let prepared = prompt.prepared(&run).expect("a prompt");
    let level = NoiseLevel { timestep: 500.0, alpha: 0.5, sigma: 0.5 };
    let call = ModelCall { index: 0, total: 1, level };
    /// Rows with image keys in a layer, with their scale and the first value of the keys.
    fn seen(
        prompt: &PreparedImagePrompt,
        call: &ModelCall,
        branches: &[Branch],
        layer: &CrossAttention,
    ) -> Vec<(usize, f32, f32)> {
        let processor = prompt.attention(call, &BatchLayout::new(branches.to_vec(), 0..1));
        let device = fabric::default_device().expect("a device");
        let query = Tensor::<3>::zeros([branches.len(), 4, layer.channels], &device);
        let asked = AttnCall { site: layer.site, query: &query, key: &query, value: &query, grid: [2, 2], heads: 2 };
        let got = processor.extras(&asked).decoupled.into_iter().filter(|tokens| tokens.scale != 0.0);
        got.map(|tokens| {
            let key = tokens.key.flatten::<1>(0, 2).slice_dim(0, 0..1).into_scalar::<f32>();
            (tokens.rows.start, tokens.scale, key)
        })
        .collect()
    }
    let four = [Branch::Conditional, Branch::ImageOnly, Branch::Everything, Branch::Unconditional];
    for (t, layer) in layers.iter().enumerate() {
        for branches in [&[Branch::Conditional, Branch::Unconditional][..], &four] {
            let got = seen(&prepared, &call, branches, layer);
            let rows: Vec<usize> = got.iter().map(|(row, ..)| *row).collect();
            match t {
                // Composition layers are inverted: the same image acts on all branches but the conditional one.
                4 | 5 => {
                    assert_eq!(rows, (1..branches.len()).collect::<Vec<_>>(), "{}", layer.site);
                    assert!(
                        got.iter()
                            .all(|(_, scale, key)| *scale == if t == 4 { 0.125 } else { 0.5 } && *key == got[0].2)
                    );
                }
                0..=3 | 9..=15 => {
                    assert_eq!(rows, (0..branches.len()).collect::<Vec<_>>(), "{}", layer.site);
                    assert!(got[1..].iter().all(|(_, scale, key)| *scale == 1.0 && *key != got[0].2));
                }
                _ => assert!(got.is_empty(), "{}", layer.site),
            }
        }
    }
    // Setting plain scales also removes the preset's inversion.
    let plain = prompt.with_scale(1.0).prepared(&run).expect("a prompt");
    assert_eq!(seen(&plain, &call, &four[..1], &layers[4]).len(), 1);
}

#[test]
fn tiles_of_one_colour_are_one_image() {
    let adapter = adapter("plus");
    let tiles = tiles(&Image::filled(60, 20, [9, 90, 200]).expect("an image")).expect("tiles");
    let one = features(&adapter, 1, 1);
    let Features::Tokens(tokens) = one.clone() else { panic!("plus reads tokens") };
    let images = Features::Tokens(tokens.repeat_dim(0, tiles.len()));
    let masked: Vec<_> = tiles.into_iter().map(|tile| (tile.mask, LayerScales::same(1.0))).collect();
    let tiled = prompt(&adapter, &images).with_masks(masked);
    let plain = make(&request().with(prompt(&adapter, &one)));
    assert!(distance(&make(&request().with(tiled)), &plain) < ROUNDING);
}

#[test]
fn order_of_adapters_is_nothing() {
    let (base, plus) = (adapter("base"), adapter("plus"));
    let prompts = [prompt(&base, &features(&base, 1, 1)), prompt(&plus, &features(&plus, 2, 2))];
    let [first, second] = prompts;
    let one = make(&request().with(first.clone()).with(second.clone()));
    let other = make(&request().with(second).with(first));
    assert!(distance(&one, &other) < ROUNDING);
}

#[test]
fn an_image_is_the_same_alone_and_in_a_batch() {
    let adapter = adapter("plus");
    let request = request().with(prompt(&adapter, &features(&adapter, 1, 1)));
    let both = make(&request);
    for (seed, part) in [3, 4].into_iter().zip(both.chunks_exact(both.len() / 2)) {
        assert!(distance(&make(&request.clone().with_seeds([seed])), part) < ROUNDING);
    }
}

#[test]
fn together_with_feedback_either_can_be_switched_off() {
    let adapter = adapter("plus");
    let prompt = prompt(&adapter, &features(&adapter, 1, 1));
    let mut liked = request().with_liked(image());
    liked.settings.fabric = FabricSettings { start: 0.0, end: 1.0, ..FabricSettings::paper_target() };
    let mut unweighted = liked.clone();
    unweighted.settings.fabric = FabricSettings { min_weight: 0.0, max_weight: 0.0, ..liked.settings.fabric.clone() };
    let [plain, with_liked] = [request(), liked.clone()].map(|request| make(&request));
    let with_prompt = make(&request().with(prompt.clone()));
    let off = prompt.clone().with_scale(0.0);
    assert_again(&make(&liked.clone().with(off)), &with_liked, "without the prompt");
    assert_again(&make(&unweighted.with(prompt.clone())), &with_prompt, "without the feedback");
    let together = make(&liked.with(prompt));
    for other in [&plain, &with_liked, &with_prompt] {
        assert!(distance(&together, other) > 1e-3);
    }
}

#[test]
fn references_may_see_the_prompt_whichever_way_they_lend() {
    let [plus, instruct] = ["plus", "instruct"].map(adapter);
    let four = InstructGuidance::ThreeWay { instruction: 4.0, image: 1.5 };
    let prompts = [prompt(&plus, &features(&plus, 1, 1)), instructed(&instruct, four)];
    let made = |prompt: &ImagePrompt, pass: ReferencePass| {
        let mut request = request().with_liked(image()).with(prompt.clone());
        let other = Image::from_rgb(64, 64, (0..64 * 64 * 3).map(|at| (at * 3 % 199) as u8).collect());
        request = request.with_disliked(other.expect("an image"));
        request.settings.fabric =
            FabricSettings { start: 0.0, end: 1.0, execution: pass.into(), ..FabricSettings::paper_target() };
        make(&request)
    };
    let ways = [
        ReferencePass::Interleaved,
        ReferencePass::TwoPasses { chunk: 1 },
        ReferencePass::TwoPasses { chunk: 2 },
        ReferencePass::Cached { chunk: 2, budget: 1 << 30, half: false },
    ];
    for prompt in prompts {
        let unseen = made(&prompt, ReferencePass::Interleaved);
        let seen = prompt.clone().visible_to_references();
        let first = made(&seen, ReferencePass::Interleaved);
        assert!(distance(&first, &unseen) > 1e-3);
        // A cache filled without the image prompt on references must not be used for a run with it.
        assert!(distance(&made(&prompt, ways[3]), &unseen) < ROUNDING);
        for way in ways {
            assert!(distance(&made(&seen, way), &first) < ROUNDING, "{way:?}");
            let none = seen.clone().with_scale(0.0);
            let plain = prompt.clone().with_scale(0.0);
            assert!(distance(&made(&none, way), &made(&plain, way)) < ROUNDING, "{way:?}");
        }
    }
}

#[test]
fn a_window_says_when() {
    let adapter = adapter("base");
    let prompt = prompt(&adapter, &features(&adapter, 1, 1));
    let windowed =
        |start, end| make(&request().with(prompt.clone().with_window(Window::new(start, end).expect("a window"))));
    assert_eq!(windowed(0.0, 1.0), make(&request().with(prompt.clone())));
    // With three steps, no step lies in the first tenth of the run.
    assert_again(&windowed(0.0, 0.1), &make(&request()), "never on");
    assert_ne!(windowed(0.0, 0.5), windowed(0.5, 1.0));
    let message = Window::new(0.7, 0.2).expect_err("no window").to_string();
    assert!(message.starts_with("window: expected") && message.contains("got 0.7 to 0.2"), "{message}");
}

#[test]
fn scales_after_masks_keep_all_images() {
    let adapter = adapter("base");
    let two = prompt(&adapter, &features(&adapter, 2, 1));
    let mask = || (Mask::new(1, 1, vec![1.0]).expect("a mask"), LayerScales::same(0.3));
    let masked = two.clone().with_masks([mask(), mask()]);
    let again = masked.clone().with_scale(0.3);
    assert_again(&make(&request().with(masked)), &make(&request().with(again)), "read again");
    assert!(refusal(two.clone().with_masks([mask()])).starts_with("masks of images: expected 2"));
    assert!(refusal(two.with_scale(f32::NAN)).contains("NaN"));
}

#[test]
fn half_precision_features_are_computed_in_full() {
    if !fabric::default_device().expect("a device").supports_dtype(DType::F16) {
        // Without f16 on this device, such features cannot exist.
        return;
    }
    for kind in ["base", "plus", "full-face", "instruct"] {
        let adapter = adapter(kind);
        let half = match features(&adapter, 1, 1) {
            Features::Pooled(x) => Features::Pooled(x.cast(DType::F16)),
            Features::Tokens(x) => Features::Tokens(x.cast(DType::F16)),
            Features::Instructed { tokens, prompt, instruction } => {
                Features::Instructed { tokens: tokens.cast(DType::F16), prompt: prompt.cast(DType::F16), instruction }
            }
            other => panic!("not in these tests: {}", other.kind()),
        };
        assert_eq!(adapter.tokens(&half).expect("tokens").dtype(), DType::F32, "{kind}");
    }
}
