//! Pairs of images that share the factors of an instruction's task.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

use super::draws::{below, chance, pick};
use super::{Attribute, InstructTask, Named, Scene, Split, Variation, Wording};

/// Training example for adapters: `condition`, `text` and `instruction` are the inputs, `target` the output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Task of the instruction: what to use from the condition image.
    pub task: InstructTask,
    /// The condition image (image prompt).
    pub condition: (Scene, Variation),
    /// The target image.
    pub target: (Scene, Variation),
    /// Factors of the target that the text names; none of them needs the condition image.
    pub named: Named,
    /// The text.
    pub text: String,
    /// The instruction.
    pub instruction: String,
}

impl Pair {
    /// Returns the factors that the result should share with the condition image: those of the task, without those named
    /// in the text.
    pub fn asked(&self) -> Named {
        let from = Named::of(&self.condition.0);
        let asked = self.task.shared().iter().filter(|&&attribute| self.named.index_of(attribute).is_none());
        asked.fold(Named::default(), |named, &attribute| named.with(attribute, from.index_of(attribute)))
    }
}

/// Returns pair number `index` of the endless series with this seed, for one task.
///
/// Both scenes belong to the training split; `wordings` selects the split of the instructions. For
/// [`InstructTask::Everything`], the target is the condition with up to three factors changed, which the text
/// names: text overrides the image.
///
/// ```
/// use fabric_world::{InstructTask, Split, pair};
///
/// let pair = pair(1, 0, InstructTask::Colour, Split::Train);
/// assert_eq!(pair.condition.0.colour, pair.target.0.colour);
/// assert_eq!(pair.named.colour, None);
/// ```
pub fn pair(seed: u64, index: u64, task: InstructTask, wordings: Split) -> Pair {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    rng.set_stream(index);
    let rng = &mut rng;
    let (condition, target, named) = match task {
        InstructTask::Everything => overridden(rng),
        _ => sharing(task, rng),
    };
    let instructions = task.instructions(wordings, Some(condition.kind));
    let instruction = instructions[below(rng, instructions.len())].clone();
    let wording: Wording = pick(rng);
    let text = if named == Named::default() { String::new() } else { named.caption(wording) };
    Pair {
        task,
        condition: (condition, Variation::random(rng)),
        target: (target, Variation::random(rng)),
        named,
        text,
        instruction,
    }
}

/// Returns a condition and a target that share the factors of a task, and the other factors that the text
/// names.
fn sharing(task: InstructTask, rng: &mut impl Rng) -> (Scene, Scene, Named) {
    loop {
        let target = Scene::random_of(Split::Train, rng);
        let allows_faces = !matches!(task, InstructTask::Style | InstructTask::Object | InstructTask::Texture);
        let fits = |scene: &Scene| match task {
            InstructTask::Face => scene.is_face(),
            _ => allows_faces || !scene.is_face(),
        };
        let condition =
            task.shared().iter().fold(Scene::random(rng), |scene, &attribute| scene.taking(attribute, &target));
        if fits(&target) && fits(&condition) && is_shown(&condition) {
            let named = Named::some_of(&target, rng);
            let named = task.shared().iter().fold(named, |named, &attribute| named.with(attribute, None));
            return (condition, target, named);
        }
    }
}

