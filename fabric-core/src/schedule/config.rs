//! `scheduler_config.json`: what it may say, and what diffusers takes where it says nothing.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::{SamplerKind, ScheduleError};

/// What the network predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Prediction {
    /// The noise.
    #[default]
    #[serde(rename = "epsilon")]
    Epsilon,
    /// `alpha * noise - sigma * clean` (Salimans & Ho 2022).
    #[serde(rename = "v_prediction")]
    Velocity,
    /// The clean image.
    #[serde(rename = "sample")]
    Sample,
}

/// How timesteps are chosen from the training steps (Lin et al. 2023, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spacing {
    /// Multiples of `T / steps`, from `steps_offset` up.
    Leading,
    /// Multiples of `T / steps`, from `T - 1` down.
    Trailing,
    /// Even from the first training step to the last.
    Linspace,
}

/// The variances that were added in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Even in beta.
    Linear,
    /// Even in the square root of beta (Stable Diffusion).
    ScaledLinear,
    /// The cosine schedule of Nichol & Dhariwal 2021.
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredCos,
    /// `exp(-12 t)` for the remaining signal.
    Exp,
    /// A sigmoid between the two ends (GeoDiff).
    Sigmoid,
}

/// The variance of a DDPM step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variance {
    /// The posterior's.
    #[default]
    FixedSmall,
    /// The same number through its logarithm.
    FixedSmallLog,
    /// Beta of the step.
    FixedLarge,
}

/// The form of a higher-order correction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SolverType {
    /// DPM-Solver++, midpoint.
    Midpoint,
    /// DPM-Solver++, Heun.
    Heun,
    /// UniPC, `B(h) = h`.
    Bh1,
    /// UniPC, `B(h) = exp(h) - 1`.
    Bh2,
    /// DEIS in log rho: a name that DPM-Solver++ and UniPC read as their default.
    LogRho,
}

/// Where the last step of a sampler over sigmas ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSigma {
    /// At the clean image.
    #[default]
    Zero,
    /// At the smallest training level.
    SigmaMin,
}

/// How Euler's noise levels lie between timesteps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Straight between training levels.
    #[default]
    Linear,
    /// Even in `ln sigma` over the whole range.
    LogLinear,
}

/// What Euler tells the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimestepType {
    /// The training step.
    #[default]
    Discrete,
    /// `ln(sigma) / 4` (only with [`Prediction::Velocity`]).
    Continuous,
}

