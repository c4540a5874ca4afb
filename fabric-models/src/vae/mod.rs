//! The variational autoencoder of Stable Diffusion (diffusers' `AutoencoderKL`): between images and latents.

mod attention;
mod blocks;
mod config;
mod names;
mod tiling;

pub use config::{DecoderBlockType, EncoderBlockType, VaeConfig};
pub use tiling::Tiling;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData, assert_shape};
use fabric_core::models::{Autoencoder, Posterior};

use self::blocks::{Decoder, Encoder};
use crate::config::OneOrMany;
use crate::layers::{Conv2d, Trace, cast, is_half};

/// Encodes images to latents of an eighth of their size, and decodes them again.
#[derive(Module, Debug)]
pub struct Vae {
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    #[module(skip)]
    scale: LatentScale,
    #[module(skip)]
    options: VaeOptions,
    #[module(skip)]
    default_tiling: Tiling,
    scale_factor: usize,
    /// Numbers that are alive at once per pixel of the image.
    working_width: usize,
}

/// How a VAE computes; none of it changes what it computes, except that tiles do not see one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VaeOptions {
    /// Images beyond this size go in overlapping tiles. `None` (the default) never cuts.
    pub tiling: Option<Tiling>,
    /// Whether the images of a batch go one at a time, for less memory.
    pub sliced: bool,
    /// Whether half-precision weights are computed with in f32, layer by layer. The default is the
    /// configuration's `force_upcast`; XL's original VAE overflows f16. On a CPU they always are.
    pub upcast: bool,
}

/// Between the latents of the network and those of the diffusion, per channel: `(z - shift) * scale`.
#[derive(Debug, Clone, PartialEq)]
struct LatentScale {
    shift: Vec<f32>,
    scale: Vec<f32>,
}

impl LatentScale {
    fn new(config: &VaeConfig) -> Self {
        let channels = config.latent_channels;
        let shift = match &config.latents_mean {
            Some(mean) => mean.clone(),
            None => vec![config.shift_factor.unwrap_or(0.0); channels],
        };
        let std = config.latents_std.clone().unwrap_or_else(|| vec![1.0; channels]);
        Self {
            shift: shift.into_iter().map(|x| x as f32).collect(),
            scale: std.into_iter().map(|std| (config.scaling_factor / std) as f32).collect(),
        }
    }

    /// Shift and scale `[1, channels, 1, 1]`.
    fn tensors(&self, like: &Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let tensor = |values: &Vec<f32>| {
            let data = TensorData::new(values.clone(), [1, values.len(), 1, 1]);
            Tensor::from_data(data, (&like.device(), like.dtype()))
        };
        (tensor(&self.shift), tensor(&self.scale))
    }
}

/// The latents of an image as a distribution, before scaling.
#[derive(Debug, Clone)]
pub struct LatentDistribution {
    /// `[images, latent_channels, height / 8, width / 8]`.
    pub mean: Tensor<4>,
    /// Logarithm of the variance, within [-30, 20].
    pub logvar: Tensor<4>,
}

impl LatentDistribution {
    /// `mean + std * noise`; of one image, as many samples as there are rows of noise.
    pub fn sample(&self, noise: Tensor<4>) -> Tensor<4> {
        let ([rows, latents @ ..], [images, own @ ..]) = (noise.dims(), self.mean.dims());
        assert_eq!(latents, own, "VAE: noise and latents differ in shape");
        assert!(images == 1 || images == rows, "VAE: {rows} rows of noise for {images} images");
        let std = (self.logvar.clone() * 0.5).exp();
        // One image's mean and deviation serve all rows.
        self.mean.clone() + std * cast(noise, self.mean.dtype())
    }
}

impl Vae {
    fn new(config: &VaeConfig, device: &Device) -> Self {
        let latents = config.latent_channels;
        let scale_factor = config.scale_factor();
        let sample_size = match &config.sample_size {
            OneOrMany::One(size) => *size,
            OneOrMany::Many(sizes) => sizes.iter().copied().max().unwrap_or(0),
        };
        // The published files' training size, or enough for a sensible tile where they tell none.
        let tile = (sample_size / scale_factor).max(16);
        Self {
            encoder: Encoder::new(config, device),
            decoder: Decoder::new(config, device),
            quant_conv: config.use_quant_conv.then(|| Conv2d::new(2 * latents, 2 * latents, 1, device)),
            post_quant_conv: config.use_post_quant_conv.then(|| Conv2d::new(latents, latents, 1, device)),
            scale: LatentScale::new(config),
            options: VaeOptions { tiling: None, sliced: false, upcast: config.force_upcast },
            default_tiling: Tiling::new(tile, tile / 4).expect("a quarter of a tile is less than a tile"),
            scale_factor,
            // The last block's first resnet: its input, normalised, and its output.
            working_width: 2 * config.block_out_channels.get(1).unwrap_or(&config.block_out_channels[0])
                + config.block_out_channels[0],
        }
    }

    /// How it computes.
    pub fn options(&self) -> VaeOptions {
        self.options
    }

    /// The same network, which computes in another way.
    #[must_use]
    pub fn with_options(self, options: VaeOptions) -> Self {
        Self { options, ..self }
    }

    /// Tiles of the size it was trained on, with a quarter of overlap, as in diffusers.
    pub fn default_tiling(&self) -> Tiling {
        self.default_tiling
    }

