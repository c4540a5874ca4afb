//! Who a face is: six factors that no other kind of thing has.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::Factor;
use super::draws::pick;
use super::factor::factor;

factor! {
    /// The eyes of a face.
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
    /// The brows of a face.
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
    /// The mouth of a face.
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
    /// The cut of a face's hair; its colour is the [`Colour`](super::Colour) of the scene.
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
    /// The skin of a face.
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
        /// It does not.
        None = "no glasses",
        /// It does.
        Worn = "glasses",
    }
}

/// Who a face is: one of [`Identity::COUNT`].
///
/// All look different in every size, but of a small face in 64 pixels the brows are four pixels: ask large ones.
///
/// ```
/// use fabric_models::world::{Glasses, Identity};
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
    /// The cut of the hair.
    pub hair: Hair,
    /// The skin.
    pub skin: Skin,
    /// With or without glasses.
    pub glasses: Glasses,
}

impl Identity {
    /// How many there are: 3·3·3·3·3·2.
    pub const COUNT: usize = 486;

    /// Identity number `index`, counted round after [`Identity::COUNT`].
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

    /// The number of this identity, below [`Identity::COUNT`].
    pub fn index(&self) -> usize {
        let Self { eyes, brows, mouth, hair, skin, glasses } = *self;
        let triples = [eyes.index(), brows.index(), mouth.index(), hair.index(), skin.index()];
        triples.iter().fold(0, |index, digit| index * 3 + digit) * Glasses::ALL.len() + glasses.index()
    }

    /// Any identity, each as likely as the others.
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

/// Round eyes, flat brows, a smile, short hair, light skin, no glasses: what scenes without a face carry.
impl Default for Identity {
    fn default() -> Self {
        Self::from_index(0)
    }
}

/// Takes the last digit off `rest`, in the base of a factor.
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
