//! Samplers by name: short names for command lines, diffusers' classes for configuration files.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ScheduleError;

/// Spacing of the noise levels between the largest and the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SigmaCurve {
    /// The training levels at the chosen timesteps.
    #[default]
    Table,
    /// Evenly spaced in `sigma^(1/7)` (Karras et al. 2022, equation 5).
    Karras,
    /// Evenly spaced in `ln sigma`.
    Exponential,
    /// Quantiles of Beta(0.6, 0.6) (Lee et al. 2024, "Beta Sampling is All You Need").
    Beta,
}

const CURVES: [(SigmaCurve, &str, &str); 3] = [
    (SigmaCurve::Karras, "_karras", "use_karras_sigmas"),
    (SigmaCurve::Exponential, "_exponential", "use_exponential_sigmas"),
    (SigmaCurve::Beta, "_beta", "use_beta_sigmas"),
];

/// A sampler, with its curve of noise levels if it supports several.
///
/// Names can be parsed and printed: `"dpmpp_2m_karras"` is `DpmPlusPlus2M(SigmaCurve::Karras)`, `"euler_a"` is
/// `EulerAncestral`.
///
/// ```
/// use fabric_core::schedule::{SamplerKind, SigmaCurve};
///
/// let kind: SamplerKind = "dpmpp_2m_karras".parse()?;
/// assert_eq!(kind, SamplerKind::DpmPlusPlus2M(SigmaCurve::Karras));
/// assert_eq!(SamplerKind::EulerAncestral.to_string(), "euler_a");
/// # Ok::<(), fabric_core::schedule::ScheduleError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
#[non_exhaustive]
pub enum SamplerKind {
    /// Ancestral sampling of the Markov chain (Ho et al. 2020).
    Ddpm,
    /// DDIM; deterministic with `eta = 0` (Song et al. 2020).
    Ddim,
    /// Linear multistep on DDIM's transfer function, the default of Stable Diffusion 1 (Liu et al. 2022).
    Pndm,
    /// Linear multistep (Adams-Bashforth) in sigma.
    Lms(SigmaCurve),
    /// Euler steps of the probability-flow equation.
    Euler(SigmaCurve),
    /// Euler ancestral: Euler steps with fresh noise; FABRIC's sampler.
    EulerAncestral,
    /// Heun's method (Karras et al. 2022, algorithm 1 without churn).
    Heun(SigmaCurve),
    /// Midpoint method in `ln sigma` (DPM-Solver-2 in k-diffusion's form).
    Kdpm2(SigmaCurve),
    /// DPM-Solver++, multistep, order 2 unless the configuration says otherwise (Lu et al. 2022).
    DpmPlusPlus2M(SigmaCurve),
    /// Multistep DPM-Solver++ for the stochastic equation (diffusers' `sde-dpmsolver++`).
    DpmPlusPlus2MSde(SigmaCurve),
    /// Single-step DPM-Solver++ for the stochastic equation, two evaluations per step (k-diffusion's DPM++ SDE).
    DpmPlusPlusSde(SigmaCurve),
    /// UniPC: predictor and corrector of equal order (Zhao et al. 2023).
    UniPc(SigmaCurve),
    /// Latent consistency models, 1 to 8 steps (Luo et al. 2023).
    Lcm,
    /// Trajectory consistency distillation, 1 to 50 steps (Zheng et al. 2024).
    Tcd,
}

impl From<SamplerKind> for String {
    fn from(kind: SamplerKind) -> Self {
        kind.to_string()
    }
}

impl TryFrom<String> for SamplerKind {
    type Error = ScheduleError;

    fn try_from(name: String) -> Result<Self, ScheduleError> {
        name.parse()
    }
}

impl SamplerKind {
    /// All samplers with their default curve; those with [`SamplerKind::has_curves`] also accept the suffixes
    /// `_karras`, `_exponential` and `_beta`.
    pub const ALL: [Self; 14] = [
        Self::Ddpm,
        Self::Ddim,
        Self::Pndm,
        Self::Lms(SigmaCurve::Table),
        Self::Euler(SigmaCurve::Table),
        Self::EulerAncestral,
        Self::Heun(SigmaCurve::Table),
        Self::Kdpm2(SigmaCurve::Table),
        Self::DpmPlusPlus2M(SigmaCurve::Table),
        Self::DpmPlusPlus2MSde(SigmaCurve::Table),
        Self::DpmPlusPlusSde(SigmaCurve::Table),
        Self::UniPc(SigmaCurve::Table),
        Self::Lcm,
        Self::Tcd,
    ];