    /// The distribution of the latents of images `[images, 3, height, width]` in [-1, 1], not scaled.
    ///
    /// Height and width are multiples of [`Autoencoder::scale_factor`]; what is beyond is not encoded.
    pub fn encode_distribution(&self, pixels: Tensor<4>) -> LatentDistribution {
        self.distribution(pixels, &mut None)
    }

    /// Latents `[images, latent_channels, height, width]`, not scaled, to pixels of about [-1, 1].
    pub fn decode_unscaled(&self, latents: Tensor<4>) -> Tensor<4> {
        self.pixels(latents, &mut None)
    }

    /// [`Vae::encode_distribution`] that also shows the output of each part (`encoder.conv_in`, ...).
    pub fn encode_traced(&self, pixels: Tensor<4>, trace: &mut dyn FnMut(&str, &Tensor<4>)) -> LatentDistribution {
        self.distribution(pixels, &mut Some(trace))
    }

    /// [`Vae::decode_unscaled`] that also shows the output of each part (`decoder.mid_block`, ...).
    pub fn decode_traced(&self, latents: Tensor<4>, trace: &mut dyn FnMut(&str, &Tensor<4>)) -> Tensor<4> {
        self.pixels(latents, &mut Some(trace))
    }

    fn distribution(&self, pixels: Tensor<4>, trace: &mut Trace<'_>) -> LatentDistribution {
        let [_, _, height, width] = pixels.dims();
        let scale = self.scale_factor;
        assert_shape!(pixels, [_, 3, _, _]);
        assert!(height >= scale && width >= scale, "VAE: {height}x{width} pixels, expected at least {scale}x{scale}");
        let mut encode = |pixels: Tensor<4>| {
            let moments = self.encoder.forward(pixels, trace);
            match &self.quant_conv {
                Some(conv) => conv.forward(moments),
                None => moments,
            }
        };
        let moments = self.per_slice(pixels, |pixels| match self.options.tiling {
            Some(tiling) if tiling.cuts(height / scale, width / scale) => tiling.encode(pixels, scale, &mut encode),
            _ => encode(pixels),
        });
        let channels = moments.dims()[1] / 2;
        LatentDistribution {
            mean: moments.clone().narrow(1, 0, channels),
            logvar: moments.narrow(1, channels, channels).clamp(-30.0, 20.0),
        }
    }

    fn pixels(&self, latents: Tensor<4>, trace: &mut Trace<'_>) -> Tensor<4> {
        let [_, _, height, width] = latents.dims();
        assert_shape!(latents, [_, self.scale.scale.len(), _, _]);
        assert!(height > 0 && width > 0, "VAE: latents of {height}x{width}");
        let mut decode = |latents: Tensor<4>| {
            let latents = match &self.post_quant_conv {
                Some(conv) => conv.forward(latents),
                None => latents,
            };
            self.decoder.forward(latents, trace)
        };
        self.per_slice(latents, |latents| match self.options.tiling {
            Some(tiling) if tiling.cuts(height, width) => tiling.decode(latents, self.scale_factor, &mut decode),
            _ => decode(latents),
        })
    }

    fn computes_in(&self, device: &Device) -> DType {
        let own = self.decoder.computes_in(device);
        if self.options.upcast && is_half(own) { DType::F32 } else { own }
    }

    /// [`Autoencoder::working_bytes`] if the network were there.
    pub(crate) fn working_bytes_on(&self, device: &Device, latents: [usize; 2]) -> u64 {
        let [height, width] = match self.options.tiling {
            Some(tiling) => latents.map(|side| side.min(tiling.tile())),
            None => latents,
        };
        let bytes = self.computes_in(device).size();
        let pixels = height as u64 * width as u64 * (self.scale_factor as u64).pow(2);
        pixels * (self.working_width * bytes) as u64
    }

    /// Runs `f` in the number type of the computation, over all images at once or one by one.
    fn per_slice(&self, x: Tensor<4>, mut f: impl FnMut(Tensor<4>) -> Tensor<4>) -> Tensor<4> {
        let dtype = x.dtype();
        let compute = self.computes_in(&self.decoder.device());
        let rows = x.dims()[0];
        let x = cast(x, compute);
        let out = if self.options.sliced && rows > 1 {
            Tensor::cat((0..rows).map(|row| f(x.clone().narrow(0, row, 1))).collect(), 0)
        } else {
            f(x)
        };
        cast(out, dtype)
    }
}

impl Autoencoder for Vae {
    fn encode(&self, pixels: Tensor<4>, posterior: Posterior) -> Tensor<4> {
        let distribution = self.encode_distribution(pixels);
        let latents = match posterior {
            Posterior::Mean => distribution.mean,
            Posterior::Sample(noise) => distribution.sample(noise),
        };
        let (shift, scale) = self.scale.tensors(&latents);
        (latents - shift) * scale
    }

    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        let (shift, scale) = self.scale.tensors(&latents);
        self.decode_unscaled(latents / scale + shift)
    }

    fn scale_factor(&self) -> usize {
        self.scale_factor
    }

    fn latent_channels(&self) -> usize {
        self.scale.scale.len()
    }

    fn working_bytes(&self, latents: [usize; 2]) -> u64 {
        self.working_bytes_on(&self.decoder.device(), latents)
    }
}

#[cfg(test)]
mod tests;
