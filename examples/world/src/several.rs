//! Examples with several image prompts, each of which gives another part of the target.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

use super::draws::{below, chance, pick};
use super::pair::is_shown;
use super::{Attribute, InstructTask, Named, Scene, Split, Variation, Wording};

/// Image prompt of [`SeveralPrompts`], with its instruction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstructedImage {
    /// Task of the instruction: what to use from the image.
    pub task: InstructTask,
    /// The image.
    pub image: (Scene, Variation),
    /// The instruction.
    pub instruction: String,
}

/// Training example with several image prompts: the target shares with each of them the factors of its task, and no
/// factor is asked of two. The text names factors that none is asked for; where every factor is asked of an image, it may
/// name the kind, too, as the prompt of a feedback session does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeveralPrompts {
    /// The image prompts.
    pub prompts: Vec<InstructedImage>,
    /// The target image.
    pub target: (Scene, Variation),
    /// Factors of the target that the text names.
    pub named: Named,
    /// The text.
    pub text: String,
}

/// Tasks of which a target can take several, for things and for faces.
const TASKS: [InstructTask; 9] = [
    InstructTask::Style,
    InstructTask::Colour,
    InstructTask::Composition,
    InstructTask::Background,
    InstructTask::Texture,
    InstructTask::Size,
    InstructTask::Position,
    InstructTask::BackgroundColour,
    InstructTask::BackgroundPattern,
];

/// Largest number of image prompts of an example: one for each factor of a thing.
pub const MOST_PROMPTS: usize = 7;

/// Number of tasks without a common factor that are found in any random order; more need tasks of a single factor.
const ALWAYS_POSSIBLE: usize = 4;

impl SeveralPrompts {
    /// Returns the factors that the first `prompts` image prompts are asked for.
    pub fn asked(&self, prompts: usize) -> Named {
        let from = Named::of(&self.target.0);
        let asked = self.prompts.iter().take(prompts).flat_map(|prompt| prompt.task.shared());
        asked.fold(Named::default(), |named, &attribute| named.with(attribute, from.index_of(attribute)))
    }
}

/// Returns example number `index` of the endless series with this seed. All scenes belong to the training split;
/// `wordings` selects the split of the instructions.
///
/// ```
/// use fabric_world::{Split, several_prompts};
///
/// let example = several_prompts(1, 0, 3, Split::Train);
/// assert_eq!(example.prompts.len(), 3);
/// assert!(example.asked(3).is_true_of(&example.target.0));
/// ```
///
/// # Panics
///
/// Panics if more than [`MOST_PROMPTS`] image prompts are asked for: a thing has no more factors.
pub fn several_prompts(seed: u64, index: u64, prompts: usize, wordings: Split) -> SeveralPrompts {
    assert!(prompts <= MOST_PROMPTS, "several_prompts: {prompts} image prompts, at most {MOST_PROMPTS} are possible");
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    rng.set_stream(index);
    let rng = &mut rng;
    loop {
        let target = Scene::random_of(Split::Train, rng);
        let tasks = tasks(&target, prompts > ALWAYS_POSSIBLE, rng);
        if tasks.len() < prompts {
            continue;
        }
        let prompts: Vec<InstructedImage> =
            tasks.into_iter().take(prompts).map(|task| instructed(task, &target, wordings, rng)).collect();
        let asked = prompts.iter().flat_map(|prompt| prompt.task.shared());
        let named = asked.fold(Named::some_of(&target, rng), |named, &attribute| named.with(attribute, None));
        let says_kind = prompts.len() > ALWAYS_POSSIBLE && chance(rng, 0.5);
        let named = if says_kind { Named { kind: Some(target.kind), ..named } } else { named };
        let wording: Wording = pick(rng);
        let text = if named == Named::default() { String::new() } else { named.caption(wording) };
        return SeveralPrompts { prompts, target: (target, Variation::random(rng)), named, text };
    }
}

