//! What a caption says: some factors, each with its value.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::draws::chance;
use super::{
    Attribute, BackgroundColour, BackgroundPattern, Brows, Colour, Eyes, Factor, Glasses, Hair, Kind, Mouth, Position,
    Scene, Size, Skin, Texture,
};

/// The factors that a caption names, with their values; what it leaves out is `None`.
///
/// ```
/// use fabric_models::world::{Attribute, Colour, Kind, Named, Wording, parse_caption};
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
    /// What it is.
    pub kind: Option<Kind>,
    /// The colour of the thing, or of a face's hair.
    pub colour: Option<Colour>,
    /// How it is painted.
    pub texture: Option<Texture>,
    /// How large it is.
    pub size: Option<Size>,
    /// Where it lies.
    pub position: Option<Position>,
    /// The colour of the background.
    pub background_colour: Option<BackgroundColour>,
    /// The pattern of the background.
    pub background_pattern: Option<BackgroundPattern>,
    /// The eyes of a face.
    pub eyes: Option<Eyes>,
    /// The brows of a face.
    pub brows: Option<Brows>,
    /// The mouth of a face.
    pub mouth: Option<Mouth>,
    /// The cut of a face's hair.
    pub hair: Option<Hair>,
    /// The skin of a face.
    pub skin: Option<Skin>,
    /// Whether a face wears glasses.
    pub glasses: Option<Glasses>,
}

impl Named {
    /// All that can be said about a scene: of a face everything but its texture, of another thing no identity.
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

    /// What somebody might happen to say about a scene: the most striking factors usually, "plain" seldom.
    pub fn some_of(scene: &Scene, rng: &mut (impl Rng + ?Sized)) -> Self {
        let all = Self::of(scene);
        // A few captions say everything, so that full ones are not new to whoever learned from these.
        if chance(rng, 0.1) {
            return all;
        }
        let unsaid = |plain: bool, otherwise: f32| if plain { 0.12 } else { otherwise };
        let texture = unsaid(scene.texture == Texture::Plain, 0.8);
        let pattern = unsaid(scene.background.pattern == BackgroundPattern::Plain, 0.65);
        let glasses = unsaid(scene.identity.glasses == Glasses::None, 0.7);
        Self {
            // Without its kind a face would lose the word that tells whose hair is meant.
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

    /// The index of the value named for a factor, for instance to compare with what a reader saw.
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

    /// The same with another value of a factor, by its index; `None` leaves it unsaid, as does an index beyond the last.
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

    /// The factors that are named.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute> {
        Attribute::ALL.into_iter().filter(|&attribute| self.index_of(attribute).is_some())
    }

    /// Share of the named factors that were seen so, from 0 to 1; 1 where nothing is named.
    pub fn agreement(&self, seen: &Self) -> f64 {
        let right = |&attribute: &Attribute| self.index_of(attribute) == seen.index_of(attribute);
        let (right, all) = (self.attributes().filter(right).count(), self.attributes().count());
        if all == 0 { 1.0 } else { right as f64 / all as f64 }
    }

    /// Whether everything named is so in a scene.
    pub fn is_true_of(&self, scene: &Scene) -> bool {
        let all = Self::of(scene);
        self.attributes().all(|attribute| self.index_of(attribute) == all.index_of(attribute))
    }
}

fn keep<F: Factor>(value: Option<F>, probability: f32, rng: &mut (impl Rng + ?Sized)) -> Option<F> {
    value.filter(|_| chance(rng, probability))
}
