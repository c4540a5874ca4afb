//! What differs between two images of the same scene.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::draws::symmetric;

/// The free part of an image, which no caption mentions; the default leaves everything nominal.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Variation {
    /// How far the thing lies from its nominal center, right and down, in pixels of 64; within ±[`Variation::SHIFT`].
    pub shift: [f32; 2],
    /// How far the thing is turned clockwise, in degrees; within ±[`Variation::TURN`].
    pub turn: f32,
    /// How much larger the thing is than its nominal size, as a share of it; within ±[`Variation::GROWTH`].
    pub growth: f32,
    /// How much brighter the thing is, as a share of full brightness; within ±[`Variation::SHADE`].
    pub shade: f32,
    /// How much brighter the background is, likewise.
    pub background_shade: f32,
}

impl Variation {
    /// The largest shift along one axis, in pixels of 64.
    pub const SHIFT: f32 = 1.5;
    /// The largest turn, in degrees.
    pub const TURN: f32 = 10.0;
    /// The largest growth, as a share of the nominal size.
    pub const GROWTH: f32 = 0.04;
    /// The largest shade, as a share of full brightness.
    pub const SHADE: f32 = 0.06;

    /// Any variation within the limits.
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
