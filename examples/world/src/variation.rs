//! Variation between images of the same scene.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::draws::symmetric;

/// Details of an image that no caption mentions; all zero by default.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Variation {
    /// Offset of the thing from its nominal centre, right and down, in pixels of a 64-pixel image; within
    /// ±[`Variation::SHIFT`].
    pub shift: [f32; 2],
    /// Clockwise rotation of the thing, in degrees; within ±[`Variation::TURN`].
    pub turn: f32,
    /// Growth of the thing beyond its nominal size, as a share of it; within ±[`Variation::GROWTH`].
    pub growth: f32,
    /// Added brightness of the thing, as a share of full brightness; within ±[`Variation::SHADE`].
    pub shade: f32,
    /// Added brightness of the background, likewise.
    pub background_shade: f32,
}

impl Variation {
    /// Largest shift along one axis, in pixels of a 64-pixel image.
    pub const SHIFT: f32 = 1.5;
    /// Largest rotation, in degrees.
    pub const TURN: f32 = 10.0;
    /// Largest growth, as a share of the nominal size.
    pub const GROWTH: f32 = 0.04;
    /// Largest added brightness, as a share of full brightness.
    pub const SHADE: f32 = 0.06;

    /// Returns a uniformly random variation within the limits.
    pub fn random(rng: &mut (impl Rng + ?Sized)) -> Self {
        Self {
            shift: [Self::SHIFT * symmetric(rng), Self::SHIFT * symmetric(rng)],
            turn: Self::TURN * symmetric(rng),
            growth: Self::GROWTH * symmetric(rng),
            shade: Self::SHADE * symmetric(rng),
            background_shade: Self::SHADE * symmetric(rng),
        }
    }
}
