//! Split into training scenes and held-out combinations of factors.

use rand::Rng;

use super::factor::factor;
use super::{BackgroundColour, Colour, Factor, Kind, Scene, Texture};

factor! {
    /// Split of the scenes: training, or evaluation of generalisation.
    Split, "split", {
        /// Scenes used in training.
        Train = "train",
        /// Scenes with a combination of factors that is excluded from training.
        HeldOut = "held out",
    }
}

/// Returns whether this kind in this colour is excluded from training: 12 of 108 pairs, one for each kind.
///
/// Every colour is held out for one or two kinds.
pub fn is_held_out_pair(kind: Kind, colour: Colour) -> bool {
    colour.index() == (2 * kind.index() + 1) % Colour::ALL.len()
}

/// Returns whether this texture on this background is excluded from training: 8 of 40 pairs, one for each
/// background colour.
///
/// Every texture is held out on one or two backgrounds. Faces, which have no texture, are exempt.
pub fn is_held_out_ground(texture: Texture, background: BackgroundColour) -> bool {
    texture.index() == (2 * background.index() + 1) % Texture::ALL.len()
}

impl Scene {
    /// Returns whether this scene is excluded from training by [`is_held_out_pair`] or [`is_held_out_ground`].
    ///
    /// Each value of each factor still occurs with most values of the others.
    pub fn is_held_out(&self) -> bool {
        let ground = !self.is_face() && is_held_out_ground(self.texture, self.background.colour);
        ground || is_held_out_pair(self.kind, self.colour)
    }

    /// Returns the split of this scene.
    pub fn split(&self) -> Split {
        if self.is_held_out() { Split::HeldOut } else { Split::Train }
    }

    /// Returns a random valid scene of one split: draws from [`Scene::random`] until one fits.
    pub fn random_of(split: Split, rng: &mut (impl Rng + ?Sized)) -> Self {
        loop {
            let scene = Self::random(rng);
            if scene.split() == split {
                return scene;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_pairs_are_spread_evenly() {
        let pairs = |kind: Kind| Colour::ALL.into_iter().filter(move |&colour| is_held_out_pair(kind, colour));
        assert!(Kind::ALL.iter().all(|&kind| pairs(kind).count() == 1));
        for colour in Colour::ALL {
            let kinds = Kind::ALL.iter().filter(|&&kind| is_held_out_pair(kind, colour)).count();
            assert!((1..=2).contains(&kinds), "{colour}: {kinds}");
        }
        for ground in BackgroundColour::ALL {
            assert_eq!(Texture::ALL.iter().filter(|&&texture| is_held_out_ground(texture, ground)).count(), 1);
        }
        for texture in Texture::ALL {
            let grounds = BackgroundColour::ALL.iter().filter(|&&ground| is_held_out_ground(texture, ground)).count();
            assert!((1..=2).contains(&grounds), "{texture}: {grounds}");
        }
    }
}
