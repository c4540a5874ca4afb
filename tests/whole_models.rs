//! Writes, loads and runs small random models of other families than the golden one.

use std::path::PathBuf;

use fabric::core::fabric::FabricSettings;
use fabric::core::image::Image;
use fabric::core::models::TextOptions;
use fabric::core::pipeline::{Generation, Pipeline, Request, Settings};
use fabric::core::session::FeedbackSession;
use fabric::models::clip::ClipTextConfig;
use fabric::models::config::OneOrMany;
use fabric::models::load::{Component, Family, FolderWriter, SaveOptions, save_component};
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::unet::{Depths, UNetConfig};
use fabric::models::vae::VaeConfig;
use fabric::models::{LoadPipeline, ModelOptions, ModelReport, load_model, recommended_settings};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Small SDXL model: two text encoders, time ids, no attention at full resolution.
fn xl(settings: &[(&str, Value)]) -> (Pipeline, ModelReport) {
    load(&xl_folder(settings), &ModelOptions::default())
}

fn load(folder: &TempDir, options: &ModelOptions) -> (Pipeline, ModelReport) {
    let device = fabric::default_device().expect("a device");
    load_model(folder.path().join("xl"), &device, options).expect("a loaded model")
}

fn small_vae() -> VaeConfig {
    VaeConfig { block_out_channels: vec![32, 32, 32, 32], ..VaeConfig::sdxl() }
}

