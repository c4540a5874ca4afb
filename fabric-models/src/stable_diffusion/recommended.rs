//! Settings that a model's files recommend.

use std::path::Path;

use fabric_core::Error;
use fabric_core::pipeline::Settings;

use super::ModelError;
use crate::load::ModelFolder;

/// Entry of `model_index.json`. Names that begin with an underscore are ignored by diffusers.
pub const RECOMMENDED_SETTINGS: &str = "_recommended_settings";

/// Returns the generation settings that a model folder recommends in the entry `_recommended_settings` of its
/// `model_index.json`; the defaults if it has none, or if the model is a single file.
///
/// # Errors
///
/// Returns an error if the folder is no model, or the settings are invalid.
pub fn recommended_settings(path: impl AsRef<Path>) -> Result<Settings, ModelError> {
    let path = path.as_ref();
    if path.is_file() { Ok(Settings::default()) } else { read(&ModelFolder::open(path)?) }
}

pub(super) fn read(folder: &ModelFolder) -> Result<Settings, ModelError> {
    let Some(value) = folder.setting(RECOMMENDED_SETTINGS) else { return Ok(Settings::default()) };
    let refused = |got: String| {
        let what = format!("`{RECOMMENDED_SETTINGS}` of model_index.json");
        let expected = "an object of generation settings, such as {\"guidance_scale\": 3.0}";
        ModelError::from(Error::settings(what, got, expected, "correct the entry, or remove it"))
    };
    // serde would accept an array as the fields in order.
    if !value.is_object() {
        return Err(refused(format!("{:.40}", value.to_string())));
    }
    let settings: Settings = serde_json::from_value(value.clone()).map_err(|error| refused(error.to_string()))?;
    settings.validate().map_err(|error| refused(error.to_string()))?;
    Ok(settings)
}
