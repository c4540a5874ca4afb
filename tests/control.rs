//! Properties of control networks and of inpainting, on the golden models.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use burn::tensor::Tensor;
use common::{assert_again, distance};
use fabric::core::denoise::{ModelCall, NoiseLevel};
use fabric::core::fabric::{FabricSettings, ReferencePass};
use fabric::core::guidance::Branch;
use fabric::core::image::{Fit, Image, vae_batch};
use fabric::core::models::{Autoencoder, Posterior, TextEncoder, UNetInput, UNetModel};
use fabric::core::noise::{Draw, RunNoise, SeededNoise};
use fabric::core::pipeline::{BatchLayout, Conditioning, Generation, Pipeline, Request, RunContext, Settings, Window};
use fabric::core::schedule::SchedulerConfig;
use fabric::models::control::{Control, ControlNet, ControlNetConfig, T2IAdapter, T2IAdapterConfig};
use fabric::models::load::{
    LoadOptions, SafetensorsFile, TensorInfo, TensorSource, load_into, parameters, write_safetensors,
};
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::unet::UNetConfig;
use fabric::models::vae::{Vae, VaeConfig};
use fabric::models::{ModelOptions, load_model};

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models")
}

fn pipeline() -> &'static Pipeline {
    static PIPELINE: OnceLock<Pipeline> = OnceLock::new();
    PIPELINE.get_or_init(|| {
        let device = fabric::default_device().expect("a device");
        let options = ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() };
        load_model(models(), &device, &options).expect("a pipeline").0
    })
}

fn network() -> Arc<ControlNet> {
    static NETWORK: OnceLock<Arc<ControlNet>> = OnceLock::new();
    let open = || {
        let device = fabric::default_device().expect("a device");
        Arc::new(ControlNet::open(models().join("controlnet"), &device).expect("a ControlNet"))
    };
    NETWORK.get_or_init(open).clone()
}

/// Image that differs for each salt.
fn image(salt: usize) -> Image {
    let rgb = (0..50 * 40 * 3).map(|at| ((at * (5 + salt) + salt) % 251) as u8).collect();
    Image::from_rgb(50, 40, rgb).expect("an image")
}

fn control(scale: f64) -> Control {
    Control::new(network(), image(1)).with_scale(scale)
}

fn request() -> Request {
    let settings = Settings { width: Some(64), height: Some(64), steps: 3, guidance_scale: 5.0, ..Settings::default() };
    Request::new("a red star").with_seeds([3, 4]).with_settings(settings)
}

fn values(x: &Tensor<4>) -> Vec<f32> {
    x.clone().into_data().convert::<f32>().try_to_vec().expect("f32")
}

fn make(request: &Request) -> Vec<f32> {
    values(&generate(pipeline(), request).latents)
}

fn generate(pipeline: &Pipeline, request: &Request) -> Generation {
    pipeline.generate(request).unwrap_or_else(|error| panic!("{error}"))
}

const ROUNDING: f32 = 1e-4;

#[test]
fn a_control_network_of_scale_zero_or_out_of_its_window_is_none() {
    let plain = make(&request());
    assert_again(&make(&request().with(control(0.0))), &plain, "switched off");
    let never = Window::new(0.1, 0.2).expect("a window");
    assert_again(&make(&request().with(control(1.0).with_window(never))), &plain, "never on");
    let whole = make(&request().with(control(1.0)));
    assert!(distance(&whole, &plain) > 1e-3);
    let half = Window::new(0.0, 0.5).expect("a window");
    assert!(distance(&make(&request().with(control(1.0).with_window(half))), &whole) > 1e-4);
    let message = pipeline().generate(&request().with(control(f64::NAN))).expect_err("NaN").to_string();
    assert!(
        message.starts_with("scale of a control network: expected a number from -100 to 100, got NaN"),
        "{message}"
    );
}

#[test]
fn several_control_networks_are_added() {
    let both = request().with(control(0.3)).with(control(0.5));
    assert!(distance(&make(&both), &make(&request().with(control(0.8)))) < ROUNDING);
}

