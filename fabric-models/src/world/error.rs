//! What can be wrong with a request to this world.

/// Why an image cannot be drawn or a word not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// The side of the image is too short to show anything, or too long.
    #[error("an image of this world has sides from {min} to {max} pixels, got {got}: choose one of these")]
    Side {
        /// What was asked for, in pixels.
        got: u32,
        /// The shortest side, in pixels.
        min: u32,
        /// The longest side, in pixels.
        max: u32,
    },
    /// A word that names no value of a factor.
    #[error("`{got}` is no {factor}, expected one of: {expected}")]
    Name {
        /// The factor, for instance `colour`.
        factor: &'static str,
        /// The word, its first 80 characters.
        got: String,
        /// All names of that factor.
        expected: String,
    },
}
