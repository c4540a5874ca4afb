use burn::tensor::Tensor;

use super::SamplerRun;
use crate::Error;
use crate::denoise::NoiseLevel;

/// Linear multistep on DDIM's transfer function (Liu et al. 2022), with or without its Runge-Kutta start.
///
/// The raw predictions are combined over steps, and only then converted to noise, at the level of the step.
pub(super) fn pndm(run: &mut SamplerRun<'_>, mut x: Tensor<4>) -> Result<Tensor<4>, Error> {
    let (schedule, stride) = (run.schedule(), run.schedule().stride());
    let warm_up = if run.config().uses_prk() { 12 } else { 0 };
    let timesteps: Vec<i64> = schedule.levels().iter().map(|level| level.timestep as i64).collect();
    let mut past: Vec<Tensor<4>> = Vec::new();

    // Runge-Kutta of order 4: one evaluation at the start of each step, two at the middle, one at the end.
    for calls in timesteps[..warm_up].chunks(4) {
        let from = schedule.level_at(calls[0]);
        let half = stride / 2;
        let ends = [calls[0] - half, calls[1], calls[2] - half, calls[3]];
        let start = x.clone();
        let mut slope = x.zeros_like();
        for (stage, (end, weight)) in ends.into_iter().zip([1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0]).enumerate() {
            let (raw, _) = run.predict(&x)?;
            slope = slope + raw.clone() * weight;
            if stage == 0 {
                past.push(raw.clone());
            }
            let raw = if stage == 3 { slope.clone() } else { raw };
            x = transfer(run, start.clone(), raw, from, schedule.level_at(end));
            x = run.report(x)?;
        }
    }

    let mut start = x.clone();
    for (call, timestep) in timesteps.into_iter().enumerate().skip(warm_up) {
        let (raw, _) = run.predict(&x)?;
        let (mut from, mut to) = (timestep, timestep - stride);
        if warm_up == 0 && call == 1 {
            // Repeat the first step with the mean of the slopes at its two ends (the improved Euler method).
            (from, to) = (timestep + stride, timestep);
            let mean = (raw + past[0].clone()) / 2.0;
            x = transfer(run, start.clone(), mean, schedule.level_at(from), schedule.level_at(to));
        } else {
            past.push(raw);
            if past.len() > 4 {
                past.remove(0);
            }
            start = x;
            x = transfer(run, start.clone(), extrapolate(&past), schedule.level_at(from), schedule.level_at(to));
        }
        x = run.report(x)?;
    }
    Ok(x)
}

/// Adams-Bashforth of the order given by the number of slopes.
fn extrapolate(past: &[Tensor<4>]) -> Tensor<4> {
    let weights: &[f64] = match past.len() {
        1 => &[1.0],
        2 => &[-1.0 / 2.0, 3.0 / 2.0],
        3 => &[5.0 / 12.0, -16.0 / 12.0, 23.0 / 12.0],
        _ => &[-9.0 / 24.0, 37.0 / 24.0, -59.0 / 24.0, 55.0 / 24.0],
    };
    let terms = past.iter().zip(weights).map(|(raw, weight)| raw.clone() * *weight);
    terms.reduce(|sum, term| sum + term).unwrap_or_else(|| unreachable!("a slope was pushed before"))
}

/// Transfers `x` to another level along the same noise (equation 11 of the paper).
fn transfer(run: &SamplerRun<'_>, x: Tensor<4>, raw: Tensor<4>, from: NoiseLevel, to: NoiseLevel) -> Tensor<4> {
    let noise = run.noise_in(raw, &x, from);
    let grow = to.alpha / from.alpha;
    x * grow + noise * (to.sigma - from.sigma * grow)
}
