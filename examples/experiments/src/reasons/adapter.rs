//! Adapters that realise the reasons of votes.

use std::collections::BTreeMap;
use std::path::Path;

use fabric::core::AspectKind;
use fabric::ipadapter::{IpAdapter, LayerScales};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{AdapterCases, ExperimentError, SmallWorld};

/// Adapter that realises the reasons of votes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ReasonAdapter {
    /// The Instruct adapter, which reads the reason.
    Instruct,
    /// The plain adapter, which takes each aspect of an image through layers of its own.
    Plain {
        /// Scales by aspect, as [`LayerScales::from_json`] reads them.
        layers: BTreeMap<AspectKind, Value>,
    },
}

impl ReasonAdapter {
    /// File of the adapter, relative to the model's folder.
    pub fn file(&self) -> &'static str {
        let cases = if *self == Self::Instruct { AdapterCases::Pairs } else { AdapterCases::Scenes };
        cases.adapter()
    }

    /// Loads the adapter from the folder of a model, which must be that of the world.
    pub(crate) fn open(&self, model: &Path, world: &SmallWorld) -> Result<IpAdapter, ExperimentError> {
        let mut adapter = world.adapter(&model.join(self.file()), *self == Self::Instruct)?;
        if let Self::Plain { layers } = self {
            for (aspect, scales) in layers {
                adapter = adapter.with_aspect(*aspect, LayerScales::from_json(&scales.to_string())?);
            }
        }
        Ok(adapter)
    }
}
