//! Merging of similar reference tokens (Bolya et al. 2023, "Token Merging: Your ViT But Faster").

use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor, TensorData};

use crate::cache::ReferenceTokens;

/// Merges the given share of a reference's tokens into their most similar tokens, which leaves fewer keys to
/// attend to.
///
/// The first token of each 2x2 square is a destination. Every other token is a source and is matched with the
/// destination, in the whole map, whose key has the highest cosine similarity; the best matches are merged. A
/// merged token is the mean of its tokens and counts as that many tokens in the softmax (the paper's proportional
/// attention, which FABRIC's web UI leaves out): otherwise, the more tokens are merged, the less weight the
/// reference would have.
///
/// `key` and `value` are `[1, tokens, channels]`, of a feature map with height and width `grid`.
pub(super) fn merged(key: Tensor<3>, value: Tensor<3>, grid: [usize; 2], share: f64) -> ReferenceTokens {
    let whole = |key, value| ReferenceTokens { key, value, merged_counts: Vec::new() };
    if share == 0.0 {
        return whole(key, value);
    }
    let [_, tokens, _] = key.dims();
    let [height, width] = grid;
    assert_eq!(height * width, tokens, "merging: {tokens} tokens of a map of {height}x{width}");
    let (stay, leave): (Vec<usize>, Vec<usize>) =
        (0..tokens).partition(|at| (at / width).is_multiple_of(2) && (at % width).is_multiple_of(2));
    let count = ((share * tokens as f64).round() as usize).min(leave.len());
    if count == 0 {
        return whole(key, value);
    }
    let matches = best_matches(&key, &stay, &leave, count);
    let plan = Plan::new(tokens, &matches);
    ReferenceTokens { key: plan.means(key), value: plan.means(value), merged_counts: plan.runs() }
}

/// Returns the `count` best matches as pairs of source and destination token.
fn best_matches(key: &Tensor<3>, stay: &[usize], leave: &[usize], count: usize) -> Vec<(usize, usize)> {
    let key = key.clone().cast(DType::F32);
    let length = key.clone().square().sum_dim(2).sqrt().clamp_min(f32::MIN_POSITIVE);
    let unit = key / length;
    let of = |tokens: &[usize]| unit.clone().select(1, indices(tokens, &unit));
    let (likeness, nearest) = of(leave).matmul(of(stay).swap_dims(1, 2)).max_dim_with_indices(2);
    let likeness: Vec<f32> = likeness.into_data().iter::<f32>().collect();
    let nearest = nearest.into_data();
    let mut pairs: Vec<(f32, usize, usize)> = likeness
        .into_iter()
        .zip(leave)
        .zip(nearest.iter::<i64>())
        .map(|((like, &from), to)| (like, from, stay[to as usize]))
        .collect();
    // A stable sort: ties keep token order, so the result is deterministic.
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    pairs.into_iter().take(count).map(|(_, from, to)| (from, to)).collect()
}

fn indices(numbers: &[usize], beside: &Tensor<3>) -> Tensor<1, Int> {
    let numbers: Vec<i64> = numbers.iter().map(|&number| number as i64).collect();
    let count = numbers.len();
    Tensor::from_data(TensorData::new(numbers, [count]), &beside.device())
}

/// Mapping from tokens to merged tokens.
struct Plan {
    /// Per token, the index of its merged token; merged tokens are sorted by size.
    places: Vec<usize>,
    /// Per merged token, the number of tokens merged into it.
    sizes: Vec<usize>,
}

impl Plan {
    fn new(tokens: usize, matches: &[(usize, usize)]) -> Self {
        let mut home: Vec<usize> = (0..tokens).collect();
        let mut sizes = vec![1; tokens];
        for &(from, to) in matches {
            home[from] = to;
            sizes[to] += 1;
        }
        let mut left: Vec<usize> = (0..tokens).filter(|&at| home[at] == at).collect();
        left.sort_by_key(|&at| sizes[at]);
        let mut place = vec![0; tokens];
        for (number, &at) in left.iter().enumerate() {
            place[at] = number;
        }
        let places = home.into_iter().map(|at| place[at]).collect();
        Self { places, sizes: left.into_iter().map(|at| sizes[at]).collect() }
    }

