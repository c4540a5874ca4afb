//! Group and layer norms, with statistics in f32.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};
use fabric_backends::ops::{group_norm, layer_norm};

use super::activation::in_f32;
use super::{Activation, is_half, value_as};

/// Group norm: normalises groups of channels over the image, with a scale and a shift per channel.
///
/// Statistics are in f32 for f16 and bf16 too, as in PyTorch: the square of 300 exceeds the range of f16.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// `[channels]`.
    pub weight: Param<Tensor<1>>,
    /// `[channels]`.
    pub bias: Param<Tensor<1>>,
    groups: usize,
    epsilon: f64,
}

impl GroupNorm {
    /// Creates a norm with scale 1 and shift 0; `groups` must divide `channels`.
    pub fn new(groups: usize, channels: usize, epsilon: f64, device: &Device) -> Self {
        assert!(channels.is_multiple_of(groups), "group norm: {channels} channels in {groups} groups");
        Self {
            weight: Initializer::Ones.init([channels], device),
            bias: Initializer::Zeros.init([channels], device),
            groups,
            epsilon,
        }
    }

    /// Applies the norm.
    ///
    /// # Shapes
    ///
    /// - `x`: `[rows, channels, height, width]`
    /// - returns: the same
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.normalise(x, false)
    }

    /// Applies the norm and then the activation, in one pass over memory where possible.
    pub(crate) fn forward_then(&self, x: Tensor<4>, act: Activation) -> Tensor<4> {
        if act == Activation::Silu { self.normalise(x, true) } else { act.forward(self.normalise(x, false)) }
    }

    fn normalise(&self, x: Tensor<4>, silu: bool) -> Tensor<4> {
        let norm = |x: Tensor<4>| {
            let (weight, bias) = (value_as(&self.weight, x.dtype()), value_as(&self.bias, x.dtype()));
            group_norm(x, weight, bias, self.groups, self.epsilon, silu)
        };
        if is_half(x.dtype()) { in_f32(x, norm) } else { norm(x) }
    }
}

/// Layer norm: normalises each token over its channels, with a scale and a shift per channel.
///
/// Statistics are in f32 for f16 and bf16 too.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[channels]`.
    pub weight: Param<Tensor<1>>,
    /// `[channels]`.
    pub bias: Param<Tensor<1>>,
    epsilon: f64,
}

impl LayerNorm {
    /// Creates a norm with scale 1 and shift 0.
    pub fn new(channels: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            weight: Initializer::Ones.init([channels], device),
            bias: Initializer::Zeros.init([channels], device),
            epsilon,
        }
    }

    /// Applies the norm.
    ///
    /// # Shapes
    ///
    /// - `x`: `[.., channels]`
    /// - returns: the same
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if is_half(x.dtype()) { in_f32(x, |x| self.normalise(x)) } else { self.normalise(x) }
    }

    fn normalise<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let weight = value_as(&self.weight, x.dtype());
        let bias = value_as(&self.bias, x.dtype());
        layer_norm(x, weight, bias, self.epsilon)
    }
}