#[test]
fn an_image_under_control_is_the_same_alone_and_in_a_batch() {
    for control in [control(1.0), control(1.0).with_guess(true)] {
        let request = request().with(control);
        let both = make(&request);
        for (seed, part) in [3, 4].into_iter().zip(both.chunks_exact(both.len() / 2)) {
            assert!(distance(&make(&request.clone().with_seeds([seed])), part) < ROUNDING);
        }
    }
}

#[test]
fn guess_mode_adds_under_the_prompt_alone() {
    let device = fabric::default_device().expect("a device");
    let sample = Tensor::<4>::ones([4, 4, 8, 8], &device);
    let context = Tensor::<3>::ones([4, 77, 32], &device);
    let level = NoiseLevel { timestep: 500.0, alpha: 0.5, sigma: 0.5 };
    let call = ModelCall { index: 0, total: 1, level };
    let layout = BatchLayout::new(vec![Branch::Conditional, Branch::Unconditional], 0..2);
    let request = request();
    let run = pipeline().run_context(&request).expect("a run");
    let said = |guess: bool| {
        let input = UNetInput::new(sample.clone(), &[500.0], context.clone());
        let control = control(1.0).with_guess(guess).prepare(&run).expect("a control");
        control.residuals(&call, &input, &layout).expect("images").expect("residuals")
    };
    let (guess, plain) = (said(true), said(false));
    let largest = |x: Tensor<4>| x.abs().max().into_scalar::<f32>();
    let count = plain.down.len();
    for (index, (guess, plain)) in guess.down.into_iter().zip(plain.down).enumerate() {
        let share = 10_f64.powf(index as f64 / count as f64 - 1.0);
        assert_eq!(largest(guess.clone().narrow(0, 2, 2)), 0.0);
        assert!(largest(plain.clone().narrow(0, 2, 2)) > 0.0);
        let (got, expected) = (values(&guess.narrow(0, 0, 2)), values(&(plain.narrow(0, 0, 2) * share)));
        assert!(distance(&got, &expected) < ROUNDING);
    }
}

#[test]
fn t2i_adapters_and_networks_that_pool_run_beside_the_others() {
    let device = fabric::default_device().expect("a device");
    let plain = make(&request());
    // One input channel, like the published sketch and canny adapters.
    let config = T2IAdapterConfig { in_channels: 1, channels: vec![32, 64], ..T2IAdapterConfig::default() };
    let t2i: Arc<T2IAdapter> = Arc::new(config.init(&device).expect("a network"));
    let t2i = |scale| Control::new(t2i.clone(), image(2)).with_scale(scale);
    let whole = make(&request().with(t2i(1.0)));
    assert!(distance(&whole, &plain) > 1e-4);
    assert_again(&make(&request().with(t2i(0.0))), &plain, "switched off");
    let twice = request().with(t2i(0.4)).with(t2i(0.6));
    assert!(distance(&make(&twice), &whole) < ROUNDING);
    let text = std::fs::read_to_string(models().join("controlnet/config.json")).expect("settings");
    let config = ControlNetConfig::from_json(&text).expect("a configuration");
    let pooled = ControlNetConfig { global_pool_conditions: true, ..config.clone() };
    let pooled = Arc::new(pooled.init(&device).expect("a network"));
    let both = request().with(Control::new(pooled, image(1))).with(t2i(1.0));
    let both_made = make(&both);
    assert!(distance(&both_made, &whole) > 1e-4);
    for (seed, part) in [3, 4].into_iter().zip(both_made.chunks_exact(both_made.len() / 2)) {
        assert!(distance(&make(&both.clone().with_seeds([seed])), part) < ROUNDING);
    }
    let four = ControlNetConfig { conditioning_channels: 4, ..config }.init(&device).expect("a network");
    let refused = pipeline().generate(&request().with(Control::new(Arc::new(four), image(1))));
    let message = refused.expect_err("four channels").to_string();
    assert!(
        message.starts_with("channels of a control network's image: expected") && message.contains("got 4"),
        "{message}"
    );
}

