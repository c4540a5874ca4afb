use std::collections::VecDeque;

use burn::tensor::Tensor;

use super::SamplerRun;
use crate::Error;

/// Integrates the polynomial through the last slopes over the step (Adams-Bashforth on an uneven grid).
pub(super) fn lms(run: &mut SamplerRun<'_>, mut x: Tensor<4>) -> Result<Tensor<4>, Error> {
    let order = run.config().lms_order.unwrap_or(4);
    let sigmas = run.schedule().boundaries();
    let mut slopes = VecDeque::new(); // newest first
    for (i, step) in sigmas.windows(2).enumerate() {
        let denoised = run.denoise(&x)?;
        slopes.push_front((x.clone() - denoised) / step[0]);
        slopes.truncate(order);
        let known: Vec<f64> = (0..slopes.len()).map(|k| sigmas[i - k]).collect();
        for (k, slope) in slopes.iter().enumerate() {
            x = x + slope.clone() * integrated_lagrange(&known, k, step[0], step[1]);
        }
        x = run.report(x)?;
    }
    Ok(x)
}

/// Returns the integral from `from` to `to` of the polynomial that is 1 at `nodes[k]` and 0 at the other nodes.
///
/// Uses two-point Gauss-Legendre quadrature, exact up to degree 3, hence for up to four nodes.
fn integrated_lagrange(nodes: &[f64], k: usize, from: f64, to: f64) -> f64 {
    let lagrange = |sigma: f64| -> f64 {
        let others = nodes.iter().enumerate().filter(|(j, _)| *j != k);
        others.map(|(_, node)| (sigma - node) / (nodes[k] - node)).product()
    };
    let (middle, half) = (0.5 * (from + to), 0.5 * (to - from));
    let offset = half / 3.0_f64.sqrt();
    half * (lagrange(middle - offset) + lagrange(middle + offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_integrate_cubics_exactly() {
        let nodes = [2.0, 3.5, 7.0, 14.0];
        let cubic = |s: f64| 1.0 - 2.0 * s + 0.5 * s * s - 0.1 * s.powi(3);
        let integral = |s: f64| s - s * s + s.powi(3) / 6.0 - 0.025 * s.powi(4);
        let got: f64 = (0..4).map(|k| cubic(nodes[k]) * integrated_lagrange(&nodes, k, 2.0, 0.5)).sum();
        let expected = integral(0.5) - integral(2.0);
        assert!((got - expected).abs() < 1e-12, "{got}, expected {expected}");
    }
}
