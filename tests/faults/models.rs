//! The tiny networks, and networks that fail at a chosen call.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use burn::tensor::{Device, Tensor};
use fabric::core::Error;
use fabric::core::attention::AttnSite;
use fabric::core::models::{
    Autoencoder, CrossAttention, ImageEncoder, Posterior, Record, TextEmbedding, TextEncoder, TextOptions, UNetInput,
    UNetModel, UNetOutput,
};
use fabric::core::pipeline::Pipeline;
use fabric::ipadapter::IpAdapter;
use fabric::models::clip::ClipVision;
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::unet::UNet;
use fabric::models::vae::Vae;
use fabric::models::{ModelOptions, StableDiffusion};

/// The folder of the tiny networks.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models")
}

pub(crate) fn device() -> Device {
    fabric::default_device().expect("a device")
}

/// Options for loading the model, which has no tokenizer of its own.
pub(crate) fn options() -> ModelOptions {
    ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() }
}

/// The networks, loaded once.
pub(crate) struct Networks {
    pub(crate) unet: UNet,
    pub(crate) vae: Vae,
    rest: Pipeline,
}

static NETWORKS: LazyLock<Networks> = LazyLock::new(|| {
    let (model, _) = StableDiffusion::open(folder(), &device(), &options()).expect("a model");
    let (unet, vae) = (model.unet.clone(), model.vae.clone());
    Networks { unet, vae, rest: model.into_pipeline().expect("a pipeline") }
});

/// Returns the networks.
pub(crate) fn networks() -> &'static Networks {
    &NETWORKS
}

/// Returns a pipeline of the shared networks with empty caches of its own.
pub(crate) fn pipeline() -> Pipeline {
    with_networks(Arc::new(networks().unet.clone()), Arc::new(networks().vae.clone()))
}

/// Returns a pipeline with another U-Net and VAE, and with empty caches of its own.
pub(crate) fn with_networks(
    unet: Arc<dyn UNetModel + Send + Sync>,
    vae: Arc<dyn Autoencoder + Send + Sync>,
) -> Pipeline {
    let Networks { rest, .. } = networks();
    let (text, scheduler) = (rest.shared_text_encoder(), rest.scheduler().clone());
    Pipeline::new(unet, vae, text, scheduler, 64).expect("a pipeline")
}

/// Returns an adapter of the tiny networks with an image encoder.
pub(crate) fn adapter(encoder: impl ImageEncoder + Send + Sync + 'static) -> IpAdapter {
    let path = folder().join("ip_adapter/plus.safetensors");
    IpAdapter::open(path, &device()).expect("an adapter").with_encoder(encoder)
}

pub(crate) fn vision() -> ClipVision {
    ClipVision::open(folder().join("image_encoder"), &device()).expect("an encoder")
}

/// Part of a run in which a network is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Text,
    ImagePrompt,
    Encoding,
    Recording,
    Evaluation,
    Decoding,
}

/// Kinds of failure of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It panics, as burn does when a device runs out of memory.
    Panic,
    /// It returns NaN in place of every value.
    NotFinite,
}

/// Fault that waits for one call of one stage, and happens once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fault(Arc<Mutex<Option<(Stage, usize, Failure)>>>);

impl Fault {
    /// Lets the call of this index, counted from 0 in its stage, fail.
    pub(crate) fn set(&self, stage: Stage, call: usize, failure: Failure) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((stage, call, failure));
    }

    /// Whether the fault is still to come.
    pub(crate) fn is_waiting(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Counts a call of a stage. Panics if it is to panic; returns whether its result is to be replaced.
    fn meet(&self, stage: Stage) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((at, left, failure)) = *waiting else { return false };
        if at != stage {
            return false;
        }
        if left > 0 {
            *waiting = Some((at, left - 1, failure));
            return false;
        }
        *waiting = None;
        drop(waiting);
        assert!(failure != Failure::Panic, "out of memory");
        true
    }

    fn result<const D: usize>(&self, stage: Stage, make: impl FnOnce() -> Tensor<D>) -> Tensor<D> {
        let is_replaced = self.meet(stage);
        let made = make();
        if is_replaced { made * f32::NAN } else { made }
    }
}

