//! Which combinations of factors training never shows.

use rand::Rng;

use super::factor::factor;
use super::{BackgroundColour, Colour, Factor, Kind, Scene, Texture};

factor! {
    /// Scenes to learn from, and scenes to see what has been understood.
    Split, "split", {
        /// Shown in training.
        Train = "train",
        /// Of a combination that training never shows.
        HeldOut = "held out",
    }
}

/// Whether training never shows this kind in this colour: 12 of 108 pairs, one for each kind.
///
/// Every colour is held out for one kind, or for two.
pub fn is_held_out_pair(kind: Kind, colour: Colour) -> bool {
    colour.index() == (2 * kind.index() + 1) % Colour::ALL.len()
}

/// Whether training never shows this texture on this background: 8 of 40 pairs, one for each background colour.
///
/// Every texture is held out on one background, or on two. Faces, which have no texture, are exempt.
pub fn is_held_out_ground(texture: Texture, background: BackgroundColour) -> bool {
    texture.index() == (2 * background.index() + 1) % Texture::ALL.len()
}

impl Scene {
    /// Whether training never shows this scene, because of [`is_held_out_pair`] or [`is_held_out_ground`].
    ///
    /// Each value of each factor still appears with most values of the others.
    pub fn is_held_out(&self) -> bool {
        let ground = !self.is_face() && is_held_out_ground(self.texture, self.background.colour);
        ground || is_held_out_pair(self.kind, self.colour)
    }

    /// The part of the world that this scene belongs to.
    pub fn split(&self) -> Split {
        if self.is_held_out() { Split::HeldOut } else { Split::Train }
    }

    /// Any valid scene of one split: [`Scene::random`], drawn again until it fits.
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
