//! Tiny autoencoder (TAESD; diffusers' `AutoencoderTiny`): a distilled VAE that does a small part of its work, for
//! previews.

mod config;
mod files;
mod layers;
mod names;

pub use config::TinyAutoencoderConfig;
pub use files::TinyAutoencoderFiles;
pub use layers::{TinyDecoder, TinyEncoder};

use burn::module::Module;
use burn::tensor::Tensor;
use fabric_core::models::{Autoencoder, LatentDecoder, Posterior};

/// Tiny autoencoder: encodes images to the latents of the VAE that it was distilled from, and decodes such latents.
///
/// Its latents have no distribution: samples are equal to the mean.
#[derive(Module, Debug)]
pub struct TinyAutoencoder {
    encoder: TinyEncoder,
    decoder: TinyDecoder,
}

impl TinyAutoencoder {
    fn new(encoder: TinyEncoder, decoder: TinyDecoder) -> Self {
        Self { encoder, decoder }
    }

    /// Returns the decoder.
    pub fn into_decoder(self) -> TinyDecoder {
        self.decoder
    }
}

impl Autoencoder for TinyAutoencoder {
    fn encode(&self, pixels: Tensor<4>, posterior: Posterior) -> Tensor<4> {
        let latents = self.encoder.encode(pixels);
        match posterior {
            // One row per row of noise.
            Posterior::Sample(noise) if noise.dims()[0] != latents.dims()[0] => {
                let (rows, images) = (noise.dims()[0], latents.dims()[0]);
                assert!(images == 1, "tiny autoencoder: {rows} rows of noise for {images} images");
                latents.repeat_dim(0, rows)
            }
            Posterior::Sample(_) | Posterior::Mean => latents,
        }
    }

    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        self.decoder.decode(latents)
    }

    fn scale_factor(&self) -> usize {
        self.decoder.scale_factor()
    }

    fn latent_channels(&self) -> usize {
        self.decoder.latent_channels()
    }
}

#[cfg(test)]
mod tests;
