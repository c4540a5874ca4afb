//! Group and layer norms, with statistics in f32.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor, assert_shape, module};

use super::activation::in_f32;
use super::{is_half, value_as};

/// Normalises groups of channels over the picture, with a scale and a shift per channel.
///
/// Statistics are f32 also for f16 and bf16, as in PyTorch: an activation of 300 squares to more than f16 holds.
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
    /// A norm that does not yet scale or shift; `groups` divides `channels`.
    pub fn new(groups: usize, channels: usize, epsilon: f64, device: &Device) -> Self {
        assert!(channels.is_multiple_of(groups), "group norm: {channels} channels in {groups} groups");
        Self {
            weight: Initializer::Ones.init([channels], device),
            bias: Initializer::Zeros.init([channels], device),
            groups,
            epsilon,
        }
    }

    /// # Shapes
    ///
    /// - `x`: `[rows, channels, height, width]`
    /// - returns: the same
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        if is_half(x.dtype()) { in_f32(x, |x| self.normalise(x)) } else { self.normalise(x) }
    }

    fn normalise(&self, x: Tensor<4>) -> Tensor<4> {
        let weight = value_as(&self.weight, x.dtype());
        let bias = value_as(&self.bias, x.dtype());
        let [channels] = weight.dims();
        assert_shape!(x, [_, channels, _, _]);
        let shape = x.dims();
        let [rows, _, height, width] = shape;
        let x = x.reshape([rows, self.groups, channels / self.groups * height * width]);
        let centred = x.clone() - x.mean_dim(2);
        let variance = centred.clone().square().mean_dim(2);
        let normalised = centred / (variance + self.epsilon).sqrt();
        normalised.reshape(shape) * weight.reshape([1, channels, 1, 1]) + bias.reshape([1, channels, 1, 1])
    }
}

/// Normalises each token over its channels, with a scale and a shift per channel.
///
/// Statistics are f32 also for f16 and bf16.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[channels]`.
    pub weight: Param<Tensor<1>>,
    /// `[channels]`.
    pub bias: Param<Tensor<1>>,
    epsilon: f64,
}

impl LayerNorm {
    /// A norm that does not yet scale or shift.
    pub fn new(channels: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            weight: Initializer::Ones.init([channels], device),
            bias: Initializer::Zeros.init([channels], device),
            epsilon,
        }
    }

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
        assert_shape!(x, [.., weight.dims()[0]]);
        module::layer_norm(x, weight, Some(bias), self.epsilon)
    }
}
