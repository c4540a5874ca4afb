//! Image prompts as an attention processor.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use burn::tensor::{Device, Tensor};
use fabric_core::InvalidValue;
use fabric_core::attention::{AttnCall, AttnExtras, AttnProcessor, AttnSite, DecoupledTokens};
use fabric_core::models::CrossAttention;

use crate::mask::ResampledMask;
use crate::scales::MAX_SCALE;
use crate::{AdapterError, IpAdapter, LayerScales, Mask, numbered_layers};

/// Keys and values of image prompts for each cross-attention layer of one U-Net, computed once and used in
/// every step.
///
/// Several images share one softmax, as published, unless each has a mask.
#[derive(Debug, Clone)]
pub struct ImagePromptKv {
    /// Keys and values `[images, tokens, channels]`.
    layers: BTreeMap<AttnSite, [Tensor<3>; 2]>,
    images: usize,
    scales: LayerScales,
    /// One per image, or empty.
    masked: Vec<(ResampledMask, LayerScales)>,
    /// One per image.
    weights: Vec<f32>,
    shares_softmax: bool,
}

impl ImagePromptKv {
    /// Projects image tokens `[images, tokens, context]` to keys and values for the cross-attention layers of a
    /// U-Net.
    ///
    /// # Errors
    ///
    /// Returns an error if the tokens or the layers of the U-Net do not fit the adapter.
    pub fn new(adapter: &IpAdapter, tokens: Tensor<3>, layers: &[CrossAttention]) -> Result<Self, AdapterError> {
        adapter.config().check_layers(layers)?;
        let [images, count, context] = tokens.dims();
        if images == 0 || count == 0 || context != adapter.config().context {
            return Err(AdapterError::Unfit {
                adapter: adapter.config().to_string(),
                value: InvalidValue {
                    what: "the tokens of the images".to_owned(),
                    got: format!("{:?}", tokens.dims()),
                    expected: format!("one image and token at least, of {} channels", adapter.config().context),
                    help: "give the tokens that this adapter made".to_owned(),
                },
            });
        }
        let layers = numbered_layers(layers)
            .into_iter()
            .zip(&adapter.weights().layers)
            .map(|(layer, own)| (layer.site, own.forward(tokens.clone())));
        let (scales, weights) = (LayerScales::same(1.0), vec![1.0; images]);
        Ok(Self { layers: layers.collect(), images, scales, masked: Vec::new(), weights, shares_softmax: false })
    }

    /// Moves the keys and values to a device.
    #[must_use]
    pub(crate) fn moved_to(mut self, device: &Device) -> Self {
        for layer in self.layers.values_mut() {
            *layer = layer.clone().map(|x| if x.device() == *device { x } else { x.to_device(device) });
        }
        self
    }

    /// Sets the scales of all images.
    ///
    /// # Errors
    ///
    /// Returns an error if a scale is not a number from -100 to 100, or names a layer that the U-Net does not have.
    pub fn with_scales(mut self, scales: LayerScales) -> Result<Self, AdapterError> {
        scales.check(self.layers.keys())?;
        self.masked.iter_mut().for_each(|(_, own)| *own = scales.clone());
        self.scales = scales;
        Ok(self)
    }

    /// Sets a mask and scales for each image. Each image then has its own softmax, as in diffusers. `grids` lists the
    /// heights and widths of the feature maps for which the masks are resampled now and not in every pass.
    ///
    /// # Errors
    ///
    /// Returns an error if there is not one mask per image, or a scale is invalid (see [`Self::with_scales`]).
    pub fn with_masks(mut self, masked: Vec<(Mask, LayerScales)>, grids: &[[usize; 2]]) -> Result<Self, AdapterError> {
        check_masks(&masked, self.images, self.layers.keys())?;
        let Some([key, _]) = self.layers.values().next() else { return Ok(self) };
        let device = key.device();
        let resampled = |(mask, scales): (Mask, LayerScales)| (mask.resampled_for(grids, &device), scales);
        self.masked = masked.into_iter().map(resampled).collect();
        Ok(self)
    }

    /// Sets a weight for each image in their common softmax: 1 is normal, 2 counts an image twice, 0 switches
    /// it off. With masks, where each image has its own softmax, all weights above 0 act alike.
    ///
    /// # Errors
    ///
    /// Returns an error if there is not one weight per image, or one is not a number from 0 to 100.
    pub fn with_weights(mut self, weights: Vec<f32>) -> Result<Self, AdapterError> {
        check_weights(&weights, self.images)?;
        self.weights = weights;
        Ok(self)
    }

    /// Sets whether they share one softmax with all other image prompts of the same rows that do so, weighted by the scales
    /// and weights. Images with masks keep softmaxes of their own.
    #[must_use]
    pub fn with_shared_softmax(self, shares_softmax: bool) -> Self {
        Self { shares_softmax, ..self }
    }

    /// Returns a processor that applies these images to a range of rows.
    pub fn on(&self, rows: Range<usize>) -> ImagePromptRows<'_> {
        ImagePromptRows { prompt: self, rows, factor: 1.0, weight: 1.0, layers: Layers::All }
    }
}