/// A sampler and its noise schedule, as `scheduler_config.json` of a model folder gives them.
///
/// Fields have diffusers' names. `None` means that the file is silent and the sampler's own default holds (the
/// default of its class in diffusers 0.35), so that [`SchedulerConfig::with_sampler`] changes what the new sampler
/// sees differently, as `Scheduler.from_config` does. Fields that diffusers does not know are ignored.
///
/// ```
/// use fabric_core::schedule::{SamplerKind, Schedule, SchedulerConfig};
///
/// let config = SchedulerConfig::from_json(r#"{"_class_name": "DDIMScheduler", "steps_offset": 1}"#)?;
/// assert_eq!(Schedule::new(&config, 4)?.timesteps(), [751.0, 501.0, 251.0, 1.0]);
/// let ancestral = config.with_sampler(SamplerKind::EulerAncestral);
/// assert_eq!(Schedule::new(&ancestral, 4)?.timesteps(), [999.0, 666.0, 333.0, 0.0]);
/// # Ok::<(), fabric_core::schedule::ScheduleError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default = "SchedulerConfig::silent")]
pub struct SchedulerConfig {
    /// The sampler: `_class_name`, `algorithm_type`, `use_karras_sigmas`, `use_exponential_sigmas`, `use_beta_sigmas`.
    #[serde(flatten, with = "kind_keys")]
    pub kind: SamplerKind,
    /// Length of the training schedule, 1000.
    pub num_train_timesteps: usize,
    /// What the network predicts.
    #[serde(rename = "prediction_type")]
    pub prediction: Prediction,
    /// Added to the timesteps of [`Spacing::Leading`], 0 (1 in Stable Diffusion).
    pub steps_offset: usize,
    /// Rescale the betas so that the last step holds no signal (Lin et al. 2023, algorithm 1).
    ///
    /// All samplers but DDPM, DDIM and LCM then take `2^-24` for the last cumulative alpha, as diffusers does.
    pub rescale_betas_zero_snr: bool,
    /// How timesteps are chosen.
    #[serde(rename = "timestep_spacing", skip_serializing_if = "Option::is_none")]
    pub spacing: Option<Spacing>,
    /// The first beta.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_start: Option<f64>,
    /// The last beta.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_end: Option<f64>,
    /// The betas between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_schedule: Option<BetaSchedule>,
    /// All betas, instead of the three above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_betas: Option<Vec<f64>>,
    /// Clip the estimate of the clean image: DDPM, DDIM, Heun, LCM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_sample: Option<bool>,
    /// To plus and minus this, 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_sample_range: Option<f64>,
    /// Dynamic thresholding: refused, it is made for pixels and unsuitable for latents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thresholding: Option<bool>,
    /// End at the clean image, not at training step 0: DDIM, PNDM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_alpha_to_one: Option<bool>,
    /// Noise added by DDIM, from 0 (none) to 1 (as DDPM). Not diffusers' (there an argument of `step`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<f64>,
    /// The variance of DDPM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variance_type: Option<Variance>,
    /// PNDM without its Runge-Kutta steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip_prk_steps: Option<bool>,
    /// Derivatives that LMS remembers, 1 to 4. Not diffusers' (there an argument of `step`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lms_order: Option<usize>,
    /// Order of DPM-Solver++ (1 to 3) and UniPC (1 to 4), 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solver_order: Option<usize>,
    /// Form of their corrections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solver_type: Option<SolverType>,
    /// Lower orders in the last steps: DPM-Solver++ (below 15 steps), UniPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower_order_final: Option<bool>,
    /// First order in the last step of DPM-Solver++.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub euler_at_final: Option<bool>,
    /// Where the last step ends: Euler, DPM-Solver++, UniPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_sigmas_type: Option<FinalSigma>,
    /// DPM-Solver++ leaves out training steps whose `ln(alpha / sigma)` is below this (cosine betas: -5.1). diffusers
    /// writes `-Infinity` for `None`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "bound_below")]
    pub lambda_min_clipped: Option<f64>,
    /// Even steps in `ln sigma` for DPM-Solver++ (Lu et al. 2022), with whole timesteps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_lu_lambdas: Option<bool>,
    /// Rectified flow: refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_flow_sigmas: Option<bool>,
    /// UniPC over the clean image, not over the noise, true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predict_x0: Option<bool>,
    /// Steps after which UniPC does not correct.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_corrector: Option<Vec<usize>>,
    /// How Euler's noise levels lie between timesteps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interpolation_type: Option<Interpolation>,
    /// What Euler tells the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestep_type: Option<TimestepType>,
    /// The smallest level of a curve, instead of the schedule's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_min: Option<f64>,
    /// The largest level of a curve, instead of the schedule's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_max: Option<f64>,
    /// Steps of the teacher in the distillation of an LCM, 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_inference_steps: Option<usize>,
    /// Factor on the timestep in LCM's boundary condition, 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestep_scaling: Option<f64>,
}

impl Default for SchedulerConfig {
    /// The file of Stable Diffusion 1.5: PNDM without Runge-Kutta steps, leading timesteps with offset 1.
    fn default() -> Self {
        Self {
            steps_offset: 1,
            beta_start: Some(0.00085),
            beta_end: Some(0.012),
            beta_schedule: Some(BetaSchedule::ScaledLinear),
            clip_sample: Some(false),
            set_alpha_to_one: Some(false),
            skip_prk_steps: Some(true),
            ..Self::silent()
        }
    }
}

impl SchedulerConfig {
    /// A file that says nothing but its class.
    fn silent() -> Self {
        Self {
            kind: SamplerKind::Pndm,
            num_train_timesteps: 1000,
            prediction: Prediction::Epsilon,
            steps_offset: 0,
            rescale_betas_zero_snr: false,
            spacing: None,
            beta_start: None,
            beta_end: None,
            beta_schedule: None,
            trained_betas: None,
            clip_sample: None,
            clip_sample_range: None,
            thresholding: None,
            set_alpha_to_one: None,
            eta: None,
            variance_type: None,
            skip_prk_steps: None,
            lms_order: None,
            solver_order: None,
            solver_type: None,
            lower_order_final: None,
            euler_at_final: None,
            final_sigmas_type: None,
            lambda_min_clipped: None,
            use_lu_lambdas: None,
            use_flow_sigmas: None,
            predict_x0: None,
            disable_corrector: None,
            interpolation_type: None,
            timestep_type: None,
            sigma_min: None,
            sigma_max: None,
            original_inference_steps: None,
            timestep_scaling: None,
        }
    }

