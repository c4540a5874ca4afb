//! Pictures as a prompt: what an adapter's tokens add to a pass of the U-Net.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::tensor::Tensor;
use fabric_core::attention::{AttnCall, AttnExtras, AttnProcessor, AttnSite, DecoupledTokens};
use fabric_core::models::CrossAttention;

use crate::{AdapterError, IpAdapter, LayerScales, Mask, numbered_layers};

/// Pictures, as keys and values for each cross-attention layer of one U-Net; made once, used in every step.
///
/// Several pictures share one softmax, as published, unless each has a mask.
#[derive(Debug, Clone)]
pub struct ImagePrompt {
    /// Keys and values `[images, tokens, channels]`.
    layers: BTreeMap<AttnSite, [Tensor<3>; 2]>,
    images: usize,
    scales: LayerScales,
    /// One for each picture, or none.
    masked: Vec<(Mask, LayerScales)>,
}

impl ImagePrompt {
    /// Projects tokens of pictures, `[images, tokens, context]`, for the cross-attentions of a U-Net.
    ///
    /// # Errors
    ///
    /// When the tokens or the U-Net's layers are not those that the adapter was made for.
    pub fn new(adapter: &IpAdapter, tokens: Tensor<3>, layers: &[CrossAttention]) -> Result<Self, AdapterError> {
        adapter.config().check_layers(layers)?;
        let [images, count, context] = tokens.dims();
        if images == 0 || count == 0 || context != adapter.config().context {
            return Err(AdapterError::Unfit {
                adapter: adapter.config().to_string(),
                what: "the tokens of the pictures".to_owned(),
                found: format!("{:?}", tokens.dims()),
                wanted: format!("one picture and token at least, of {} channels", adapter.config().context),
                next: "give the tokens that this adapter made".to_owned(),
            });
        }
        let layers = numbered_layers(layers)
            .into_iter()
            .zip(&adapter.weights().layers)
            .map(|(layer, own)| (layer.site, own.forward(tokens.clone())));
        Ok(Self { layers: layers.collect(), images, scales: LayerScales::same(1.0), masked: Vec::new() })
    }

    /// With these scales for all pictures.
    ///
    /// # Errors
    ///
    /// When a scale is not finite, or names a layer that the U-Net does not have.
    pub fn with_scales(mut self, scales: LayerScales) -> Result<Self, AdapterError> {
        scales.check(self.layers.keys())?;
        self.masked.iter_mut().for_each(|(_, own)| *own = scales.clone());
        self.scales = scales;
        Ok(self)
    }

    /// With a mask and scales for each picture; each then has a softmax of its own, as in diffusers.
    ///
    /// # Errors
    ///
    /// When there is not one mask per picture, or as [`Self::with_scales`].
    pub fn with_masks(mut self, masked: Vec<(Mask, LayerScales)>) -> Result<Self, AdapterError> {
        if masked.len() != self.images {
            return Err(AdapterError::Setting {
                what: "masks of pictures".to_owned(),
                found: masked.len().to_string(),
                wanted: format!("{}, one for each picture", self.images),
                next: "give a mask of ones to a picture that acts everywhere".to_owned(),
            });
        }
        masked.iter().try_for_each(|(_, scales)| scales.check(self.layers.keys()))?;
        self.masked = masked;
        Ok(self)
    }

    /// These pictures for these rows of a batch.
    pub fn on(&self, rows: Range<usize>) -> PromptedRows<'_> {
        PromptedRows { prompt: self, rows }
    }
}

/// An [`ImagePrompt`] that some rows of a batch see.
#[derive(Debug, Clone)]
pub struct PromptedRows<'a> {
    prompt: &'a ImagePrompt,
    rows: Range<usize>,
}

impl AttnProcessor for PromptedRows<'_> {
    fn extras(&self, call: &AttnCall<'_>) -> AttnExtras {
        let ImagePrompt { layers, images, scales, masked } = self.prompt;
        let Some(tokens) = layers.get(&call.site) else { return AttnExtras::default() };
        // The projection computes in f32, whatever the U-Net does.
        let [key, value] =
            tokens.clone().map(|x| if x.dtype() == call.query.dtype() { x } else { x.cast(call.query.dtype()) });
        let part = |key: Tensor<3>, value: Tensor<3>, scales: &LayerScales, mask: Option<&Mask>| DecoupledTokens {
            rows: self.rows.clone(),
            key,
            value,
            scale: scales.of(&call.site),
            mask: mask.map(|mask| mask.at(call.grid, call.query)),
        };
        let decoupled = if masked.is_empty() {
            let [_, tokens, channels] = key.dims();
            let joined = |x: Tensor<3>| x.reshape([1, images * tokens, channels]);
            vec![part(joined(key), joined(value), scales, None)]
        } else {
            let one = |x: &Tensor<3>, image| x.clone().narrow(0, image, 1);
            let parts = masked.iter().enumerate();
            parts
                .map(|(image, (mask, scales))| part(one(&key, image), one(&value, image), scales, Some(mask)))
                .collect()
        };
        AttnExtras { joint: Vec::new(), decoupled }
    }
}
