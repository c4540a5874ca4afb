//! The arms of the experiment `reasons`.

use std::collections::BTreeMap;

use fabric::core::AspectKind;
use fabric::core::fabric::ReferenceScope;
use fabric::core::pipeline::{ReasonSettings, Window};
use serde_json::Value;

use super::unet_blocks::{Part, UNetBlocks};
use super::{ArmReasons, DislikedImages, GivenReasons, ReasonAdapter};
use crate::Arm;

/// Returns the arms for a U-Net with these blocks: the control, plain votes, and votes with reasons that act through
/// adapters, references or both.
pub(crate) fn arms(control: &Arm, blocks: &UNetBlocks) -> Vec<Arm> {
    let plain = Arm { name: "plain votes".to_owned(), likes: true, dislikes: true, ..control.clone() };
    let arm = |name: &str, reasons: &ArmReasons| Arm {
        name: name.to_owned(),
        reasons: Some(reasons.clone()),
        ..plain.clone()
    };
    let with = |settings: ReasonSettings, arm: Arm| Arm { generation: generation(&settings), ..arm };

    let adapter = Some(ReasonAdapter::Instruct);
    let instruct = ArmReasons {
        given: GivenReasons::Factors,
        adapter,
        plain_votes: false,
        likes_any_image: false,
        disliked: DislikedImages::Worst,
        names_in_prompt: false,
    };
    let words = ArmReasons { given: GivenReasons::Words, ..instruct.clone() };
    let aspects = ArmReasons { given: GivenReasons::Aspects, ..instruct.clone() };
    let any = ArmReasons { likes_any_image: true, ..instruct.clone() };
    let against = |disliked: DislikedImages, reasons: &ArmReasons| ArmReasons { disliked, ..reasons.clone() };
    let against_best = |reasons: &ArmReasons| against(DislikedImages::BestAndWorst, reasons);
    let in_prompt = ArmReasons { names_in_prompt: true, adapter: None, ..any.clone() };
    let both = ArmReasons { plain_votes: true, ..instruct.clone() };
    let without_adapter = ArmReasons { adapter: None, ..aspects.clone() };
    let adapter = Some(ReasonAdapter::Plain { layers: layers(blocks) });
    let by_layers = ArmReasons { adapter, ..aspects.clone() };

    let whole = ReasonSettings::default();
    let half = ReasonSettings {
        scale: whole.scale / 2.0,
        away_scale: whole.away_scale / 2.0,
        most_per_aspect: whole.most_per_aspect / 2.0,
        ..whole
    };
    let newest = |count| ReasonSettings { newest_per_aspect: Some(count), ..ReasonSettings::default() };
    let restricted = ReasonSettings { references: references(blocks), ..ReasonSettings::default() };
    vec![
        control.clone(),
        plain.clone(),
        arm("reasons", &instruct),
        with(half, arm("reasons, half the scales", &instruct)),
        Arm { dislikes: false, ..arm("reasons, likes only", &instruct) },
        arm("reasons for and against the best image", &against_best(&instruct)),
        arm("reasons for any image", &any),
        arm("reasons for any image, and against the best", &against_best(&any)),
        arm("reasons for and against any image", &against(DislikedImages::All, &any)),
        Arm { dislikes: false, ..arm("right factors of any image named in the prompt", &in_prompt) },
        with(newest(1), arm("reasons for any image, newest of each", &any)),
        with(newest(2), arm("reasons for any image, two newest of each", &any)),
        arm("reasons in words", &words),
        arm("reasons by aspects", &aspects),
        arm("reasons and plain votes", &both),
        with(restricted.clone(), arm("aspects, restricted references", &aspects)),
        with(restricted, arm("restricted references only", &without_adapter)),
        arm("aspects, plain adapter", &by_layers),
    ]
}

/// Returns the changes of the settings of generation that set those of reasons.
fn generation(reasons: &ReasonSettings) -> BTreeMap<String, Value> {
    [("reasons".to_owned(), serde_json::to_value(reasons).expect("settings are plain data"))].into()
}

/// Returns the references that votes become, restricted to a part of the run and of the U-Net: an image is arranged in
/// the first steps and the coarse layers, and texture and colour are in the fine ones.
fn references(blocks: &UNetBlocks) -> BTreeMap<AspectKind, ReferenceScope> {
    let window = Window::new(0.0, 0.4).expect("two shares in order");
    let coarse = ReferenceScope { window, blocks: blocks.weights(Part::Coarse), ..ReferenceScope::default() };
    let fine = ReferenceScope { blocks: blocks.weights(Part::Fine), ..ReferenceScope::default() };
    [(AspectKind::Composition, coarse), (AspectKind::Style, fine.clone()), (AspectKind::Colour, fine)].into()
}

/// Returns the layers through which a plain adapter takes each aspect: chosen by the resolution at which the aspect is
/// visible, not by measurement.
fn layers(blocks: &UNetBlocks) -> BTreeMap<AspectKind, Value> {
    let [coarse, fine] = [Part::Coarse, Part::Fine].map(|part| blocks.scales(part));
    [
        (AspectKind::Style, fine.clone()),
        (AspectKind::Colour, fine.clone()),
        (AspectKind::Background, fine),
        (AspectKind::Composition, coarse.clone()),
        (AspectKind::Object, coarse),
    ]
    .into()
}

