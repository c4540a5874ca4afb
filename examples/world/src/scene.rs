//! Scenes: all properties of an image that a caption can describe.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::draws::pick;
use super::{BackgroundColour, BackgroundPattern, Colour, Factor, Identity, Kind, Position, Size, Texture};

/// Side of the images that this world is designed for, in pixels. Lengths are given in pixels of such a
/// 64-pixel image.
pub const SIDE: u32 = 64;

/// Background of a scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Background {
    /// The colour.
    pub colour: BackgroundColour,
    /// The pattern.
    pub pattern: BackgroundPattern,
}

/// Scene with one thing on a background.
///
/// ```
/// use fabric_world::*;
///
/// let scene = Scene {
///     kind: Kind::Star,
///     colour: Colour::Red,
///     texture: Texture::Striped,
///     size: Size::Small,
///     position: Position::TopLeft,
///     background: Background { colour: BackgroundColour::Blue, pattern: BackgroundPattern::Dotted },
///     identity: Identity::default(),
/// };
/// assert!(scene.is_valid());
/// assert_eq!(full_caption(&scene), "a small red striped star at the top left on a blue dotted background");
/// let rgb = scene.render(&Variation::default(), SIDE)?;
/// assert_eq!(rgb.len(), 64 * 64 * 3);
/// # Ok::<(), WorldError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scene {
    /// Kind of the thing.
    pub kind: Kind,
    /// Colour of the thing; for a face, of its hair.
    pub colour: Colour,
    /// Texture of the thing; [`Texture::Plain`] for a face.
    pub texture: Texture,
    /// Size of the thing.
    pub size: Size,
    /// Position of the thing.
    pub position: Position,
    /// Background.
    pub background: Background,
    /// Identity of a face; [`Identity::default`] for other things.
    pub identity: Identity,
}

impl Scene {
    /// Returns a random valid scene, held out or not.
    ///
    /// Every factor is uniform, except that the background's colour differs from the thing's. In particular, a
    /// face is as likely as any other kind, although there are many more different faces.
    pub fn random(rng: &mut (impl Rng + ?Sized)) -> Self {
        let kind = pick(rng);
        let is_face = kind == Kind::Face;
        let colour: Colour = pick(rng);
        let background_colour = loop {
            let got: BackgroundColour = pick(rng);
            if got.name() != colour.name() {
                break got;
            }
        };
        Self {
            kind,
            colour,
            texture: if is_face { Texture::Plain } else { pick(rng) },
            size: pick(rng),
            position: pick(rng),
            background: Background { colour: background_colour, pattern: pick(rng) },
            identity: if is_face { Identity::random(rng) } else { Identity::default() },
        }
    }

    /// Returns whether this scene is valid: the thing and its background have different colours, a face is
    /// plain, and only a face has an identity.
    ///
    /// Invalid scenes can be rendered too.
    pub fn is_valid(&self) -> bool {
        let differs = self.colour.name() != self.background.colour.name();
        differs && if self.is_face() { self.texture == Texture::Plain } else { self.identity == Identity::default() }
    }

    /// Returns whether the thing is a face, which has an identity and no texture.
    pub fn is_face(&self) -> bool {
        self.kind == Kind::Face
    }

    /// Returns the nominal centre of the thing, right and down from the top left corner, in pixels of a
    /// 64-pixel image.
    ///
    /// [`Variation::shift`](super::Variation::shift) is added to it.
    pub fn center(&self) -> [f32; 2] {
        self.position.center(self.size)
    }
}

impl Size {
    /// Returns the nominal radius of the thing's bounding circle, in pixels of a 64-pixel image.
    pub fn radius(self) -> f32 {
        match self {
            Self::Small => 12.0,
            Self::Medium => 16.0,
            Self::Large => 21.0,
        }
    }

    /// Returns the distance between neighbouring nominal centres, in pixels of a 64-pixel image.
    ///
    /// With the largest growth and shift, the thing still stays within the image; and half the distance is more
    /// than twice the largest shift, so that the nearest centre is unambiguous.
    pub fn spacing(self) -> f32 {
        match self {
            Self::Small => 17.0,
            Self::Medium => 12.5,
            Self::Large => 7.5,
        }
    }
}

impl Position {
    /// Returns the nominal centre of a thing of this size, right and down from the top left corner, in pixels
    /// of a 64-pixel image.
    pub fn center(self, size: Size) -> [f32; 2] {
        let steps = [self.index() % 3, self.index() / 3];
        steps.map(|step| SIDE as f32 / 2.0 + (step as f32 - 1.0) * size.spacing())
    }

    /// Returns the position whose centre is nearest to a point, for a thing of this size.
    ///
    /// ```
    /// use fabric_world::{Position, Size};
    ///
    /// assert_eq!(Position::nearest([15.0, 30.0], Size::Small), Position::Left);
    /// ```
    pub fn nearest(point: [f32; 2], size: Size) -> Self {
        let step = |along: f32| ((along - SIDE as f32 / 2.0) / size.spacing()).round().clamp(-1.0, 1.0) + 1.0;
        Self::ALL[step(point[1]) as usize * 3 + step(point[0]) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Variation;

    #[test]
    fn every_position_is_the_nearest_to_its_own_center_when_shifted() {
        let corners = [[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]];
        for (size, position) in Size::ALL.into_iter().flat_map(|s| Position::ALL.map(|p| (s, p))) {
            for corner in corners {
                let [x, y] = position.center(size);
                let point = [x + corner[0] * Variation::SHIFT, y + corner[1] * Variation::SHIFT];
                assert_eq!(Position::nearest(point, size), position);
            }
        }
    }

    #[test]
    fn the_largest_variation_leaves_a_margin() {
        for size in Size::ALL {
            let reach = size.radius() * (1.0 + Variation::GROWTH) + Variation::SHIFT + size.spacing();
            assert!(reach < SIDE as f32 / 2.0 - 0.9, "{size}: {reach}");
        }
    }
}
