//! Group and layer normalisation.

use burn::tensor::{Tensor, assert_shape, module};

use super::{Pointwise, pointwise};

/// Normalises groups of channels over the image, with a scale and a shift per channel, followed by SiLU if
/// `silu`.
///
/// # Shapes
///
/// - `x`: `[rows, channels, height, width]`
/// - `weight`, `bias`: `[channels]`, where `channels` is a multiple of `groups`
/// - returns: same shape as `x`
///
/// # Panics
///
/// If the shapes do not match.
pub fn group_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    epsilon: f64,
    silu: bool,
) -> Tensor<4> {
    let [channels] = weight.dims();
    assert_shape!(x, [_, channels, _, _]);
    assert_shape!(bias, [channels]);
    assert!(channels.is_multiple_of(groups), "group norm: {channels} channels in {groups} groups");
    #[cfg(feature = "flex")]
    if super::flex::is_supported(&x) && super::flex::is_supported(&weight) && super::flex::is_supported(&bias) {
        return super::flex::weighted(x, weight, bias, super::flex::Weighted::GroupNorm { groups, epsilon, silu });
    }
    plain_group_norm(x, weight, bias, groups, epsilon, silu)
}

/// Implementation with burn's operations.
pub(super) fn plain_group_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    epsilon: f64,
    silu: bool,
) -> Tensor<4> {
    let shape = x.dims();
    let [rows, channels, height, width] = shape;
    let x = x.reshape([rows, groups, channels / groups * height * width]);
    let centred = x.clone() - x.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2);
    let normalised = (centred / (variance + epsilon).sqrt()).reshape(shape);
    let y = normalised * weight.reshape([1, channels, 1, 1]) + bias.reshape([1, channels, 1, 1]);
    if silu { pointwise(y, Pointwise::Silu) } else { y }
}

/// Normalises over the last axis, with a scale and a shift per channel.
///
/// # Shapes
///
/// - `x`: `[.., channels]`
/// - `weight`, `bias`: `[channels]`
/// - returns: same shape as `x`
///
/// # Panics
///
/// If the shapes do not match.
pub fn layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, epsilon: f64) -> Tensor<D> {
    assert_shape!(x, [.., weight.dims()[0]]);
    assert_shape!(bias, [weight.dims()[0]]);
    #[cfg(feature = "flex")]
    if super::flex::is_supported(&x) && super::flex::is_supported(&weight) && super::flex::is_supported(&bias) {
        return super::flex::weighted(x, weight, bias, super::flex::Weighted::LayerNorm { epsilon });
    }
    module::layer_norm(x, weight, Some(bias), epsilon)
}