    /// Reads a `scheduler_config.json`.
    ///
    /// # Errors
    ///
    /// [`ScheduleError::Json`] for text that is no JSON object, [`ScheduleError::Field`] with the field's name for a
    /// class that is not supported or a value that cannot be read. Ranges are checked by [`super::Schedule::new`].
    pub fn from_json(text: &str) -> Result<Self, ScheduleError> {
        Self::from_map(fields(text)?)
    }

    /// Reads a `scheduler_config.json` for another sampler than its own: [`Self::from_json`] and then
    /// [`Self::with_sampler`], but the file's class may be one that this library lacks.
    ///
    /// Of such a file the betas and the prediction count, and whatever else it says, as in diffusers' `from_config`.
    ///
    /// ```
    /// use fabric_core::schedule::{SamplerKind, SchedulerConfig, SigmaCurve};
    ///
    /// let file = r#"{"_class_name": "DEISMultistepScheduler", "beta_start": 0.00085, "beta_end": 0.012,
    ///     "beta_schedule": "scaled_linear"}"#;
    /// let euler = SamplerKind::Euler(SigmaCurve::Table);
    /// assert!(SchedulerConfig::from_json(file).is_err());
    /// assert_eq!(SchedulerConfig::from_json_for(file, euler)?.kind, euler);
    /// # Ok::<(), fabric_core::schedule::ScheduleError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Self::from_json`], but for an unknown class only if its file does not say all betas: the classes of EDM and
    /// of flow matching have none, because their networks were trained on other noise levels.
    pub fn from_json_for(text: &str, sampler: SamplerKind) -> Result<Self, ScheduleError> {
        let mut map = fields(text)?;
        if SamplerKind::from_keys(&map).is_err() {
            let says = |key: &str| map.contains_key(key);
            let all_betas = ["beta_start", "beta_end", "beta_schedule"].into_iter().all(says) || says("trained_betas");
            if !all_betas || says("sigma_data") {
                let got = map.get("_class_name").unwrap_or(&Value::Null).to_string();
                let expected = "a class with betas (`beta_start`, `beta_end`, `beta_schedule`): networks trained on the \
                              noise levels of EDM or of flow matching are not supported, with any sampler";
                return Err(ScheduleError::field("_class_name", got, expected));
            }
            map.retain(|key, _| !SamplerKind::is_key(key));
            map.extend(sampler.keys());
        }
        Ok(Self::from_map(map)?.with_sampler(sampler))
    }

    fn from_map(mut map: Map<String, Value>) -> Result<Self, ScheduleError> {
        let kind = SamplerKind::from_keys(&map)?;
        if map.get("variance_type").is_some_and(|_| kind != SamplerKind::Ddpm) {
            map.remove("variance_type"); // of DPM-Solver++ for learned variances, which latent models do not have
        }
        Self::deserialize(Value::Object(map.clone())).map_err(|error| {
            // The whole file says what is wrong but not where: the culprit is the field that fails alone.
            let alone = |(key, value): (String, Value)| {
                let mut one = kind.keys();
                one.insert(key.clone(), value.clone());
                Self::deserialize(Value::Object(one)).err().map(|e| ScheduleError::field(&key, value, e.to_string()))
            };
            map.into_iter().find_map(alone).unwrap_or_else(|| not_json(&error))
        })
    }

