//! Writes the trained networks as a model folder.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use fabric::core::schedule::SchedulerConfig;
use fabric::ipadapter::IpAdapter;
use fabric::models::RECOMMENDED_SETTINGS;
use fabric::models::load::{Component, FolderWriter, SaveDtype, SaveOptions, save_component};
use fabric::models::unet::UNet;
use fabric_world::{Judge, Readers};

use super::adapters::Adapter;
use super::{Job, tiny_vae};

/// Type of the U-Net, the image encoder and the adapters in the model folder: together they are most of its size.
const LARGE: SaveOptions = SaveOptions { dtype: SaveDtype::Int8, max_shard_bytes: None };

/// Type of the text encoder and the tiny autoencoder, which are small, and of the VAE, whose rounding errors would be visible in every image.
const EXACT: SaveOptions = SaveOptions { dtype: SaveDtype::F16, max_shard_bytes: None };

impl Job<'_> {
    /// Writes the model folder from all finished stages, including adapters and the tiny autoencoder, and returns its path.
    pub(crate) fn ship(&self) -> Result<PathBuf, Box<dyn Error>> {
        let folder = self.arguments.out.join("model");
        self.write_model(&folder, &self.finished("unet", self.world.unet.init(&self.device)?)?)?;
        if self.is_done(tiny_vae::NAME) {
            let network = self.finished(tiny_vae::NAME, self.world.tiny_vae.init(&self.device)?)?;
            let config = named("AutoencoderTiny", serde_json::to_value(&self.world.tiny_vae)?);
            save_component(&network, folder.join("tiny_vae"), &config, &EXACT)?;
        }
        for adapter in [Adapter::Plus, Adapter::Instruct] {
            if let Some(weights) = self.done(adapter.name()) {
                fs::create_dir_all(folder.join("ip_adapter"))?;
                let path = folder.join(format!("ip_adapter/{}.safetensors", adapter.name()));
                IpAdapter::open(weights, &self.device)?.save(path, LARGE.dtype)?;
            }
        }
        Ok(folder)
    }

    /// Writes the model folder, without the image encoder if that is not trained yet. Adapters are trained with this
    /// folder, and so with the same rounded weights as they are used with.
    pub(crate) fn write_model(&self, folder: &Path, unet: &UNet) -> Result<(), Box<dyn Error>> {
        if folder.join("model_index.json").is_file() {
            fs::remove_dir_all(folder)?;
        } else if folder.exists() {
            return Err(format!(
                "{}: expected a model's folder or nothing, got another folder: move it",
                folder.display()
            )
            .into());
        }
        let text = self.encoder("text", self.world.text.init(&self.device)?)?;
        let (vae, scale) = self.scaled_vae()?;
        let mut vae_config = self.world.vae.clone();
        vae_config.scaling_factor = scale;
        let mut writer = FolderWriter::create(folder, "StableDiffusionPipeline")?;
        writer.setting(RECOMMENDED_SETTINGS, recommended());
        let world = &self.world;
        writer.component(Component::TextEncoder, &text, &serde_json::to_value(&world.text)?, &EXACT)?;
        if self.is_done("clip") {
            let vision = self.encoder("clip", self.world.vision.init(&self.device)?)?;
            writer.component(Component::ImageEncoder, &vision, &serde_json::to_value(&world.vision)?, &LARGE)?;
        }
        let vae_config = named("AutoencoderKL", serde_json::to_value(&vae_config)?);
        writer.component(Component::Vae, &vae, &vae_config, &EXACT)?;
        let unet_config = named("UNet2DConditionModel", serde_json::to_value(&world.unet)?);
        writer.component(Component::UNet, unet, &unet_config, &LARGE)?;
        let tokenizer = self.arguments.out.join("tokenizer");
        fs::create_dir_all(&tokenizer)?;
        self.tokenizer.save(&tokenizer)?;
        writer.tokenizer(Component::TextEncoder, &tokenizer)?;
        writer.scheduler(&serde_json::from_str(&scheduler().to_json())?)?;
        writer.finish()?;
        Judge::save_readers(&self.finished("readers", Readers::new(&self.device))?, folder)?;
        Ok(())
    }
}

/// Returns the settings that the model recommends: steps and guidance scale as its model card measured them, and those of
/// `FabricSettings::official_demo` for votes (`docs/findings.md`, the sweep over FABRIC's settings).
fn recommended() -> serde_json::Value {
    serde_json::json!({
        "guidance_scale": 3.0,
        "steps": 10,
        "fabric": { "start": 0.0, "end": 0.8, "min_weight": 0.0, "max_weight": 0.8, "keep": { "balanced": 6 } },
    })
}

/// Returns a configuration with the name of diffusers' class.
fn named(class: &str, mut config: serde_json::Value) -> serde_json::Value {
    config["_class_name"] = class.into();
    config
}

/// Scheduler with v-prediction and Stable Diffusion's noise schedule, rescaled to zero terminal SNR.
pub(crate) fn scheduler() -> SchedulerConfig {
    let json = r#"{"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
        "beta_end": 0.012, "prediction_type": "v_prediction", "clip_sample": false, "set_alpha_to_one": false,
        "steps_offset": 1, "timestep_spacing": "trailing", "rescale_betas_zero_snr": true}"#;
    SchedulerConfig::from_json(json).expect("a scheduler that this library knows")
}
