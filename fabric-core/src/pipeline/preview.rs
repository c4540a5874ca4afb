//! The network that decodes previews instead of the VAE.

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::Error;
use crate::image::{self, Image};
use crate::models::{Autoencoder, LatentDecoder};

/// Decoder for previews, with its name for reports.
#[derive(Clone)]
pub(super) struct PreviewDecoder {
    name: Arc<str>,
    network: Arc<dyn LatentDecoder + Send + Sync>,
}

impl PreviewDecoder {
    /// Takes a decoder of the latents that this autoencoder makes.
    ///
    /// # Errors
    ///
    /// Returns an error if the two differ in the number of latent channels or in the pixels per latent.
    pub(super) fn new(
        name: impl Into<Arc<str>>,
        network: Arc<dyn LatentDecoder + Send + Sync>,
        autoencoder: &dyn Autoencoder,
    ) -> Result<Self, Error> {
        let name = name.into();
        let pairs = [
            ("latent channels", network.latent_channels(), autoencoder.latent_channels()),
            ("pixels per latent", network.scale_factor(), autoencoder.scale_factor()),
        ];
        for (what, got, expected) in pairs {
            if got != expected {
                let expected = format!("{expected}, as the VAE has");
                let help = "take the tiny decoder of this model's family, or none";
                return Err(Error::settings(format!("{what} of the preview decoder `{name}`"), got, expected, help));
            }
        }
        Ok(Self { name, network })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Decodes the images of a run from number `first` on, one at a time, so that memory for only one is needed.
    pub(super) fn decode(&self, latents: &Tensor<4>, first: usize) -> Result<Vec<Image>, Error> {
        let mut images = Vec::with_capacity(latents.dims()[0]);
        for row in 0..latents.dims()[0] {
            let decoded = image::from_tensor(self.network.decode(latents.clone().slice_dim(0, row..row + 1)));
            images.extend(decoded.map_err(|error| error.of_image(first + row))?);
        }
        Ok(images)
    }
}
