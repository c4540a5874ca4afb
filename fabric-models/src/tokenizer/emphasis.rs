//! Application of token weights to encoded prompts.

use burn::tensor::{DType, Tensor, TensorData};

/// Bounds of the factor by which [`Emphasis::MeanRestored`] multiplies a whole prompt.
const FACTORS: [f64; 2] = [0.5, 2.0];

/// Method of applying weights to an encoded prompt.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "a tensor is a handle, and a run has one of these")]
pub(crate) enum Emphasis {
    /// Multiplies each token's embedding by its weight (AUTOMATIC1111's "No norm").
    Plain,
    /// As [`Self::Plain`], then multiplies the whole row by a factor that restores its mean (AUTOMATIC1111's
    /// "Original").
    ///
    /// Means of embeddings are close to 0, and weights easily change their sign: the published rule then negates the
    /// whole prompt or makes its norm many times larger. The factor is therefore limited to 0.5 to 2, and is 1 if the
    /// two means differ in sign or one is 0, as neither then measures the size of the row. The mean is taken over the
    /// tokens and channels of a row, so no prompt depends on the others of its batch.
    MeanRestored,
    /// Extrapolates each token's embedding from that of the empty prompt at the same position (ComfyUI): weight 0
    /// gives the empty prompt's, 2 doubles the distance from it, and tokens of weight 1 do not change.
    ///
    /// Holds the encoded empty prompt, `[1, tokens, context_dim]`.
    FromEmpty(Tensor<3>),
}

/// Applies a weight to each token's embedding. If all weights are 1, returns the context unchanged.
///
/// # Shapes
///
/// - `context`: `[rows, tokens, context_dim]`, one row for each window
/// - `weights`: one weight per token of each row
/// - returns: `[rows, tokens, context_dim]`, in the context's data type
///
/// # Panics
///
/// Panics if the number of weights, or of the empty prompt's tokens, differs from the number of tokens.
#[must_use]
pub(crate) fn apply_weights(context: Tensor<3>, weights: &[Vec<f32>], emphasis: &Emphasis) -> Tensor<3> {
    let [rows, tokens, channels] = context.dims();
    assert_eq!(weights.len(), rows, "rows of weights and of the context");
    for row in weights {
        assert_eq!(row.len(), tokens, "weights of a row and tokens of the context");
    }
    if weights.iter().flatten().all(|&weight| weight == 1.0) {
        return context;
    }
    let own_type = (&context.device(), context.dtype());
    let data = TensorData::new(weights.concat(), [rows, tokens, 1]);
    let weights = Tensor::<3>::from_data(data, own_type);
    match emphasis {
        Emphasis::Plain => context * weights,
        Emphasis::MeanRestored => {
            let weighted = context.clone() * weights;
            let factor = restoring_factor(&context, &weighted);
            weighted * factor
        }
        Emphasis::FromEmpty(empty) => {
            assert_eq!(empty.dims(), [1, tokens, channels], "the empty prompt and the context");
            // Added to the context, so that a token of weight 1 stays bitwise equal.
            context.clone() + (context - empty.clone()) * (weights - 1.0)
        }
    }
}

