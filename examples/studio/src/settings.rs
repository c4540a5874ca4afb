//! Settings of sessions as the interface takes them, and presets.

use fabric::core::fabric::FabricSettings;
use fabric::core::pipeline::Settings;
use serde::Serialize;
use serde_json::Value;

use crate::error::{ApiError, ErrorCode};

/// Settings that have settings of their own. Those that are left out keep their values, as do those of the first level.
const GROUPS: [&str; 3] = ["fabric", "reasons", "text"];

/// Returns settings with some changes, which are an object like the settings with any of their fields.
pub(crate) fn changed(settings: &Settings, changes: Value) -> Result<Settings, ApiError> {
    let refused = |error: String| {
        let (expected, next) = ("fields of the settings of GET /api/model", "correct the field, or leave it out");
        ApiError::new(ErrorCode::BadSetting, "the settings cannot be used", expected, error, next)
    };
    let Value::Object(changes) = changes else { return Err(refused("no JSON object".to_owned())) };
    let Value::Object(mut fields) = serde_json::to_value(settings).expect("settings are plain data") else {
        unreachable!("settings are an object")
    };
    for (name, change) in changes {
        match change {
            Value::Object(change) if GROUPS.contains(&name.as_str()) => {
                let group = fields.get_mut(&name).and_then(Value::as_object_mut);
                group.expect("settings have all groups").extend(change);
            }
            change => {
                fields.insert(name, change);
            }
        }
    }
    let settings: Settings =
        serde_json::from_value(Value::Object(fields)).map_err(|error| refused(error.to_string()))?;
    settings.validate()?;
    Ok(settings)
}

/// Settings for feedback as a published program or experiment has them, with the model's other settings.
#[derive(Debug, Serialize)]
pub(crate) struct Preset {
    name: &'static str,
    title: &'static str,
    text: &'static str,
    settings: Settings,
}

/// Returns the presets for a model with these recommended settings.
pub(crate) fn presets(recommended: &Settings) -> Vec<Preset> {
    let presets = [
        (
            "official-demo",
            "Official demo",
            "Feedback acts strongly in the first 80 % of the steps, with at most six images.",
            FabricSettings::official_demo(),
        ),
        (
            "official-api",
            "Official interface",
            "Feedback acts at full strength in the middle third of the steps, and weakly before and after.",
            FabricSettings::official_api(),
        ),
        (
            "paper-preference",
            "Paper, preference model",
            "Feedback acts weakly in all steps.",
            FabricSettings::paper_preference(),
        ),
        ("paper-target", "Paper, target image", "Feedback acts strongly in all steps.", FabricSettings::paper_target()),
        (
            "web-ui",
            "Web UI extension",
            "Feedback acts strongly in the first 80 % of the noise levels, with all images.",
            FabricSettings::web_ui(),
        ),
    ];
    let preset = |(name, title, text, fabric): (&'static str, &'static str, &'static str, FabricSettings)| {
        // How references are computed is no part of a preset.
        let fabric = FabricSettings { execution: recommended.fabric.execution, ..fabric };
        Preset { name, title, text, settings: Settings { fabric, ..recommended.clone() } }
    };
    presets.into_iter().map(preset).collect()
}

#[cfg(test)]
mod tests {
    use fabric::core::fabric::KeepPolicy;
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_that_are_left_out_keep_their_values() {
        let before = Settings { steps: 7, fabric: FabricSettings::official_demo(), ..Settings::default() };
        let after = changed(&before, json!({"guidance_scale": 3.0, "fabric": {"max_weight": 0.5}})).expect("settings");
        let fabric = FabricSettings { max_weight: 0.5, ..before.fabric.clone() };
        assert_eq!(after, Settings { guidance_scale: 3.0, fabric, ..before.clone() });
        // A setting that is one of several kinds is replaced as a whole.
        let all = changed(&before, json!({"fabric": {"keep": {"most_recent": 3}, "execution": {}}})).expect("settings");
        assert_eq!((all.fabric.keep, all.steps), (KeepPolicy::MostRecent(3), 7));
        let whole = serde_json::to_value(Settings::default()).expect("plain data");
        assert_eq!(changed(&before, whole).expect("settings"), Settings::default());
    }

    #[test]
    fn settings_that_do_not_exist_or_are_out_of_range_are_refused() {
        let unknown = [json!({"stepz": 3}), json!({"fabric": {"stepz": 3}}), json!({"fabric": 1}), json!([])];
        for changes in unknown.into_iter().chain([json!({"steps": 0}), json!({"fabric": {"end": 2}})]) {
            let error = changed(&Settings::default(), changes.clone()).expect_err("a refusal");
            assert_eq!(error.code, ErrorCode::BadSetting, "{changes}: {error}");
        }
    }

    #[test]
    fn presets_differ_from_the_model_in_feedback_alone() {
        let recommended = Settings { steps: 7, guidance_scale: 3.0, ..Settings::default() };
        for preset in presets(&recommended) {
            assert!(preset.settings.validate().is_ok(), "{}", preset.name);
            let settings = Settings { fabric: recommended.fabric.clone(), ..preset.settings };
            assert_eq!(settings, recommended, "{}", preset.name);
        }
    }
}