    /// Returns the short name without the curve, diffusers' class, and the `algorithm_type` that selects the
    /// sampler, if any.
    const fn names(self) -> (&'static str, &'static str, Option<&'static str>) {
        match self {
            Self::Ddpm => ("ddpm", "DDPMScheduler", None),
            Self::Ddim => ("ddim", "DDIMScheduler", None),
            Self::Pndm => ("pndm", "PNDMScheduler", None),
            Self::Lms(_) => ("lms", "LMSDiscreteScheduler", None),
            Self::Euler(_) => ("euler", "EulerDiscreteScheduler", None),
            Self::EulerAncestral => ("euler_a", "EulerAncestralDiscreteScheduler", None),
            Self::Heun(_) => ("heun", "HeunDiscreteScheduler", None),
            Self::Kdpm2(_) => ("kdpm2", "KDPM2DiscreteScheduler", None),
            Self::DpmPlusPlus2M(_) => ("dpmpp_2m", "DPMSolverMultistepScheduler", Some("dpmsolver++")),
            Self::DpmPlusPlus2MSde(_) => ("dpmpp_2m_sde", "DPMSolverMultistepScheduler", Some("sde-dpmsolver++")),
            Self::DpmPlusPlusSde(_) => ("dpmpp_sde", "DPMSolverSDEScheduler", None),
            Self::UniPc(_) => ("unipc", "UniPCMultistepScheduler", None),
            Self::Lcm => ("lcm", "LCMScheduler", None),
            Self::Tcd => ("tcd", "TCDScheduler", None),
        }
    }

    /// Returns the name of the equivalent class in diffusers.
    pub const fn class_name(self) -> &'static str {
        self.names().1
    }

    /// Returns the curve of noise levels.
    pub const fn curve(self) -> SigmaCurve {
        match self {
            Self::Lms(curve)
            | Self::Euler(curve)
            | Self::Heun(curve)
            | Self::Kdpm2(curve)
            | Self::DpmPlusPlus2M(curve)
            | Self::DpmPlusPlus2MSde(curve)
            | Self::DpmPlusPlusSde(curve)
            | Self::UniPc(curve) => curve,
            Self::Ddpm | Self::Ddim | Self::Pndm | Self::EulerAncestral | Self::Lcm | Self::Tcd => SigmaCurve::Table,
        }
    }

    /// Returns the sampler with another curve; unchanged if the sampler has no choice.
    #[must_use]
    pub const fn with_curve(self, curve: SigmaCurve) -> Self {
        match self {
            Self::Lms(_) => Self::Lms(curve),
            Self::Euler(_) => Self::Euler(curve),
            Self::Heun(_) => Self::Heun(curve),
            Self::Kdpm2(_) => Self::Kdpm2(curve),
            Self::DpmPlusPlus2M(_) => Self::DpmPlusPlus2M(curve),
            Self::DpmPlusPlus2MSde(_) => Self::DpmPlusPlus2MSde(curve),
            Self::DpmPlusPlusSde(_) => Self::DpmPlusPlusSde(curve),
            Self::UniPc(_) => Self::UniPc(curve),
            Self::Ddpm | Self::Ddim | Self::Pndm | Self::EulerAncestral | Self::Lcm | Self::Tcd => self,
        }
    }

    /// Returns whether the sampler supports other curves of noise levels.
    pub const fn has_curves(self) -> bool {
        matches!(self.with_curve(SigmaCurve::Karras).curve(), SigmaCurve::Karras)
    }

    /// Returns the number of evaluations per step (diffusers' `order`).
    pub const fn order(self) -> usize {
        match self {
            Self::Heun(_) | Self::Kdpm2(_) | Self::DpmPlusPlusSde(_) => 2,
            _ => 1,
        }
    }

    /// Returns whether the sampler's state is `clean + ratio * noise` (variance-exploding) instead of `alpha *
    /// clean + sigma * noise`.
    pub const fn is_variance_exploding(self) -> bool {
        matches!(
            self,
            Self::Lms(_)
                | Self::Euler(_)
                | Self::EulerAncestral
                | Self::Heun(_)
                | Self::Kdpm2(_)
                | Self::DpmPlusPlusSde(_)
        )
    }

    fn known() -> String {
        let names: Vec<String> = Self::ALL
            .iter()
            .map(
                |kind| if kind.has_curves() { format!("{kind}[_karras|_exponential|_beta]") } else { kind.to_string() },
            )
            .collect();
        names.join(", ")
    }

    /// Reads the sampler from the keys of a `scheduler_config.json`; keys that its class does not have are
    /// ignored, as in diffusers.
    pub(super) fn from_keys(keys: &Map<String, Value>) -> Result<Self, ScheduleError> {
        let text = |key: &str| keys.get(key).filter(|value| !value.is_null()).map(|value| (value, value.as_str()));
        let classes: Vec<&str> = Self::ALL.iter().map(|kind| kind.class_name()).collect();
        let got = text("_class_name").map_or("nothing".to_owned(), |(value, _)| value.to_string());
        let unknown = || {
            let expected = format!(
                "one of {}; or name a sampler when loading (`ModelOptions::sampler`, the examples' `--sampler`), which \
                 then runs on this file's betas and prediction",
                classes.join(", ")
            );
            ScheduleError::field("_class_name", &got, expected)
        };
        let class = text("_class_name").and_then(|(_, name)| name).ok_or_else(unknown)?;
        let mut kind = Self::ALL.into_iter().find(|kind| kind.class_name() == class).ok_or_else(unknown)?;

        if let (Self::DpmPlusPlus2M(_), Some((value, name))) = (kind, text("algorithm_type")) {
            kind = match name {
                Some("dpmsolver++" | "deis") => kind, // diffusers also reads `deis` as `dpmsolver++`
                Some("sde-dpmsolver++") => Self::DpmPlusPlus2MSde(SigmaCurve::Table),
                _ => {
                    let expected = "`dpmsolver++` or `sde-dpmsolver++`, or a sampler named when loading";
                    return Err(ScheduleError::field("algorithm_type", value, expected));
                }
            };
        }
        if kind.has_curves() {
            let mut chosen = None;
            for (curve, _, key) in CURVES {
                match text(key) {
                    None | Some((Value::Bool(false), _)) => {}
                    Some((Value::Bool(true), _)) if chosen.is_none() => chosen = Some(curve),
                    Some((Value::Bool(true), _)) => {
                        return Err(ScheduleError::field(key, true, "at most one of the sigma curves"));
                    }
                    Some((value, _)) => return Err(ScheduleError::field(key, value, "true or false")),
                }
            }
            kind = kind.with_curve(chosen.unwrap_or_default());
        }
        Ok(kind)
    }

    /// Returns whether [`SamplerKind::from_keys`] reads this key.
    pub(super) fn is_key(key: &str) -> bool {
        key == "_class_name" || key == "algorithm_type" || CURVES.iter().any(|(_, _, curve)| *curve == key)
    }

    /// Returns the keys from which [`SamplerKind::from_keys`] reads this sampler.
    pub(super) fn keys(self) -> Map<String, Value> {
        let (_, class, algorithm) = self.names();
        let mut keys = Map::new();
        keys.insert("_class_name".into(), class.into());
        if let Some(algorithm) = algorithm {
            keys.insert("algorithm_type".into(), algorithm.into());
        }
        for (curve, _, key) in CURVES {
            if self.curve() == curve {
                keys.insert(key.into(), true.into());
            }
        }
        keys
    }
}

