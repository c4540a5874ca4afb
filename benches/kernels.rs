//! Our kernels compared with burn's operations: forward, and forward with all gradients.

use std::hint::black_box;
use std::time::Duration;

use burn::tensor::module::{attention, conv2d as burn_conv2d, layer_norm as burn_layer_norm};
use burn::tensor::ops::{AttentionModuleOptions, ConvOptions};
use burn::tensor::{Device, Distribution, Tensor, activation};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use fabric::backends::ops::{
    Pointwise, conv2d, geglu, group_norm, layer_norm, linear, pointwise, softmax, weighted_attention,
};

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

fn group<'a>(c: &'a mut Criterion, name: String) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group
}

/// Measures one operation alone, and with the gradients of all inputs.
fn case<const A: usize, const B: usize, const D: usize>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    inputs: (Tensor<A>, Tensor<B>),
    f: impl Fn(Tensor<A>, Tensor<B>) -> Tensor<D>,
) {
    let (x, y) = inputs;
    group.bench_function(name, |b| b.iter(|| black_box(f(x.clone(), y.clone()).into_data())));
    let tracked = (x.autodiff().require_grad(), y.autodiff().require_grad());
    group.bench_function(format!("{name}_and_gradients"), |b| {
        b.iter(|| {
            let (x, y) = tracked.clone();
            let grads = f(x.clone(), y.clone()).sum().backward();
            black_box((x.grad(&grads).map(Tensor::into_data), y.grad(&grads).map(Tensor::into_data)))
        });
    });
}

fn convolutions(c: &mut Criterion) {
    let device = fabric::default_device().expect("a device");
    for [rows, channels, side] in [[1, 320, 64], [1, 640, 32], [1, 1280, 16], [64, 64, 8], [16, 32, 32]] {
        let mut group = group(c, format!("conv3x3_{rows}x{channels}x{side}x{side}"));
        let inputs = || (random([rows, channels, side, side], &device), random([channels, channels, 3, 3], &device));
        case(&mut group, "fabric", inputs(), |x, w| conv2d(x, w, None, 1, (1, 1)));
        let options = || ConvOptions::new_with_padding([1, 1], [(1, 1); 2], [1, 1], 1);
        case(&mut group, "burn", inputs(), |x, w| burn_conv2d(x, w, None, options()));
        group.finish();
    }
}

fn norms(c: &mut Criterion) {
    let device = fabric::default_device().expect("a device");
    let mut norm = group(c, "group_norm_silu_320x64x64".to_owned());
    let inputs = || (random([1, 320, 64, 64], &device), random([320], &device));
    case(&mut norm, "fabric", inputs(), |x, w| group_norm(x, w.clone(), w, 32, 1e-5, true));
    case(&mut norm, "burn", inputs(), |x, w| {
        let x = x.reshape([1, 32, 10 * 64 * 64]);
        let centred = x.clone() - x.mean_dim(2);
        let scaled = centred.clone() / (centred.square().mean_dim(2) + 1e-5).sqrt();
        let w = w.reshape([1, 320, 1, 1]);
        activation::silu(scaled.reshape([1, 320, 64, 64]) * w.clone() + w)
    });
    norm.finish();
    let mut norm = group(c, "layer_norm_4096x320".to_owned());
    let inputs = || (random([4096, 320], &device), random([320], &device));
    case(&mut norm, "fabric", inputs(), |x, w| layer_norm(x, w.clone(), w, 1e-5));
    case(&mut norm, "burn", inputs(), |x, w| burn_layer_norm(x, w.clone(), Some(w), 1e-5));
    norm.finish();
}

fn pointwise_and_softmax(c: &mut Criterion) {
    let device = fabric::default_device().expect("a device");
    let inputs = || (random([4096, 1280], &device), random([1], &device));
    let mut gelu = group(c, "gelu_4096x1280".to_owned());
    case(&mut gelu, "fabric", inputs(), |x, _| pointwise(x, Pointwise::Gelu));
    case(&mut gelu, "burn", inputs(), |x, _| activation::gelu(x));
    gelu.finish();
    let mut gated = group(c, "geglu_4096x2560".to_owned());
    let inputs = || (random([1, 4096, 2560], &device), random([1], &device));
    case(&mut gated, "fabric", inputs(), |x, _| geglu(x));
    case(&mut gated, "burn", inputs(), |x, _| {
        let [value, gate] = [0, 1280].map(|first| x.clone().narrow(2, first, 1280));
        value * activation::gelu(gate)
    });
    gated.finish();
    let inputs = || (random([4096, 1280], &device), random([1], &device));
    let mut silu = group(c, "silu_4096x1280".to_owned());
    case(&mut silu, "fabric", inputs(), |x, _| pointwise(x, Pointwise::Silu));
    case(&mut silu, "burn", inputs(), |x, _| activation::silu(x));
    silu.finish();
    let mut rows = group(c, "softmax_4096x1280".to_owned());
    case(&mut rows, "fabric", inputs(), |x, _| softmax(x));
    case(&mut rows, "burn", inputs(), |x, _| activation::softmax(x, 1));
    rows.finish();
}

fn attentions(c: &mut Criterion) {
    let device = fabric::default_device().expect("a device");
    for [rows, heads, queries, keys, dim] in
        [[1, 8, 1024, 1024, 80], [1, 8, 4096, 77, 40], [64, 6, 65, 65, 32], [64, 4, 64, 40, 16]]
    {
        let mut group = group(c, format!("attention_{rows}x{heads}x{queries}x{keys}x{dim}"));
        // In the memory layout of the networks: the heads of a token are adjacent.
        let inputs = || {
            let tokens = |count: usize| random([rows, count, heads, dim], &device).swap_dims(1, 2);
            (tokens(queries), tokens(keys))
        };
        case(&mut group, "fabric", inputs(), |q, k| weighted_attention(q, k.clone(), k, &[]));
        let options = AttentionModuleOptions::default;
        case(&mut group, "burn", inputs(), |q, k| attention(q, k.clone(), k, None, None, options()));
        group.finish();
    }
}

fn products(c: &mut Criterion) {
    let device = fabric::default_device().expect("a device");
    let mut group = group(c, "linear_4096x320x2560".to_owned());
    let inputs = || (random([4096, 320], &device), random([2560, 320], &device));
    case(&mut group, "fabric", inputs(), |x, w| linear(x, w, None));
    case(&mut group, "burn", inputs(), |x, w| x.matmul(w.transpose()));
    group.finish();
}

criterion_group!(benches, convolutions, products, norms, pointwise_and_softmax, attentions);
criterion_main!(benches);
