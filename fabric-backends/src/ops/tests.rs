//! Compares the kernels with burn's operations: values and all gradients.

use std::cell::Cell;

use burn::tensor::module::{attention, layer_norm as plain_layer_norm};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::fused::{KernelConstraints, within};
use super::*;

/// Returns random values that are the same in each run: every test has its own thread, whose seeds start at 0.
fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    thread_local!(static DRAWN: Cell<u64> = const { Cell::new(0) });
    let mut rng = ChaCha8Rng::seed_from_u64(DRAWN.replace(DRAWN.get() + 1));
    let mut uniform = || 1.0 - rng.random::<f32>();
    let mut normal = || (-2.0 * uniform().ln()).sqrt() * (std::f32::consts::TAU * uniform()).cos();
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| 0.2 + 1.5 * normal()).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// Returns the largest difference divided by the largest value.
fn error<const D: usize>(got: &Tensor<D>, expected: &Tensor<D>) -> f64 {
    assert_eq!(got.dims(), expected.dims());
    let (got, expected) = (got.clone().inner(), expected.clone().inner());
    let scale = expected.clone().abs().max().into_scalar::<f64>().max(1e-6);
    let error = (got - expected).abs().max().into_scalar::<f64>() / scale;
    if error.is_nan() { f64::INFINITY } else { error }
}

/// Checks that both functions have the same result and the same gradients of the three inputs.
fn same<const A: usize, const B: usize, const C: usize, const D: usize>(
    what: &str,
    inputs: (Tensor<A>, Tensor<B>, Tensor<C>),
    got: impl Fn(Tensor<A>, Tensor<B>, Tensor<C>) -> Tensor<D>,
    expected: impl Fn(Tensor<A>, Tensor<B>, Tensor<C>) -> Tensor<D>,
) {
    let (a, b, c) = inputs.clone();
    // Every element of the result gets a different gradient.
    let slopes: Tensor<D> = random(expected(a, b, c).dims());
    let run = |f: &dyn Fn(Tensor<A>, Tensor<B>, Tensor<C>) -> Tensor<D>| {
        let a = inputs.0.clone().autodiff().require_grad();
        let b = inputs.1.clone().autodiff().require_grad();
        let c = inputs.2.clone().autodiff().require_grad();
        let out = f(a.clone(), b.clone(), c.clone());
        let grads = (out.clone() * slopes.clone().autodiff()).sum().backward();
        (out, a.grad(&grads), b.grad(&grads), c.grad(&grads))
    };
    let (got, expected) = (run(&got), run(&expected));
    let grads = |name: &str, error: Option<f64>| {
        let error = error.unwrap_or(0.0);
        assert!(error < 1e-5, "{what}: gradient of {name}: error {error:.1e}, at most 1e-5 expected");
    };
    let value = error(&got.0, &expected.0);
    assert!(value < 1e-5, "{what}: error {value:.1e}, at most 1e-5 expected");
    assert_eq!(
        (got.1.is_some(), got.2.is_some(), got.3.is_some()),
        (expected.1.is_some(), expected.2.is_some(), expected.3.is_some()),
        "{what}: which inputs have a gradient"
    );
    grads("the first", got.1.zip(expected.1).map(|(a, b)| error(&a, &b)));
    grads("the second", got.2.zip(expected.2).map(|(a, b)| error(&a, &b)));
    grads("the third", got.3.zip(expected.3).map(|(a, b)| error(&a, &b)));
}

