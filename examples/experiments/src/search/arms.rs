//! The arms of the experiment `search`.

use fabric::core::fabric::FabricSettings;
use fabric::core::pipeline::SearchedSettings;
use fabric::core::search::Dimension;

use super::{ArmSearch, SearchFeedback};
use crate::Arm;

/// Returns the control, each published preset of FABRIC, and a search for each kind of feedback.
pub(crate) fn arms(control: &Arm) -> Vec<Arm> {
    let both = Arm { likes: true, dislikes: true, ..control.clone() };
    let preset = |(name, fabric): (&str, FabricSettings)| {
        let name = format!("preset {name}");
        Arm { name, fabric, ..both.clone() }
    };
    let search = |name: &str, learns_from: SearchFeedback| Arm {
        name: name.to_owned(),
        search: Some(ArmSearch { learns_from, searched: searched() }),
        ..both.clone()
    };
    let searches = [search("search, scores", SearchFeedback::Scores), search("search, likes", SearchFeedback::Likes)];
    std::iter::once(control.clone()).chain(presets().map(preset)).chain(searches).collect()
}

/// Returns all presets of [`FabricSettings`] with their names.
fn presets() -> [(&'static str, FabricSettings); 8] {
    [
        ("official_api", FabricSettings::official_api()),
        ("paper_preference", FabricSettings::paper_preference()),
        ("paper_target", FabricSettings::paper_target()),
        ("official_configs", FabricSettings::official_configs()),
        ("official_demo", FabricSettings::official_demo()),
        ("diffusers", FabricSettings::diffusers()),
        ("web_ui", FabricSettings::web_ui()),
        ("comfy_ui", FabricSettings::comfy_ui()),
    ]
}

/// Returns the searched settings: the weight and its window, in ranges that contain the values of all presets. There
/// are three, because a session has few images to learn from. The weight outside of the window and the factor on
/// disliked images, in which presets differ too, stay as the arm has them.
fn searched() -> SearchedSettings {
    SearchedSettings::new([
        Dimension::linear("fabric.max_weight", 0.0, 1.0),
        Dimension::linear("fabric.start", 0.0, 0.4),
        Dimension::linear("fabric.end", 0.5, 1.0),
    ])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fabric::core::pipeline::{Request, Settings, SettingsSearch};

    use super::*;
    use crate::Experiment;

    fn all() -> Vec<Arm> {
        Experiment::named("search", &BTreeMap::new()).expect("an experiment").arms
    }

    #[test]
    fn arms_are_data_that_survives_json_and_differ_in_their_settings() {
        let arms = all();
        for arm in &arms {
            let written = serde_json::to_string(arm).expect("plain data");
            assert_eq!(&serde_json::from_str::<Arm>(&written).expect(&written), arm);
            assert_eq!(written.contains(r#""search":{"learns_from""#), arm.search.is_some(), "{written}");
            let same = |other: &&Arm| Arm { name: arm.name.clone(), ..(*other).clone() } == *arm;
            assert_eq!(arms.iter().filter(same).count(), 1, "{}", arm.name);
        }
        let is_preset = |arm: &&Arm| arm.likes && arm.dislikes && arm.search.is_none();
        assert_eq!(arms.iter().filter(is_preset).count(), presets().len());
    }

    #[test]
    fn the_ranges_contain_all_presets_and_can_be_searched() {
        for arm in all().iter().filter(|arm| arm.search.is_some()) {
            let search = arm.search.as_ref().expect("a search");
            let base = Request::new("a star").with_settings(arm.settings(&Settings::default()).expect("settings"));
            SettingsSearch::new(&base, search.searched.clone(), 0).expect("ranges of settings");
            for (name, preset) in presets() {
                let fields = serde_json::to_value(preset).expect("plain data");
                for Dimension { name: setting, low, high, .. } in &search.searched.settings {
                    let field = setting.strip_prefix("fabric.").expect("a setting of FABRIC");
                    let value = fields[field].as_f64().expect("a number");
                    assert!((*low..=*high).contains(&value), "{name}: {setting} = {value}");
                }
            }
        }
    }
}
