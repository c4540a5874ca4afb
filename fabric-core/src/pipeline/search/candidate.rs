//! Values of the searched settings for one image.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::numbers::Numbers;
use crate::Error;
use crate::noise::NoiseMixture;
use crate::pipeline::Request;

/// Values of the searched settings for one image, as plain data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// Values by name, such as `fabric.max_weight`. [`SearchedSettings::settings`](super::SearchedSettings::settings)
    /// describes the names.
    pub values: BTreeMap<String, f64>,
    /// Initial noise of the image. `None` is that of its seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<NoiseMixture>,
}

impl Candidate {
    /// Returns a request with these values. If the candidate has an initial noise, all images of the request start from
    /// it.
    ///
    /// # Errors
    ///
    /// Returns an error if the request is invalid, does not have a setting of this name, or would be invalid with a
    /// value.
    pub fn request(&self, base: &Request) -> Result<Request, Error> {
        base.validate()?;
        let mut numbers = Numbers::of(base);
        for (name, value) in &self.values {
            numbers.set(name, *value)?;
        }
        let mut request = base.clone();
        numbers.write_to(&mut request)?;
        if let Some(noise) = &self.noise {
            request.initial_noise = vec![noise.clone(); request.seeds.len()];
        }
        request.validate()?;
        Ok(request)
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, value) in &self.values {
            write!(f, "{separator}{name} = {value:.4}")?;
            separator = ", ";
        }
        if let Some(noise) = &self.noise {
            for (seed, weight) in noise.seeds().iter().zip(noise.weights()) {
                write!(f, "{separator}noise of seed {seed} = {weight:.4}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}
