//! UniPC (Zhao et al. 2023): a predictor, and a corrector that reuses the next evaluation at no extra cost.

use burn::tensor::Tensor;

use super::SamplerRun;
use crate::Error;
use crate::schedule::amplitudes;

/// Predicts the next state, and corrects it once the network has been evaluated there (algorithms 1 and 2).
pub(super) fn unipc(run: &mut SamplerRun<'_>, mut x: Tensor<4>) -> Result<Tensor<4>, Error> {
    let sigmas = run.schedule().boundaries();
    let config = run.config();
    let solver = Solver { over_noise: config.predict_x0 == Some(false), bh1: config.uses_bh1() };
    let lower_final = config.lower_order_final.unwrap_or(true);
    let uncorrected = config.disable_corrector.as_deref().unwrap_or_default();
    let skipped = run.schedule().whole_steps() - (sigmas.len() - 1);

    let mut past: Vec<(f64, Tensor<4>)> = Vec::new(); // (sigma, estimate), newest last
    let mut before: Option<(Tensor<4>, usize)> = None; // the last state and the order it was left with
    for (i, step) in sigmas.windows(2).enumerate() {
        let estimate = if solver.over_noise { run.split(&x)?.1 } else { run.denoise(&x)? };
        if let Some((last, order)) = before.filter(|_| !uncorrected.contains(&(skipped + i - 1))) {
            x = solver.advance(last, &past[past.len() - order..], step[0], Some(&estimate));
        }
        // Two estimates at the same level define no slope.
        past.retain(|(sigma, _)| *sigma > step[0]);
        past.push((step[0], estimate));
        past.drain(..past.len().saturating_sub(config.solver_order()));

        let left = sigmas.len() - 1 - i;
        let order = if lower_final { config.solver_order().min(left) } else { config.solver_order() };
        let order = order.min(past.len());
        let predicted = solver.advance(x.clone(), &past[past.len() - order..], step[1], None);
        before = Some((x, order));
        x = predicted;
        x = run.report(x)?;
    }
    Ok(x)
}

struct Solver {
    /// Whether to integrate over the noise instead of the clean image.
    over_noise: bool,
    /// Whether to use `B(h) = h` instead of `exp(h) - 1`.
    bh1: bool,
}

impl Solver {
    /// Advances `x` from the newest level of `past` to `sigma`. `at_end` is the estimate at `sigma`; if given,
    /// this is the corrector.
    fn advance(&self, x: Tensor<4>, past: &[(f64, Tensor<4>)], sigma: f64, at_end: Option<&Tensor<4>>) -> Tensor<4> {
        let Some(((from, newest), earlier)) = past.split_last() else { unreachable!("an estimate was pushed before") };
        let h = from.ln() - sigma.ln();
        if h == 0.0 {
            return x;
        }
        let (alpha_from, sigma_from) = amplitudes(*from);
        let (alpha_to, sigma_to) = amplitudes(sigma);
        let (keep, scale, hh) =
            if self.over_noise { (alpha_to / alpha_from, sigma_to, h) } else { (sigma_to / sigma_from, alpha_to, -h) };
        let phi_1 = hh.exp_m1();
        let b_h = if self.bh1 { hh } else { phi_1 };
        let mut next = x * keep - newest.clone() * (scale * phi_1);

        // Positions of the other estimates in units of the step: earlier ones newest first, then the end.
        let mut places: Vec<f64> = earlier.iter().rev().map(|(sigma, _)| (from.ln() - sigma.ln()) / h).collect();
        let mut others: Vec<&Tensor<4>> = earlier.iter().rev().map(|(_, estimate)| estimate).collect();
        if let Some(at_end) = at_end {
            places.push(1.0);
            others.push(at_end);
        }
        // The published code sets this weight to exactly 1/2, which is right only to first order: predictor of
        // order 2, corrector of order 1.
        let halves = places.len() == 1;
        let weights = if halves { vec![0.5] } else { weights(&places, hh, b_h) };
        for ((place, estimate), weight) in places.iter().zip(others).zip(weights) {
            let difference = (estimate.clone() - newest.clone()) * (weight / place);
            next = next - difference * (scale * b_h);
        }
        next
    }
}

/// Solves `R rho = b` of the paper's theorem 3.1: `sum over k of rho_k place_k^n = n! phi_(n+1) / B(h)`, n from 1.
fn weights(places: &[f64], hh: f64, b_h: f64) -> Vec<f64> {
    let count = places.len();
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(count);
    let (mut phi, mut factorial) = (hh.exp_m1() / hh - 1.0, 1.0);
    for n in 0..count {
        let mut row: Vec<f64> = places.iter().map(|place| place.powi(n as i32)).collect();
        row.push(phi * factorial / b_h);
        rows.push(row);
        factorial *= (n + 2) as f64;
        phi = phi / hh - 1.0 / factorial;
    }
    solve(rows)
}

/// Gauss-Jordan with pivoting; each row ends with its right-hand side.
fn solve(mut rows: Vec<Vec<f64>>) -> Vec<f64> {
    let count = rows.len();
    for column in 0..count {
        let best = (column..count).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()));
        rows.swap(column, best.unwrap_or(column));
        let pivot = rows[column].clone();
        for (i, row) in rows.iter_mut().enumerate() {
            let factor = if i == column { 0.0 } else { row[column] / pivot[column] };
            for (value, above) in row.iter_mut().zip(&pivot) {
                *value -= factor * above;
            }
        }
    }
    rows.iter().enumerate().map(|(i, row)| row[count] / row[i]).collect()
}
