//! Classification heads for all factors, on the tokens of an image network.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fabric::backends::ops::softmax;

use super::{Attribute, Kind, Named};
use fabric::models::layers::{Embedding, LayerNorm, Linear};
use fabric::models::load::PublishedNames;

/// Classification head for each factor: attention pooling with a separate query, then a linear layer.
#[derive(Module, Debug)]
pub struct FactorHeads {
    norm: LayerNorm,
    /// One query per attribute.
    query: Embedding,
    /// In the order of [`Attribute::ALL`].
    heads: Vec<Linear>,
}

impl PublishedNames for FactorHeads {
    fn published_name(path: &str) -> String {
        path.to_owned()
    }
}

impl FactorHeads {
    /// Creates heads on tokens of `channels` channels, with random weights.
    pub fn new(channels: usize, device: &Device) -> Self {
        let head = |attribute: Attribute| Linear::new(channels, attribute.values().len(), true, device);
        Self {
            norm: LayerNorm::new(channels, 1e-5, device),
            query: Embedding::new(Attribute::ALL.len(), channels, device),
            heads: Attribute::ALL.into_iter().map(head).collect(),
        }
    }

    /// Computes the logits of the values of each attribute.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[images, tokens, channels]`
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
}

/// Returns the most likely value of each factor.
///
/// The predicted kind determines which factors apply: a face has no texture, and other things have no identity.
///
/// # Shapes
///
/// - `logits`: for each of [`Attribute::ALL`], `[images, values]`
pub(super) fn most_likely(logits: Vec<Tensor<2>>) -> Vec<Named> {
    let images = logits.first().map_or(0, |logits| logits.dims()[0]);
    let mut got = vec![Named::default(); images];
    for (attribute, logits) in Attribute::ALL.into_iter().zip(logits) {
        let best = logits.argmax(1).into_data();
        for (named, index) in got.iter_mut().zip(best.iter::<i64>()) {
            *named = named.with(attribute, Some(index as usize));
        }
    }
    for named in &mut got {
        let is_face = named.kind == Some(Kind::Face);
        for attribute in Attribute::ALL {
            if attribute.is_of_faces().is_some_and(|of_faces| of_faces != is_face) {
                *named = named.with(attribute, None);
            }
        }
    }
    got
}