    /// Means of merged tokens, accumulated in f32.
    fn means(&self, x: Tensor<3>) -> Tensor<3> {
        let (dtype, device, [_, _, channels]) = (x.dtype(), x.device(), x.dims());
        let x = x.cast(DType::F32);
        let left = self.sizes.len();
        let sums = Tensor::<3>::zeros([1, left, channels], (&device, DType::F32));
        let sums = sums.select_assign(1, indices(&self.places, &x), x, IndexingUpdateOp::Add);
        let shares: Vec<f32> = self.sizes.iter().map(|&size| 1.0 / size as f32).collect();
        let shares = Tensor::<3>::from_data(TensorData::new(shares, [1, left, 1]), (&device, DType::F32));
        (sums * shares).cast(dtype)
    }

    /// Runs of merged tokens of equal size, as (number of merged tokens, size).
    fn runs(&self) -> Vec<(usize, f32)> {
        self.sizes.chunk_by(|a, b| a == b).map(|run| (run.len(), run[0] as f32)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{AttnExtras, JointTokens, attend};
    use burn::tensor::{Device, Distribution};

    fn device() -> Device {
        fabric_backends::default_device().unwrap()
    }

    fn random(tokens: usize, channels: usize) -> Tensor<3> {
        Tensor::random([1, tokens, channels], Distribution::Normal(0.0, 1.0), &device())
    }

    #[test]
    fn equal_tokens_merge_without_a_trace() {
        // Each 2x2 square has four equal tokens.
        let few = random(6, 8);
        let [height, width] = [4, 6];
        let square: Vec<usize> = (0..height * width).map(|at| at / width / 2 * 3 + at % width / 2).collect();
        let all = few.clone().select(1, indices(&square, &few));
        let (query, own) = (random(5, 8), random(7, 8));
        let attended = |reference: ReferenceTokens| {
            let ReferenceTokens { key, value, merged_counts } = reference;
            let joint = vec![JointTokens { rows: 0..1, key, value, weight: 0.7, merged_counts, away: None, source: 0 }];
            let extras = AttnExtras { joint, decoupled: Vec::new() };
            attend(query.clone(), own.clone(), own.clone(), 2, &extras)
        };
        let whole = attended(ReferenceTokens { key: all.clone(), value: all.clone() * 2.0, merged_counts: Vec::new() });
        for (share, left) in [(0.75, 6), (0.5, 12), (0.25, 18)] {
            let reference = merged(all.clone(), all.clone() * 2.0, [height, width], share);
            assert_eq!(reference.key.dims(), [1, left, 8]);
            assert_eq!(reference.merged_counts.iter().map(|&(keys, tokens)| keys as f32 * tokens).sum::<f32>(), 24.0);
            let error = (attended(reference) - whole.clone()).abs().max().into_scalar::<f32>();
            assert!(error < 1e-5, "{share}: {error}");
        }
    }

    #[test]
    fn what_merges_is_the_mean_of_the_most_alike() {
        // One square: the first is the destination, the third is similar to it, the second and fourth are not.
        let key = Tensor::<3>::from_data([[[1.0, 0.0], [0.0, 1.0], [3.0, 0.1], [-1.0, 0.0]]], &device());
        let reference = merged(key.clone(), key, [2, 2], 0.25);
        let values: Vec<f32> = reference.value.into_data().iter::<f32>().collect();
        assert_eq!(values, [0.0, 1.0, -1.0, 0.0, 2.0, 0.05]);
        assert_eq!(reference.merged_counts, [(2, 1.0), (1, 2.0)]);
    }

    #[test]
    fn odd_maps_and_no_share_are_left_whole() {
        let x = random(15, 4);
        assert_eq!(merged(x.clone(), x.clone(), [3, 5], 0.0).key.dims(), [1, 15, 4]);
        // Six of fifteen are destinations and always remain, whatever the share.
        assert_eq!(merged(x.clone(), x, [3, 5], 1.0).key.dims(), [1, 6, 4]);
        let one = random(1, 4);
        assert!(merged(one.clone(), one, [1, 1], 0.75).merged_counts.is_empty());
    }
}
