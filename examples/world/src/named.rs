//! Factors that a caption names, with their values.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::draws::chance;
use super::{
    Attribute, BackgroundColour, BackgroundPattern, Brows, Colour, Eyes, Factor, Glasses, Hair, Kind, Mouth, Position,
    Scene, Size, Skin, Texture,
};

/// Factors that a caption names, with their values; factors that it leaves out are `None`.
///
/// ```
/// use fabric_world::{Attribute, Colour, Kind, Named, Wording, parse_caption};
///
/// let named = Named { kind: Some(Kind::Heart), colour: Some(Colour::Pink), ..Named::default() };
/// assert_eq!(named.caption(Wording::Picture), "a picture of a pink heart");
/// assert_eq!(parse_caption("a picture of a pink heart"), named);
/// assert_eq!(named.index_of(Attribute::Colour), Some(6));
/// assert_eq!(named.agreement(&parse_caption("a large pink star on blue")), 0.5);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Named {
    /// Kind of the thing.
    pub kind: Option<Kind>,
    /// Colour of the thing, or of a face's hair.
    pub colour: Option<Colour>,
    /// Texture of the thing.
    pub texture: Option<Texture>,
    /// Size of the thing.
    pub size: Option<Size>,
    /// Position of the thing.
    pub position: Option<Position>,
    /// Colour of the background.
    pub background_colour: Option<BackgroundColour>,
    /// Pattern of the background.
    pub background_pattern: Option<BackgroundPattern>,
    /// Eyes of a face.
    pub eyes: Option<Eyes>,
    /// Brows of a face.
    pub brows: Option<Brows>,
    /// Mouth of a face.
    pub mouth: Option<Mouth>,
    /// Haircut of a face.
    pub hair: Option<Hair>,
    /// Skin of a face.
    pub skin: Option<Skin>,
    /// Whether a face wears glasses.
    pub glasses: Option<Glasses>,
}

impl Named {
    /// Returns all factors of a scene: a face has no texture, other things have no identity.
    pub fn of(scene: &Scene) -> Self {
        let all = Self {
            kind: Some(scene.kind),
            colour: Some(scene.colour),
            texture: Some(scene.texture),
            size: Some(scene.size),
            position: Some(scene.position),
            background_colour: Some(scene.background.colour),
            background_pattern: Some(scene.background.pattern),
            ..Self::default()
        };
        if !scene.is_face() {
            return all;
        }
        Self {
            texture: None,
            eyes: Some(scene.identity.eyes),
            brows: Some(scene.identity.brows),
            mouth: Some(scene.identity.mouth),
            hair: Some(scene.identity.hair),
            skin: Some(scene.identity.skin),
            glasses: Some(scene.identity.glasses),
            ..all
        }
    }

    /// Returns a random selection of a scene's factors: conspicuous ones often, "plain" rarely.
    pub fn some_of(scene: &Scene, rng: &mut (impl Rng + ?Sized)) -> Self {
        let all = Self::of(scene);
        // Some captions name all factors, so that models trained on these captions have seen full ones.
        if chance(rng, 0.1) {
            return all;
        }
        let unsaid = |plain: bool, otherwise: f32| if plain { 0.12 } else { otherwise };
        let texture = unsaid(scene.texture == Texture::Plain, 0.8);
        let pattern = unsaid(scene.background.pattern == BackgroundPattern::Plain, 0.65);
        let glasses = unsaid(scene.identity.glasses == Glasses::None, 0.7);
        Self {
            // Faces always keep their kind: without it, the colour could not be attributed to the hair.
            kind: keep(all.kind, if scene.is_face() { 1.0 } else { 0.97 }, rng),
            colour: keep(all.colour, 0.85, rng),
            texture: keep(all.texture, texture, rng),
            size: keep(all.size, 0.65, rng),
            position: keep(all.position, 0.65, rng),
            background_colour: keep(all.background_colour, 0.75, rng),
            background_pattern: keep(all.background_pattern, pattern, rng),
            eyes: keep(all.eyes, 0.4, rng),
            brows: keep(all.brows, 0.4, rng),
            mouth: keep(all.mouth, 0.5, rng),
            hair: keep(all.hair, 0.5, rng),
            skin: keep(all.skin, 0.4, rng),
            glasses: keep(all.glasses, glasses, rng),
        }
    }

    /// Returns the index of a factor's value, for instance to compare it with a reader's prediction.
    pub fn index_of(&self, attribute: Attribute) -> Option<usize> {
        fn index<F: Factor>(value: Option<F>) -> Option<usize> {
            value.map(Factor::index)
        }
        match attribute {
            Attribute::Kind => index(self.kind),
            Attribute::Colour => index(self.colour),
            Attribute::Texture => index(self.texture),
            Attribute::Size => index(self.size),
            Attribute::Position => index(self.position),
            Attribute::BackgroundColour => index(self.background_colour),
            Attribute::BackgroundPattern => index(self.background_pattern),
            Attribute::Eyes => index(self.eyes),
            Attribute::Brows => index(self.brows),
            Attribute::Mouth => index(self.mouth),
            Attribute::Hair => index(self.hair),
            Attribute::Skin => index(self.skin),
            Attribute::Glasses => index(self.glasses),
        }
    }

    /// Sets a factor to the value with this index; `None` or an index out of range clears it.
    #[must_use]
    pub fn with(self, attribute: Attribute, index: Option<usize>) -> Self {
        fn value<F: Factor>(index: Option<usize>) -> Option<F> {
            F::VALUES.get(index?).copied()
        }
        match attribute {
            Attribute::Kind => Self { kind: value(index), ..self },
            Attribute::Colour => Self { colour: value(index), ..self },
            Attribute::Texture => Self { texture: value(index), ..self },
            Attribute::Size => Self { size: value(index), ..self },
            Attribute::Position => Self { position: value(index), ..self },
            Attribute::BackgroundColour => Self { background_colour: value(index), ..self },
            Attribute::BackgroundPattern => Self { background_pattern: value(index), ..self },
            Attribute::Eyes => Self { eyes: value(index), ..self },
            Attribute::Brows => Self { brows: value(index), ..self },
            Attribute::Mouth => Self { mouth: value(index), ..self },
            Attribute::Hair => Self { hair: value(index), ..self },
            Attribute::Skin => Self { skin: value(index), ..self },
            Attribute::Glasses => Self { glasses: value(index), ..self },
        }
    }

    /// Returns the factors that are named.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute> {
        Attribute::ALL.into_iter().filter(|&attribute| self.index_of(attribute).is_some())
    }

    /// Returns the share of the named factors whose value in `seen` is the same, from 0 to 1; 1 if none is
    /// named.
    pub fn agreement(&self, seen: &Self) -> f64 {
        let right = |&attribute: &Attribute| self.index_of(attribute) == seen.index_of(attribute);
        let (right, all) = (self.attributes().filter(right).count(), self.attributes().count());
        if all == 0 { 1.0 } else { right as f64 / all as f64 }
    }

    /// Returns whether all named factors have these values in a scene.
    pub fn is_true_of(&self, scene: &Scene) -> bool {
        let all = Self::of(scene);
        self.attributes().all(|attribute| self.index_of(attribute) == all.index_of(attribute))
    }
}

fn keep<F: Factor>(value: Option<F>, probability: f32, rng: &mut (impl Rng + ?Sized)) -> Option<F> {
    value.filter(|_| chance(rng, probability))
}
