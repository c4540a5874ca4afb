//! Variational autoencoder of Stable Diffusion (diffusers' `AutoencoderKL`).

mod attention;
mod blocks;
mod config;
mod names;
mod tiling;

pub use config::{DecoderBlockType, EncoderBlockType, VaeConfig};
pub(crate) use config::{MAX_SHIFT, SCALES};
pub use tiling::Tiling;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData, assert_shape};
use fabric_core::models::{Autoencoder, Posterior};

use self::blocks::{Decoder, Encoder};
use crate::config::OneOrMany;
use crate::layers::{Conv2d, Trace, cast, is_half};

/// VAE: encodes images to latents of an eighth of their size, and decodes latents to images.
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
    /// Number of values held at once per pixel of the image.
    working_width: usize,
}

/// Computation options of a VAE. None of them changes the result, except that tiles are processed independently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VaeOptions {
    /// Tiling of images larger than a tile. `None` (the default) disables it.
    pub tiling: Option<Tiling>,
    /// Whether the images of a batch are processed one at a time, to save memory.
    pub sliced: bool,
    /// Whether half-precision weights are computed in f32, layer by layer. The default is the configuration's
    /// `force_upcast`; SDXL's original VAE overflows f16. On a CPU they always are.
    pub upcast: bool,
}

/// Per-channel scaling of the VAE's latents for the diffusion model: `(z - shift) * scale`.
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

    /// Returns shift and scale, `[1, channels, 1, 1]`.
    fn tensors(&self, like: &Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let tensor = |values: &Vec<f32>| {
            let data = TensorData::new(values.clone(), [1, values.len(), 1, 1]);
            Tensor::from_data(data, (&like.device(), like.dtype()))
        };
        (tensor(&self.shift), tensor(&self.scale))
    }
}

/// Distribution of an image's latents, before scaling.
#[derive(Debug, Clone)]
pub struct LatentDistribution {
    /// `[images, latent_channels, height / 8, width / 8]`.
    pub mean: Tensor<4>,
    /// Logarithm of the variance, within [-30, 20].
    pub logvar: Tensor<4>,
}

impl LatentDistribution {
    /// Returns `mean + std * noise`. The distribution of a single image is sampled once per row of noise.
    pub fn sample(&self, noise: Tensor<4>) -> Tensor<4> {
        let ([rows, latents @ ..], [images, own @ ..]) = (noise.dims(), self.mean.dims());
        assert_eq!(latents, own, "VAE: noise and latents differ in shape");
        assert!(images == 1 || images == rows, "VAE: {rows} rows of noise for {images} images");
        let std = (self.logvar.clone() * 0.5).exp();
        // The mean and standard deviation of a single image broadcast over all rows.
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
        // The training size, or a sufficient tile size where the configuration does not specify one.
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
            // The first resnet of the last block holds its input, the normalised input, and its output.
            working_width: 2 * config.block_out_channels.get(1).unwrap_or(&config.block_out_channels[0])
                + config.block_out_channels[0],
        }
    }

    /// Returns the computation options.
    pub fn options(&self) -> VaeOptions {
        self.options
    }

    /// Sets the computation options.
    #[must_use]
    pub fn with_options(self, options: VaeOptions) -> Self {
        Self { options, ..self }
    }

    /// Returns tiles of the training size with an overlap of a quarter, as in diffusers.
    pub fn default_tiling(&self) -> Tiling {
        self.default_tiling
    }

    /// Encodes images `[images, 3, height, width]` in [-1, 1] to the distribution of their latents, not scaled.
    ///
    /// Height and width should be multiples of [`Autoencoder::scale_factor`]; remaining pixels are not encoded.
    pub fn encode_distribution(&self, pixels: Tensor<4>) -> LatentDistribution {
        self.distribution(pixels, &mut None)
    }

    /// Decodes unscaled latents `[images, latent_channels, height, width]` to pixels in about [-1, 1].
    pub fn decode_unscaled(&self, latents: Tensor<4>) -> Tensor<4> {
        self.pixels(latents, &mut None)
    }

    /// Runs [`Vae::encode_distribution`] and passes the output of each part (`encoder.conv_in`, ...) to `trace`.
    pub fn encode_traced(&self, pixels: Tensor<4>, trace: &mut dyn FnMut(&str, &Tensor<4>)) -> LatentDistribution {
        self.distribution(pixels, &mut Some(trace))
    }

    /// Runs [`Vae::decode_unscaled`] and passes the output of each part (`decoder.mid_block`, ...) to `trace`.
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

    /// Returns [`Autoencoder::working_bytes`] for the network on another device.
    pub(crate) fn working_bytes_on(&self, device: &Device, latents: [usize; 2]) -> u64 {
        let [height, width] = match self.options.tiling {
            Some(tiling) => latents.map(|side| side.min(tiling.tile())),
            None => latents,
        };
        let bytes = self.computes_in(device).size();
        let pixels = height as u64 * width as u64 * (self.scale_factor as u64).pow(2);
        pixels * (self.working_width * bytes) as u64
    }

    /// Runs `f` in the data type of the computation, on all images at once or one by one.
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

    fn decode_in_f32(&self, latents: Tensor<4>) -> Option<Tensor<4>> {
        let is_half = is_half(self.computes_in(&self.decoder.device()));
        is_half.then(|| {
            Autoencoder::decode(&self.clone().with_options(VaeOptions { upcast: true, ..self.options }), latents)
        })
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