    /// The text of a `scheduler_config.json` that diffusers and [`SchedulerConfig::from_json`] read.
    pub fn to_json(&self) -> String {
        // A map with string keys, strings, and finite or null numbers: serialisation has nothing to fail on.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The same noise schedule and prediction under another sampler.
    ///
    /// As diffusers' `from_config`: what the file says is kept, where it is silent the new sampler's defaults hold.
    /// Three things hold also where the file is silent: the betas, which belong to the network; latents are not
    /// clipped to [-1, 1] (diffusers would start to, moving from Euler to DDIM); and PNDM skips its Runge-Kutta steps,
    /// as in every published Stable Diffusion.
    #[must_use]
    pub fn with_sampler(&self, kind: SamplerKind) -> Self {
        let (start, end, schedule) = self.betas();
        Self {
            kind,
            beta_start: Some(start),
            beta_end: Some(end),
            beta_schedule: Some(schedule),
            clip_sample: self.clip_sample.or(Some(false)),
            skip_prk_steps: self.skip_prk_steps.or(Some(true)),
            ..self.clone()
        }
    }

    pub(crate) fn betas(&self) -> (f64, f64, BetaSchedule) {
        let (start, end, schedule) = match self.kind {
            SamplerKind::Heun(_) | SamplerKind::Kdpm2(_) | SamplerKind::DpmPlusPlusSde(_) => {
                (0.00085, 0.012, BetaSchedule::Linear)
            }
            SamplerKind::Lcm => (0.00085, 0.012, BetaSchedule::ScaledLinear),
            _ => (1e-4, 0.02, BetaSchedule::Linear),
        };
        (self.beta_start.unwrap_or(start), self.beta_end.unwrap_or(end), self.beta_schedule.unwrap_or(schedule))
    }

    pub(crate) fn spacing(&self) -> Spacing {
        self.spacing.unwrap_or(match self.kind {
            SamplerKind::Ddpm | SamplerKind::Ddim | SamplerKind::Pndm | SamplerKind::Lcm => Spacing::Leading,
            _ => Spacing::Linspace,
        })
    }

    /// The range to which estimates of the clean image are clipped.
    pub(crate) fn clip(&self) -> Option<f64> {
        let default = match self.kind {
            SamplerKind::Ddpm | SamplerKind::Ddim => true,
            SamplerKind::Heun(_) | SamplerKind::Lcm => false,
            _ => return None,
        };
        self.clip_sample.unwrap_or(default).then_some(self.clip_sample_range.unwrap_or(1.0))
    }

    pub(crate) fn ends_clean(&self) -> bool {
        match self.kind {
            SamplerKind::Pndm => self.set_alpha_to_one.unwrap_or(false),
            SamplerKind::Ddim => self.set_alpha_to_one.unwrap_or(true),
            _ => true,
        }
    }

    pub(crate) fn uses_prk(&self) -> bool {
        self.kind == SamplerKind::Pndm && !self.skip_prk_steps.unwrap_or(false)
    }

    pub(crate) fn solver_order(&self) -> usize {
        self.solver_order.unwrap_or(2)
    }

    pub(crate) fn final_sigma(&self) -> FinalSigma {
        self.final_sigmas_type.unwrap_or_default()
    }

    pub(crate) fn original_steps(&self) -> usize {
        self.original_inference_steps.unwrap_or(50)
    }
}

/// What a file says: the fields of its object that are not null.
fn fields(text: &str) -> Result<Map<String, Value>, ScheduleError> {
    let mut map: Map<String, Value> = crate::json::from_str(text).map_err(|error| not_json(&error))?;
    map.retain(|_, value| !value.is_null());
    Ok(map)
}

fn not_json(error: &serde_json::Error) -> ScheduleError {
    ScheduleError::Json { message: error.to_string() }
}

/// A bound that Python writes as `-Infinity` where there is none.
fn bound_below<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a number or -Infinity")]
    enum Written {
        Number(f64),
        Word(NoBound),
        Null(()),
    }
    #[derive(Deserialize)]
    enum NoBound {
        #[serde(rename = "-Infinity")]
        NegativeInfinity,
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::Number(bound) => Some(bound),
        Written::Word(NoBound::NegativeInfinity) | Written::Null(()) => None,
    })
}

/// [`SamplerKind`] as the keys that choose it.
mod kind_keys {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::{Map, Value};

    use super::SamplerKind;

    pub(super) fn serialize<S: Serializer>(kind: &SamplerKind, serializer: S) -> Result<S::Ok, S::Error> {
        kind.keys().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SamplerKind, D::Error> {
        SamplerKind::from_keys(&Map::<String, Value>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