#[test]
fn convolutions_and_their_gradients() {
    for (rows, inputs, outputs, [height, width], kernel, stride, padding) in [
        (1, 1, 1, [1, 1], 1, 1, (0, 0)),
        (2, 3, 5, [7, 9], 3, 1, (1, 1)),
        (70, 4, 6, [4, 4], 3, 1, (1, 1)),
        (2, 5, 3, [40, 30], 3, 1, (1, 1)),
        (3, 4, 8, [9, 8], 3, 2, (1, 1)),
        (3, 4, 8, [8, 8], 3, 2, (0, 1)),
        (2, 4, 3, [6, 5], 1, 1, (0, 0)),
        (2, 3, 4, [8, 16], 4, 4, (0, 0)),
        (2, 3, 4, [1, 3], 3, 1, (1, 1)),
        (1, 2, 2, [5, 6], 5, 1, (2, 2)),
        (2, 3, 4, [6, 7], 3, 1, (0, 0)),
        (2, 3, 4, [6, 7], 3, 1, (2, 2)),
        (2, 3, 4, [6, 7], 1, 1, (1, 1)),
        (2, 3, 4, [6, 7], 3, 3, (0, 2)),
        (1, 2, 3, [1, 1], 5, 2, (2, 2)),
        (1, 2, 3, [1, 1], 5, 1, (2, 2)),
        (1, 2, 3, [1, 1], 3, 3, (0, 2)),
        // Fewer output pixels than kernels, and a large weight with several parts.
        (2, 8, 640, [16, 16], 3, 1, (1, 1)),
        (2, 32, 1000, [24, 24], 3, 1, (1, 1)),
        (5, 70, 70, [17, 31], 3, 1, (1, 1)),
        (3, 257, 9, [17, 31], 3, 1, (1, 1)),
        // Uses the Winograd kernels, both forward and for the gradient of the input.
        (2, 64, 72, [33, 30], 3, 1, (1, 1)),
        (9, 9, 2, [6, 150], 3, 1, (1, 1)),
    ] {
        same(
            &format!("{rows} x {inputs} x {height} x {width}, {outputs} of {kernel} by {stride}, {padding:?}"),
            (random([rows, inputs, height, width]), random([outputs, inputs, kernel, kernel]), random([outputs])),
            |x, weight, bias| conv2d(x, weight, Some(bias), stride, padding),
            |x, weight, bias| super::conv2d::plain(x, weight, Some(bias), stride, padding),
        );
    }
}

#[test]
fn linear_layers_and_their_gradients() {
    for ([rows, tokens], inputs, outputs) in [([1, 1], 1, 1), ([3, 5], 7, 4), ([40, 20], 33, 130), ([2, 600], 64, 10)] {
        same(
            &format!("{rows} x {tokens} tokens, {inputs} to {outputs}"),
            (random([rows, tokens, inputs]), random([outputs, inputs]), random([outputs])),
            |x, weight, bias| linear(x, weight, Some(bias)),
            |x, weight, bias| super::linear::plain(x, weight, Some(bias)),
        );
    }
    let (x, weight) = (random([2, 3, 4]), random([5, 4]));
    let got = linear(x.clone(), weight.clone(), None);
    assert!(error(&got, &super::linear::plain(x, weight, None)) < 1e-6);
}

#[test]
fn norms_and_their_gradients() {
    for (shape, groups) in [([2, 6, 5, 3], 3), ([3, 32, 8, 8], 16), ([1, 4, 1, 2], 1), ([2, 8, 20, 20], 8)] {
        for silu in [false, true] {
            same(
                &format!("group norm of {shape:?}, silu {silu}"),
                (random(shape), random([shape[1]]), random([shape[1]])),
                |x, weight, bias| group_norm(x, weight, bias, groups, 1e-5, silu),
                |x, weight, bias| super::norm::plain_group_norm(x, weight, bias, groups, 1e-5, silu),
            );
        }
    }
    for shape in [[1, 1, 3], [3, 5, 40], [20, 60, 33]] {
        same(
            &format!("layer norm of {shape:?}"),
            (random(shape), random([shape[2]]), random([shape[2]])),
            |x, weight, bias| layer_norm(x, weight, bias, 1e-5),
            |x, weight, bias| plain_layer_norm(x, weight, Some(bias), 1e-5),
        );
    }
}

