//! Weights of tokens, applied to the encoded prompt.

use burn::tensor::{Tensor, TensorData};

/// Multiplies each token's encoding by its weight, then restores the mean of the row.
///
/// The rule of the common web interfaces: without the second step heavy prompts would leave the range that the
/// U-Net knows. The mean is taken over tokens and channels of a row, so no prompt depends on its batch. Where all
/// weights are 1 the context comes back as it is.
///
/// # Shapes
///
/// - `context`: `[rows, tokens, context_dim]`, one row for each window
/// - `weights`: a weight for each token of each row
/// - returns: `[rows, tokens, context_dim]`
///
/// # Panics
///
/// When the number of weights is not the number of tokens.
#[must_use]
pub fn apply_weights(context: Tensor<3>, weights: &[Vec<f32>]) -> Tensor<3> {
    let [rows, tokens, _] = context.dims();
    assert_eq!(weights.len(), rows, "rows of weights and of the context");
    for row in weights {
        assert_eq!(row.len(), tokens, "weights of a row and tokens of the context");
    }
    if weights.iter().flatten().all(|&weight| weight == 1.0) {
        return context;
    }
    // In the type that the device computes in, which need not be its default.
    let like = (&context.device(), context.dtype());
    let weights = Tensor::<3>::from_data(TensorData::new(weights.concat(), [rows, tokens, 1]), like);
    let mean = |x: &Tensor<3>| x.clone().mean_dim(2).mean_dim(1);
    let weighted = context.clone() * weights;
    let weighted_mean = mean(&weighted);
    // A mean of 0 cannot be scaled to another: such a row stays as the weights made it.
    let is_zero = weighted_mean.clone().equal_elem(0.0);
    let ratio = (mean(&context) / weighted_mean).mask_fill(is_zero, 1.0);
    weighted * ratio
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;

    use super::*;

    fn context() -> Tensor<3> {
        let device = fabric_backends::default_device().expect("a device");
        Tensor::from_data([[[1.0, 2.0], [3.0, 6.0]], [[1.0, -1.0], [5.0, 7.0]]], &device)
    }

    fn values(x: Tensor<3>) -> Vec<f32> {
        x.into_data().try_to_vec().expect("f32")
    }

    #[test]
    fn weights_of_one_change_nothing() {
        assert_eq!(values(apply_weights(context(), &[vec![1.0; 2], vec![1.0; 2]])), values(context()));
    }

    #[test]
    fn weights_shift_the_balance_and_keep_the_mean_of_each_row() {
        // Row 0: [1 2 | 6 12] has mean 5.25, the row had 3. Row 1 has no weights.
        let found = values(apply_weights(context(), &[vec![1.0, 2.0], vec![1.0, 1.0]]));
        let wanted = [4.0 / 7.0, 8.0 / 7.0, 24.0 / 7.0, 48.0 / 7.0, 1.0, -1.0, 5.0, 7.0];
        for (a, b) in found.iter().zip(wanted) {
            assert!((a - b).abs() < 1e-5, "{found:?}");
        }
    }

    #[test]
    fn weights_take_the_type_of_the_context() {
        for dtype in [DType::F16, DType::BF16] {
            let found = apply_weights(context().cast(dtype), &[vec![1.0, 1.0], vec![1.0, 0.0]]);
            assert_eq!(found.dtype(), dtype);
            // A row without weights comes back to the bit.
            assert_eq!(values(found.cast(DType::F32))[..4], [1.0, 2.0, 3.0, 6.0]);
        }
    }

    #[test]
    fn a_mean_of_zero_stays_finite() {
        assert_eq!(values(apply_weights(context(), &[vec![1.0; 2], vec![1.0, 0.0]]))[4..], [1.0, -1.0, 0.0, 0.0]);
    }
}
