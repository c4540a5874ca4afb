//! Attention with burn's operations, padded to the shapes that burn's fused kernels accept.

use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{DType, Device, Tensor, TensorData};
use half::{bf16, f16};

use crate::device::is_cpu;

/// Maximum bytes of attention scores in memory at a time where they may be written out: on CPUs, and on GPUs in
/// f32.
const SCORES: usize = 256 << 20;

/// Up to this many runs of weights are built on the device; more are built on the host and uploaded.
const FEW: usize = 32;

/// Shapes and number type that the device's fused attention kernel requires, if it has one.
///
/// burn's GPU kernels take no scale parameter. Kernels with tensor cores need f16, head sizes that are a
/// multiple of 16 and a number of queries that is a multiple of 32; kernels without need head sizes that are a
/// multiple of 4. Any other input makes burn write all scores to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KernelConstraints {
    /// The channels of a head are padded with zeros to a multiple of this.
    pub(super) channels: usize,
    /// The queries are padded with zeros to a multiple of this.
    pub(super) queries: usize,
    /// Number type of the computation, if it differs from that of the tensors.
    pub(super) dtype: Option<DType>,
    /// Maximum bytes of scores in memory at a time; `None` if the kernel writes none.
    pub(super) scores: Option<usize>,
}

impl KernelConstraints {
    fn of(x: &Tensor<4>) -> Self {
        if is_cpu(&x.device()) {
            return Self { channels: 1, queries: 1, dtype: None, scores: Some(SCORES) };
        }
        let half = matches!(x.dtype(), DType::F16 | DType::BF16);
        if half {
            return Self { channels: 16, queries: 32, dtype: Some(DType::F16), scores: None };
        }
        // The kernel without tensor cores reads four channels at once.
        Self { channels: 4, queries: 1, dtype: None, scores: Some(SCORES) }
    }
}

/// Computes `softmax(q·k / sqrt(head_dim) + ln weight) · v`; no weights means weight 1 for every key.
pub(super) fn plain(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, weights: &[(usize, f32)]) -> Tensor<4> {
    let constraints = KernelConstraints::of(&query);
    within(constraints, query, key, value, weights)
}

/// Computes the same within the given constraints.
pub(super) fn within(
    constraints: KernelConstraints,
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    weights: &[(usize, f32)],
) -> Tensor<4> {
    let [rows, heads, queries, head_dim] = query.dims();
    let keys = key.dims()[2];
    let given = query.dtype();
    // bf16 has a larger range than f16. Values beyond 65504 become infinite and then NaN, which is noticed;
    // clamping would hide the overflow.
    let dtype = constraints.dtype.unwrap_or(given);
    let more = LogWeights { weights, dtype };
    let channels = (head_dim + more.channels()).next_multiple_of(constraints.channels);
    // The kernel divides by the square root of the padded number of channels.
    let scale = (channels as f64 / head_dim as f64).sqrt();
    let [query, key, value] = [query, key, value].map(|x| if dtype == given { x } else { x.cast(dtype) });
    // Scale after the cast, because f16 rounds less than bf16.
    let query = if channels == head_dim { query } else { query * scale };
    let filled = |x: Tensor<4>, more: Option<Tensor<4>>, to: usize| {
        let [_, _, tokens, own] = x.dims();
        let zeros = to - own - more.as_ref().map_or(0, |more| more.dims()[3]);
        let zeros = (zeros > 0).then(|| Tensor::zeros([rows, heads, tokens, zeros], (&x.device(), dtype)));
        joined(std::iter::once(x).chain(more).chain(zeros).collect(), 3)
    };
    let device = query.device();
    let ones = (more.channels() > 0).then(|| Tensor::ones([rows, heads, queries, more.channels()], (&device, dtype)));
    let logs = (more.channels() > 0)
        .then(|| more.tensor((channels as f64).sqrt(), &device).expand([rows, heads, keys, more.channels()]));
    let (query, key) = (filled(query, ones, channels), filled(key, logs, channels));
    // The extra channels of the value are zeros that only keep the three head sizes equal.
    let value = filled(value, None, channels);

    let at_once = constraints.scores.map_or(queries, |bytes| (bytes / (rows * heads * keys * 4)).max(1));
    let parts = (0..queries).step_by(at_once).map(|first| {
        let count = at_once.min(queries - first);
        let part = query.clone().slice_dim(2, first..first + count);
        let expected = count.next_multiple_of(constraints.queries);
        let zeros = || Tensor::zeros([rows, heads, expected - count, channels], (&device, dtype));
        let part = std::iter::once(part).chain((expected > count).then(zeros));
        let out = attention(
            joined(part.collect(), 2),
            key.clone(),
            value.clone(),
            None,
            None,
            AttentionModuleOptions::default(),
        );
        out.slice([0..rows, 0..heads, 0..count, 0..head_dim])
    });
    let out = joined(parts.collect(), 2);
    if dtype == given { out } else { out.cast(given) }
}

/// Concatenates along an axis; a single part is not copied.
fn joined(mut parts: Vec<Tensor<4>>, axis: usize) -> Tensor<4> {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, axis) }
}

/// Logarithms of the weights as extra channels of the head: `q' = [q, 1]` and `k' = [k, sqrt(channels) ln
/// weight]`. This needs no bias tensor, with which burn would not use the fused kernel. In f16 and bf16, a
/// second channel holds the rounding error of the first.
struct LogWeights<'a> {
    /// Runs of `(keys, weight)`.
    weights: &'a [(usize, f32)],
    dtype: DType,
}

impl LogWeights<'_> {
    fn channels(&self) -> usize {
        match self.dtype {
            _ if self.weights.is_empty() => 0,
            DType::F16 | DType::BF16 => 2,
            _ => 1,
        }
    }

    /// `[1, 1, keys, channels]`.
    fn tensor(&self, root: f64, device: &Device) -> Tensor<4> {
        let place = (device, self.dtype);
        let parts = |weight: f32| {
            let log = (root * f64::from(weight).ln()) as f32;
            match self.dtype {
                DType::F16 => split(log, f16::from_f32(log).to_f32()),
                DType::BF16 => split(log, bf16::from_f32(log).to_f32()),
                _ => vec![log],
            }
        };
        if self.weights.len() <= FEW {
            let runs = self.weights.iter().map(|&(keys, weight)| {
                let channels = parts(weight).into_iter().map(|part| Tensor::full([1, 1, keys, 1], part, place));
                Tensor::cat(channels.collect(), 3)
            });
            return Tensor::cat(runs.collect(), 2);
        }
        let each = self.weights.iter().flat_map(|&(keys, weight)| std::iter::repeat_n(parts(weight), keys));
        let values: Vec<f32> = each.flatten().collect();
        let keys = values.len() / self.channels();
        Tensor::from_data(TensorData::new(values, [1, 1, keys, self.channels()]), place)
    }
}

fn split(x: f32, rounded: f32) -> Vec<f32> {
    vec![rounded, x - rounded]
}
