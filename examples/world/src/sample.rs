//! Endless series of examples, each determined by a seed and an index.

use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

use super::{Caption, Scene, Split, Variation, caption};

/// Example for training or testing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The scene.
    pub scene: Scene,
    /// The variation of the scene.
    pub variation: Variation,
    /// The caption.
    pub caption: Caption,
}

/// Returns example number `index` of the endless series with this seed.
///
/// Each example has its own random stream, so worker threads can draw examples in any order. The scene belongs
/// to the given split; `None` allows both splits.
///
/// ```
/// use fabric_world::{SIDE, Split, sample};
///
/// let example = sample(1, 7, Split::Train);
/// assert_eq!(sample(1, 7, Split::Train), example);
/// assert!(!example.scene.is_held_out());
/// assert!(example.caption.named.is_true_of(&example.scene));
/// let rgb = example.scene.render(&example.variation, SIDE)?;
/// # assert_eq!(rgb.len(), 12_288);
/// # Ok::<(), fabric_world::WorldError>(())
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
