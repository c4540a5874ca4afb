use std::path::Path;

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor, assert_shape};
use fabric_core::models::ImageEncoder;
use serde_json::Value;

use super::ClipVisionConfig;
use super::layer::ClipLayer;
use crate::ModelError;
use crate::layers::{Conv2d, Embedding, LayerNorm, Linear, cast, computes_in, value_as};
use crate::load::{ComponentFolder, LoadOptions, load_into};

/// CLIP image encoder: a transformer over the patches of an image and one class token.
#[derive(Module, Debug)]
pub struct ClipVision {
    class_embedding: Param<Tensor<1>>,
    patch_embedding: Conv2d,
    position_embedding: Embedding,
    pre_layernorm: LayerNorm,
    layers: Vec<ClipLayer>,
    post_layernorm: LayerNorm,
    visual_projection: Option<Linear>,
    image_size: usize,
}

/// Output of the image encoder for a batch of images.
#[derive(Debug, Clone)]
pub struct ClipVisionOutput {
    /// Embedded patches after the first norm, followed by the hidden state after each layer, `[images, tokens,
    /// channels]`, class token first. The last is transformers' `last_hidden_state`.
    pub hidden: Vec<Tensor<3>>,
    /// Class token of the last hidden state, normalised and projected: `[images, projection_dim]`. Without a
    /// projection it is the normalised class token: `[images, hidden_size]`.
    pub image_embeds: Tensor<2>,
}

impl ClipVision {
    pub(super) fn new(config: &ClipVisionConfig, device: &Device) -> Self {
        let channels = config.hidden_size;
        let layer = config.layer();
        let norm = || LayerNorm::new(channels, config.layer_norm_eps, device);
        Self {
            class_embedding: Initializer::Normal { mean: 0.0, std: 0.02 }.init([channels], device),
            patch_embedding: Conv2d::new(config.num_channels, channels, config.patch_size, device)
                .with_stride(config.patch_size, (0, 0))
                .without_bias(),
            position_embedding: Embedding::new(config.tokens(), channels, device),
            pre_layernorm: norm(),
            layers: (0..config.num_hidden_layers).map(|_| layer.init(device)).collect(),
            post_layernorm: norm(),
            visual_projection: Some(Linear::new(channels, config.projection_dim, false, device)),
            image_size: config.image_size,
        }
    }

    /// Scales the position embeddings by `factor`.
    ///
    /// At the published initialisation, positions make up 3 % of the first norm's input; learning to use them takes
    /// long training.
    #[cfg(feature = "train")]
    #[must_use]
    pub fn with_longer_positions(mut self, factor: f64) -> Self {
        let weight = self.position_embedding.weight.map(|weight| (weight * factor).detach());
        self.position_embedding.weight = weight.set_require_grad(true);
        self
    }

    /// Loads an image encoder from a folder: a `CLIPVisionModelWithProjection`, a `CLIPVisionModel`, which has no
    /// projection, or a whole `CLIPModel`, whose text encoder is ignored.
    ///
    /// ```no_run
    /// use fabric_models::clip::ClipVision;
    /// let encoder = ClipVision::open("models/image_encoder", &fabric_backends::default_device()?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if a file is missing, damaged, or of another kind.
    pub fn open(folder: impl AsRef<Path>, device: &Device) -> Result<Self, ModelError> {
        let folder = ComponentFolder::open(folder, None)?;
        let config = ClipVisionConfig::from_json(&folder.config::<Value>()?.to_string())?;
        Ok(load_into(config.init(device)?, &*folder.weights()?, &LoadOptions::default())?.0)
    }

    /// Removes the projection of the pooled features.
    pub(super) fn without_projection(mut self) -> Self {
        self.visual_projection = None;
        self
    }

    /// Encodes preprocessed images `[images, 3, image_size, image_size]`.
    pub fn forward(&self, pixels: Tensor<4>) -> ClipVisionOutput {
        let mut x = self.embed_patches(pixels);
        let mut hidden = vec![x.clone()];
        for layer in &self.layers {
            x = layer.forward(x);
            hidden.push(x.clone());
        }
        ClipVisionOutput { hidden, image_embeds: self.project(x) }
    }

    /// Returns the hidden state after `layers` layers, without running the remaining ones.
    fn run(&self, pixels: Tensor<4>, layers: usize) -> Tensor<3> {
        let embedded = self.embed_patches(pixels);
        self.layers[..layers].iter().fold(embedded, |x, layer| layer.forward(x))
    }

    fn embed_patches(&self, pixels: Tensor<4>) -> Tensor<3> {
        let side = self.image_size;
        assert_shape!(pixels, [_, 3, side, side]);
        let compute = computes_in(&self.position_embedding.weight);
        let positions = value_as(&self.position_embedding.weight, compute);
        let pixels = cast(pixels, compute);
        let patches = self.patch_embedding.forward(pixels);
        let [images, channels, height, width] = patches.dims();
        let patches = patches.reshape([images, channels, height * width]).swap_dims(1, 2);
        let class = value_as(&self.class_embedding, compute).reshape([1, 1, channels]).expand([images, 1, channels]);
        self.pre_layernorm.forward(Tensor::cat(vec![class, patches], 1) + positions.unsqueeze::<3>())
    }

    fn project(&self, last: Tensor<3>) -> Tensor<2> {
        let [images, _, channels] = last.dims();
        let class = last.narrow(1, 0, 1).reshape([images, channels]);
        let class = self.post_layernorm.forward(class);
        match &self.visual_projection {
            Some(projection) => projection.forward(class),
            None => class,
        }
    }
}

impl ImageEncoder for ClipVision {
    fn embed(&self, pixels: Tensor<4>) -> Tensor<2> {
        let last = self.run(pixels, self.layers.len());
        self.project(last)
    }

    fn penultimate(&self, pixels: Tensor<4>) -> Tensor<3> {
        self.run(pixels, self.layers.len() - 1)
    }

    fn device(&self) -> Device {
        self.patch_embedding.weight.lazy_device()
    }

    fn image_size(&self) -> usize {
        self.image_size
    }

    fn has_projection(&self) -> bool {
        self.visual_projection.is_some()
    }
}
