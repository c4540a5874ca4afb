//! Stripes, dots and checks, drawn over a surface in its second shade.

use tiny_skia::{Path, PathBuilder, Rect, Transform};

use super::shapes::finish;
use super::{BackgroundPattern, SIDE, Size, Texture};

/// Returns the outline width of a thing, relative to radius 1.
pub(super) fn outline_width(size: Size) -> f32 {
    pixels(size, [2.4, 3.0, 3.6])
}

/// Converts a length in pixels of a 64-pixel image, given for small, medium and large things, to a multiple of
/// the thing's radius.
///
/// Small things have fewer stripes and dots instead of thinner ones, which 64 pixels could not resolve: no
/// stripe, dot or cell is narrower than 4 pixels.
fn pixels(size: Size, [small, medium, large]: [f32; 3]) -> f32 {
    let length = match size {
        Size::Small => small,
        Size::Medium => medium,
        Size::Large => large,
    };
    length / size.radius()
}

/// Returns the area of the second shade of a thing of radius 1, to be clipped to its outline.
pub(super) fn of_texture(texture: Texture, size: Size) -> Option<Path> {
    match texture {
        Texture::Plain | Texture::Outlined => None,
        Texture::Striped => {
            let slant = Transform::from_rotate(-45.0);
            Some(stripes(-1.0, 1.0, pixels(size, [8.0, 9.0, 10.0]), 0.5).transform(slant).expect("stripes stay finite"))
        }
        Texture::Dotted => Some(dots(-1.0, 1.0, pixels(size, [10.5, 11.5, 13.0]), 0.21)),
        Texture::Checked => Some(checks(pixels(size, [5.0, 5.5, 6.5]))),
    }
}

/// Returns the area of the second shade of a background, in pixels of a 64-pixel image.
pub(super) fn of_background(pattern: BackgroundPattern) -> Option<Path> {
    let side = SIDE as f32;
    match pattern {
        BackgroundPattern::Plain => None,
        BackgroundPattern::Striped => Some(stripes(0.0, side, 8.0, 0.5)),
        BackgroundPattern::Dotted => Some(dots(0.0, side, 16.0, 0.18)),
    }
}

/// Returns vertical stripes over a square, one of them at its centre; each covers `share` of the period.
fn stripes(from: f32, to: f32, period: f32, share: f32) -> Path {
    let mut builder = PathBuilder::new();
    for [x, _] in lattice(from, to, period).into_iter().filter(|&[_, row]| row == 0) {
        let x = (from + to) / 2.0 + x as f32 * period;
        let half = share * period / 2.0;
        push_rect(&mut builder, [x - half, from], [x + half, to]);
    }
    finish(builder)
}

/// Returns dots over a square, in rows half a period apart and shifted by half a period; their radius is given
/// as a share of the period.
fn dots(from: f32, to: f32, period: f32, radius: f32) -> Path {
    let mut builder = PathBuilder::new();
    let step = period / 2.0;
    for [x, y] in lattice(from, to, step).into_iter().filter(|[x, y]| (x + y) % 2 == 0) {
        let at = |along: i32| (from + to) / 2.0 + along as f32 * step;
        builder.push_circle(at(x), at(y), radius * period);
    }
    finish(builder)
}

/// Returns every second cell of a chequerboard over the bounding square of the unit circle.
fn checks(cell: f32) -> Path {
    let mut builder = PathBuilder::new();
    for [x, y] in lattice(-1.0, 1.0, cell).into_iter().filter(|[x, y]| (x + y) % 2 == 0) {
        let [x, y] = [x, y].map(|along| along as f32 * cell);
        push_rect(&mut builder, [x, y], [x + cell, y + cell]);
    }
    finish(builder)
}

/// Returns integer offsets from the centre of a square that cover it in steps of `step`.
fn lattice(from: f32, to: f32, step: f32) -> Vec<[i32; 2]> {
    let reach = ((to - from) / (2.0 * step)).ceil() as i32;
    (-reach..=reach).flat_map(|y| (-reach..=reach).map(move |x| [x, y])).collect()
}

fn push_rect(builder: &mut PathBuilder, [left, top]: [f32; 2], [right, bottom]: [f32; 2]) {
    builder.push_rect(Rect::from_ltrb(left, top, right, bottom).expect("stripes and cells have an inside"));
}