impl fmt::Display for SamplerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = CURVES.iter().find(|(curve, ..)| *curve == self.curve()).map_or("", |(_, suffix, _)| suffix);
        write!(f, "{}{suffix}", self.names().0)
    }
}

impl FromStr for SamplerKind {
    type Err = ScheduleError;

    fn from_str(name: &str) -> Result<Self, ScheduleError> {
        let all = || Self::ALL.into_iter();
        all()
            .chain(CURVES.into_iter().flat_map(|(curve, ..)| all().map(move |kind| kind.with_curve(curve))))
            .find(|kind| kind.to_string() == name)
            .ok_or_else(|| ScheduleError::UnknownSampler { got: name.to_owned(), known: Self::known() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for kind in SamplerKind::ALL {
            for curve in [SigmaCurve::Table, SigmaCurve::Karras, SigmaCurve::Exponential, SigmaCurve::Beta] {
                let kind = kind.with_curve(curve);
                assert_eq!(kind.to_string().parse(), Ok(kind));
                assert_eq!(SamplerKind::from_keys(&kind.keys()), Ok(kind));
            }
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = "euler_z".parse::<SamplerKind>().unwrap_err().to_string();
        assert!(error.contains("`euler_z`") && error.contains("dpmpp_2m[_karras"), "{error}");
    }

    #[test]
    fn a_curve_is_ignored_where_there_is_none() {
        let keys = serde_json::json!({"_class_name": "DDIMScheduler", "use_karras_sigmas": true});
        assert_eq!(SamplerKind::from_keys(keys.as_object().unwrap()), Ok(SamplerKind::Ddim));
    }
}
