//! A ControlNet on disk.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::ControlNetConfig;
use crate::config::ConfigError;
use crate::load::{LoadError, TensorSource, open_controlnet};

/// A ControlNet's folder or file, opened: nothing is loaded yet.
#[derive(Debug, Clone)]
pub struct ControlNetFile {
    config: Value,
    weights: Arc<dyn TensorSource>,
}

impl ControlNetFile {
    /// Opens a folder in the diffusers layout, or one file with diffusers' names or those of the original releases.
    ///
    /// The settings of a file without `config.json` are read off its tensors. They do not tell whether a network says the
    /// same of all places ([`ControlNetConfig::global_pool_conditions`], the shuffle network) or reads blue first: for
    /// such a file, set that in [`Self::config`] and load it with [`ControlNet::load`](super::ControlNet::load).
    ///
    /// # Errors
    ///
    /// When a file is missing or damaged, or holds something else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let (config, weights) = open_controlnet(path.as_ref())?;
        Ok(Self { config, weights })
    }

    /// Its settings.
    ///
    /// # Errors
    ///
    /// When they are not those of a ControlNet that this library computes.
    pub fn config(&self) -> Result<ControlNetConfig, ConfigError> {
        ControlNetConfig::from_json(&self.config.to_string())
    }

    /// Its tensors, under diffusers' names.
    pub fn weights(&self) -> &dyn TensorSource {
        &*self.weights
    }
}
