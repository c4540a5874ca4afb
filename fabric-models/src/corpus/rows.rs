//! Embeddings in host memory, normalised to length 1.

use std::sync::Arc;

use burn::tensor::Tensor;

/// Normalised embedding of an image or a text; equal images share one.
pub(super) type Row = Arc<[f32]>;

/// Lower bound on the norm of an embedding, so that a zero vector has similarity 0 instead of NaN.
const MIN_NORM: f64 = 1e-12;

/// Returns the normalised rows of `[rows, dim]`; `None` for rows with NaN or infinity. Waits for the device.
pub(super) fn unit_rows(embeddings: Tensor<2>) -> Vec<Option<Row>> {
    let [count, dim] = embeddings.dims();
    if count == 0 || dim == 0 {
        return vec![Some(Row::default()); count];
    }
    let values = embeddings.into_data().convert::<f32>().try_to_vec::<f32>().expect("values were converted to f32");
    values.chunks_exact(dim).map(unit_row).collect()
}

fn unit_row(values: &[f32]) -> Option<Row> {
    let norm = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    norm.is_finite().then(|| values.iter().map(|value| (f64::from(*value) / norm.max(MIN_NORM)) as f32).collect())
}

/// Returns the dot product of a row and a direction.
pub(super) fn dot(row: &[f32], direction: &[f64]) -> f64 {
    assert_eq!(row.len(), direction.len(), "length of an embedding and a direction");
    row.iter().zip(direction).map(|(x, y)| f64::from(*x) * y).sum()
}

/// Returns the cosine similarity of two normalised rows.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "lengths of two embeddings");
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}
