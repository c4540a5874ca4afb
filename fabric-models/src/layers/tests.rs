//! Tests of layers against plain reference computations.

use burn::tensor::{DType, Device, Distribution, Tensor, TensorData};
use fabric_backends::ops::geglu;
use fabric_backends::{DeviceKind, device};

use super::*;

fn cpu() -> Device {
    device(DeviceKind::Flex).unwrap()
}

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.3, 2.0), device)
}

fn difference<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (cast(a, DType::F32) - cast(b, DType::F32)).abs().max().into_scalar()
}

#[test]
fn linear_multiplies_by_the_transposed_weight() {
    let device = cpu();
    let layer = Linear {
        weight: Param::from_data([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], &device),
        bias: Some(Param::from_data([0.5, 0.0, -0.5], &device)),
    };
    let x = Tensor::<3>::from_data([[[1.0, 10.0]], [[2.0, 0.0]]], &device);
    layer.forward(x).into_data().assert_eq(&TensorData::from([[[21.5, 43.0, 64.5]], [[2.5, 6.0, 9.5]]]), false);
}

#[test]
fn padding_below_and_right_is_a_padded_image() {
    let device = cpu();
    let conv = Conv2d::new(3, 5, 3, &device);
    let x = random([2, 3, 7, 6], &device);
    let padded = Tensor::cat(vec![x.clone(), Tensor::zeros([2, 3, 1, 6], &device)], 2);
    let padded = Tensor::cat(vec![padded, Tensor::zeros([2, 3, 8, 1], &device)], 3);
    let expected = conv.clone().with_stride(2, (0, 0)).forward(padded);
    let got = conv.with_stride(2, (0, 1)).forward(x);
    assert_eq!(got.dims(), [2, 5, 3, 3]);
    assert!(difference(got, expected) < 1e-5);
}

#[test]
fn group_norm_leaves_mean_zero_and_variance_one_per_group() {
    let device = cpu();
    let x = random([2, 6, 5, 3], &device);
    let y = GroupNorm::new(3, 6, 1e-6, &device).forward(x).reshape([6, 30]);
    assert!(y.clone().mean_dim(1).abs().max().into_scalar::<f32>() < 1e-5);
    assert!((y.square().mean_dim(1) - 1.0).abs().max().into_scalar::<f32>() < 1e-4);
}

#[test]
fn norms_of_half_precision_have_f32_statistics() {
    let device = cpu();
    // 400 squared exceeds the range of f16.
    let x = Tensor::<4>::random([1, 4, 8, 8], Distribution::Normal(50.0, 400.0), &device);
    let group = GroupNorm::new(2, 4, 1e-5, &device);
    let layer = LayerNorm::new(8, 1e-5, &device);
    for (dtype, tolerance) in [(DType::F16, 4e-3), (DType::BF16, 4e-2)] {
        let half = x.clone().cast(dtype);
        let exact = half.clone().cast(DType::F32);
        assert_eq!(group.forward(half.clone()).dtype(), dtype);
        assert!(difference(group.forward(half.clone()), group.forward(exact.clone())) < tolerance);
        assert!(difference(layer.forward(half), layer.forward(exact)) < tolerance);
    }
}

#[test]
fn a_layer_computes_in_the_type_of_its_input() {
    let device = cpu();
    let layer = Linear::new(16, 8, true, &device);
    let half = Linear {
        weight: layer.weight.clone().map(|w| w.cast(DType::F16)),
        bias: layer.bias.clone().map(|b| b.map(|b| b.cast(DType::F16))),
    };
    let y = half.forward(random([2, 16], &device));
    assert_eq!(y.dtype(), DType::F32);
}

#[test]
fn activations_have_their_published_values() {
    let device = cpu();
    let x = Tensor::<1>::from_data([-2.0, 0.5, 3.0], &device);
    let expected: [(Activation, [f32; 3]); 5] = [
        (Activation::Silu, [-0.238_405_84, 0.311_229_67, 2.857_722_4]),
        (Activation::Gelu, [-0.045_500_264, 0.345_731_23, 2.995_950_2]),
        (Activation::QuickGelu, [-0.064_344_07, 0.350_388_2, 2.981_924_5]),
        (Activation::GeluNew, [-0.045_402_28, 0.345_714, 2.996_362_6]),
        (Activation::Relu, [0.0, 0.5, 3.0]),
    ];
    for (act, values) in expected {
        let error = difference(act.forward(x.clone()), Tensor::from_data(values, &device));
        assert!(error < 2e-5, "{act:?}: {error}");
    }
}

#[test]
fn geglu_gates_with_the_second_half() {
    let device = cpu();
    let x = Tensor::<3>::from_data([[[2.0, 3.0, 0.5, -2.0]]], &device);
    let expected = Tensor::from_data([[[2.0 * 0.345_731_23, 3.0 * -0.045_500_264]]], &device);
    assert!(difference(geglu(x), expected) < 1e-6);
}

#[test]
fn counting_draws_no_weights() {
    let layer = Linear::new(3, 5, true, &cpu());
    assert_eq!(count_parameters(&layer), ParameterCount { parameters: 20, tensors: 2 });
    assert!(!layer.weight.is_initialized());
}
