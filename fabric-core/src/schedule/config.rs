//! Settings of `scheduler_config.json`, with diffusers' defaults for absent fields.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::{SamplerKind, ScheduleError};

/// Quantity that the network predicts.
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

/// Timestep spacing: how timesteps are chosen from the training steps (Lin et al. 2023, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Spacing {
    /// Multiples of `T / steps`, counted up from `steps_offset`.
    Leading,
    /// Multiples of `T / steps`, counted down from `T - 1`.
    Trailing,
    /// Evenly spaced from the first training step to the last.
    Linspace,
}

/// Schedule of the noise variances (betas) used in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BetaSchedule {
    /// Linear in beta.
    Linear,
    /// Linear in the square root of beta (Stable Diffusion).
    ScaledLinear,
    /// The cosine schedule of Nichol & Dhariwal 2021.
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredCos,
    /// Remaining signal of `exp(-12 t)`.
    Exp,
    /// Sigmoid between the first and the last beta (GeoDiff).
    Sigmoid,
}

/// Variance of the noise in a DDPM step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Variance {
    /// The variance of the posterior.
    #[default]
    #[serde(rename = "fixed_small")]
    Small,
    /// The variance of the posterior, computed through its logarithm.
    #[serde(rename = "fixed_small_log")]
    SmallLog,
    /// The beta of the step.
    #[serde(rename = "fixed_large")]
    Large,
}

/// Form of a solver's higher-order correction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SolverType {
    /// DPM-Solver++, midpoint.
    Midpoint,
    /// DPM-Solver++, Heun.
    Heun,
    /// UniPC, `B(h) = h`.
    Bh1,
    /// UniPC, `B(h) = exp(h) - 1`.
    Bh2,
    /// DEIS in log rho; DPM-Solver++ and UniPC treat this name as their default.
    LogRho,
}

/// Noise level at which the last step of a sampler over sigmas ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FinalSigma {
    /// Zero: the clean image.
    #[default]
    Zero,
    /// The smallest training level.
    SigmaMin,
}

/// Interpolation of Euler's noise levels between timesteps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Interpolation {
    /// Linear between training levels.
    #[default]
    Linear,
    /// Evenly spaced in `ln sigma` over the whole range.
    LogLinear,
}

/// Form of the timestep that Euler passes to the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TimestepType {
    /// The training step.
    #[default]
    Discrete,
    /// `ln(sigma) / 4` (only with [`Prediction::Velocity`]).
    Continuous,
}

/// Configuration of a sampler and its noise schedule, as read from `scheduler_config.json` of a model folder.
///
/// Fields have diffusers' names. `None` means that the file does not set the field and the sampler's own default
/// applies (that of its class in diffusers 0.35). [`SchedulerConfig::with_sampler`] therefore switches to the
/// defaults of the new sampler, as `Scheduler.from_config` does. Unknown fields are ignored.
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
    /// The sampler, from `_class_name`, `algorithm_type`, `use_karras_sigmas`, `use_exponential_sigmas`,
    /// `use_beta_sigmas`.
    #[serde(flatten, with = "kind_keys")]
    pub kind: SamplerKind,
    /// Number of training steps; default 1000.
    pub num_train_timesteps: usize,
    /// Quantity that the network predicts.
    #[serde(rename = "prediction_type")]
    pub prediction: Prediction,
    /// Offset added to the timesteps of `leading` spacing; default 0 (1 in Stable Diffusion).
    pub steps_offset: usize,
    /// Rescales the betas so that the last step holds no signal (Lin et al. 2023, algorithm 1).
    ///
    /// All samplers except DDPM, DDIM, LCM and TCD then use `2^-24` for the last cumulative alpha, as diffusers does.
    pub rescale_betas_zero_snr: bool,
    /// Timestep spacing.
    #[serde(rename = "timestep_spacing", skip_serializing_if = "Option::is_none")]
    pub(crate) spacing: Option<Spacing>,
    /// The first beta.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) beta_start: Option<f64>,
    /// The last beta.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) beta_end: Option<f64>,
    /// The curve of the betas between the first and the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) beta_schedule: Option<BetaSchedule>,
    /// All betas explicitly, instead of the three fields above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trained_betas: Option<Vec<f64>>,
    /// Clips the predicted clean image (DDPM, DDIM, Heun, LCM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clip_sample: Option<bool>,
    /// Range of the clipping, plus and minus this value; default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clip_sample_range: Option<f64>,
    /// Dynamic thresholding. `true` is rejected: the method is made for pixels and unsuitable for latents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) thresholding: Option<bool>,
    /// Ends at the clean image instead of training step 0 (DDIM, PNDM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) set_alpha_to_one: Option<bool>,
    /// Amount of noise added by DDIM, from 0 (none, the default) to 1 (as DDPM), and by TCD, whose paper calls it gamma
    /// (default 0.3). Not a field of diffusers' files (there, it is an argument of `step`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<f64>,
    /// Variance of a DDPM step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) variance_type: Option<Variance>,
    /// Skips PNDM's Runge-Kutta steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) skip_prk_steps: Option<bool>,
    /// Number of past derivatives that LMS uses, 1 to 4. Not a field of diffusers' files (there, it is an
    /// argument of `step`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lms_order: Option<usize>,
    /// Order of DPM-Solver++ (1 to 3) or UniPC (1 to 4); default 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) solver_order: Option<usize>,
    /// Form of the higher-order correction of DPM-Solver++ and UniPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) solver_type: Option<SolverType>,
    /// Lowers the order in the last steps (DPM-Solver++ below 15 steps, UniPC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lower_order_final: Option<bool>,
    /// Uses first order in the last step of DPM-Solver++.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) euler_at_final: Option<bool>,
    /// Noise level at which the last step ends (Euler, DPM-Solver++, UniPC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) final_sigmas_type: Option<FinalSigma>,
    /// DPM-Solver++ omits training steps whose `ln(alpha / sigma)` is below this value (cosine betas: -5.1).
    /// diffusers writes `-Infinity` for `None`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "bound_below")]
    pub(crate) lambda_min_clipped: Option<f64>,
    /// Spaces the steps of DPM-Solver++ evenly in `ln sigma` (Lu et al. 2022), with integer timesteps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) use_lu_lambdas: Option<bool>,
    /// Rectified flow. `true` is rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) use_flow_sigmas: Option<bool>,
    /// Integrates UniPC over the clean image instead of the noise; default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) predict_x0: Option<bool>,
    /// Indices of the steps after which UniPC does not correct.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disable_corrector: Option<Vec<usize>>,
    /// Interpolation of Euler's noise levels between timesteps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) interpolation_type: Option<Interpolation>,
    /// Form of the timestep that Euler passes to the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timestep_type: Option<TimestepType>,
    /// Smallest sigma of a curve, instead of the schedule's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sigma_min: Option<f64>,
    /// Largest sigma of a curve, instead of the schedule's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sigma_max: Option<f64>,
    /// Number of teacher steps in the distillation of an LCM; default 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) original_inference_steps: Option<usize>,
    /// Factor on the timestep in LCM's boundary condition; default 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timestep_scaling: Option<f64>,
}

