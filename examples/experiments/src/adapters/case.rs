//! Cases of the experiments of adapters: condition images with texts and instructions, and what images should show.

use fabric::core::image::Image;
use fabric_world::{Attribute, Factor, InstructTask, Kind, Named, Pair, SIDE, Scene, Split, Variation, pair};

use super::AdapterCases;
use crate::ExperimentError;
use crate::small_world::scene;

/// Seed of the pairs; training and the evaluation of networks use others.
const SEED: u64 = 990_022;

/// A condition image with a text, and with an instruction for Instruct.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct AdapterCase {
    /// Index among the cases.
    pub(super) index: usize,
    /// Scene and variation of the condition image.
    pub(super) condition: (Scene, Variation),
    /// A scene of which the text is true.
    target: Scene,
    /// Factors that the text names.
    pub(super) named: Named,
    /// The text.
    pub(super) text: String,
    /// The instruction, for Instruct.
    pub(super) instruction: Option<CaseInstruction>,
}

/// Instruction of a case.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CaseInstruction {
    /// Task of the instruction.
    pub(super) task: InstructTask,
    /// Whether training had instructions of this wording.
    pub(super) wordings: Split,
    /// The instruction in words.
    pub(super) words: String,
}

impl AdapterCase {
    /// Returns the case with this index; there is no end of them.
    pub(super) fn new(cases: AdapterCases, index: usize) -> Self {
        match cases {
            AdapterCases::Scenes => Self::of_scene(index),
            AdapterCases::Pairs => Self::of_pair(index),
        }
    }

    /// Returns a scene without a face, with a text that names another kind of thing.
    fn of_scene(index: usize) -> Self {
        let sample = scene(index);
        // The last kind is the face, which has other factors than things.
        let kind = Kind::ALL[(sample.scene.kind.index() + 5) % (Kind::ALL.len() - 1)];
        Self {
            index,
            condition: (sample.scene, sample.variation),
            target: Scene { kind, ..sample.scene },
            named: Named { kind: Some(kind), ..Named::default() },
            text: format!("a {kind}"),
            instruction: None,
        }
    }

    /// Returns a pair. Consecutive cases have all tasks, each with both splits of the wordings.
    fn of_pair(index: usize) -> Self {
        let (number, at) = (index / AdapterCases::Pairs.multiple(), index % AdapterCases::Pairs.multiple());
        let (task, wordings) = (InstructTask::ALL[at / Split::ALL.len()], Split::ALL[at % Split::ALL.len()]);
        let Pair { condition, target, named, text, instruction, .. } = pair(SEED, number as u64, task, wordings);
        let instruction = Some(CaseInstruction { task, wordings, words: instruction });
        Self { index, condition, target: target.0, named, text, instruction }
    }

    /// Draws the condition image.
    pub(super) fn drawn(&self) -> Result<Image, ExperimentError> {
        let (scene, variation) = &self.condition;
        let rgb = scene.render(variation, SIDE).map_err(|error| ExperimentError::Other(error.into()))?;
        let side = SIDE as usize;
        Ok(Image::from_rgb(side, side, rgb).map_err(fabric::core::Error::from)?)
    }

    /// Returns the factors that images are to have from the condition: those that the task shares, or without an
    /// instruction all, but for those that the text names.
    pub(super) fn asked(&self) -> Named {
        let task = self.instruction.as_ref().map_or(InstructTask::Everything, |instruction| instruction.task);
        let from = Named::of(&self.condition.0);
        let asked = task.shared().iter().filter(|&&attribute| self.named.index_of(attribute).is_none());
        asked.fold(Named::default(), |asked, &attribute| asked.with(attribute, from.index_of(attribute)))
    }

    /// Returns the factors of the condition that an image may show or not, because the text does not determine them.
    ///
    /// The text determines the factors that it names, and those whose value in the condition is impossible beside them:
    /// a star has no eyes, and nothing has the colour of its background.
    pub(super) fn undetermined(&self, uses_text: bool) -> Named {
        let from = Named::of(&self.condition.0);
        let named = if uses_text { self.named } else { Named::default() };
        let taking = |scene: Scene, attribute| scene.taking(attribute, &self.target);
        let mut made = named.attributes().fold(self.condition.0, taking);
        if !named.is_true_of(&made) {
            // The text does not name the kind, but something that this kind does not have, such as a texture of a face.
            made = taking(made, Attribute::Kind);
        }
        let possible = Named::of(&made);
        let has_clash = made.colour.name() == made.background.colour.name();
        let is_undetermined = |&attribute: &Attribute| {
            let is_colour = matches!(attribute, Attribute::Colour | Attribute::BackgroundColour);
            named.index_of(attribute).is_none()
                && possible.index_of(attribute) == from.index_of(attribute)
                && !(has_clash && is_colour)
        };
        let undetermined = from.attributes().filter(is_undetermined);
        undetermined.fold(Named::default(), |kept, attribute| kept.with(attribute, from.index_of(attribute)))
    }
}

