//! The settings of a run, as its report lists them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::store::flatten;

/// Values by their paths in the configuration.
type Fields = BTreeMap<String, Value>;

/// Returns the settings with their names: those of the run, those that all arms share, and those of each arm in which
/// the arms differ.
pub(crate) fn run_settings(config: &Value) -> Vec<(String, String)> {
    let mut run = config.clone();
    // Each arm has its own.
    if let Some(settings) = run.get_mut("settings").and_then(Value::as_object_mut) {
        settings.remove("fabric");
    }
    let experiment = run.get_mut("experiment").and_then(Value::as_object_mut);
    let arms = experiment.and_then(|experiment| experiment.remove("arms"));
    let arms: Vec<(String, Fields)> = arms.as_ref().and_then(Value::as_array).into_iter().flatten().map(arm).collect();

    let mut listed: Vec<(String, String)> =
        fields(&run).into_iter().map(|(name, value)| (name, shown(&value))).collect();
    let is_shared = |name: &String, value: &Value| arms.iter().all(|(_, fields)| fields.get(name) == Some(value));
    if let Some((_, first)) = arms.first() {
        for (name, value) in first {
            if is_shared(name, value) {
                listed.push((format!("all arms: {name}"), shown(value)));
            }
        }
    }
    for (arm, fields) in &arms {
        for (name, value) in fields {
            if !is_shared(name, value) {
                listed.push((format!("{arm}: {name}"), shown(value)));
            }
        }
    }
    listed
}

/// Returns the name of an arm, and its settings.
fn arm(arm: &Value) -> (String, Fields) {
    let mut fields = fields(arm);
    let name = fields.remove("name").as_ref().map(shown).unwrap_or_default();
    (name, fields)
}

fn fields(value: &Value) -> Fields {
    let mut fields = Fields::new();
    flatten("", value, &mut fields);
    fields
}

/// Returns a value as text, without the quotes of a text.
pub(crate) fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shared_settings_are_listed_once_and_arms_by_their_differences() {
        let config = json!({
            "experiment": { "name": "window", "arms": [
                { "name": "early", "likes": true, "fabric": { "start": 0.0, "end": 0.5, "noise": "fixed" } },
                { "name": "late", "likes": true, "fabric": { "start": 0.5, "end": 0.5, "noise": "fixed" } },
            ] },
            "settings": { "steps": 20, "prompt_dropout": 0.1, "fabric": { "start": 0.9 } },
        });
        let listed = run_settings(&config);
        let expected = [
            ("experiment.name", "window"),
            ("settings.prompt_dropout", "0.1"),
            ("settings.steps", "20"),
            ("all arms: fabric.end", "0.5"),
            ("all arms: fabric.noise", "fixed"),
            ("all arms: likes", "true"),
            ("early: fabric.start", "0.0"),
            ("late: fabric.start", "0.5"),
        ];
        assert_eq!(listed, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_configuration_without_arms_is_listed() {
        assert_eq!(run_settings(&json!({ "seed": 1 })), [("seed".to_owned(), "1".to_owned())]);
    }
}