#[cfg(test)]
mod tests {
    use fabric::core::pipeline::Settings;
    use fabric_world::InstructTask;
    use serde_json::json;

    use super::*;
    use crate::Experiment;

    fn all() -> Vec<Arm> {
        Experiment::named("reasons", &BTreeMap::new()).expect("an experiment").arms
    }

    fn named(name: &str) -> Arm {
        all().into_iter().find(|arm| arm.name == name).expect(name)
    }

    /// Returns the settings of reasons of an arm.
    fn settings(arm: &Arm) -> ReasonSettings {
        arm.settings(&Settings::default()).expect("settings").reasons
    }

    #[test]
    fn arms_are_data_that_survives_json() {
        for arm in all() {
            let written = serde_json::to_string(&arm).expect("plain data");
            assert_eq!(serde_json::from_str::<Arm>(&written).expect(&written), arm);
            assert_eq!(written.contains(r#""reasons":{"given""#), arm.reasons.is_some(), "{written}");
        }
        let unknown = json!({ "given": "aspects", "adapters": "instruct" });
        assert!(serde_json::from_value::<ArmReasons>(unknown).is_err(), "unknown fields are refused");
    }

    #[test]
    fn each_arm_differs_from_the_one_with_reasons_as_its_name_says() {
        let reasons = named("reasons");
        assert_eq!(settings(&reasons), ReasonSettings::default());
        assert_eq!(reasons.adapter(), Some(&ReasonAdapter::Instruct));
        assert!(reasons.likes && reasons.dislikes && !reasons.has_plain_votes());
        let half = settings(&named("reasons, half the scales"));
        assert_eq!((half.scale, half.away_scale, half.most_per_aspect), (0.5, 0.5, 0.5));
        let likes = named("reasons, likes only");
        assert!(likes.likes && !likes.dislikes && likes.reasons == reasons.reasons);
        let words = named("reasons in words").reasons.expect("reasons");
        assert_eq!(words.given, GivenReasons::Words);
        let both = named("reasons and plain votes");
        assert!(both.has_plain_votes() && both.adapter() == reasons.adapter());
        let any = named("reasons for any image").reasons.expect("reasons");
        assert!(any.likes_any_image && any.given == GivenReasons::Factors);
        let against = named("reasons for any image, and against the best").reasons.expect("reasons");
        assert_eq!(against, ArmReasons { disliked: DislikedImages::BestAndWorst, ..any.clone() });
        let against = named("reasons for and against any image").reasons.expect("reasons");
        assert_eq!(against, ArmReasons { disliked: DislikedImages::All, ..any.clone() });
        let in_prompt = named("right factors of any image named in the prompt");
        assert!(in_prompt.adapter().is_none() && in_prompt.likes && !in_prompt.dislikes);
        assert!(in_prompt.reasons.is_some_and(|reasons| reasons.names_in_prompt && reasons.likes_any_image));
        let by_aspects = named("reasons by aspects");
        assert_eq!(by_aspects.reasons.as_ref().map(|one| one.given), Some(GivenReasons::Aspects));
        let [with, without] = ["aspects, restricted references", "restricted references only"].map(named);
        assert_eq!((settings(&with), with.reasons.clone()), (settings(&without), by_aspects.reasons));
        assert!(!settings(&with).references.is_empty() && without.adapter().is_none());
        let plain = named("plain votes");
        assert!(plain.likes && plain.dislikes && plain.has_plain_votes() && plain.generation.is_empty());
    }

    #[test]
    fn restricted_references_fit_the_u_net_and_leave_the_last_steps_of_a_composition_free() {
        let references = settings(&named("restricted references only")).references;
        let kinds: Vec<AspectKind> = references.keys().copied().collect();
        assert_eq!(kinds, [AspectKind::Style, AspectKind::Colour, AspectKind::Composition]);
        for scope in references.values() {
            assert_eq!((scope.blocks.down.len(), scope.blocks.up.len()), (2, 2), "{scope:?}");
        }
        let (composition, style) = (&references[&AspectKind::Composition], &references[&AspectKind::Style]);
        assert_eq!(composition.window, Window::new(0.0, 0.4).expect("a window"));
        assert_eq!((composition.blocks.mid, style.blocks.mid), (1.0, 0.0));
        assert_eq!((style.window, style), (Window::default(), &references[&AspectKind::Colour]));
    }

    #[test]
    fn the_plain_adapter_has_layers_for_every_aspect_that_a_person_names() {
        let arm = named("aspects, plain adapter");
        let Some(ReasonAdapter::Plain { layers }) = arm.adapter() else { panic!("{:?}", arm.adapter()) };
        // Scenes of the experiments have no faces, and nobody gives everything as a reason.
        let left_out = [InstructTask::Everything, InstructTask::Face];
        let named = InstructTask::ALL.into_iter().filter(|task| !left_out.contains(task));
        let named: Vec<AspectKind> =
            named.map(|task| task.aspect().kind()).filter(|kind| *kind != AspectKind::Words).collect();
        assert!(named.len() == layers.len() && named.iter().all(|kind| layers.contains_key(kind)), "{layers:?}");
        assert_ne!(layers[&AspectKind::Style], layers[&AspectKind::Composition]);
    }
}