fn xl_folder(settings: &[(&str, Value)]) -> TempDir {
    let device = fabric::default_device().expect("a device");
    let small = |text: ClipTextConfig| ClipTextConfig {
        hidden_size: 32,
        intermediate_size: 64,
        projection_dim: 24,
        num_hidden_layers: 3,
        num_attention_heads: 2,
        ..text
    };
    let texts = [small(ClipTextConfig::vit_l()), small(ClipTextConfig::big_g())];
    let unet = UNetConfig {
        block_out_channels: vec![32, 64, 64],
        cross_attention_dim: 64.into(),
        transformer_layers_per_block: Depths::PerLevel([1, 1, 2].map(OneOrMany::One).to_vec()),
        attention_head_dim: OneOrMany::Many(vec![1, 2, 4]),
        addition_time_embed_dim: Some(8),
        projection_class_embeddings_input_dim: Some(24 + 6 * 8),
        sample_size: Some(8.into()),
        ..UNetConfig::sdxl()
    };
    let vae = small_vae();
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("xl");
    let options = SaveOptions::default();
    let of = |class: &str, config: Value| -> Value {
        let mut config = config;
        config["_class_name"] = class.into();
        config
    };
    let write = || -> Result<(), Box<dyn std::error::Error>> {
        let mut writer = FolderWriter::create(&folder, "StableDiffusionXLPipeline")?;
        for (text, component) in texts.iter().zip([Component::TextEncoder, Component::TextEncoder2]) {
            writer.component(component, &text.init(&device)?, &serde_json::to_value(text)?, &options)?;
        }
        writer.component(
            Component::Vae,
            &vae.init(&device)?,
            &of("AutoencoderKL", serde_json::to_value(&vae)?),
            &options,
        )?;
        let config = of("UNet2DConditionModel", serde_json::to_value(&unet)?);
        writer.component(Component::UNet, &unet.init(&device)?, &config, &options)?;
        writer.scheduler(&json!({"_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear",
            "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1, "timestep_spacing": "leading"}))?;
        for (name, value) in settings {
            writer.setting(name, value.clone());
        }
        Ok(writer.finish()?)
    };
    write().expect("a written model");
    place
}

fn request() -> Request {
    let settings = Settings { width: Some(64), height: Some(96), steps: 2, ..Settings::default() };
    Request::new("a photo of a cat").with_seeds([1, 2]).with_settings(settings)
}

fn values(made: &Generation) -> Vec<f32> {
    made.latents.clone().into_data().convert::<f32>().try_to_vec().expect("f32 data")
}

#[test]
fn xl_runs_from_a_prompt_to_images_and_follows_feedback() {
    let (pipeline, report) = xl(&[]);
    assert_eq!(report.family, Family::Sdxl);
    assert_eq!(pipeline.native_size(), 64);
    let plain = pipeline.generate(&request()).expect("images");
    assert_eq!(plain.report.origin, ["Stable Diffusion XL xl"]);
    assert_eq!(plain.images.iter().map(|p| (p.width(), p.height())).collect::<Vec<_>>(), [(64, 96), (64, 96)]);
    assert!(values(&plain).iter().all(|x| x.is_finite()));
    assert_ne!(plain.images[0], plain.images[1]);

    let mut liked = request().with_liked(plain.images[1].clone());
    liked.settings.fabric = FabricSettings { start: 0.0, end: 1.0, ..FabricSettings::default() };
    liked.settings.measure_attention = true;
    let steered = pipeline.generate(&liked).expect("images");
    assert!(values(&steered) != values(&plain));
    let attention = &steered.report.attention;
    assert!(attention.len() == 1 && attention[0].mean > 0.05 && attention[0].mean < 0.95, "{attention:?}");
    // The mean of the layers is that of the whole, and about that of each map: a cell may lie on two of a layer's.
    let layers: Vec<f64> = attention[0].layers.iter().flat_map(|layer| layer.shares.clone()).collect();
    let of_layers = layers.iter().sum::<f64>() / layers.len() as f64;
    assert!((of_layers - attention[0].mean).abs() < 1e-6 && attention[0].maps.len() == 2, "{attention:?}");
    let cells = attention[0].maps.concat().concat();
    assert!(cells.iter().all(|share| *share > 0.0 && *share < 1.0));
    let of_cells = cells.iter().map(|share| f64::from(*share)).sum::<f64>() / cells.len() as f64;
    assert!((of_cells - attention[0].mean).abs() < 0.02, "{of_cells} and {}", attention[0].mean);
}

#[test]
fn a_vae_of_ones_own_replaces_the_models() {
    let folder = xl_folder(&[]);
    let device = fabric::default_device().expect("a device");
    let own = folder.path().join("own");
    let config = serde_json::to_value(small_vae()).expect("a configuration");
    let vae = small_vae().init(&device).expect("a VAE");
    save_component(&vae, &own, &config, &SaveOptions::default()).expect("a saved VAE");
    let made = |vae: Option<PathBuf>| {
        let (pipeline, _) = load(&folder, &ModelOptions { vae, ..ModelOptions::default() });
        pipeline.generate(&request()).expect("images")
    };
    let (plain, by_folder) = (made(None), made(Some(own.clone())));
    let mut files = std::fs::read_dir(&own).expect("a folder").map(|entry| entry.expect("an entry").path());
    let file = files.find(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    let by_file = made(Some(file.expect("a file of weights")));
    assert_eq!(values(&plain), values(&by_folder), "the VAE does not change the latents");
    assert_ne!(plain.images, by_folder.images);
    assert_eq!(by_file.images, by_folder.images);
    let options = ModelOptions { vae: Some(folder.path().join("xl/unet")), ..ModelOptions::default() };
    let error = load_model(folder.path().join("xl"), &device, &options).expect_err("a U-Net is no VAE").to_string();
    assert!(error.contains("VAE configuration, `down_block_types`: expected"), "{error}");
}

#[test]
fn a_tokenizer_for_both_encoders_leaves_each_its_padding() {
    let folder = xl_folder(&[]);
    let given = ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() };
    let [own, given] = [ModelOptions::default(), given].map(|options| {
        let (pipeline, _) = load(&folder, &options);
        values(&pipeline.generate(&request()).expect("images"))
    });
    assert_eq!(own, given, "the carried vocabulary, and the same vocabulary given");
}

#[test]
fn an_absent_negative_prompt_of_xl_is_zeros_unless_its_folder_says_otherwise() {
    let (by_rule, _) = xl(&[]);
    let (by_setting, _) = xl(&[("force_zeros_for_empty_prompt", json!(false))]);
    let absent = |pipeline: &Pipeline| values(&pipeline.generate(&request()).expect("images"));
    let empty = |pipeline: &Pipeline| values(&pipeline.generate(&request().with_negative_prompt("")).expect("images"));
    assert!(absent(&by_rule) != empty(&by_rule), "zeros are not the empty prompt");
    assert!(absent(&by_setting) == empty(&by_setting), "the empty prompt stands in for an absent one");
}

#[test]
fn the_first_and_the_second_encoder_both_speak() {
    let (pipeline, _) = xl(&[]);
    let with = |prompt: &str| {
        let request = Request { prompt: prompt.to_owned(), ..request() };
        values(&pipeline.generate(&request).expect("images"))
    };
    assert!(with("a photo of a cat") != with("a photo of a dog"));
    let image = Image::from_rgb(8, 8, vec![90; 192]).expect("an image");
    let start = request().with_init_image(image, 0.5);
    assert!(pipeline.generate(&start).expect("images").report.calls > 0);
}

#[test]
fn instruct_reads_the_first_encoders_last_layer_normed() {
    let (pipeline, _) = xl(&[]);
    let text = ["a photo of a cat".to_owned()];
    let read = pipeline.text_encoder().last_hidden(&text, &TextOptions::default()).expect("a text");
    // Channels of one encoder; the U-Net's context concatenates both.
    assert_eq!(read.dims(), [1, 77, 32]);
    assert_eq!(pipeline.text_encoder().encode(&text, &TextOptions::default()).expect("a text").context.dims()[2], 64);
    // A newly initialised layer norm gives mean 0 and variance 1.
    let (variance, mean) = read.var_mean_bias(2);
    assert!(mean.abs().max().into_scalar::<f32>() < 1e-4);
    assert!((variance - 1.0).abs().max().into_scalar::<f32>() < 1e-2);
}

#[test]
fn a_model_brings_its_recommended_settings() {
    let device = fabric::default_device().expect("a device");
    let recommended = json!({"guidance_scale": 3.0, "steps": 7});
    let place = xl_folder(&[("_recommended_settings", recommended)]);
    let pipeline = Pipeline::open(place.path().join("xl"), &device).expect("a model");
    let settings = pipeline.recommended_settings();
    assert_eq!((settings.guidance_scale, settings.steps), (3.0, 7));
    assert_eq!(pipeline.request("a cat").settings, *settings);
    assert_eq!(recommended_settings(place.path().join("xl")).expect("settings"), *settings);
    let mut session = FeedbackSession::new("a cat");
    session.generate(&pipeline, 1).expect("a round");
    assert_eq!(session.generation_settings().expect("settings"), *settings);
    // Settings that were given stay.
    let mut session =
        FeedbackSession::new("a cat").with_generation_settings(&Settings { steps: 2, ..Settings::default() });
    assert_eq!(session.generate(&pipeline, 1).expect("a round").settings["steps"], 2);
    for wrong in [json!([]), json!({"steps": 0}), json!({"stepz": 3}), json!(7)] {
        let place = xl_folder(&[("_recommended_settings", wrong.clone())]);
        let message = Pipeline::open(place.path().join("xl"), &device).expect_err("no settings").to_string();
        assert!(message.contains("expected") && message.contains("got"), "{wrong}: {message}");
    }
}