/// Returns tasks in random order, of which no two have a factor in common; on request only tasks of a single factor.
fn tasks(target: &Scene, only_single: bool, rng: &mut impl Rng) -> Vec<InstructTask> {
    let mut all: Vec<InstructTask> = TASKS.to_vec();
    all.push(if target.is_face() { InstructTask::Face } else { InstructTask::Object });
    all.retain(|task| !only_single || task.shared().len() == 1);
    if target.is_face() {
        all.retain(|task| !task.shared().contains(&Attribute::Texture));
    }
    all.shuffle(rng);
    let mut taken: Vec<Attribute> = Vec::new();
    all.retain(|task| {
        let is_free = task.shared().iter().all(|attribute| !taken.contains(attribute));
        if is_free {
            taken.extend(task.shared());
        }
        is_free
    });
    all
}

/// Returns an image that shares with the target the factors of a task, and its instruction.
fn instructed(task: InstructTask, target: &Scene, wordings: Split, rng: &mut impl Rng) -> InstructedImage {
    let scene = loop {
        let scene = task.shared().iter().fold(Scene::random(rng), |scene, &attribute| scene.taking(attribute, target));
        // Faces have no texture.
        let has_all = !scene.is_face() || !task.shared().contains(&Attribute::Texture);
        if is_shown(&scene) && has_all {
            break scene;
        }
    };
    let instructions = task.instructions(wordings, Some(scene.kind));
    let instruction = instructions[below(rng, instructions.len())].clone();
    InstructedImage { task, image: (scene, Variation::random(rng)), instruction }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_prompt_gives_other_factors_and_the_text_none_of_them() {
        let mut seen = HashSet::new();
        for index in 0..500 {
            let example = several_prompts(5, index, ALWAYS_POSSIBLE, Split::Train);
            check(&example, &mut seen);
            assert!(example.asked(4).attributes().all(|asked| example.named.index_of(asked).is_none()), "{example:?}");
        }
        assert_eq!(seen.len(), TASKS.len() + 2, "all tasks but everything: {seen:?}");
    }

    #[test]
    fn each_factor_of_a_thing_can_come_from_an_image_of_its_own() {
        let (mut seen, mut texts_with_a_kind) = (HashSet::new(), 0);
        for index in 0..100 {
            let example = several_prompts(6, index, MOST_PROMPTS, Split::Train);
            check(&example, &mut seen);
            let kind = Named { kind: example.named.kind, ..Named::default() };
            assert_eq!(example.named, kind, "nothing else is left for the text: {example:?}");
            texts_with_a_kind += usize::from(kind.kind.is_some());
        }
        assert_eq!(seen.len(), MOST_PROMPTS, "{seen:?}");
        assert!((30..70).contains(&texts_with_a_kind), "{texts_with_a_kind}");
    }

    fn check(example: &SeveralPrompts, seen: &mut HashSet<InstructTask>) {
        let (target, named) = (example.target.0, example.named);
        assert!(is_shown(&target) && named.is_true_of(&target), "{example:?}");
        let mut asked = HashSet::new();
        for prompt in &example.prompts {
            seen.insert(prompt.task);
            let [from, made] = [&prompt.image.0, &target].map(Named::of);
            assert!(is_shown(&prompt.image.0), "{example:?}");
            for &attribute in prompt.task.shared() {
                assert!(asked.insert(attribute), "{attribute} is asked of one image: {example:?}");
                assert_eq!(from.index_of(attribute), made.index_of(attribute), "{attribute}: {example:?}");
                let is_said = named.index_of(attribute).is_some();
                assert!(!is_said || attribute == Attribute::Kind, "{attribute}: {example:?}");
            }
        }
        assert_eq!(example.asked(example.prompts.len()).attributes().count(), asked.len(), "{example:?}");
        assert!(example.asked(1).attributes().count() < asked.len(), "{example:?}");
    }
}