/// Checks that there is one mask per image, with scales for these layers.
pub(crate) fn check_masks<'a>(
    masked: &[(Mask, LayerScales)],
    images: usize,
    sites: impl Iterator<Item = &'a AttnSite> + Clone,
) -> Result<(), AdapterError> {
    if masked.len() != images {
        return Err(AdapterError::Setting(InvalidValue {
            what: "masks of images".to_owned(),
            got: masked.len().to_string(),
            expected: format!("{images}, one for each image"),
            help: "give a mask of ones to an image that acts everywhere".to_owned(),
        }));
    }
    masked.iter().try_for_each(|(_, scales)| scales.check(sites.clone()))
}

/// Checks that there is one weight per image, each from 0 to [`MAX_SCALE`].
pub(crate) fn check_weights(weights: &[f32], images: usize) -> Result<(), AdapterError> {
    let is_valid = |weight: &f32| (0.0..=MAX_SCALE).contains(weight);
    if weights.len() == images && weights.iter().all(is_valid) {
        return Ok(());
    }
    Err(AdapterError::Setting(InvalidValue {
        what: "weights of images".to_owned(),
        got: format!("{weights:?}"),
        expected: format!("{images} numbers from 0 to {MAX_SCALE}"),
        help: "1 is an ordinary image, 0 switches one off".to_owned(),
    }))
}

/// [`ImagePromptKv`] applied to a range of rows of a batch.
#[derive(Debug, Clone)]
pub struct ImagePromptRows<'a> {
    prompt: &'a ImagePromptKv,
    rows: Range<usize>,
    factor: f32,
    weight: f32,
    layers: Layers<'a>,
}

/// Layers in which the prompt is applied.
#[derive(Debug, Clone, Copy)]
enum Layers<'a> {
    All,
    Only(&'a BTreeSet<AttnSite>),
    AllBut(&'a BTreeSet<AttnSite>),
}

impl<'a> ImagePromptRows<'a> {
    /// Multiplies all scales by a factor.
    #[must_use]
    pub fn times(self, factor: f32) -> Self {
        Self { factor: self.factor * factor, ..self }
    }

    /// Multiplies all weights by a factor; at 0 there are no tokens.
    pub(crate) fn weighted(self, factor: f32) -> Self {
        Self { weight: self.weight * factor, ..self }
    }

    /// Restricts the prompt to these layers.
    pub(crate) fn only(self, layers: &'a BTreeSet<AttnSite>) -> Self {
        Self { layers: Layers::Only(layers), ..self }
    }

    /// Restricts the prompt to all other layers.
    pub(crate) fn all_but(self, layers: &'a BTreeSet<AttnSite>) -> Self {
        Self { layers: Layers::AllBut(layers), ..self }
    }
}

impl AttnProcessor for ImagePromptRows<'_> {
    fn extras(&self, call: &AttnCall<'_>) -> AttnExtras {
        let ImagePromptKv { layers, scales, masked, weights, .. } = self.prompt;
        let weights: Vec<f32> = weights.iter().map(|weight| weight * self.weight).collect();
        let seen = match self.layers {
            Layers::All => true,
            Layers::Only(layers) => layers.contains(&call.site),
            Layers::AllBut(layers) => !layers.contains(&call.site),
        };
        let Some(tokens) = layers.get(&call.site).filter(|_| seen) else { return AttnExtras::default() };
        // Keys and values are computed in f32; the U-Net may use another data type.
        let [key, value] =
            tokens.clone().map(|x| if x.dtype() == call.query.dtype() { x } else { x.cast(call.query.dtype()) });
        let part = |[key, value]: [Tensor<3>; 2], scales: &LayerScales| DecoupledTokens {
            rows: self.rows.clone(),
            key,
            value,
            scale: scales.of(&call.site) * self.factor,
            mask: None,
            weights: Vec::new(),
            shares_softmax: self.prompt.shares_softmax,
        };
        let images: Vec<usize> = (0..weights.len()).filter(|&image| weights[image] > 0.0).collect();
        let one = |image: usize| [&key, &value].map(|x| x.clone().narrow(0, image, 1));
        let decoupled = if !masked.is_empty() {
            let of = |&image: &usize| {
                let (mask, scales) = &masked[image];
                let mask = Some(mask.at(call.grid, call.query));
                DecoupledTokens { mask, ..part(one(image), scales) }
            };
            images.iter().map(of).collect()
        } else if images.is_empty() {
            Vec::new()
        } else {
            let [_, tokens, channels] = key.dims();
            let all = images.len() == weights.len();
            let joined = |x: &Tensor<3>| {
                let x = if all {
                    x.clone()
                } else {
                    Tensor::cat(images.iter().map(|&image| x.clone().narrow(0, image, 1)).collect(), 0)
                };
                x.reshape([1, images.len() * tokens, channels])
            };
            let plain = weights.iter().all(|&weight| weight == 1.0);
            let runs = images.iter().filter(|_| !plain).map(|&image| (tokens, weights[image])).collect();
            vec![DecoupledTokens { weights: runs, ..part([joined(&key), joined(&value)], scales) }]
        };
        AttnExtras { joint: Vec::new(), decoupled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_that_are_absurd_or_not_one_for_each_image_are_refused() {
        assert!(check_weights(&[0.0, 1.0, 100.0], 3).is_ok());
        for wrong in [vec![1.0], vec![1.0, -0.5], vec![1.0, 100.5], vec![1.0, 1e30], vec![f32::NAN, 1.0]] {
            let message = check_weights(&wrong, 2).expect_err("absurd weights").to_string();
            assert!(message.contains("weights of images: expected 2 numbers from 0 to 100"), "{message}");
        }
    }
}