/// Returns the share of the expected factors that an image shows, in percent; `None` if none is expected.
pub(super) fn share(expected: &Named, seen: &Named) -> Option<f64> {
    expected.attributes().next().map(|_| 100.0 * expected.agreement(seen))
}

#[cfg(test)]
mod tests {
    use fabric_world::parse_caption;

    use super::*;

    fn pairs() -> impl Iterator<Item = AdapterCase> {
        (0..200 * AdapterCases::Pairs.multiple()).map(|index| AdapterCase::new(AdapterCases::Pairs, index))
    }

    /// Returns a case of Instruct with this condition and this target, whose text names all that `text` names.
    fn case(condition: Scene, target: Scene, text: &str) -> AdapterCase {
        let named = parse_caption(text);
        assert!(named.is_true_of(&target), "{text}");
        let (condition, text) = ((condition, Variation::default()), text.to_owned());
        AdapterCase { index: 0, condition, target, named, text, instruction: None }
    }

    /// Returns the first scene of the pairs' conditions that fits.
    fn found(fits: impl Fn(&Scene) -> bool) -> Scene {
        pairs().map(|case| case.condition.0).find(|scene| fits(scene)).expect("a scene")
    }

    #[test]
    fn consecutive_pairs_have_every_task_with_both_splits_of_the_wordings() {
        let count = AdapterCases::Pairs.multiple();
        let first: Vec<CaseInstruction> = pairs().take(count).filter_map(|case| case.instruction).collect();
        for (task, wordings) in InstructTask::ALL.into_iter().flat_map(|task| Split::ALL.map(|split| (task, split))) {
            let own = first.iter().filter(|one| (one.task, one.wordings) == (task, wordings));
            assert_eq!(own.count(), 1, "{task}, {wordings}");
        }
        let [one, other] = [3, count + 3].map(|index| AdapterCase::new(AdapterCases::Pairs, index));
        let kind = |case: &AdapterCase| case.instruction.as_ref().map(|one| (one.task, one.wordings));
        assert_eq!(kind(&one), kind(&other));
        assert_ne!(one.condition, other.condition);
    }

    #[test]
    fn the_text_of_a_scene_names_another_kind_and_every_other_factor_is_asked_for() {
        for index in 0..50 {
            let case = AdapterCase::new(AdapterCases::Scenes, index);
            let from = Named::of(&case.condition.0);
            assert_eq!(parse_caption(&case.text), case.named);
            assert!(case.named.kind.is_some() && case.named.kind != from.kind && case.named.kind != Some(Kind::Face));
            assert_eq!(case.asked(), Named { kind: None, ..from });
            assert_eq!(case.undetermined(true), case.asked());
            assert_eq!(case.undetermined(false), from);
        }
    }

    #[test]
    fn asked_factors_are_undetermined_and_named_ones_are_not() {
        for case in pairs() {
            let (asked, undetermined) = (case.asked(), case.undetermined(true));
            for attribute in asked.attributes() {
                assert_eq!(undetermined.index_of(attribute), asked.index_of(attribute), "{attribute}: {case:?}");
            }
            assert!(case.named.attributes().all(|attribute| undetermined.index_of(attribute).is_none()), "{case:?}");
            let from = Named::of(&case.condition.0);
            assert!(undetermined.attributes().all(|one| undetermined.index_of(one) == from.index_of(one)), "{case:?}");
        }
        let counts_more = pairs().filter(|case| case.undetermined(true) != case.asked()).count();
        assert!(counts_more > 100, "factors that were not asked for are counted too: {counts_more}");
    }

    #[test]
    fn factors_that_the_text_makes_impossible_are_determined() {
        let face = found(|scene| scene.is_face() && scene.colour.name() == "red");
        let star = found(|scene| scene.kind == Kind::Star && scene.background.colour.name() == "red");
        // A star has no eyes, and none of the colour of its background.
        let left = case(face, star, "a star on red").undetermined(true);
        assert_eq!((left.kind, left.eyes, left.glasses, left.colour), (None, None, None, None));
        assert_eq!((left.size, left.background_pattern), (Some(face.size), Some(face.background.pattern)));
        // Without a text, everything may be as in the condition.
        assert_eq!(case(face, star, "a star on red").undetermined(false), Named::of(&face));
        // Nothing with a texture is a face.
        let texture = star.texture.name();
        let left = case(face, star, &format!("a {texture} thing")).undetermined(true);
        assert_eq!((left.kind, left.mouth, left.colour), (None, None, Some(face.colour)), "{texture}");
        // A face has no texture.
        let left = case(star, face, "a face").undetermined(true);
        assert_eq!((left.kind, left.texture, left.size), (None, None, Some(star.size)));
    }

    #[test]
    fn shares_count_the_expected_factors_alone() {
        let expected = parse_caption("a large red star");
        let share = |seen: &str| share(&expected, &parse_caption(seen));
        assert_eq!(share("a large red star on blue"), Some(100.0));
        assert!(share("a large blue star").is_some_and(|got| (got - 200.0 / 3.0).abs() < 1e-9));
        assert_eq!(share("a heart"), Some(0.0));
        assert_eq!(super::share(&Named::default(), &expected), None);
    }
}
