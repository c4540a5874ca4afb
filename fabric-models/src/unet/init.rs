//! From a configuration to a network.

use burn::tensor::Device;

use super::config::MODEL;
use super::plan::Plan;
use super::{UNet, UNetConfig};
use crate::config::{ConfigError, parse};

impl UNetConfig {
    /// Parses and validates the text of a `config.json`.
    ///
    /// # Errors
    ///
    /// Returns an error if the text is not a JSON object, or a field is invalid or not supported.
    pub fn from_json(json: &str) -> Result<Self, ConfigError> {
        let config: Self = parse(MODEL, json)?;
        config.validate()?;
        Ok(config)
    }

    /// Checks that a network can be built from this configuration.
    ///
    /// # Errors
    ///
    /// Returns an error if a field is invalid or not supported; fields are named as in the file.
    pub fn validate(&self) -> Result<(), ConfigError> {
        Plan::new(self).map(|_| ())
    }

    /// Builds the network with random weights, which are generated on first use.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`UNetConfig::validate`].
    pub fn init(&self, device: &Device) -> Result<UNet, ConfigError> {
        Ok(UNet::new(self, &Plan::new(self)?, device))
    }
}
