//! Trait and macro for factors: enums of named values by which images differ.

use std::fmt;

use super::WorldError;

/// Factor of the world: a small closed set of values, each with the word that captions use for it.
///
/// Readers and evaluations are generic over `F: Factor`.
///
/// ```
/// use fabric_world::{Colour, Factor, Position};
///
/// fn last<F: Factor>() -> String {
///     let value = F::VALUES[F::VALUES.len() - 1];
///     format!("{} {} is {}", F::TITLE, value.index(), value.name())
/// }
///
/// assert_eq!(last::<Colour>(), "colour 8 is black");
/// assert_eq!("top left".parse(), Ok(Position::TopLeft));
/// ```
pub trait Factor: Copy + Eq + fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// The title of the factor, for instance `background colour`.
    const TITLE: &'static str;
    /// Every value, in the order of [`Factor::index`].
    const VALUES: &'static [Self];

    /// Returns the word (or words) that captions use.
    fn name(self) -> &'static str;

    /// Returns the index of this value in [`Factor::VALUES`].
    fn index(self) -> usize;

    /// Returns the value with this name.
    ///
    /// # Errors
    ///
    /// Returns [`WorldError::Name`] if no value has this name.
    fn from_name(name: &str) -> Result<Self, WorldError> {
        let got = Self::VALUES.iter().copied().find(|value| value.name() == name);
        got.ok_or_else(|| WorldError::Name {
            factor: Self::TITLE,
            got: name.chars().take(80).collect(),
            expected: Self::VALUES.iter().map(|value| value.name()).collect::<Vec<_>>().join(", "),
        })
    }
}

/// Declares an enum that is a [`Factor`].
macro_rules! factor {
    ($(#[$doc:meta])* $name:ident, $title:literal, {
        $($(#[$value_doc:meta])* $value:ident = $word:literal),+ $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$value_doc])* $value,)+
        }

        impl $name {
            /// Every value, in order.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$value),+];
        }

        impl $crate::Factor for $name {
            const TITLE: &'static str = $title;
            const VALUES: &'static [Self] = &Self::ALL;

            fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }

            fn index(self) -> usize {
                self as usize
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad($crate::Factor::name(*self))
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::WorldError;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                $crate::Factor::from_name(name)
            }
        }
    };
}
pub(super) use factor;
