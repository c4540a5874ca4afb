//! Compares products and convolutions with f32 kernels, on factors that bf16 can hold.

use super::pack::{Matrix, Rows, block, length, pack};
use super::*;
use crate::kernels::conv::Conv;
use crate::kernels::gemm::{Strides, Target, gemm};
use crate::kernels::shared::Shared;
use crate::kernels::unfold::Windows;

/// Returns numbers from -1 to 1 with seven binary digits.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let number = |at: u32| (at.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 24) as f32 / 128.0 - 1.0;
    (0..count as u32).map(number).collect()
}

fn assert_near(what: &str, got: &[f32], expected: &[f32]) {
    assert!(!is_on(), "with FABRIC_MATMUL=bf16, the kernels would be compared with themselves");
    assert!(got.iter().all(|x| x.is_finite()), "{what}: not written, or not a number");
    let scale = expected.iter().fold(1e-6_f32, |most, x| most.max(x.abs()));
    let error = got.iter().zip(expected).map(|(got, expected)| (got - expected).abs()).fold(0.0, f32::max) / scale;
    assert!(got.len() == expected.len() && error < 1e-5, "{what}: error {error:.1e}");
}

#[test]
fn products_of_all_layouts() {
    for ([m, n, k], [a_turned, b_turned], add) in [
        ([16, 16, 32], [false, false], false),
        ([33, 70, 45], [false, true], true),
        ([64, 17, 31], [true, false], false),
        ([100, 96, 129], [true, true], true),
        ([2100, 33, 40], [false, true], true),
        ([40, 2051, 4099], [true, false], false),
    ] {
        let (a, b, mut got) = (numbers(m * k, 1), numbers(k * n, 2), numbers(m * n, 3));
        let mut expected = got.clone();
        let strides = |rows: usize, columns: usize, turned: bool| {
            if turned { Strides::rows(rows).transposed() } else { Strides::rows(columns) }
        };
        let (a, b) = ((&a[..], strides(m, k, a_turned)), (&b[..], strides(k, n, b_turned)));
        gemm([m, n, k], (&mut expected, Strides::rows(n)), a, b, add);
        let target = Target { all: &Shared::new(&mut got), first: 0, strides: Strides::rows(n) };
        #[allow(unsafe_code, reason = "nobody else has this slice")]
        // SAFETY: `got` is borrowed exclusively.
        unsafe {
            product([m, n, k], target, a, b, add);
        }
        assert_near(&format!("{m} x {k} x {n}"), &got, &expected);
    }
}

#[test]
fn convolutions_and_the_gradients_of_their_weights() {
    for (images, channels, outputs, size, has_bias) in [
        (1, 16, 16, [5, 7], true),
        (3, 40, 33, [8, 8], false),
        (2, 20, 70, [16, 11], true),
        (1, 33, 17, [70, 60], true),
        (40, 64, 64, [8, 8], true),
        (2, 200, 160, [4, 6], true),
    ] {
        let windows = Windows { channels, input: size, output: size, kernel: [3; 2], stride: [1; 2], padding: [1; 2] };
        let conv = Conv { windows, outputs };
        assert!(conv.has_tiles());
        let area = windows.area();
        let (x, weight) = (numbers(images * channels * area, 4), numbers(outputs * channels * 9, 5));
        let bias = if has_bias { numbers(outputs, 6) } else { Vec::new() };
        let what = format!("{images} x {channels} x {size:?} to {outputs}");
        let mut expected = vec![0.0; images * outputs * area];
        conv.forward(&x, &weight, &bias, &mut expected);
        let mut got = vec![f32::NAN; expected.len()];
        conv.forward_tiled((&x, &weight, &bias), &Shared::new(&mut got));
        assert_near(&what, &got, &expected);
        let gradient = numbers(expected.len(), 7);
        let (mut expected, mut got) = (vec![0.0; weight.len()], vec![f32::NAN; weight.len()]);
        let of_bias = conv.weight_gradient(&x, &gradient, &mut expected);
        assert_near(&what, &conv.weight_gradient_tiled(&x, &gradient, &mut got), &of_bias);
        assert_near(&what, &got, &expected);
    }
}

#[test]
fn numbers_are_rounded_to_the_nearest_and_nan_stays_nan() {
    for (number, expected) in [
        (1.0, 0x3f80),
        (f32::from_bits(0x3f80_8000), 0x3f80),
        (f32::from_bits(0x3f80_8001), 0x3f81),
        (f32::from_bits(0x3f81_8000), 0x3f82),
        (-0.0, 0x8000),
        (f32::MAX, 0x7f80),
        (f32::INFINITY, 0x7f80),
        (f32::from_bits(0x7fff_ffff), 0x7fc0),
    ] {
        let mut words = vec![0; length([1, 1])];
        pack(Matrix { numbers: &[number], outer: 1, depth: 1 }, [1, 1], Rows::Outer, &mut words);
        assert_eq!(block(&words, 0, 1).words[0], expected, "{number}");
    }
}

#[test]
fn an_unknown_value_is_an_error_that_names_the_known() {
    assert_eq!((parsed("f32").ok(), parsed("bf16").ok()), (Some(false), Some(true)));
    let error = parsed("f16").expect_err("unknown").to_string();
    assert!(error.contains("`f16`") && error.contains("`bf16`") && error.contains("FABRIC_MATMUL"), "{error}");
}
