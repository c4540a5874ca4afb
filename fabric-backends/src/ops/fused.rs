//! Attention of burn's operations, in the constraints that its fused kernels take.

use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{DType, Device, Tensor, TensorData};
use half::{bf16, f16};

use crate::device::is_cpu;

/// Bytes of scores at once where they may be written out: on CPUs, and on GPUs in f32.
const SCORES: usize = 256 << 20;

/// So many runs of weights are made on the device; more are brought there.
const FEW: usize = 32;

/// What the device's fused kernel asks for, if it has one.
///
/// burn's for GPUs take no scale of their own. With tensor cores they take f16 alone, heads whose channels are a multiple of 16, and queries
/// that are a multiple of 32; without, heads whose channels are a multiple of 4. Anything else writes all scores to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KernelConstraints {
    /// Channels of a head are filled up with zeros to a multiple of this,
    pub(super) channels: usize,
    /// and queries to a multiple of this.
    pub(super) queries: usize,
    /// The number type of the product, where it is not that of the tensors.
    pub(super) dtype: Option<DType>,
    /// Bytes of scores at once; absent where the kernel writes none.
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

/// `softmax(q·k / sqrt(head_dim) + ln weight) · v`; no weights stand for 1 everywhere.
pub(super) fn plain(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, weights: &[(usize, f32)]) -> Tensor<4> {
    let constraints = KernelConstraints::of(&query);
    within(constraints, query, key, value, weights)
}

/// The same in the given constraints.
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
    // bf16 reaches further than f16. What is beyond 65504 becomes infinite and then NaN, which shows; held back at the
    // limit it would not.
    let dtype = constraints.dtype.unwrap_or(given);
    let more = LogWeights { weights, dtype };
    let channels = (head_dim + more.channels()).next_multiple_of(constraints.channels);
    // The kernel divides by the root of the channels that it sees.
    let scale = (channels as f64 / head_dim as f64).sqrt();
    let [query, key, value] = [query, key, value].map(|x| if dtype == given { x } else { x.cast(dtype) });
    // After the cast, as f16 rounds less than bf16.
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
    // The value's own extra channels are nothing; they only keep the three head sizes equal.
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

/// One after the other along an axis; a single one is not copied.
fn joined(mut parts: Vec<Tensor<4>>, axis: usize) -> Tensor<4> {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, axis) }
}

/// Weights travel as more channels of the head, `q' = [q, 1]` and `k' = [k, sqrt(channels) ln weight]`, so that they need no
/// bias tensor and leave the fused kernel in charge. In halves a second channel holds what the first one's rounding left.
struct LogWeights<'a> {
    /// Runs of keys.
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
