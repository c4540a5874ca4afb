//! Numeric tests for every backend: `FABRIC_DEVICE=ndarray cargo test --release --features ndarray --test backends`.
//!
//! They compare each operation of the networks with a simple f64 computation on the host.

use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{Device, Tensor, TensorData};
use fabric::backends::ops::{
    Pointwise, causal_attention, conv2d, geglu, group_norm, layer_norm, pointwise, softmax, weighted_attention,
};

/// Largest allowed error relative to the largest value. f32 sums of a few thousand terms differ by about 1e-6 between
/// summation orders, on flex and on ndarray. CUDA's matrix products run in TF32, with 10 bits of mantissa.
fn tolerance() -> f64 {
    if std::env::var("FABRIC_DEVICE").is_ok_and(|name| name.starts_with("cuda")) { 5e-3 } else { 1e-5 }
}

fn device() -> Device {
    fabric::default_device().expect("a device to test on")
}

/// Reproducible values in about [-1.5, 1.5].
fn values(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Rounded to f32, so that device and host start from equal numbers.
            f64::from(((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 3.0)
        })
        .collect()
}

fn upload<const D: usize>(values: &[f64], shape: [usize; D]) -> Tensor<D> {
    let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), &device())
}

fn check<const D: usize>(got: Tensor<D>, expected: &[f64]) {
    let got: Vec<f32> = got.into_data().convert::<f32>().try_to_vec().unwrap();
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(1e-12_f64, |m, x| m.max(x.abs()));
    let error = got.iter().zip(expected).fold(0.0_f64, |worst, (&a, b)| {
        let error = (f64::from(a) - b).abs() / scale;
        if error.is_nan() { f64::INFINITY } else { worst.max(error) }
    });
    assert!(error <= tolerance(), "error {error:.1e}, at most {:.0e} expected", tolerance());
}

/// Attention as in the official code: `softmax(q·k / sqrt(d))`, times the weights, each row normalised, times `v`.
fn attention_on_host(q: &[f64], k: &[f64], v: &[f64], [heads, queries, keys, dim]: [usize; 4], w: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; heads * queries * dim];
    for head in 0..heads {
        for query in 0..queries {
            let q = &q[(head * queries + query) * dim..][..dim];
            let logits: Vec<f64> = (0..keys)
                .map(|key| {
                    let k = &k[(head * keys + key) * dim..][..dim];
                    q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>() / (dim as f64).sqrt()
                })
                .collect();
            let top = logits.iter().fold(f64::MIN, |m, &x| m.max(x));
            let weighted: Vec<f64> = logits.iter().zip(w).map(|(x, w)| (x - top).exp() * w).collect();
            let sum: f64 = weighted.iter().sum();
            for (key, p) in weighted.iter().enumerate() {
                for c in 0..dim {
                    out[(head * queries + query) * dim + c] += p / sum * v[(head * keys + key) * dim + c];
                }
            }
        }
    }
    out
}

fn check_attention(sizes: [usize; 4], runs: &[(usize, f32)]) {
    let [heads, queries, keys, dim] = sizes;
    let (q, k, v) = (values(heads * queries * dim, 1), values(heads * keys * dim, 2), values(heads * keys * dim, 3));
    let mut weights: Vec<f64> = runs.iter().flat_map(|&(n, w)| std::iter::repeat_n(f64::from(w), n)).collect();
    weights.resize(keys, 1.0);
    let got = weighted_attention(
        upload(&q, [1, heads, queries, dim]),
        upload(&k, [1, heads, keys, dim]),
        upload(&v, [1, heads, keys, dim]),
        runs,
    );
    check(got, &attention_on_host(&q, &k, &v, sizes, &weights));
}

#[test]
fn attention_is_the_plain_softmax() {
    check_attention([2, 20, 33, 8], &[]);
    check_attention([1, 1, 1, 4], &[]);
    check_attention([8, 64, 77, 40], &[]);
}

#[test]
fn attention_over_many_keys_is_the_plain_softmax() {
    // Above 256 K scores, flex computes attention in tiles.
    check_attention([2, 300, 1500, 40], &[]);
}

#[test]
fn weighted_attention_is_reweighting_and_normalising() {
    check_attention([2, 20, 60, 8], &[(20, 1.0), (20, 0.8), (20, 0.05)]);
    check_attention([8, 64, 192, 40], &[(64, 1.0), (64, 1e-3), (64, 30.0)]);
    check_attention([2, 300, 1500, 40], &[(300, 1.0), (600, 0.3), (600, 0.7)]);
}

#[test]
fn equal_weights_are_no_weights() {
    check_attention([2, 20, 60, 8], &[(60, 1.0)]);
}

#[test]
fn convolution_is_the_sum_over_its_window() {
    for (stride, padding, kernel) in [(1, 1, 3), (2, 1, 3), (1, 0, 1), (2, 0, 3)] {
        let (channels, outputs, height, width) = (5, 7, 9, 6);
        let x = values(2 * channels * height * width, 4);
        let w = values(outputs * channels * kernel * kernel, 5);
        let b = values(outputs, 6);
        let out_h = (height + 2 * padding - kernel) / stride + 1;
        let out_w = (width + 2 * padding - kernel) / stride + 1;
        let mut expected = Vec::new();
        for row in 0..2 {
            for o in 0..outputs {
                for i in 0..out_h * out_w {
                    let (y0, x0) = (i / out_w * stride, i % out_w * stride);
                    let mut sum = b[o];
                    for c in 0..channels {
                        for j in 0..kernel * kernel {
                            let (yy, xx) = (y0 + j / kernel, x0 + j % kernel);
                            if (padding..height + padding).contains(&yy) && (padding..width + padding).contains(&xx) {
                                let at = ((row * channels + c) * height + yy - padding) * width + xx - padding;
                                sum += x[at] * w[(o * channels + c) * kernel * kernel + j];
                            }
                        }
                    }
                    expected.push(sum);
                }
            }
        }
        let got = conv2d(
            upload(&x, [2, channels, height, width]),
            upload(&w, [outputs, channels, kernel, kernel]),
            Some(upload(&b, [outputs])),
            stride,
            (padding, padding),
        );
        check(got, &expected);
    }
}

