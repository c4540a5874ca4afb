//! The interface to the models that embed images.

use burn::tensor::Tensor;
use fabric_backends::catch_panic;
use fabric_core::Error;
use fabric_core::image::{Crop, Image, clip_batch};
use fabric_core::models::ImageEncoder;

use super::CorpusError;
use super::rows::{Row, unit_rows};
use crate::clip::{ClipVision, PreferenceModel};

/// Model that embeds images, including their preprocessing.
pub trait ImageEmbedder {
    /// Returns the embeddings of at least one image, `[images, dim]`; they need not be normalised. The embedding of an
    /// image must not depend on the other images.
    ///
    /// # Errors
    ///
    /// Returns an error if the images cannot be embedded.
    fn image_embeddings(&self, images: &[Image]) -> Result<Tensor<2>, Error>;

    /// Returns whether the embeddings are projected to the space that they share with embeddings of texts.
    fn has_projection(&self) -> bool {
        true
    }
}

/// Crops the centre of an image, as transformers' `CLIPImageProcessor` does.
impl ImageEmbedder for ClipVision {
    fn image_embeddings(&self, images: &[Image]) -> Result<Tensor<2>, Error> {
        Ok(self.embed(clip_batch(images, self.image_size(), Crop::Centre, &ImageEncoder::device(self))?))
    }

    fn has_projection(&self) -> bool {
        ImageEncoder::has_projection(self)
    }
}

/// Has the preprocessing of the model's kind.
impl ImageEmbedder for PreferenceModel {
    fn image_embeddings(&self, images: &[Image]) -> Result<Tensor<2>, Error> {
        self.embed_images(images)
    }
}

/// Embeds images and returns the normalised embeddings, of length `dim` if it is given; `None` for embeddings that are
/// not finite.
pub(super) fn embed(
    encoder: &dyn ImageEmbedder,
    images: &[Image],
    dim: Option<usize>,
) -> Result<Vec<Option<Row>>, CorpusError> {
    // Devices report failures as panics.
    let embedded = catch_panic(|| -> Result<Vec<Option<Row>>, Error> {
        let embeddings = encoder.image_embeddings(images)?;
        let got = embeddings.dims();
        if got[0] != images.len() || got[1] == 0 || dim.is_some_and(|dim| got[1] != dim) {
            let expected = format!("[{}, {}]", images.len(), dim.map_or("dim".to_owned(), |dim| dim.to_string()));
            let help = "return one embedding per image, all of one length";
            return Err(Error::settings("shape of image embeddings", format!("{got:?}"), expected, help));
        }
        Ok(unit_rows(embeddings))
    });
    let failed = |message| Err(Error::Backend { doing: "embedding images".to_owned(), message });
    embedded.unwrap_or_else(failed).map_err(CorpusError::Encoder)
}
