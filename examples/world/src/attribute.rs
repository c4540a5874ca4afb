//! The factors as values, for readers and evaluations that iterate over all of them.

use super::factor::factor;
use super::{
    BackgroundColour, BackgroundPattern, Brows, Colour, Eyes, Factor, Glasses, Hair, Kind, Mouth, Position, Size, Skin,
    Texture,
};

factor! {
    /// A factor, as a value.
    Attribute, "attribute", {
        /// [`Kind`].
        Kind = "kind",
        /// [`Colour`].
        Colour = "colour",
        /// [`Texture`], which faces do not have.
        Texture = "texture",
        /// [`Size`].
        Size = "size",
        /// [`Position`].
        Position = "position",
        /// [`BackgroundColour`].
        BackgroundColour = "background colour",
        /// [`BackgroundPattern`].
        BackgroundPattern = "background pattern",
        /// [`Eyes`], of faces.
        Eyes = "eyes",
        /// [`Brows`], of faces.
        Brows = "brows",
        /// [`Mouth`], of faces.
        Mouth = "mouth",
        /// [`Hair`], of faces.
        Hair = "hair",
        /// [`Skin`], of faces.
        Skin = "skin",
        /// [`Glasses`], of faces.
        Glasses = "glasses",
    }
}

impl Attribute {
    /// Returns whether only faces have this factor (`true`) or only other things (`false`); `None` if both have
    /// it.
    pub(super) fn is_of_faces(self) -> Option<bool> {
        match self {
            Self::Texture => Some(false),
            Self::Eyes | Self::Brows | Self::Mouth | Self::Hair | Self::Skin | Self::Glasses => Some(true),
            _ => None,
        }
    }

    /// Returns the names of the factor's values by index; a reader has one output for each.
    ///
    /// ```
    /// use fabric_world::Attribute;
    ///
    /// assert_eq!(Attribute::Size.values(), ["small", "medium", "large"]);
    /// ```
    pub fn values(self) -> Vec<&'static str> {
        fn names<F: Factor>() -> Vec<&'static str> {
            F::VALUES.iter().map(|value| value.name()).collect()
        }
        match self {
            Self::Kind => names::<Kind>(),
            Self::Colour => names::<Colour>(),
            Self::Texture => names::<Texture>(),
            Self::Size => names::<Size>(),
            Self::Position => names::<Position>(),
            Self::BackgroundColour => names::<BackgroundColour>(),
            Self::BackgroundPattern => names::<BackgroundPattern>(),
            Self::Eyes => names::<Eyes>(),
            Self::Brows => names::<Brows>(),
            Self::Mouth => names::<Mouth>(),
            Self::Hair => names::<Hair>(),
            Self::Skin => names::<Skin>(),
            Self::Glasses => names::<Glasses>(),
        }
    }
}