#[test]
fn activations_and_their_gradients() {
    for kind in [Pointwise::Silu, Pointwise::Gelu, Pointwise::QuickGelu] {
        same(
            &format!("{kind:?}"),
            (random([70, 50, 9]) * 3.0, random([1]), random([1])),
            |x, _, _| pointwise(x, kind),
            |x, _, _| super::activation::plain(x, kind),
        );
    }
    same(
        "gated gelu",
        (random([5, 7, 26]) * 3.0, random([1]), random([1])),
        |x, _, _| geglu(x),
        |x, _, _| super::activation::plain_geglu(x),
    );
    for shape in [[3, 4, 1], [3, 4, 77], [2, 3, 5000]] {
        same(
            &format!("softmax of {shape:?}"),
            (random(shape) * 5.0, random([1]), random([1])),
            |x, _, _| softmax(x),
            |x, _, _| activation::softmax(x, 2),
        );
    }
}

#[test]
fn attention_and_its_gradients() {
    for [rows, heads, queries, keys, dim] in [
        [1, 1, 1, 1, 1],
        [2, 3, 5, 7, 4],
        [3, 2, 65, 65, 32],
        [1, 2, 300, 700, 8],
        [2, 1, 140, 1100, 40],
        [1, 1, 13, 961, 65],
        [1, 1, 1000, 3, 16],
        [1, 2, 9, 50, 160],
    ] {
        // The layout in the networks: the heads of a token are contiguous.
        let turned = |tokens: usize| random([rows, tokens, heads, dim]).swap_dims(1, 2);
        let plain = AttentionModuleOptions::default;
        same(
            &format!("attention of {queries} to {keys}"),
            (turned(queries), turned(keys), turned(keys)),
            |q, k, v| weighted_attention(q, k, v, &[]),
            |q, k, v| attention(q, k, v, None, None, plain()),
        );
        let weights = [(keys / 2, 0.3), (keys - keys / 2, 2.5)];
        same(
            &format!("weighted attention of {queries} to {keys}"),
            (turned(queries), turned(keys), turned(keys)),
            |q, k, v| weighted_attention(q, k, v, &weights),
            |q, k, v| super::fused::plain(q, k, v, &weights),
        );
        same(
            &format!("causal attention over {queries}"),
            (turned(queries), turned(queries), turned(queries)),
            causal_attention,
            |q, k, v| attention(q, k, v, None, None, AttentionModuleOptions { is_causal: true, ..plain() }),
        );
    }
}

#[test]
fn a_weight_with_channels_innermost_is_the_same_weight() {
    let weight: Tensor<4> = random([7, 5, 3, 2]);
    let turned = super::conv2d::channels_last(weight.clone());
    assert_eq!(turned.clone().into_data(), weight.clone().into_data());
    let x = random([2, 5, 9, 8]);
    let convolved = |weight| conv2d(x.clone(), weight, None, 1, (1, 1));
    assert!(error(&convolved(turned), &convolved(weight)) < 1e-6);
}

#[test]
fn attention_is_the_same_in_every_form_that_a_fused_kernel_asks_for() {
    let constraints = KernelConstraints { channels: 1, queries: 1, dtype: None, scores: None };
    let forms = [
        (constraints, 1e-5),
        (KernelConstraints { channels: 4, ..constraints }, 1e-5),
        (KernelConstraints { channels: 16, queries: 32, ..constraints }, 1e-5),
        // Three, ten and all queries at a time.
        (KernelConstraints { scores: Some(2 * 4 * 60 * 4 * 3), ..constraints }, 1e-5),
        (KernelConstraints { channels: 16, queries: 8, scores: Some(2 * 4 * 60 * 4 * 10), ..constraints }, 1e-5),
        (KernelConstraints { scores: Some(1 << 20), ..constraints }, 1e-5),
        (KernelConstraints { channels: 16, queries: 32, dtype: Some(DType::F16), scores: None }, 2e-3),
    ];
    for dim in [40, 64, 5] {
        let tokens = |count: usize| random([2, 4, count, dim]);
        let (query, key, value) = (tokens(37), tokens(60), tokens(60));
        let many = (0..60).map(|key| (1, 0.3 + key as f32)).collect();
        for weights in [vec![], vec![(20, 1.0), (25, 0.8), (15, 0.003)], many] {
            let expected = weighted_attention(query.clone(), key.clone(), value.clone(), &weights);
            for (constraints, limit) in forms {
                let got = within(constraints, query.clone(), key.clone(), value.clone(), &weights);
                assert_eq!(got.dtype(), DType::F32);
                let error = error(&got, &expected);
                assert!(
                    error < limit,
                    "{constraints:?}, {dim} channels, {weights:?}: error {error:.1e}, expected {limit:.1e}"
                );
            }
        }
    }
}

