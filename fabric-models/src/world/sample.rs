//! Any number of examples, each found by its number alone.

use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

use super::{Caption, Scene, Split, Variation, caption};

/// An example to learn from, or to be tested with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// What is shown.
    pub scene: Scene,
    /// How it happens to look.
    pub variation: Variation,
    /// What is said about it.
    pub caption: Caption,
}

/// Example number `index` of the endless series that `seed` names, with a random stream of its own.
///
/// Its scene is of one split, or with `None` any. Worker threads can draw examples in any order, and example 7 stays
/// example 7.
///
/// ```
/// use fabric_models::world::{SIDE, Split, sample};
///
/// let example = sample(1, 7, Split::Train);
/// assert_eq!(sample(1, 7, Split::Train), example);
/// assert!(!example.scene.is_held_out());
/// assert!(example.caption.named.is_true_of(&example.scene));
/// let rgb = example.scene.render(&example.variation, SIDE)?;
/// # assert_eq!(rgb.len(), 12_288);
/// # Ok::<(), fabric_models::world::WorldError>(())
/// ```
pub fn sample(seed: u64, index: u64, split: impl Into<Option<Split>>) -> Sample {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    rng.set_stream(index);
    let scene = match split.into() {
        Some(split) => Scene::random_of(split, &mut rng),
        None => Scene::random(&mut rng),
    };
    let variation = Variation::random(&mut rng);
    let caption = caption(&scene, &mut rng);
    Sample { scene, variation, caption }
}
