//! CLIP-S: similarity of images to a condition image beyond what their texts say.

use burn::tensor::Tensor;
use fabric::core::metrics::similarity;

/// Lower bound on the norm of an embedding, so that a zero vector stays zero instead of NaN.
const MIN_NORM: f32 = 1e-12;

/// Returns CLIP-S of Instruct's paper for each image, in percent: the cosine between what the image shows beyond its
/// text and what the condition image shows beyond its caption. These are differences of normalised embeddings:
/// `cos(E(image) - T(text), E(condition) - T(caption))`.
///
/// The paper's values are above 1, so they have a factor, probably the 2.5 of `CLIPScore`. It is left out here, as in
/// the other similarities. The paper does not say whether its embeddings are normalised; without that, the difference
/// would depend on the lengths of the embeddings, which CLIP does not train.
///
/// # Shapes
///
/// - `images`: of the images `[images, channels]`, and of the condition image `[1, channels]`
/// - `texts`: of the text `[1, channels]`, and of the caption `[1, channels]`
pub(super) fn beyond_texts(images: [Tensor<2>; 2], texts: [Tensor<2>; 2]) -> Vec<f64> {
    let ([images, condition], [text, caption]) = (images, texts);
    similarity(unit(images) - unit(text), unit(condition) - unit(caption)).concat()
}

/// Returns the rows, normalised to length 1.
fn unit(rows: Tensor<2>) -> Tensor<2> {
    let norm = rows.clone().square().sum_dim(1).sqrt().clamp_min(MIN_NORM);
    rows / norm
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows<const N: usize>(values: [[f32; 3]; N]) -> Tensor<2> {
        Tensor::from_data(values, &fabric::default_device().expect("a device"))
    }

    #[test]
    fn only_the_direction_beyond_the_text_counts() {
        let (right, up, front) = ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]);
        // Lengths do not matter: both pairs differ by the same direction.
        let got = beyond_texts([rows([[3.0, 0.0, 0.0]]), rows([right])], [rows([[0.0, 0.5, 0.0]]), rows([up])]);
        assert!((got[0] - 100.0).abs() < 1e-4, "{got:?}");
        // The second image is what the condition's caption says, and lacks what the condition image shows.
        let got = beyond_texts([rows([right, up]), rows([right])], [rows([front]), rows([up])]);
        assert!((got[0] - 50.0).abs() < 1e-4 && (got[1] + 50.0).abs() < 1e-4, "{got:?}");
        // An image that is no more than its text is like nothing.
        assert_eq!(beyond_texts([rows([up]), rows([right])], [rows([up]), rows([front])]), [0.0]);
    }
}