/// Returns a condition, a target with some factors changed, and the changed factors for the text.
fn overridden(rng: &mut impl Rng) -> (Scene, Scene, Named) {
    const FREE: [Attribute; 7] = [
        Attribute::Kind,
        Attribute::Colour,
        Attribute::Texture,
        Attribute::Size,
        Attribute::Position,
        Attribute::BackgroundColour,
        Attribute::BackgroundPattern,
    ];
    loop {
        let condition = Scene::random_of(Split::Train, rng);
        let changes = if chance(rng, 0.4) { 0 } else { 1 + below(rng, 3) };
        let other = Scene::random(rng);
        let mut named = Named::default();
        let mut target = condition;
        for _ in 0..changes {
            let attribute = FREE[below(rng, FREE.len())];
            target = target.taking(attribute, &other);
            named = named.with(attribute, Named::of(&target).index_of(attribute));
        }
        // Sometimes the text also names unchanged factors.
        let said = Named::some_of(&target, rng);
        for attribute in FREE {
            if chance(rng, 0.15) && named.index_of(attribute).is_none() {
                named = named.with(attribute, said.index_of(attribute));
            }
        }
        // Both must be faces or neither: faces have no texture, and other things no identity.
        let is_alike = condition.is_face() == target.is_face();
        if is_alike && is_shown(&target) && named.is_true_of(&target) {
            return (condition, target, named);
        }
    }
}

/// Whether a scene is valid and belongs to the training split.
pub(super) fn is_shown(scene: &Scene) -> bool {
    scene.is_valid() && !scene.is_held_out()
}

impl Scene {
    /// Copies one factor from another scene.
    ///
    /// The result may be [invalid](Scene::is_valid), for example a face with a texture.
    #[must_use]
    pub fn taking(mut self, attribute: Attribute, from: &Self) -> Self {
        match attribute {
            Attribute::Kind => self.kind = from.kind,
            Attribute::Colour => self.colour = from.colour,
            Attribute::Texture => self.texture = from.texture,
            Attribute::Size => self.size = from.size,
            Attribute::Position => self.position = from.position,
            Attribute::BackgroundColour => self.background.colour = from.background.colour,
            Attribute::BackgroundPattern => self.background.pattern = from.background.pattern,
            Attribute::Eyes => self.identity.eyes = from.identity.eyes,
            Attribute::Brows => self.identity.brows = from.identity.brows,
            Attribute::Mouth => self.identity.mouth = from.identity.mouth,
            Attribute::Hair => self.identity.hair = from.identity.hair,
            Attribute::Skin => self.identity.skin = from.identity.skin,
            Attribute::Glasses => self.identity.glasses = from.identity.glasses,
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Factor;

    #[test]
    fn pairs_share_what_the_task_asks_for() {
        for (task, index) in InstructTask::ALL.into_iter().flat_map(|task| (0..300).map(move |index| (task, index))) {
            let pair = pair(3, index, task, Split::Train);
            let [condition, target] = [&pair.condition.0, &pair.target.0];
            assert!(is_shown(condition) && is_shown(target), "{pair:?}");
            assert!(pair.named.is_true_of(target), "{pair:?}");
            let [from, made] = [condition, target].map(Named::of);
            for &attribute in task.shared() {
                let is_named = pair.named.index_of(attribute).is_some();
                let is_same = from.index_of(attribute) == made.index_of(attribute);
                assert!(is_same || task == InstructTask::Everything && is_named, "{attribute}: {pair:?}");
                assert!(task == InstructTask::Everything || !is_named, "{attribute}: {pair:?}");
            }
        }
    }

    #[test]
    fn other_factors_are_independent() {
        // With nine colours, one in nine agrees by chance, apart from colours that backgrounds exclude.
        let count = 900;
        let same = |task, of: fn(&Scene) -> usize| {
            let pairs = (0..count).map(|index| pair(4, index, task, Split::Train));
            pairs.filter(|pair| of(&pair.condition.0) == of(&pair.target.0)).count() as f64 / count as f64
        };
        let colour = same(InstructTask::Composition, |scene| scene.colour.index());
        let kind = same(InstructTask::Background, |scene| scene.kind.index());
        assert!((0.06..0.18).contains(&colour) && (0.04..0.14).contains(&kind), "{colour} {kind}");
    }

    #[test]
    fn held_out_instructions_are_never_shown() {
        for task in InstructTask::ALL {
            let [shown, held_out] = Split::ALL.map(|split| task.instructions(split, Some(super::super::Kind::Star)));
            assert!(held_out.iter().all(|instruction| !shown.contains(instruction)), "{task}");
        }
    }
}
