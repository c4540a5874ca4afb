//! Multistep DPM-Solver++ (Lu et al. 2022): exact if the clean image is a polynomial in
//! `lambda = ln(alpha / sigma)`, interpolated through the estimates of the last steps.

use burn::tensor::Tensor;

use super::SamplerRun;
use crate::Error;
use crate::schedule::{FinalSigma, amplitudes};

/// Solves the probability-flow equation (algorithm 2; order 1 is DDIM).
pub(super) fn dpm_multistep(run: &mut SamplerRun<'_>, x: Tensor<4>) -> Result<Tensor<4>, Error> {
    solve(run, x, false)
}

/// Solves the stochastic equation (`sde-dpmsolver++`): moves twice as far towards the clean image and adds fresh
/// noise.
pub(super) fn dpm_multistep_sde(run: &mut SamplerRun<'_>, x: Tensor<4>) -> Result<Tensor<4>, Error> {
    solve(run, x, true)
}

fn solve(run: &mut SamplerRun<'_>, mut x: Tensor<4>, stochastic: bool) -> Result<Tensor<4>, Error> {
    let sigmas = run.schedule().boundaries();
    let heun = run.config().uses_heun();
    let mut past: Vec<(f64, Tensor<4>)> = Vec::new(); // (lambda, denoised), newest last
    for (i, step) in sigmas.windows(2).enumerate() {
        let denoised = run.denoise(&x)?;
        let noise = if stochastic { Some(run.draw(&x)?) } else { None };
        let (lambda, h) = (-step[0].ln(), step[0].ln() - step[1].ln());
        // Two estimates at the same level define no slope.
        past.retain(|(level, _)| *level < lambda);
        past.push((lambda, denoised));
        let order = order(run, sigmas.len() - 1 - i).min(past.len());
        past.drain(..past.len() - order);

        // Over an interval `span` in lambda, x keeps exp(-span) of its noise. The SDE moves 2h and adds noise
        // back.
        let span = if stochastic { 2.0 * h } else { h };
        let (alpha, sigma) = amplitudes(step[1]);
        let (_, sigma_before) = amplitudes(step[0]);
        let keep = sigma / sigma_before * if stochastic { (-h).exp() } else { 1.0 };
        let towards = -(-span).exp_m1();

        let mut next = x * keep + past[order - 1].1.clone() * (alpha * towards);
        if h > 0.0 {
            for (slope, weight) in slopes(&past, h).into_iter().zip(weights(order, heun, stochastic, span, towards)) {
                next = next + slope * (alpha * weight);
            }
        }
        if let Some(noise) = noise {
            // A step of length 0 may increase sigma by a rounding error.
            next = next + noise * (sigma * (-(-2.0 * h).exp_m1()).max(0.0).sqrt());
        }
        x = next;
        x = run.report(x)?;
    }
    Ok(x)
}

/// Returns the order of a step when `left` steps remain, itself included. The published code lowers the order
/// below 15 steps.
fn order(run: &SamplerRun<'_>, left: usize) -> usize {
    let config = run.config();
    let lowered = config.lower_order_final.unwrap_or(true) && run.schedule().whole_steps() < 15;
    let to_zero = config.final_sigma() == FinalSigma::Zero;
    match left {
        1 if lowered || to_zero || config.euler_at_final.unwrap_or(false) => 1,
        2 if lowered => config.solver_order().min(2),
        _ => config.solver_order(),
    }
}

/// Returns the first and second divided differences of the estimates, times `h` and `h²`.
fn slopes(past: &[(f64, Tensor<4>)], h: f64) -> Vec<Tensor<4>> {
    let difference = |i: usize| {
        let ((from, earlier), (to, later)) = (&past[i], &past[i + 1]);
        (later.clone() - earlier.clone()) * (h / (to - from))
    };
    match past {
        [_, _] => vec![difference(0)],
        [first, second, third] => {
            let (r0, r1) = ((third.0 - second.0) / h, (second.0 - first.0) / h);
            let newest = difference(1);
            let bend = newest.clone() - difference(0);
            vec![newest + bend.clone() * (r0 / (r0 + r1)), bend / (r0 + r1)]
        }
        _ => Vec::new(),
    }
}

/// Returns the weights of [`slopes`]: integrals of the exponential against powers of lambda, over a `span` of `h`
/// or `2h`.
fn weights(order: usize, heun: bool, stochastic: bool, span: f64, towards: f64) -> Vec<f64> {
    let linear = 1.0 - towards / span;
    // diffusers has the opposite sign on this half in the stochastic third order; we keep it so that images
    // match.
    let half = if stochastic { -0.5 } else { 0.5 };
    match order {
        2 if heun => vec![linear],
        2 => vec![0.5 * towards],
        _ => vec![linear, half - (span - towards) / span.powi(2)],
    }
}