impl Default for SchedulerConfig {
    /// Returns the configuration of Stable Diffusion 1.5: PNDM without Runge-Kutta steps, leading timesteps with
    /// offset 1.
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
    /// Returns the configuration of a file that sets nothing but its class.
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
    /// Returns [`ScheduleError::Json`] if the text is not a JSON object, and [`ScheduleError::Field`] for a class
    /// that is not supported or a value that cannot be parsed. [`super::Schedule::new`] checks ranges.
    pub fn from_json(text: &str) -> Result<Self, ScheduleError> {
        Self::from_map(fields(text)?)
    }

    /// Reads a `scheduler_config.json` and selects another sampler: [`Self::from_json`] followed by
    /// [`Self::with_sampler`], except that the file's class may be one that this library does not have.
    ///
    /// From such a file the betas, the prediction type and all other known fields are used, as in diffusers'
    /// `from_config`.
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
    /// Returns an error like [`Self::from_json`]. For an unknown class it fails only if the file does not define
    /// all betas: the classes of EDM and flow matching have none, because their networks were trained on other
    /// noise levels.
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
            map.remove("variance_type"); // used by DPM-Solver++ for learned variances, which latent models do not have
        }
        Self::deserialize(Value::Object(map.clone())).map_err(|error| {
            // The error for the whole object does not name the field: find the field that fails alone.
            let alone = |(key, value): (String, Value)| {
                let mut one = kind.keys();
                one.insert(key.clone(), value.clone());
                Self::deserialize(Value::Object(one)).err().map(|e| ScheduleError::field(&key, value, e.to_string()))
            };
            map.into_iter().find_map(alone).unwrap_or_else(|| not_json(&error))
        })
    }

    /// Returns the text of a `scheduler_config.json` that diffusers and [`SchedulerConfig::from_json`] read.
    pub fn to_json(&self) -> String {
        // Serialisation cannot fail: the map has string keys, strings, and finite or null numbers.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Returns the same noise schedule and prediction type with another sampler.
    ///
    /// As in diffusers' `from_config`, fields that the file sets are kept, and the new sampler's defaults apply
    /// to the others. Three exceptions apply where the file sets nothing: the betas are kept, because they belong
    /// to the network; latents are not clipped to [-1, 1] (diffusers would start to, when changing from Euler to
    /// DDIM); and PNDM skips its Runge-Kutta steps, as in every published Stable Diffusion.
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
            SamplerKind::Lcm | SamplerKind::Tcd => (0.00085, 0.012, BetaSchedule::ScaledLinear),
            _ => (1e-4, 0.02, BetaSchedule::Linear),
        };
        (self.beta_start.unwrap_or(start), self.beta_end.unwrap_or(end), self.beta_schedule.unwrap_or(schedule))
    }

    pub(crate) fn spacing(&self) -> Spacing {
        self.spacing.unwrap_or(match self.kind {
            SamplerKind::Ddpm | SamplerKind::Ddim | SamplerKind::Pndm | SamplerKind::Lcm | SamplerKind::Tcd => {
                Spacing::Leading
            }
            _ => Spacing::Linspace,
        })
    }

    /// Returns the range to which the predicted clean image is clipped.
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

/// Returns the fields of a JSON object that are not null.
fn fields(text: &str) -> Result<Map<String, Value>, ScheduleError> {
    let map = crate::json::from_str_within(text, crate::json::MAX_SETTINGS_MEMORY);
    let mut map: Map<String, Value> = map.map_err(|error| not_json(&error))?;
    map.retain(|_, value| !value.is_null());
    Ok(map)
}

fn not_json(error: &serde_json::Error) -> ScheduleError {
    ScheduleError::Json { message: error.to_string() }
}

/// Deserialises a lower bound; Python writes `-Infinity` if there is none.
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

/// Serialisation of [`SamplerKind`] as the keys of `scheduler_config.json` that select it.
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