/// Normalises each run of `length` values to mean 0 and standard deviation 1.
fn normalised(x: &[f64], length: usize, epsilon: f64) -> Vec<f64> {
    let mut out = Vec::new();
    for run in x.chunks(length) {
        let mean = run.iter().sum::<f64>() / length as f64;
        let variance = run.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / length as f64;
        out.extend(run.iter().map(|x| (x - mean) / (variance + epsilon).sqrt()));
    }
    out
}

#[test]
fn norms_are_their_formulas() {
    let (rows, channels, area, groups) = (3, 12, 35, 4);
    let (x, w, b) = (values(rows * channels * area, 10), values(channels, 11), values(channels, 12));
    let plain = normalised(&x, channels / groups * area, 1e-5);
    let expected: Vec<f64> =
        (0..).zip(plain).map(|(at, x)| x * w[at / area % channels] + b[at / area % channels]).collect();
    let norm = |silu| {
        let x = upload(&x, [rows, channels, 5, 7]);
        group_norm(x, upload(&w, [channels]), upload(&b, [channels]), groups, 1e-5, silu)
    };
    check(norm(false), &expected);
    check(norm(true), &expected.iter().map(|x| x / (1.0 + (-x).exp())).collect::<Vec<f64>>());
    let plain = normalised(&x, channels, 1e-5);
    let expected: Vec<f64> = (0..).zip(plain).map(|(at, x)| x * w[at % channels] + b[at % channels]).collect();
    let x = upload(&x, [rows, area, channels]);
    check(layer_norm(x, upload(&w, [channels]), upload(&b, [channels]), 1e-5), &expected);
}

#[test]
fn causal_attention_sees_no_later_key() {
    let [heads, tokens, dim] = [2, 150, 8];
    let of = |seed| values(heads * tokens * dim, seed);
    let (q, k, v) = (of(13), of(14), of(15));
    let part =
        |x: &[f64], head: usize, first: usize, count: usize| x[(head * tokens + first) * dim..][..count * dim].to_vec();
    let mut expected = Vec::new();
    for (head, query) in (0..heads).flat_map(|head| (0..tokens).map(move |query| (head, query))) {
        let seen = query + 1;
        let (k, v) = (part(&k, head, 0, seen), part(&v, head, 0, seen));
        expected.extend(attention_on_host(&part(&q, head, query, 1), &k, &v, [1, 1, seen, dim], &vec![1.0; seen]));
    }
    let shape = [1, heads, tokens, dim];
    check(causal_attention(upload(&q, shape), upload(&k, shape), upload(&v, shape)), &expected);
}

#[test]
fn activations_are_their_formulas() {
    let x: Vec<f64> = values(1000, 7).into_iter().map(|x| x * 4.0).collect();
    let silu_wanted: Vec<f64> = x.iter().map(|x| x / (1.0 + (-x).exp())).collect();
    check(pointwise(upload(&x, [1000]), Pointwise::Silu), &silu_wanted);
    let quick_wanted: Vec<f64> = x.iter().map(|x| x / (1.0 + (-1.702 * x).exp())).collect();
    check(pointwise(upload(&x, [1000]), Pointwise::QuickGelu), &quick_wanted);
    let gelu_wanted: Vec<f64> = x.iter().map(|x| x * 0.5 * (1.0 + erf(x / std::f64::consts::SQRT_2))).collect();
    check(pointwise(upload(&x, [1000]), Pointwise::Gelu), &gelu_wanted);
    let gated: Vec<f64> =
        (0..500).map(|at| x[at / 20 * 40 + at % 20] * gelu_wanted[at / 20 * 40 + 20 + at % 20]).collect();
    check(geglu(upload(&x, [5, 5, 40])), &gated);
}

/// Error function by its series, which is accurate enough for |x| < 6.
fn erf(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    (sum * 2.0 / std::f64::consts::PI.sqrt()).clamp(-1.0, 1.0)
}

#[test]
fn softmax_rows_are_normalised_exponentials() {
    let x: Vec<f64> = values(6 * 50, 8).into_iter().map(|x| x * 20.0).collect();
    let mut expected = Vec::new();
    for row in x.chunks(50) {
        let top = row.iter().fold(f64::MIN, |m, &x| m.max(x));
        let sum: f64 = row.iter().map(|x| (x - top).exp()).sum();
        expected.extend(row.iter().map(|x| (x - top).exp() / sum));
    }
    check(softmax(upload(&x, [6, 50])), &expected);
}

#[test]
fn nearest_neighbours_double_every_pixel() {
    let x = values(12, 9);
    let expected: Vec<f64> = (0..48).map(|i| x[i / 8 / 2 * 4 + i % 8 / 2]).collect();
    let options = InterpolateOptions::new(InterpolateMode::Nearest).with_output_size([6, 8]);
    check(interpolate(upload(&x, [1, 1, 3, 4]), options), &expected);
}