#[test]
fn feedback_and_control_act_together_in_all_passes() {
    let mut liked = request().with_liked(image(2)).with_disliked(image(3));
    liked.settings.fabric = FabricSettings { start: 0.0, end: 1.0, ..FabricSettings::paper_target() };
    let (plain, controlled) = (make(&liked), make(&request().with(control(1.0))));
    let together = make(&liked.clone().with(control(1.0)));
    assert!(distance(&together, &plain) > 1e-3 && distance(&together, &controlled) > 1e-3);
    assert_again(&make(&liked.clone().with(control(0.0))), &plain, "switched off");
    for pass in
        [ReferencePass::TwoPasses { chunk: 1 }, ReferencePass::Cached { chunk: 2, budget: 1 << 30, half: false }]
    {
        let mut other = liked.clone().with(control(1.0));
        other.settings.fabric.execution.pass = pass;
        assert!(distance(&make(&other), &together) < ROUNDING);
    }
}

/// Returns the error with which a control refuses this U-Net.
fn refusal(control: &Control, unet: &dyn UNetModel) -> String {
    let request = request();
    let run = RunContext::new(&request, unet, pipeline().text_encoder(), [8, 8]);
    control.prepare(&run).expect_err("another model").to_string()
}

#[test]
fn a_control_for_some_images_leaves_the_others_alone() {
    let pooled = T2IAdapterConfig { channels: vec![32, 64], ..T2IAdapterConfig::default() };
    let t2i: Arc<T2IAdapter> = Arc::new(pooled.init(&fabric::default_device().expect("a device")).expect("a network"));
    let made = |request: Request| {
        let all = make(&request);
        let length = all.len() / 2;
        [all[..length].to_vec(), all[length..].to_vec()]
    };
    let plain = made(request());
    for control in [control(1.0), control(1.0).with_guess(true), Control::new(t2i, image(2))] {
        let all = made(request().with(control.clone()));
        let second = made(request().with_for(1..2, control));
        assert!(distance(&second[0], &plain[0]) < ROUNDING && distance(&second[1], &all[1]) < ROUNDING);
        assert!(distance(&second[1], &plain[1]) > 1e-4);
    }
}

