//! Drawing surface with transformed coordinates.

use tiny_skia::{Color, FillRule, LineCap, Mask, Paint, Path, Pixmap, Stroke, Transform};

use super::palette::Rgb;
use super::{SIDE, WorldError};

/// The shortest side of an image, in pixels.
pub const MIN_SIDE: u32 = 16;
/// The longest side of an image, in pixels.
pub const MAX_SIDE: u32 = 1024;

/// Image that is being drawn.
pub(super) struct Canvas {
    pixmap: Pixmap,
    place: Transform,
}

impl Canvas {
    /// Creates a square canvas with a fill colour; lengths are in units of 1/64 of its side.
    pub(super) fn new(side: u32, rgb: Rgb) -> Result<Self, WorldError> {
        let side_error = WorldError::Side { got: side, min: MIN_SIDE, max: MAX_SIDE };
        if !(MIN_SIDE..=MAX_SIDE).contains(&side) {
            return Err(side_error);
        }
        let mut pixmap = Pixmap::new(side, side).ok_or(side_error)?;
        pixmap.fill(Color::from_rgba8(rgb[0], rgb[1], rgb[2], 255));
        let scale = side as f32 / SIDE as f32;
        Ok(Self { pixmap, place: Transform::from_scale(scale, scale) })
    }

    /// Applies `place` to all further drawing, before the current transform.
    pub(super) fn through(&mut self, place: Transform) {
        self.place = self.place.pre_concat(place);
    }

    /// Fills the inside of a path by the even-odd rule, within `clip`.
    pub(super) fn fill(&mut self, path: &Path, rgb: Rgb, clip: Option<&Mask>) {
        self.pixmap.fill_path(path, &opaque(rgb), FillRule::EvenOdd, self.place, clip);
    }

    /// Strokes a path with round line ends, within `clip`.
    pub(super) fn stroke(&mut self, path: &Path, width: f32, rgb: Rgb, clip: Option<&Mask>) {
        let stroke = Stroke { width, line_cap: LineCap::Round, ..Stroke::default() };
        self.pixmap.stroke_path(path, &opaque(rgb), &stroke, self.place, clip);
    }

    /// Returns a clip mask of the inside of a path.
    pub(super) fn clip(&self, path: &Path) -> Mask {
        let mut mask =
            Mask::new(self.pixmap.width(), self.pixmap.height()).expect("a mask is no larger than its canvas");
        mask.fill_path(path, FillRule::EvenOdd, true, self.place);
        mask
    }

    /// Returns the pixels, row by row.
    pub(super) fn into_rgb(self) -> Vec<u8> {
        // All paint is opaque, so premultiplied values equal straight ones.
        self.pixmap.data().chunks_exact(4).flat_map(|rgba| [rgba[0], rgba[1], rgba[2]]).collect()
    }
}

fn opaque(rgb: Rgb) -> Paint<'static> {
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color_rgba8(rgb[0], rgb[1], rgb[2], 255);
    paint
}
