//! Compares the kernels with sums in f64.

use super::*;
use crate::kernels::unfold::Windows;

fn conv(channels: usize, outputs: usize, size: [usize; 2]) -> Conv {
    let windows = Windows { channels, input: size, output: size, kernel: [3, 3], stride: [1, 1], padding: [1, 1] };
    Conv { windows, outputs }
}

/// Returns random values with a standard deviation of about 1, each a sum of uniform ones.
fn numbers(count: usize, seed: &mut u64) -> Vec<f32> {
    let mut uniform = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
    };
    (0..count).map(|_| (0..4).map(|_| uniform()).sum::<f32>() * 1.7).collect()
}

/// Computes one output in f64.
fn exact(conv: &Conv, x: &[f32], weight: &[f32], [image, output, y, column]: [usize; 4]) -> f64 {
    let ([height, width], channels) = (conv.windows.input, conv.windows.channels);
    let mut sum = 0.0;
    for channel in 0..channels {
        for (tap, weight) in weight[(output * channels + channel) * 9..][..9].iter().enumerate() {
            let (line, pixel) = (y + tap / 3, column + tap % 3);
            if (1..=height).contains(&line) && (1..=width).contains(&pixel) {
                let at = ((image * channels + channel) * height + line - 1) * width + pixel - 1;
                sum += f64::from(x[at]) * f64::from(*weight);
            }
        }
    }
    sum
}

/// Returns the root mean square error relative to the root mean square of the results, over about 500 of them.
fn error(arch: pulp::Arch, images: usize, conv: &Conv, with_bias: bool) -> f64 {
    let mut seed = 7;
    let ([height, width], channels) = (conv.windows.input, conv.windows.channels);
    let x = numbers(images * channels * height * width, &mut seed);
    let weight = numbers(conv.outputs * channels * 9, &mut seed);
    let bias = if with_bias { numbers(conv.outputs, &mut seed) } else { Vec::new() };
    let mut out = vec![f32::NAN; images * conv.outputs * height * width];
    conv.by_tiles(arch, (&x, &weight, &bias), &Shared::new(&mut out));
    assert!(out.iter().all(|x| x.is_finite()), "each result is written");
    let (mut wrong, mut whole) = (0.0, 0.0);
    // An odd step samples all rows, columns and channels.
    for at in (0..out.len()).step_by((out.len() / 500).max(1) | 1) {
        let (plane, pixel) = (at / (height * width), at % (height * width));
        let (image, output) = (plane / conv.outputs, plane % conv.outputs);
        let bias = if with_bias { f64::from(bias[output]) } else { 0.0 };
        let expected = bias + exact(conv, &x, &weight, [image, output, pixel / width, pixel % width]);
        wrong += (f64::from(out[at]) - expected).powi(2);
        whole += expected * expected;
    }
    (wrong / whole).sqrt()
}

#[test]
fn the_error_is_far_below_a_golden_one() {
    for (images, channels, outputs, size) in [
        (1, 1, 1, [1, 1]),
        (3, 5, 3, [7, 9]),
        (2, 37, 29, [19, 33]),
        (1, 64, 64, [70, 6]),
        // Rows of tiles in two parts.
        (2, 320, 40, [64, 64]),
        // Output channels in two parts.
        (1, 1280, 104, [8, 8]),
    ] {
        for with_bias in [false, true] {
            let error = error(pulp::Arch::new(), images, &conv(channels, outputs, size), with_bias);
            assert!(error < 5e-6, "{images} of {channels} to {outputs} at {size:?}: {error:.1e}");
        }
    }
}

/// Other vector lengths have other panels, and with fewer registers fewer channels are processed at a time.
#[test]
fn smaller_processors_come_to_the_same() {
    #[cfg(target_arch = "x86_64")]
    let older = pulp::x86::V3::try_new().map(pulp::Arch::V3);
    #[cfg(not(target_arch = "x86_64"))]
    let older = None;
    for arch in [Some(pulp::Arch::Scalar), older].into_iter().flatten() {
        for (images, channels, outputs, size) in [(1, 1, 1, [1, 1]), (3, 5, 3, [7, 9]), (2, 37, 29, [19, 33])] {
            let error = error(arch, images, &conv(channels, outputs, size), true);
            assert!(error < 5e-6, "{arch:?}: {images} of {channels} to {outputs} at {size:?}: {error:.1e}");
        }
    }
}

#[test]
fn wide_layers_come_here() {
    assert!(conv(64, 72, [33, 30]).is_winograd() && conv(320, 320, [64, 64]).is_winograd());
    assert!(!conv(63, 72, [33, 30]).is_winograd() && !conv(1280, 1280, [16, 16]).is_winograd());
}

#[test]
fn an_images_result_is_the_same_in_every_batch() {
    let (conv, mut seed) = (conv(20, 12, [30, 21]), 3);
    let x = numbers(3 * 20 * 30 * 21, &mut seed);
    let weight = numbers(12 * 20 * 9, &mut seed);
    let run = |x: &[f32]| {
        let mut out = vec![0.0; x.len() / 20 * 12];
        conv.by_tiles(pulp::Arch::new(), (x, &weight, &[]), &Shared::new(&mut out));
        out
    };
    let alone: Vec<f32> = x.chunks_exact(20 * 30 * 21).flat_map(run).collect();
    assert_eq!(run(&x), alone);
}