#[test]
fn weights_in_halves_are_as_exact_as_in_f32() {
    // All scores are 0, so that only the weights' own rounding is seen; logarithms up to 50 in steps of 2^-5.
    let zeros = |count: usize| Tensor::<4>::zeros([1, 1, count, 40], &Device::flex());
    let value = Tensor::cat(vec![zeros(1), zeros(1) + 1.0], 2);
    let constraints = KernelConstraints { channels: 16, queries: 32, dtype: Some(DType::F16), scores: None };
    for weight in [0.7_f32, 0.123, 0.01, 3.3] {
        let got = within(constraints, zeros(1), zeros(2), value.clone(), &[(1, 1.0), (1, weight)]);
        let got: f32 = got.slice([0..1, 0..1, 0..1, 0..1]).into_scalar();
        let expected = f64::from(weight) / (1.0 + f64::from(weight));
        // The result itself is rounded to f16.
        assert!((f64::from(got) / expected - 1.0).abs() < 1.0 / 2048.0, "weight {weight}: {got}, expected {expected}");
    }
}

#[test]
fn logits_that_grow_from_key_to_key_are_weighed_as_any_others() {
    let (keys, dim) = (1300, 24);
    let (query, value) = (random([1, 1, 11, dim]).abs() + 1.0, random([1, 1, keys, dim]));
    let slope = Tensor::<1, Int>::arange(0..keys as i64, &value.device()).float().reshape([1, 1, keys, 1]) * 0.001;
    let key = random([1, 1, keys, dim]) * 0.1 + slope;
    let got = weighted_attention(query.clone(), key.clone(), value.clone(), &[]);
    let expected = attention(query, key, value, None, None, AttentionModuleOptions::default());
    assert!(error(&got, &expected) < 1e-5);
}

#[test]
fn groups_of_keys_are_as_one() {
    let (rows, heads, dim) = (3, 2, 40);
    let query = random([rows, 130, heads, dim]).swap_dims(1, 2);
    // Groups end within vectors, within panels and within tiles; one is a single key.
    for counts in [vec![5, 7], vec![480, 1, 479], vec![700, 33, 50, 16], vec![1, 1]] {
        let group = |rows, count, weight| KeyGroup {
            key: random([rows, count, heads, dim]).swap_dims(1, 2),
            value: random([rows, count, heads, dim]).swap_dims(1, 2),
            weights: if weight == 1.0 { vec![] } else { vec![(count, weight)] },
        };
        for weight in [1.0, 0.3] {
            // The first group has its own keys for each row; the rows share the others.
            let groups: Vec<KeyGroup> = counts
                .iter()
                .enumerate()
                .map(|(at, &count)| group(if at == 0 { rows } else { 1 }, count, if at == 0 { 1.0 } else { weight }))
                .collect();
            let joined = |of: fn(&KeyGroup) -> &Tensor<4>| {
                let all = groups.iter().map(|group| of(group).clone().expand([rows as i64, -1, -1, -1])).collect();
                Tensor::cat(all, 2)
            };
            let weights = |at: usize| groups[at].weights.first().map_or(1.0, |&(_, weight)| weight);
            let runs: Vec<_> = counts.iter().enumerate().map(|(at, &count)| (count, weights(at))).collect();
            let expected = weighted_attention(query.clone(), joined(|x| &x.key), joined(|x| &x.value), &runs);
            assert_eq!(error(&grouped_attention(query.clone(), groups), &expected), 0.0, "{counts:?}");
        }
    }
}

