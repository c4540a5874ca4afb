//! Similarity of images by their CLIP embeddings: the measures that FABRIC's experiments report.
//!
//! Computed on the host in f64, in percent: 100 means the same direction.

mod bootstrap;

pub use bootstrap::{Interval, bootstrap_mean};

use burn::tensor::Tensor;

/// Lower bound on the norm of an embedding, so that a zero vector has similarity 0 instead of NaN.
const MIN_NORM: f64 = 1e-12;

/// Returns the cosine similarity of each row of `a` to each row of `b`, in percent.
///
/// # Shapes
///
/// - `a`: `[images, dim]`, `b`: `[others, dim]`
/// - returns: a row of `others` values for each image
///
/// # Panics
///
/// Panics if the two have different `dim`.
///
/// # Examples
///
/// ```
/// use burn::tensor::Tensor;
/// use fabric_core::metrics::similarity;
///
/// # let device = fabric_backends::default_device()?;
/// let a = Tensor::from_data([[1.0, 0.0], [0.0, 2.0]], &device);
/// assert_eq!(similarity(a.clone(), a), [[100.0, 0.0], [0.0, 100.0]]);
/// # Ok::<(), fabric_backends::DeviceError>(())
/// ```
#[must_use]
pub fn similarity(a: Tensor<2>, b: Tensor<2>) -> Vec<Vec<f64>> {
    assert_eq!(a.dims()[1], b.dims()[1], "dimensions of the embeddings");
    let (a, b) = (directions(a), directions(b));
    let percent = |x: &[f64], y: &[f64]| 100.0 * x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    a.iter().map(|x| b.iter().map(|y| percent(x, y)).collect()).collect()
}

/// Returns the mean similarity of all images to all references: the papers' positive and negative similarity.
///
/// Returns `None` if there are no images or no references, as before the first feedback round.
#[must_use]
pub fn mean_similarity(images: Tensor<2>, references: Tensor<2>) -> Option<f64> {
    mean(similarity(images, references).concat())
}

/// Returns the mean pairwise similarity within a batch; lower is more diverse. `None` for fewer than two images.
///
/// The published code logs this number under the name diversity.
#[must_use]
pub fn in_batch_similarity(images: Tensor<2>) -> Option<f64> {
    let all = similarity(images.clone(), images);
    mean(all.iter().enumerate().flat_map(|(i, row)| row[i + 1..].to_vec()).collect())
}

/// Returns the diversity of a batch as FABRIC's paper defines it: one minus the mean pairwise cosine similarity.
///
/// `d = 1 - 2/(n(n-1)) sum_(i>j) cos(x_i, x_j)`. `None` for fewer than two images.
#[must_use]
pub fn diversity(images: Tensor<2>) -> Option<f64> {
    in_batch_similarity(images).map(|percent| 1.0 - percent / 100.0)
}

/// Returns, for each image, its similarity to the most similar reference; empty without references.
#[must_use]
pub fn nearest(images: Tensor<2>, references: Tensor<2>) -> Vec<f64> {
    similarity(images, references).into_iter().filter_map(|row| row.into_iter().reduce(f64::max)).collect()
}

fn mean(values: Vec<f64>) -> Option<f64> {
    if values.is_empty() { None } else { Some(values.iter().sum::<f64>() / values.len() as f64) }
}

/// Returns the rows, normalised to length 1.
fn directions(rows: Tensor<2>) -> Vec<Vec<f64>> {
    let [count, dim] = rows.dims();
    if count == 0 || dim == 0 {
        return vec![Vec::new(); count];
    }
    let values: Vec<f64> = rows.into_data().iter::<f64>().collect();
    let direction = |row: &[f64]| {
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt().max(MIN_NORM);
        row.iter().map(|x| x / norm).collect()
    };
    values.chunks(dim).map(direction).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows<const N: usize>(values: [[f32; 2]; N]) -> Tensor<2> {
        Tensor::from_data(values, &fabric_backends::default_device().expect("a device"))
    }

    #[test]
    fn length_does_not_matter_and_direction_does() {
        assert_eq!(similarity(rows([[3.0, 0.0]]), rows([[0.5, 0.0], [-2.0, 0.0], [0.0, 1.0]])), [[100.0, -100.0, 0.0]]);
    }

    #[test]
    fn equal_images_have_no_diversity() {
        assert_eq!(diversity(rows([[1.0, 0.0]; 3])), Some(0.0));
        assert_eq!(diversity(rows([[1.0, 0.0], [0.0, 1.0]])), Some(1.0));
        assert_eq!(in_batch_similarity(rows([[1.0, 0.0]; 3])), Some(100.0));
    }

    #[test]
    fn one_image_has_no_pairs() {
        assert_eq!(in_batch_similarity(rows([[1.0, 0.0]])), None);
        assert_eq!(diversity(rows([[1.0, 0.0]])), None);
    }

    #[test]
    fn the_nearest_reference_counts() {
        assert_eq!(nearest(rows([[1.0, 0.0], [0.0, 1.0]]), rows([[0.0, 1.0], [0.0, -1.0]])), [0.0, 100.0]);
        assert_eq!(mean_similarity(rows([[1.0, 0.0]]), rows([[1.0, 0.0], [-1.0, 0.0]])), Some(0.0));
    }

    #[test]
    fn a_zero_embedding_is_like_nothing() {
        assert_eq!(similarity(rows([[0.0, 0.0]]), rows([[1.0, 0.0]])), [[0.0]]);
    }
}
