//! Examples with the votes of a feedback session as image prompts.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

use super::draws::{below, chance, pick};
use super::pair::is_shown;
use super::{Attribute, InstructTask, Named, Scene, Split, Variation, Wording};

/// Vote of an example: an image prompt with an instruction for a single factor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstructedVote {
    /// Index of the image among those of the example's series.
    pub image: usize,
    /// Task of the instruction: the factor to use from the image.
    pub task: InstructTask,
    /// The instruction.
    pub instruction: String,
}

/// Training example with the votes of a feedback session: a few images, each with several votes, and several votes for the
/// same factor.
///
/// The first vote for a factor has the target's value. Further ones either all have it, as the images do that a person
/// likes for the same reason, or are any of the example's images, as those that a person dislikes are: the network then
/// learns that the target's value is one of theirs, and guidance away from them leads away from each.
///
/// The images of an example have more in common with one another than with the target, so that what the network takes
/// from them without being asked becomes visible: with another image for each instruction
/// ([`SeveralPrompts`](super::SeveralPrompts)) it averages out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VotesExample {
    /// The votes, from 1 to [`MOST_VOTES`].
    pub votes: Vec<InstructedVote>,
    /// The target image.
    pub target: (Scene, Variation),
    /// Factors of the target that the text names.
    pub named: Named,
    /// The text.
    pub text: String,
}

/// Largest number of votes of an example.
pub const MOST_VOTES: usize = 12;

/// Largest number of images of an example, as a round has.
const MOST_IMAGES: usize = 4;

/// Tasks of a single factor of a thing.
const TASKS: [InstructTask; 7] = [
    InstructTask::Object,
    InstructTask::Colour,
    InstructTask::Texture,
    InstructTask::Size,
    InstructTask::Position,
    InstructTask::BackgroundColour,
    InstructTask::BackgroundPattern,
];

/// Returns example number `index` of the endless series with this seed, with votes on images of these scenes.
///
/// The target belongs to the training split; `wordings` selects the split of the instructions.
///
/// ```
/// use fabric_world::{Scene, Split, sample, votes_example};
///
/// let samples = (0..20).map(|index| sample(1, index, Split::Train).scene);
/// let images: Vec<Scene> = samples.filter(|scene| !scene.is_face()).collect();
/// let example = votes_example(1, 0, &images, Split::Train);
/// let first = &example.votes[0];
/// assert!(example.asked(1).is_true_of(&images[first.image]));
/// ```
///
/// # Panics
///
/// Panics if there is no image, or one of a face, which has no texture.
pub fn votes_example(seed: u64, index: u64, images: &[Scene], wordings: Split) -> VotesExample {
    assert!(!images.is_empty() && !images.iter().any(Scene::is_face), "votes_example: expected scenes of things");
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    rng.set_stream(index);
    let rng = &mut rng;
    let (shown, firsts, target) = loop {
        let shown: Vec<usize> = (0..=below(rng, MOST_IMAGES)).map(|_| below(rng, images.len())).collect();
        let mut tasks = TASKS;
        tasks.shuffle(rng);
        let asked = 1 + below(rng, tasks.len());
        let firsts = tasks[..asked].iter().map(|&task| (task, shown[below(rng, shown.len())]));
        let firsts: Vec<(InstructTask, usize)> = firsts.collect();
        let take = |target: Scene, &(task, image): &(InstructTask, usize)| target.taking(factor(task), &images[image]);
        let target = firsts.iter().fold(Scene::random(rng), take);
        if is_shown(&target) && !target.is_face() {
            break (shown, firsts, target);
        }
    };
    let mut more = Vec::new();
    for &(task, first) in &firsts {
        let value = |image: usize| Named::of(&images[image]).index_of(factor(task));
        let alike = || (0..images.len()).filter(|&image| value(image) == value(first)).collect();
        let from: Vec<usize> = if chance(rng, 0.5) { alike() } else { shown.clone() };
        more.extend((0..below(rng, 4)).map(|_| (task, from[below(rng, from.len())])));
    }
    more.shuffle(rng);
    let asked = firsts.iter().map(|(task, _)| factor(*task));
    let free = asked.fold(Named::some_of(&target, rng), |named, asked| named.with(asked, None));
    // The prompt of a session names the thing or little more; the negative prompt, which is that of images to lead away
    // from, is mostly empty.
    let kind = Named { kind: Some(target.kind), ..Named::default() };
    let named = [free, kind, Named::default()][below(rng, 3)];
    let wording: Wording = pick(rng);
    let text = if named == Named::default() { String::new() } else { named.caption(wording) };
    let votes = firsts.into_iter().chain(more).take(MOST_VOTES);
    let votes = votes.map(|(task, image)| {
        let instructions = task.instructions(wordings, Some(images[image].kind));
        InstructedVote { image, task, instruction: instructions[below(rng, instructions.len())].clone() }
    });
    VotesExample { votes: votes.collect(), target: (target, Variation::random(rng)), named, text }
}

impl VotesExample {
    /// Returns the factors of the target that the first `votes` votes are asked for.
    pub fn asked(&self, votes: usize) -> Named {
        let target = Named::of(&self.target.0);
        let asked = self.votes.iter().take(votes).map(|vote| factor(vote.task));
        asked.fold(Named::default(), |named, asked| named.with(asked, target.index_of(asked)))
    }
}

/// Returns the factor of a task of [`TASKS`].
fn factor(task: InstructTask) -> Attribute {
    task.shared()[0]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sample;

    #[test]
    fn votes_are_for_single_factors_of_few_images_and_the_first_has_the_targets_value() {
        let scenes = (0..300).map(|index| sample(3, index, Split::Train).scene);
        let images: Vec<Scene> = scenes.filter(|scene| !scene.is_face()).collect();
        let (mut most, mut alike, mut differing, mut without_text) = (0, 0, 0, 0);
        for index in 0..500 {
            let example = votes_example(7, index, &images, Split::Train);
            let target = example.target.0;
            assert!(is_shown(&target) && example.named.is_true_of(&target), "{example:?}");
            assert!((1..=MOST_VOTES).contains(&example.votes.len()), "{example:?}");
            let (mut asked, mut shown) = (BTreeSet::new(), BTreeSet::new());
            for vote in &example.votes {
                let [asked_of] = vote.task.shared() else { panic!("{:?} has several factors", vote.task) };
                let [from, made] = [&images[vote.image], &target].map(Named::of);
                let is_alike = from.index_of(*asked_of) == made.index_of(*asked_of);
                if asked.insert(asked_of.to_string()) {
                    assert!(is_alike, "the first vote for {asked_of}: {example:?}");
                    shown.insert(vote.image);
                } else if is_alike {
                    alike += 1;
                } else {
                    differing += 1;
                }
            }
            assert!(shown.len() <= MOST_IMAGES, "{example:?}");
            assert_eq!(example.asked(MOST_VOTES).attributes().count(), asked.len());
            most = most.max(example.votes.len());
            without_text += usize::from(example.text.is_empty());
        }
        assert_eq!(most, MOST_VOTES);
        assert!(alike > differing && differing > 300, "{alike} {differing}");
        assert!((150..350).contains(&without_text), "{without_text}");
    }
}
