//! Files of a ControlNet.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::ControlNetConfig;
use crate::config::ConfigError;
use crate::load::{LoadError, TensorSource, open_controlnet};

/// Opened folder or file of a ControlNet; the weights are not loaded yet.
#[derive(Debug, Clone)]
pub struct ControlNetFile {
    config: Value,
    weights: Arc<dyn TensorSource>,
}

impl ControlNetFile {
    /// Opens a folder in the diffusers layout, or a single file with diffusers' names or those of the original
    /// releases.
    ///
    /// Without a `config.json`, the configuration is inferred from the tensors. They do not show whether a network
    /// averages its residuals over all positions ([`ControlNetConfig::global_pool_conditions`], the shuffle network)
    /// or reads BGR images: for such a file, set these fields of [`Self::config`] and load it with
    /// [`ControlNet::load`](super::ControlNet::load).
    ///
    /// # Errors
    ///
    /// Returns an error if a file is missing or damaged, or is not a ControlNet.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let (config, weights) = open_controlnet(path.as_ref())?;
        Ok(Self { config, weights })
    }

    /// Returns the configuration.
    ///
    /// # Errors
    ///
    /// Returns an error if it is not the configuration of a supported ControlNet.
    pub fn config(&self) -> Result<ControlNetConfig, ConfigError> {
        ControlNetConfig::from_json(&self.config.to_string())
    }

    /// Returns the tensors, with diffusers' names.
    pub fn weights(&self) -> &dyn TensorSource {
        &*self.weights
    }
}