#[test]
fn gradients_reach_every_group() {
    let tracked = |rows: usize| random([rows, 2, 9, 8]).autodiff().require_grad();
    let (query, own, shared) = (tracked(2), tracked(2), tracked(1));
    let group = |x: &Tensor<4>| KeyGroup { key: x.clone(), value: x.clone(), weights: vec![] };
    let gradients = |out: Tensor<4>| {
        let gradients = (out.clone() * out).sum().backward();
        [&query, &own, &shared].map(|x| x.grad(&gradients).expect("a gradient"))
    };
    let got = gradients(grouped_attention(query.clone(), vec![group(&own), group(&shared)]));
    let all = Tensor::cat(vec![own.clone(), shared.clone().repeat_dim(0, 2)], 2);
    let expected = gradients(weighted_attention(query.clone(), all.clone(), all, &[]));
    for (got, expected) in got.iter().zip(&expected) {
        assert!(error(got, expected) < 1e-6);
    }
}

#[test]
fn keys_that_all_rows_share_need_no_copies() {
    let (query, key) = (random([4, 2, 9, 8]), random([1, 2, 11, 8]));
    let shared = key.clone().expand([4, 2, 11, 8]);
    let copied = key.repeat(&[4, 1, 1, 1]);
    let got = weighted_attention(query.clone(), shared.clone(), shared, &[]);
    assert_eq!(error(&got, &weighted_attention(query, copied.clone(), copied, &[])), 0.0);
}

#[test]
fn what_is_not_a_number_stays_visible() {
    let bad = |shape: [usize; 4]| random(shape).slice_fill([0..1, 0..1, 0..1, 0..1], f32::NAN);
    let sick = |x: Tensor<4>| x.is_nan().any().into_scalar::<bool>();
    assert!(sick(pointwise(bad([1, 1, 3, 3]), Pointwise::Gelu)));
    assert!(sick(pointwise(bad([1, 1, 3, 3]), Pointwise::Silu)));
    assert!(sick(softmax(bad([1, 1, 3, 20]))));
    assert!(sick(group_norm(bad([1, 2, 4, 4]), random([2]), random([2]), 1, 1e-5, true)));
    let tokens = |count: usize| random([1, 1, count, 8]);
    assert!(sick(weighted_attention(tokens(3), bad([1, 1, 30, 8]), tokens(30), &[])));
    assert!(sick(weighted_attention(bad([1, 1, 3, 8]), tokens(30), tokens(30), &[])));
    assert!(sick(weighted_attention(tokens(3), tokens(30), bad([1, 1, 30, 8]), &[])));
    // The same with the NaN in a later tile of keys.
    let late = Tensor::cat(vec![tokens(600), bad([1, 1, 30, 8])], 2);
    assert!(sick(weighted_attention(tokens(3), late.clone(), tokens(630), &[])));
    assert!(sick(weighted_attention(tokens(3), tokens(630), late, &[])));
}

#[test]
fn halves_become_wide_without_error() {
    // More elements than one task, and views with an offset.
    let x = random([3, 5000]) * 100.0;
    for dtype in [DType::F16, DType::BF16] {
        for half in
            [x.clone().cast(dtype), x.clone().cast(dtype).swap_dims(0, 1), x.clone().cast(dtype).narrow(0, 1, 2)]
        {
            let wide = cast(half.clone(), DType::F32);
            assert_eq!(wide.dtype(), DType::F32);
            assert_eq!(wide.into_data(), half.into_data().convert::<f32>());
        }
    }
}