/// U-Net with a fault.
pub(crate) struct FaultyUNet(pub(crate) Fault);

impl UNetModel for FaultyUNet {
    fn forward(&self, input: UNetInput<'_>) -> UNetOutput {
        let stage = if input.record == Record::Nothing { Stage::Evaluation } else { Stage::Recording };
        let is_replaced = self.0.meet(stage);
        let mut output = networks().unet.forward(input);
        if is_replaced {
            output.sample = output.sample.map(|sample| sample * f32::NAN);
            output.recorded.iter_mut().for_each(|tokens| tokens.value = tokens.value.clone() * f32::NAN);
        }
        output
    }

    fn attention_sites(&self) -> Vec<AttnSite> {
        networks().unet.attention_sites()
    }

    fn cross_attentions(&self) -> Vec<CrossAttention> {
        networks().unet.cross_attentions()
    }

    fn skip_channels(&self) -> Vec<usize> {
        networks().unet.skip_channels()
    }

    fn level_channels(&self) -> Vec<usize> {
        networks().unet.level_channels()
    }

    fn levels(&self) -> usize {
        networks().unet.levels()
    }

    fn in_channels(&self) -> usize {
        networks().unet.in_channels()
    }

    fn device(&self) -> Device {
        networks().unet.device()
    }
}

/// VAE with a fault.
pub(crate) struct FaultyVae {
    pub(crate) fault: Fault,
    /// Whether it pretends to compute in half precision, so that it can be run again in f32.
    pub(crate) half: bool,
}

impl Autoencoder for FaultyVae {
    fn encode(&self, pixels: Tensor<4>, posterior: Posterior) -> Tensor<4> {
        self.fault.result(Stage::Encoding, || Autoencoder::encode(&networks().vae, pixels, posterior))
    }

    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        self.fault.result(Stage::Decoding, || Autoencoder::decode(&networks().vae, latents))
    }

    fn decode_in_f32(&self, latents: Tensor<4>) -> Option<Tensor<4>> {
        self.half.then(|| Autoencoder::decode(&networks().vae, latents))
    }

    fn scale_factor(&self) -> usize {
        Autoencoder::scale_factor(&networks().vae)
    }

    fn latent_channels(&self) -> usize {
        Autoencoder::latent_channels(&networks().vae)
    }
}

/// Text encoder with a fault.
struct FaultyText(Fault);

impl TextEncoder for FaultyText {
    fn encode(&self, prompts: &[String], options: &TextOptions) -> Result<TextEmbedding, Error> {
        let is_replaced = self.0.meet(Stage::Text);
        let mut made = networks().rest.text_encoder().encode(prompts, options)?;
        if is_replaced {
            made.context = made.context * f32::NAN;
        }
        Ok(made)
    }
}

/// Image encoder with a fault.
struct FaultyVision {
    network: ClipVision,
    fault: Fault,
}

impl ImageEncoder for FaultyVision {
    fn embed(&self, pixels: Tensor<4>) -> Tensor<2> {
        self.fault.result(Stage::ImagePrompt, || self.network.embed(pixels))
    }

    fn penultimate(&self, pixels: Tensor<4>) -> Tensor<3> {
        self.fault.result(Stage::ImagePrompt, || self.network.penultimate(pixels))
    }

    fn image_size(&self) -> usize {
        self.network.image_size()
    }

    fn device(&self) -> Device {
        ImageEncoder::device(&self.network)
    }
}

/// Returns a pipeline in which every network can fail, an adapter whose image encoder can fail, and the fault.
pub(crate) fn faulty() -> (Pipeline, IpAdapter, Fault) {
    let fault = Fault::default();
    let unet = Arc::new(FaultyUNet(fault.clone()));
    let vae = Arc::new(FaultyVae { fault: fault.clone(), half: false });
    let text = Arc::new(FaultyText(fault.clone()));
    let scheduler = networks().rest.scheduler().clone();
    let pipeline = Pipeline::new(unet, vae, text, scheduler, 64).expect("a pipeline");
    let adapter = adapter(FaultyVision { network: vision(), fault: fault.clone() });
    (pipeline, adapter, fault)
}
