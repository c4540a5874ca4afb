//! Operations on a tensor with a weight and a bias.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Shape;

use super::operation::Operation;
use super::{filled, like, numbers, tensor};
use crate::kernels::conv::Conv;
use crate::kernels::linear::Linear;
use crate::kernels::norm::{GroupNorm, layer, layer_backward};
use crate::kernels::unfold::Windows;

/// Operation on a tensor with a weight and a bias. A linear layer or convolution without bias has an empty
/// bias.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) enum Weighted {
    Linear,
    Conv2d { stride: usize, padding: (usize, usize) },
    GroupNorm { groups: usize, epsilon: f64, silu: bool },
    LayerNorm { epsilon: f64 },
}

fn linear(weight: &FlexTensor) -> Linear {
    let [outputs, inputs] = weight.shape().dims();
    Linear { inputs, outputs }
}

/// Returns the sizes of the convolution of `x` with `weight`.
fn conv(x: &FlexTensor, weight: &FlexTensor, stride: usize, (before, after): (usize, usize)) -> Conv {
    let ([_, channels, height, width], [outputs, _, kernel_height, kernel_width]) =
        (x.shape().dims(), weight.shape().dims());
    let kernel = [kernel_height, kernel_width];
    let input = [height, width];
    let output = [0, 1].map(|axis| {
        let padded = input[axis] + before + after;
        assert!(
            padded >= kernel[axis],
            "conv2d: kernel {kernel:?} on an image of {input:?}, padded by {before}+{after}"
        );
        (padded - kernel[axis]) / stride + 1
    });
    let windows = Windows { channels, input, output, kernel, stride: [stride; 2], padding: [before; 2] };
    Conv { windows, outputs }
}

fn group_norm(x: &FlexTensor, groups: usize, epsilon: f64, silu: bool) -> GroupNorm {
    let [_, channels, height, width] = x.shape().dims();
    GroupNorm { channels, area: height * width, groups, epsilon: epsilon as f32, silu }
}

impl Operation<3> for Weighted {
    fn forward(&self, inputs: [FlexTensor; 3]) -> FlexTensor {
        let [x, weight, bias] = inputs;
        let (w, b) = (numbers(&weight), numbers(&bias));
        match *self {
            Self::Linear => {
                let (linear, mut shape) = (linear(&weight), x.shape());
                let axis = shape.num_dims() - 1;
                shape[axis] = linear.outputs;
                filled(shape, |out| linear.forward(numbers(&x), w, b, out))
            }
            Self::Conv2d { stride, padding } => {
                let conv = conv(&x, &weight, stride, padding);
                let [height, width] = conv.windows.output;
                let shape = Shape::from(vec![x.shape()[0], conv.outputs, height, width]);
                filled(shape, |out| conv.forward(numbers(&x), w, b, out))
            }
            Self::GroupNorm { groups, epsilon, silu } => {
                like(&x, |out| group_norm(&x, groups, epsilon, silu).forward(numbers(&x), w, b, out))
            }
            Self::LayerNorm { epsilon } => like(&x, |out| layer(epsilon as f32, numbers(&x), w, b, out)),
        }
    }

    fn backward(&self, kept: Vec<FlexTensor>, gradient: FlexTensor, needed: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let [x, weight, bias] = &kept[..] else { unreachable!("three were kept") };
        let (w, b, g) = (numbers(weight), numbers(bias), numbers(&gradient));
        let (of_x, (of_weight, of_bias)) = match *self {
            Self::Linear => {
                let linear = linear(weight);
                let of_x = needed[0].then(|| like(x, |out| linear.input_gradient(w, g, out)));
                let of_weight = needed[1].then(|| like(weight, |out| linear.weight_gradient(numbers(x), g, out)));
                let of_bias = needed[2].then(|| tensor(linear.bias_gradient(g), bias.shape()));
                return [of_x, of_weight, of_bias];
            }
            Self::Conv2d { stride, padding } => {
                let conv = conv(x, weight, stride, padding);
                let of_x = needed[0].then(|| like(x, |out| conv.input_gradient(w, g, out)));
                if !needed[1] && !needed[2] {
                    return [of_x, None, None];
                }
                let mut of_bias = Vec::new();
                let of_weight = like(weight, |out| of_bias = conv.weight_gradient(numbers(x), g, out));
                return [of_x, Some(of_weight), Some(tensor(of_bias, bias.shape()))];
            }
            Self::GroupNorm { groups, epsilon, silu } => {
                let norm = group_norm(x, groups, epsilon, silu);
                let mut sums = (Vec::new(), Vec::new());
                let of_x = like(x, |out| sums = norm.backward(numbers(x), w, b, g, out));
                (Some(of_x), sums)
            }
            Self::LayerNorm { epsilon } => {
                let mut sums = (Vec::new(), Vec::new());
                let of_x = like(x, |out| sums = layer_backward(epsilon as f32, numbers(x), w, g, out));
                (Some(of_x), sums)
            }
        };
        [of_x, Some(tensor(of_weight, weight.shape())), Some(tensor(of_bias, bias.shape()))]
    }
}
