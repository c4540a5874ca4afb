//! What a picture shows, read off an image encoder's tokens.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fabric_backends::ops::softmax;

use super::{Attribute, Kind, Named};
use crate::clip::ClipVision;
use crate::layers::{Embedding, LayerNorm, Linear};
use crate::load::PublishedNames;

/// One reader for each factor of the world: a query of its own over the encoder's tokens, then a linear layer.
///
/// The ruler for everything that makes pictures of this world; what it reads of a face or of a texture depends on the kind it saw.
#[derive(Module, Debug)]
pub struct Readers {
    norm: LayerNorm,
    /// A row for each attribute.
    query: Embedding,
    /// As [`Attribute::ALL`].
    heads: Vec<Linear>,
}

impl PublishedNames for Readers {
    fn published_name(path: &str) -> String {
        path.to_owned()
    }
}

impl Readers {
    /// Readers of an encoder's tokens of so many channels, with random weights.
    pub fn new(channels: usize, device: &Device) -> Self {
        let head = |attribute: Attribute| Linear::new(channels, attribute.values().len(), true, device);
        Self {
            norm: LayerNorm::new(channels, 1e-5, device),
            query: Embedding::new(Attribute::ALL.len(), channels, device),
            heads: Attribute::ALL.into_iter().map(head).collect(),
        }
    }

    /// Logits of the values of each attribute.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[images, tokens, channels]`, the encoder's last state
    /// - returns: for each of [`Attribute::ALL`], `[images, values]`
    pub fn forward(&self, hidden: Tensor<3>) -> Vec<Tensor<2>> {
        let [images, _, channels] = hidden.dims();
        let hidden = self.norm.forward(hidden);
        let query = self.query.weight.val().unsqueeze::<3>();
        let shares = softmax(query.matmul(hidden.clone().swap_dims(1, 2)));
        let seen = shares.matmul(hidden);
        let seen = |at: usize| seen.clone().narrow(1, at, 1).reshape([images, channels]);
        self.heads.iter().enumerate().map(|(at, head)| head.forward(seen(at))).collect()
    }

    /// What pictures show: of a face everything but its texture, of another thing no identity.
    ///
    /// # Shapes
    ///
    /// - `pixels`: `[images, 3, image_size, image_size]`, as the encoder wants them
    pub fn read(&self, encoder: &ClipVision, pixels: Tensor<4>) -> Vec<Named> {
        let images = pixels.dims()[0];
        let hidden = encoder.forward(pixels).hidden.pop().expect("an encoder has states");
        let mut found = vec![Named::default(); images];
        for (attribute, logits) in Attribute::ALL.into_iter().zip(self.forward(hidden)) {
            let best = logits.argmax(1).into_data();
            for (named, index) in found.iter_mut().zip(best.iter::<i64>()) {
                *named = named.with(attribute, Some(index as usize));
            }
        }
        for named in &mut found {
            let is_face = named.kind == Some(Kind::Face);
            for attribute in Attribute::ALL {
                if attribute.is_of_faces().is_some_and(|of_faces| of_faces != is_face) {
                    *named = named.with(attribute, None);
                }
            }
        }
        found
    }
}
