//! Cholesky factors of covariance matrices.

/// Values added to the diagonal, as shares of its mean, until a matrix has a factor.
const JITTERS: [f64; 7] = [0.0, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1.0];
/// Smallest pivot, as a share of its diagonal entry, that is more than rounding error.
const MIN_PIVOT: f64 = 1e-13;

/// Lower triangular factor `L` of a symmetric positive definite matrix `L * transpose(L)`.
#[derive(Debug, Clone)]
pub(super) struct Cholesky {
    /// Row `i` has `i + 1` values.
    rows: Vec<Vec<f64>>,
}

impl Cholesky {
    /// Factors a covariance matrix, given as the rows of its lower triangle: row `i` has `i + 1` values. If rounding
    /// makes the matrix indefinite, the smallest of a few values that helps is added to its diagonal.
    pub(super) fn new(lower: &[Vec<f64>]) -> Self {
        let diagonal: f64 = lower.iter().filter_map(|row| row.last()).sum();
        let mean = diagonal / lower.len().max(1) as f64;
        let factor = JITTERS.iter().find_map(|share| Self::with_jitter(lower, share * mean));
        factor.expect("a covariance matrix of finite values with twice its diagonal is positive definite")
    }

    fn with_jitter(lower: &[Vec<f64>], jitter: f64) -> Option<Self> {
        let mut rows: Vec<Vec<f64>> = Vec::with_capacity(lower.len());
        for (index, values) in lower.iter().enumerate() {
            let mut row: Vec<f64> = Vec::with_capacity(index + 1);
            for (other, value) in rows.iter().zip(values) {
                let at = row.len();
                let rest = value - dot(&row, &other[..at]);
                row.push(rest / other[at]);
            }
            let diagonal = values[index] + jitter;
            let pivot = diagonal - dot(&row, &row);
            if pivot.is_nan() || pivot <= MIN_PIVOT * diagonal {
                return None;
            }
            row.push(pivot.sqrt());
            rows.push(row);
        }
        Some(Self { rows })
    }

    /// Row of the factor, up to its diagonal.
    pub(super) fn row(&self, index: usize) -> &[f64] {
        &self.rows[index]
    }

    /// Solves `L x = b`.
    pub(super) fn solve_lower(&self, b: &[f64]) -> Vec<f64> {
        let mut x: Vec<f64> = Vec::with_capacity(b.len());
        for (row, value) in self.rows.iter().zip(b) {
            let at = x.len();
            let rest = value - dot(&row[..at], &x);
            x.push(rest / row[at]);
        }
        x
    }

    /// Solves `transpose(L) x = b`.
    pub(super) fn solve_transposed(&self, b: &[f64]) -> Vec<f64> {
        let mut x = b.to_vec();
        for (index, row) in self.rows.iter().enumerate().rev() {
            let (before, from_here) = x.split_at_mut(index);
            from_here[0] /= row[index];
            for (value, factor) in before.iter_mut().zip(row) {
                *value -= factor * from_here[0];
            }
        }
        x
    }

    /// Solves `L transpose(L) x = b`.
    pub(super) fn solve(&self, b: &[f64]) -> Vec<f64> {
        self.solve_transposed(&self.solve_lower(b))
    }

    /// Natural logarithm of the determinant of the matrix.
    pub(super) fn log_determinant(&self) -> f64 {
        2.0 * self.rows.iter().filter_map(|row| row.last()).map(|pivot| pivot.ln()).sum::<f64>()
    }
}

/// Returns the inner product of two vectors.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_solution_times_the_matrix_is_the_right_side() {
        let matrix = [[4.0, 1.0, 0.5], [1.0, 3.0, 0.2], [0.5, 0.2, 2.0]];
        let lower: Vec<Vec<f64>> = matrix.iter().enumerate().map(|(at, row)| row[..=at].to_vec()).collect();
        let factor = Cholesky::new(&lower);
        let b = [1.0, -2.0, 3.0];
        let x = factor.solve(&b);
        for (row, expected) in matrix.iter().zip(b) {
            assert!((dot(row, &x) - expected).abs() < 1e-12, "{x:?}");
        }
        // By the first row: 4 * (6 - 0.04) - 1 * (2 - 0.1) + 0.5 * (0.2 - 1.5).
        let determinant: f64 = 21.29;
        assert!((factor.log_determinant() - determinant.ln()).abs() < 1e-12);
    }

    #[test]
    fn a_singular_covariance_has_a_factor_close_to_it() {
        let factor = Cholesky::new(&[vec![1.0], vec![1.0, 1.0]]);
        let product = dot(factor.row(1), factor.row(1));
        assert!((product - 1.0).abs() < 1e-6, "{product}");
        assert!(factor.log_determinant().is_finite());
    }
}