/// Returns the factor that restores the mean of each row, within bounds: `[rows, 1, 1]`.
fn restoring_factor(context: &Tensor<3>, weighted: &Tensor<3>) -> Tensor<3> {
    // Computed in f32 whatever the type: a sum of ten thousand half-precision values has no precision left.
    let mean = |x: &Tensor<3>| x.clone().cast(DType::F32).mean_dim(2).mean_dim(1);
    let (before, after) = (mean(context), mean(weighted));
    let says_nothing = (before.clone() * after.clone()).lower_equal_elem(0.0);
    let factor = (before / after).mask_fill(says_nothing, 1.0).clamp(FACTORS[0], FACTORS[1]);
    factor.cast(context.dtype())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor<const R: usize, const T: usize, const C: usize>(values: [[[f32; C]; T]; R]) -> Tensor<3> {
        Tensor::from_data(values, &fabric_backends::default_device().expect("a device"))
    }

    fn context() -> Tensor<3> {
        tensor([[[1.0, 2.0], [3.0, 6.0]], [[1.0, -1.0], [5.0, 7.0]]])
    }

    fn every_rule() -> [Emphasis; 3] {
        [Emphasis::Plain, Emphasis::MeanRestored, Emphasis::FromEmpty(tensor([[[0.5, -0.5], [1.0, 2.0]]]))]
    }

    fn values(x: Tensor<3>) -> Vec<f32> {
        x.into_data().convert::<f32>().try_to_vec().expect("f32")
    }

    #[track_caller]
    fn assert_close(got: &[f32], expected: &[f32]) {
        assert_eq!(got.len(), expected.len());
        assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?}, expected {expected:?}");
    }

    #[test]
    fn weights_of_one_change_nothing() {
        for emphasis in every_rule() {
            let plain = values(apply_weights(context(), &[vec![1.0; 2], vec![1.0; 2]], &emphasis));
            assert_eq!(plain, values(context()), "{emphasis:?}");
            // The same holds in a batch with a weighted row.
            let beside = values(apply_weights(context(), &[vec![1.0, 2.0], vec![1.0; 2]], &emphasis));
            assert_eq!(beside[4..], values(context())[4..], "{emphasis:?}");
        }
    }

    #[test]
    fn without_normalisation_a_weight_multiplies_its_token() {
        let got = values(apply_weights(context(), &[vec![1.0, 2.0], vec![0.5, 1.0]], &Emphasis::Plain));
        assert_close(&got, &[1.0, 2.0, 6.0, 12.0, 0.5, -0.5, 5.0, 7.0]);
    }

    #[test]
    fn weights_shift_the_balance_and_keep_the_mean_of_each_row() {
        // Row 0: [1 2 | 6 12] has mean 5.25, unweighted 3. Row 1 has no weights.
        let weights = [vec![1.0, 2.0], vec![1.0, 1.0]];
        let got = values(apply_weights(context(), &weights, &Emphasis::MeanRestored));
        assert_close(&got, &[4.0 / 7.0, 8.0 / 7.0, 24.0 / 7.0, 48.0 / 7.0, 1.0, -1.0, 5.0, 7.0]);
    }

    #[test]
    fn a_mean_of_zero_is_not_restored() {
        let weights = [vec![1.0; 2], vec![1.0, 0.0]];
        let got = values(apply_weights(context(), &weights, &Emphasis::MeanRestored));
        assert_eq!(got[4..], [1.0, -1.0, 0.0, 0.0]);
    }

    #[test]
    fn the_factor_of_the_mean_stays_within_a_half_and_two() {
        // The first token shows the factor of its row. Its mean is that of the second token, plus `mean`.
        let factor = |mean: f32, weight: f32| {
            let row = tensor([[[1.0, -1.0], [4.0 + mean, -4.0 + mean]]]);
            let row = row + tensor([[[2.0 * mean, 2.0 * mean], [0.0, 0.0]]]);
            let before = values(row.clone());
            let after = values(apply_weights(row, &[vec![1.0, weight]], &Emphasis::MeanRestored));
            after[0] / before[0]
        };
        // Without bounds: 1/6, 3/13, 3/5, 3, and 3 / (2 - 2.02), which would negate the prompt.
        for (weight, expected) in [(16.0, 0.5), (11.0, 0.5), (3.0, 0.6), (-1.0, 2.0), (-2.02, 1.0)] {
            for mean in [0.25, -0.25] {
                let got = factor(mean, weight);
                assert!((got - expected).abs() < 1e-4, "mean {mean}, weight {weight}: {got}, expected {expected}");
            }
        }
    }

    #[test]
    fn comfys_rule_moves_a_token_from_the_empty_prompts() {
        let empty = tensor([[[0.5, -0.5], [1.0, 2.0]]]);
        let weights = [vec![1.0, 1.5], vec![0.0, 2.0]];
        let got = values(apply_weights(context(), &weights, &Emphasis::FromEmpty(empty)));
        assert_close(&got, &[1.0, 2.0, 4.0, 8.0, 0.5, -0.5, 9.0, 12.0]);
    }

    #[test]
    fn weights_take_the_contexts_type() {
        let device = fabric_backends::default_device().expect("a device");
        if !device.supports_dtype(DType::F16) {
            return;
        }
        let weights = [vec![1.0, 1.5], vec![0.5, 1.0]];
        for emphasis in every_rule() {
            let exact = values(apply_weights(context(), &weights, &emphasis));
            let emphasis = match emphasis {
                Emphasis::FromEmpty(empty) => Emphasis::FromEmpty(empty.cast(DType::F16)),
                other => other,
            };
            let got = apply_weights(context().cast(DType::F16), &weights, &emphasis);
            assert_eq!(got.dtype(), DType::F16);
            let apart = values(got).into_iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 0.02, "{emphasis:?}: {apart}");
        }
    }
}
