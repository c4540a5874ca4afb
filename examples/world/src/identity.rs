//! Identity of a face: six factors that other things do not have.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::Factor;
use super::draws::pick;
use super::factor::factor;

factor! {
    /// Eyes of a face.
    Eyes, "eyes", {
        /// Dark dots.
        Round = "round",
        /// White, with pupils.
        Wide = "wide",
        /// Closed lids.
        Closed = "closed",
    }
}

factor! {
    /// Brows of a face.
    Brows, "brows", {
        /// Level.
        Flat = "flat",
        /// Arched, high above the eyes.
        Raised = "raised",
        /// Slanting down towards the nose.
        Angry = "angry",
    }
}

factor! {
    /// Mouth of a face.
    Mouth, "mouth", {
        /// Corners up.
        Smile = "smile",
        /// Corners down.
        Frown = "frown",
        /// An open mouth.
        Open = "open",
    }
}

factor! {
    /// Haircut of a face; its colour is the [`Colour`](super::Colour) of the scene.
    Hair, "hair", {
        /// Short.
        Short = "short",
        /// Down to the shoulders.
        Long = "long",
        /// In spikes.
        Spiky = "spiky",
    }
}

factor! {
    /// Skin of a face.
    Skin, "skin", {
        /// Light.
        Light = "light",
        /// Brown.
        Brown = "brown",
        /// Dark.
        Dark = "dark",
    }
}

factor! {
    /// Whether a face wears glasses.
    Glasses, "glasses", {
        /// No glasses.
        None = "no glasses",
        /// Glasses.
        Worn = "glasses",
    }
}

/// Identity of a face: one of [`Identity::COUNT`].
///
/// All identities look different in every size. In a small face at 64 pixels, however, the brows are only four
/// pixels: evaluate on large faces.
///
/// ```
/// use fabric_world::{Glasses, Identity};
///
/// let identity = Identity { glasses: Glasses::Worn, ..Identity::from_index(84) };
/// assert_eq!(Identity::from_index(identity.index()), identity);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// The eyes.
    pub eyes: Eyes,
    /// The brows.
    pub brows: Brows,
    /// The mouth.
    pub mouth: Mouth,
    /// The haircut.
    pub hair: Hair,
    /// The skin.
    pub skin: Skin,
    /// With or without glasses.
    pub glasses: Glasses,
}

impl Identity {
    /// Number of identities: 3·3·3·3·3·2.
    pub const COUNT: usize = 486;

    /// Returns identity number `index` modulo [`Identity::COUNT`].
    pub fn from_index(index: usize) -> Self {
        let mut rest = index;
        Self {
            glasses: digit(&mut rest),
            skin: digit(&mut rest),
            hair: digit(&mut rest),
            mouth: digit(&mut rest),
            brows: digit(&mut rest),
            eyes: digit(&mut rest),
        }
    }

    /// Returns the number of this identity, below [`Identity::COUNT`].
    pub fn index(&self) -> usize {
        let Self { eyes, brows, mouth, hair, skin, glasses } = *self;
        let triples = [eyes.index(), brows.index(), mouth.index(), hair.index(), skin.index()];
        triples.iter().fold(0, |index, digit| index * 3 + digit) * Glasses::ALL.len() + glasses.index()
    }

    /// Returns a uniformly random identity.
    pub fn random(rng: &mut (impl Rng + ?Sized)) -> Self {
        Self {
            eyes: pick(rng),
            brows: pick(rng),
            mouth: pick(rng),
            hair: pick(rng),
            skin: pick(rng),
            glasses: pick(rng),
        }
    }
}

/// Round eyes, flat brows, a smile, short hair, light skin, no glasses: the identity of all scenes without a
/// face.
impl Default for Identity {
    fn default() -> Self {
        Self::from_index(0)
    }
}

/// Removes the lowest digit of `rest`, in the base of the factor's number of values, and returns its value.
fn digit<F: Factor>(rest: &mut usize) -> F {
    let value = F::VALUES[*rest % F::VALUES.len()];
    *rest /= F::VALUES.len();
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_an_identity_of_its_own() {
        for index in 0..Identity::COUNT {
            assert_eq!(Identity::from_index(index).index(), index);
        }
        assert_eq!(Identity::from_index(Identity::COUNT), Identity::default());
    }
}
