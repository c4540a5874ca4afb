//! Error type of the world.

/// Error when an image cannot be drawn or a name cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// The side of the image is too short or too long.
    #[error("an image of this world has sides from {min} to {max} pixels, got {got}: choose one of these")]
    Side {
        /// The requested side, in pixels.
        got: u32,
        /// The shortest side, in pixels.
        min: u32,
        /// The longest side, in pixels.
        max: u32,
    },
    /// The name is not a value of the factor.
    #[error("`{got}` is no {factor}, expected one of: {expected}")]
    Name {
        /// The factor, for instance `colour`.
        factor: &'static str,
        /// The name, cut to its first 80 characters.
        got: String,
        /// All names of that factor.
        expected: String,
    },
    /// The caption names nothing of this world.
    #[error("expected a caption like \"a small red star on blue\", got nothing of the small world in {got:?}")]
    Caption {
        /// The caption, cut to its first 80 characters.
        got: String,
    },
}
