//! Range checks of all settings, done once when a schedule is built.

use super::config::{FinalSigma, SchedulerConfig, SolverType, Spacing};
use super::{SamplerKind, ScheduleError};
use crate::InvalidValue;

/// Upper bound on training steps: more than any published model has, few enough for a table.
const MAX_TRAIN_STEPS: usize = 1_000_000;

/// Largest noise level, clipping range and timestep factor; its inverse is the smallest noise level. Published
/// configurations have 0.002 to 4096. Far beyond that, squares and quotients are no longer finite in f32.
const MAX_SIZE: f64 = 1e6;

impl SchedulerConfig {
    /// Checks that every setting is in range and that no two settings exclude each other.
    pub(super) fn validate(&self) -> Result<(), ScheduleError> {
        let wants = |good: bool, field: &str, got: &dyn ToString, expected: &str| {
            if good { Ok(()) } else { Err(ScheduleError::field(field, got.to_string(), expected)) }
        };
        let train = self.num_train_timesteps;
        wants((1..=MAX_TRAIN_STEPS).contains(&train), "num_train_timesteps", &train, "1 to 1000000")?;
        wants(self.steps_offset < train, "steps_offset", &self.steps_offset, "less than `num_train_timesteps`")?;
        if let Some(betas) = &self.trained_betas {
            wants(
                betas.len() == train,
                "trained_betas",
                &format!("{} values", betas.len()),
                &format!("{train} values"),
            )?;
        }
        let (start, end, _) = self.betas();
        for (field, beta) in [("beta_start", start), ("beta_end", end)] {
            wants(beta > 0.0 && beta < 1.0, field, &beta, "a number between 0 and 1")?;
        }
        if let Some(range) = self.clip_sample_range {
            let in_range = range > 0.0 && range <= MAX_SIZE;
            wants(in_range, "clip_sample_range", &range, "a number above 0, up to 1000000")?;
        }
        let refused = |flag: Option<bool>| flag != Some(true);
        wants(refused(self.thresholding), "thresholding", &true, "false: it is made for pixels and harms latents")?;
        wants(refused(self.use_flow_sigmas), "use_flow_sigmas", &true, "false: rectified flow is not supported")?;
        if let Some(eta) = self.eta {
            wants((0.0..=1.0).contains(&eta), "eta", &eta, "0 to 1")?;
        }
        if let Some(order) = self.lms_order {
            wants((1..=4).contains(&order), "lms_order", &order, "1 to 4")?;
        }
        for (field, sigma) in [("sigma_min", self.sigma_min), ("sigma_max", self.sigma_max)] {
            if let Some(sigma) = sigma {
                let in_range = (1.0 / MAX_SIZE..=MAX_SIZE).contains(&sigma);
                wants(in_range, field, &sigma, "a number from 0.000001 to 1000000, or null")?;
            }
        }
        if let (Some(min), Some(max)) = (self.sigma_min, self.sigma_max) {
            wants(min < max, "sigma_min", &min, "less than `sigma_max`")?;
        }
        if let Some(lambda) = self.lambda_min_clipped {
            wants(!lambda.is_nan() && lambda < f64::INFINITY, "lambda_min_clipped", &lambda, "a number or -Infinity")?;
        }
        if let Some(scaling) = self.timestep_scaling {
            let in_range = scaling > 0.0 && scaling <= MAX_SIZE;
            wants(in_range, "timestep_scaling", &scaling, "a number above 0, up to 1000000")?;
        }
        match self.kind {
            SamplerKind::DpmPlusPlus2M(_) | SamplerKind::DpmPlusPlus2MSde(_) => {
                let order = self.solver_order();
                wants((1..=3).contains(&order), "solver_order", &order, "1, 2 or 3 for DPM-Solver++")
            }
            SamplerKind::UniPc(_) => {
                let order = self.solver_order();
                wants((1..=4).contains(&order), "solver_order", &order, "1 to 4 for UniPC")?;
                let to_zero = self.final_sigma() == FinalSigma::Zero;
                let lowered = self.lower_order_final.unwrap_or(true) || order == 1;
                let expected = "true: a step to `final_sigmas_type: zero` is only defined for the first order";
                wants(lowered || !to_zero, "lower_order_final", &false, expected)?;
                let over_noise = self.predict_x0 == Some(false);
                let expected = "true with `final_sigmas_type: zero`: a step over the noise cannot end without noise";
                wants(!(over_noise && to_zero), "predict_x0", &false, expected)
            }
            SamplerKind::Lcm | SamplerKind::Tcd => {
                let original = self.original_steps();
                let expected = "1 to `num_train_timesteps`";
                wants((1..=train).contains(&original), "original_inference_steps", &original, expected)
            }
            _ => Ok(()),
        }
    }

    /// Checks the number of steps against the limits of the sampler.
    pub(super) fn validate_steps(&self, steps: usize) -> Result<(), ScheduleError> {
        let wants = |good: bool, expected: String| {
            if good {
                Ok(())
            } else {
                let what = format!("steps of {}", self.kind);
                Err(ScheduleError::Steps(InvalidValue::new(
                    what,
                    steps,
                    expected,
                    "choose another number or another sampler",
                )))
            }
        };
        let train = self.num_train_timesteps;
        wants((1..=train).contains(&steps), format!("1 to {train} (its training steps)"))?;
        let multistep = matches!(
            self.kind,
            SamplerKind::DpmPlusPlus2M(_) | SamplerKind::DpmPlusPlus2MSde(_) | SamplerKind::UniPc(_)
        );
        if multistep && self.spacing() == Spacing::Leading {
            wants(steps < train, format!("fewer than {train} with leading spacing"))?;
        }
        if self.uses_prk() {
            wants(steps >= 4, "4 or more for its Runge-Kutta start; `skip_prk_steps: true` has none".to_owned())?;
        }
        if matches!(self.kind, SamplerKind::Lcm | SamplerKind::Tcd) {
            let original = self.original_steps();
            wants(steps <= original, format!("at most {original} (`original_inference_steps`)"))?;
        }
        Ok(())
    }

    /// Returns whether UniPC uses `B(h) = h`.
    pub(crate) fn uses_bh1(&self) -> bool {
        self.solver_type == Some(SolverType::Bh1)
    }

    /// Returns whether DPM-Solver++ uses Heun's form of the correction.
    pub(crate) fn uses_heun(&self) -> bool {
        self.solver_type == Some(SolverType::Heun)
    }
}
