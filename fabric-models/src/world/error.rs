//! What can be wrong with a request to this world.

/// Why a picture cannot be drawn or a word not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// The side of the picture is too short to show anything, or too long.
    #[error("a picture of this world has sides from {min} to {max} pixels, found {found}: choose one of these")]
    Side {
        /// What was asked for, in pixels.
        found: u32,
        /// The shortest side, in pixels.
        min: u32,
        /// The longest side, in pixels.
        max: u32,
    },
    /// A word that names no value of a factor.
    #[error("`{found}` is no {factor}, wanted one of: {wanted}")]
    Name {
        /// The factor, for instance `colour`.
        factor: &'static str,
        /// The word, its first 80 characters.
        found: String,
        /// All names of that factor.
        wanted: String,
    },
}