#[test]
fn a_control_network_for_another_model_is_refused_by_name() {
    let device = fabric::default_device().expect("a device");
    let large = UNetConfig::sdxl().init(&device).expect("a network");
    let message = refusal(&control(1.0), &large);
    assert!(
        message.starts_with("channels that a ControlNet adds to: expected") && message.contains("got [32"),
        "{message}"
    );
    let other = UNetConfig { cross_attention_dim: 48.into(), ..golden_unet() }.init(&device).expect("a network");
    let message = refusal(&control(1.0), &other);
    let expected = "channels of the text that a ControlNet reads: expected 48, as the U-Net has, got 32";
    assert!(message.starts_with(expected), "{message}");
    let t2i =
        T2IAdapterConfig { channels: vec![8, 16], ..T2IAdapterConfig::default() }.init(&device).expect("a network");
    let t2i: Arc<T2IAdapter> = Arc::new(t2i);
    let message = refusal(&Control::new(t2i, image(1)), &large);
    assert!(
        message.starts_with("channels that a T2I-Adapter adds to: expected") && message.contains("got [8, 16]"),
        "{message}"
    );
    for (json, word) in [
        (r#"{"_class_name": "ControlNetUnionModel"}"#, "_class_name"),
        (r#"{"conditioning_embedding_out_channels": []}"#, "conditioning_embedding_out_channels"),
        (r#"{"norm_num_groups": 7}"#, "norm_num_groups"),
        (r#"{"class_embed_type": "projection"}"#, "class_embed_type"),
    ] {
        let message = ControlNetConfig::from_json(json).expect_err(json).to_string();
        assert!(message.starts_with("ControlNet configuration") && message.contains(word), "{message}");
    }
}

fn golden_unet() -> UNetConfig {
    let text = std::fs::read_to_string(models().join("unet/config.json")).expect("settings");
    UNetConfig::from_json(&text).expect("a configuration")
}

/// Converts a diffusers name to the original ControlNet's, for one level with transformers and one without.
fn original(name: &str) -> String {
    let pairs = [
        ("controlnet_cond_embedding.conv_in", "input_hint_block.0"),
        ("controlnet_cond_embedding.conv_out", "input_hint_block.14"),
        ("controlnet_mid_block", "middle_block_out.0"),
        ("time_embedding.linear_1", "time_embed.0"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("conv_in", "input_blocks.0.0"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
        ("mid_block.resnets.0", "middle_block.0"),
        ("mid_block.attentions.0", "middle_block.1"),
        ("mid_block.resnets.1", "middle_block.2"),
        ("down_blocks.0.resnets.0", "input_blocks.1.0"),
        ("down_blocks.0.resnets.1", "input_blocks.2.0"),
        ("down_blocks.0.attentions.0", "input_blocks.1.1"),
        ("down_blocks.0.attentions.1", "input_blocks.2.1"),
        ("down_blocks.1.resnets.0", "input_blocks.4.0"),
        ("down_blocks.1.resnets.1", "input_blocks.5.0"),
    ];
    let parts = [
        ("norm1", "in_layers.0"),
        ("conv1", "in_layers.2"),
        ("time_emb_proj", "emb_layers.1"),
        ("norm2", "out_layers.0"),
        ("conv2", "out_layers.3"),
        ("conv_shortcut", "skip_connection"),
    ];
    if let Some(rest) = name.strip_prefix("controlnet_cond_embedding.blocks.") {
        let (block, rest) = rest.split_once('.').expect("a number");
        return format!("input_hint_block.{}.{rest}", 2 * (block.parse::<usize>().expect("a number") + 1));
    }
    if let Some(rest) = name.strip_prefix("controlnet_down_blocks.") {
        let (block, rest) = rest.split_once('.').expect("a number");
        return format!("zero_convs.{block}.0.{rest}");
    }
    let of = |(from, to): &(&str, &str)| Some(format!("{to}.{}", name.strip_prefix(from)?.strip_prefix('.')?));
    let mut renamed = pairs.iter().find_map(of).expect(name);
    if name.contains(".resnets.") {
        for (from, to) in parts {
            renamed = renamed.replace(&format!(".{from}."), &format!(".{to}."));
        }
    }
    renamed
}

#[test]
fn files_of_the_original_releases_are_read() {
    let device = fabric::default_device().expect("a device");
    let golden =
        SafetensorsFile::open(models().join("controlnet/diffusion_pytorch_model.safetensors")).expect("a file");
    let names: BTreeMap<String, String> =
        golden.tensors().keys().map(|name| (format!("control_model.{}", original(name)), name.clone())).collect();
    assert_eq!(names.len(), golden.tensors().len());
    let tensors: Vec<(String, TensorInfo)> =
        names.iter().map(|(new, old)| (new.clone(), golden.tensors()[old].clone())).collect();
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("control_v11p_sd15_canny.safetensors");
    write_safetensors(&path, &BTreeMap::new(), &tensors, |name| golden.read(&names[name])).expect("written");
    // The numbers of heads and groups are not in a checkpoint, and the published ones do not fit networks this small.
    let file = fabric::models::control::ControlNetFile::open(&path).expect("a file");
    let config = ControlNetConfig::from_json(
        &std::fs::read_to_string(models().join("controlnet/config.json")).expect("settings"),
    );
    let config = config.expect("a configuration");
    let (network, _) = ControlNet::load(&config, file.weights(), &LoadOptions::default(), &device).expect("a network");
    assert_eq!(parameters(&network).len(), golden.tensors().len());
    let got = file.weights().tensors().keys().collect::<Vec<_>>();
    assert_eq!(got, golden.tensors().keys().collect::<Vec<_>>());
    for name in golden.tensors().keys() {
        assert_eq!(file.weights().read(name).expect("a tensor"), golden.read(name).expect("a tensor"), "{name}");
    }
    // A file of another network is an error.
    let vae = models().join("vae/diffusion_pytorch_model.safetensors");
    let message = fabric::models::control::ControlNetFile::open(vae).expect_err("a VAE").to_string();
    assert!(message.contains("expected a ControlNet with") && message.contains("got a VAE"), "{message}");
}

/// Returns the request with another mask on its init image.
fn masked(request: &Request, mask: Image) -> Request {
    let init_image = request.init_image.clone().map(|start| start.with_mask(mask));
    Request { init_image, ..request.clone() }
}

fn grey(level: u8) -> Image {
    Image::filled(30, 30, [level; 3]).expect("an image")
}

#[test]
fn what_a_mask_leaves_out_is_kept_and_a_mask_of_all_is_an_image_from_noise() {
    // Encodes the init image with the run's VAE and seeds.
    let device = fabric::default_device().expect("a device");
    let pixels = vae_batch(&[image(4)], 64, 64, Fit::SquashLanczos, &device).expect("pixels").repeat_dim(0, 2);
    let vae = vae();
    let shape = [2, vae.latent_channels(), 64 / vae.scale_factor(), 64 / vae.scale_factor()];
    let posterior = SeededNoise::new(&[3, 4], &device).draw(Draw::StartPosterior, shape).expect("noise");
    let encoded = values(&vae.encode(pixels, Posterior::Sample(posterior)));
    for sampler in ["ddim", "euler_a", "dpmpp_2m", "heun", "pndm", "unipc", "lcm"] {
        let mut request = request().with_init_image(image(4), 1.0);
        request.settings.sampler = Some(sampler.parse().expect("a sampler"));
        request.settings.steps = 4;
        let mut plain = request.clone();
        plain.init_image = None;
        assert_again(&make(&masked(&request, grey(255))), &make(&plain), sampler);
        // Only one of the 64 latents is repainted.
        let kept = make(&masked(&request, one_square(0)));
        let again = make(&masked(&request, one_square(100)));
        assert_again(&kept, &again, &format!("{sampler}: below one half is dark"));
        let changed = |(at, _): &(usize, &f32)| at % 64 == 0;
        let outside = |x: &[f32]| x.iter().enumerate().filter(|one| !changed(one)).map(|(_, x)| *x).collect::<Vec<_>>();
        assert!(distance(&outside(&kept), &outside(&encoded)) < ROUNDING, "{sampler}");
        assert!(distance(&kept, &encoded) > 1e-2, "{sampler}");
    }
}

/// Mask of 64x64 pixels that is white at the first latent and has this grey elsewhere.
fn one_square(dark: u8) -> Image {
    light_where(dark, |x, y| x < 8 && y < 8)
}

fn light_where(dark: u8, light: impl Fn(usize, usize) -> bool) -> Image {
    let grey = |at: usize| if light(at % 64, at / 64) { 255 } else { dark };
    Image::from_rgb(64, 64, (0..64 * 64).flat_map(|at| [grey(at); 3]).collect()).expect("an image")
}

/// Mask of 256x256 pixels, for a run of 64x64, with a line one pixel wide.
fn large_with_a_thin_line() -> Image {
    let grey = |at: usize| if at % 256 == 32 { 255 } else { 0 };
    Image::from_rgb(256, 256, (0..256 * 256).flat_map(|at| [grey(at); 3]).collect()).expect("an image")
}

#[test]
fn a_mask_that_names_no_part_of_the_result_is_an_error() {
    let inpainting = inpainting();
    for (mask, got, next) in [
        (grey(0), "none at 64x64 (its lightest pixel has 0)", "Image::open_mask"),
        (grey(1), "none at 64x64 (its lightest pixel has 1)", "multiply its values by 255"),
        (grey(127), "none at 64x64 (its lightest pixel has 127)", "white"),
        (large_with_a_thin_line(), "none at 64x64 (its lightest pixel has 255)", "thicker"),
        // Latent masks sample every eighth pixel, and these lines contain none of them.
        (light_where(0, |x, _| x % 8 == 3), "512 pixels at 64x64, but none that a latent looks at", "thicker"),
        (light_where(0, |_, y| y == 60), "64 pixels at 64x64, but none that a latent looks at", "thicker"),
    ] {
        for pipeline in [pipeline(), &inpainting] {
            let request = request().with_inpainting(image(4), mask.clone(), 0.8);
            let message = pipeline.generate(&request).expect_err("an empty mask").to_string();
            assert!(
                message.starts_with("light part of the mask: expected") && message.contains(&format!("got {got}")),
                "{message}"
            );
            assert!(message.contains(next), "{message}");
        }
    }
    let thin = light_where(0, |x, y| x == 8 && y == 16);
    assert_eq!(generate(pipeline(), &request().with_inpainting(image(4), thin, 0.8)).images.len(), 2);
}

#[test]
fn requests_on_rayons_threads_may_share_a_control() {
    use rayon::prelude::*;
    // A rayon thread that waits inside the network may steal another of these requests. The test runs them in a
    // separate thread, so that a deadlock on a held lock fails the test instead of blocking it.
    let (done, all) = std::sync::mpsc::channel();
    // Always several threads: a single thread never steals work.
    let threads = rayon::ThreadPoolBuilder::new().num_threads(4).build().expect("threads");
    std::thread::spawn(move || {
        for round in 0..8 {
            let control = Control::new(network(), image(round));
            let read = || (0..16).into_par_iter().map(|_| residuals_of(&control)).collect();
            let read: Vec<Vec<f32>> = threads.install(read);
            assert!(read.iter().all(|one| *one == read[0]));
        }
        done.send(()).expect("the test waits");
    });
    all.recv_timeout(std::time::Duration::from_secs(300)).expect("a thread waits for a lock that it holds itself");
}

/// Returns the residuals that a control adds to the middle block.
fn residuals_of(control: &Control) -> Vec<f32> {
    let device = fabric::default_device().expect("a device");
    let level = NoiseLevel { timestep: 500.0, alpha: 0.5, sigma: 0.5 };
    let call = ModelCall { index: 0, total: 1, level };
    let (sample, context) = (Tensor::ones([1, 4, 32, 32], &device), Tensor::ones([1, 77, 32], &device));
    let input = UNetInput::new(sample, &[500.0], context);
    let request = request();
    let unet = golden_unet().init(&device).expect("a network");
    let run = RunContext::new(&request, &unet, pipeline().text_encoder(), [32, 32]);
    let prepared = control.prepare(&run).expect("a control");
    let layout = BatchLayout::new(vec![Branch::Conditional], 0..1);
    let added = prepared.residuals(&call, &input, &layout).expect("residuals");
    values(&added.and_then(|added| added.mid).expect("residuals"))
}

fn vae() -> Vae {
    let device = fabric::default_device().expect("a device");
    let text = std::fs::read_to_string(models().join("vae/config.json")).expect("settings");
    let config = VaeConfig::from_json(&text).expect("a configuration");
    let file = SafetensorsFile::open(models().join("vae/diffusion_pytorch_model.safetensors")).expect("a file");
    load_into(config.init(&device).expect("a network"), &file, &LoadOptions::default()).expect("a VAE").0
}

/// Pipeline with a random inpainting U-Net (nine input channels).
fn inpainting() -> Pipeline {
    let device = fabric::default_device().expect("a device");
    let unet = UNetConfig { in_channels: 9, ..golden_unet() }.init(&device).expect("a network");
    let scheduler = std::fs::read_to_string(models().join("scheduler/scheduler_config.json")).expect("settings");
    let scheduler = SchedulerConfig::from_json(&scheduler).expect("a schedule");
    let text: Arc<dyn TextEncoder + Send + Sync> = pipeline().shared_text_encoder();
    Pipeline::new(Arc::new(unet), Arc::new(vae()), text, scheduler, 64).expect("a pipeline")
}

#[test]
fn references_ride_along_in_networks_that_inpaint() {
    let pipeline = inpainting();
    let mut request = request().with_inpainting(image(4), image(5), 0.8).with_liked(image(2));
    request.settings.fabric = FabricSettings { start: 0.0, end: 1.0, ..FabricSettings::paper_target() };
    let interleaved = values(&generate(&pipeline, &request).latents);
    let mut plain = request.clone();
    plain.feedback.clear();
    assert!(distance(&interleaved, &values(&generate(&pipeline, &plain).latents)) > 1e-4);
    for pass in
        [ReferencePass::TwoPasses { chunk: 1 }, ReferencePass::Cached { chunk: 2, budget: 1 << 30, half: false }]
    {
        request.settings.fabric.execution.pass = pass;
        assert!(distance(&values(&generate(&pipeline, &request).latents), &interleaved) < ROUNDING);
    }
    let both = values(&generate(&pipeline, &plain).latents);
    for (seed, part) in [3, 4].into_iter().zip(both.chunks_exact(both.len() / 2)) {
        let alone = values(&generate(&pipeline, &plain.clone().with_seeds([seed])).latents);
        assert!(distance(&alone, part) < ROUNDING);
    }
    // Without an init image everything is generated, and the network still uses the mask.
    let mut other = masked(&plain, image(6));
    assert!(
        distance(&values(&generate(&pipeline, &other).latents), &values(&generate(&pipeline, &plain).latents)) > 1e-4
    );
    other.init_image = None;
    assert_eq!(generate(&pipeline, &other).images.len(), 2);
}
