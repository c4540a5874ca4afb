//! Outlines of the eleven kinds of things that are not faces.
//!
//! All lie within the circle of radius 1 around their centre, y pointing down, with their centroid near it, so
//! that a thing can be rotated and placed without leaving the image or its position.

use std::f32::consts::{PI, TAU};
use std::sync::LazyLock;

use tiny_skia::{Path, PathBuilder, Rect, Transform};

use super::{Factor, Kind};

/// Point or vector, right and down.
pub(super) type Point = [f32; 2];

/// Returns the outline of a thing, to be filled by the even-odd rule; for a face, a circle.
pub(super) fn outline(kind: Kind) -> &'static Path {
    static OUTLINES: LazyLock<[Path; Kind::ALL.len()]> = LazyLock::new(|| Kind::ALL.map(trace));
    &OUTLINES[kind.index()]
}

fn trace(kind: Kind) -> Path {
    match kind {
        Kind::Circle => circles(&[0.9]),
        Kind::Square => polygon([[-0.7, -0.7], [0.7, -0.7], [0.7, 0.7], [-0.7, 0.7]]),
        Kind::Triangle => polygon((0..3).map(|i| polar(0.99, i as f32 * TAU / 3.0 - PI / 2.0))),
        Kind::Star => star(),
        Kind::Heart => heart(),
        Kind::Cross => cross(),
        Kind::Ring => circles(&[0.97, 0.38]),
        Kind::Moon => moon(),
        Kind::Flower => flower(),
        Kind::House => house(),
        Kind::Fish => fish(),
        Kind::Face => circles(&[1.0]),
    }
}

/// Returns a closed polygon.
pub(super) fn polygon(points: impl IntoIterator<Item = Point>) -> Path {
    let mut builder = PathBuilder::new();
    for [x, y] in points {
        if builder.is_empty() { builder.move_to(x, y) } else { builder.line_to(x, y) }
    }
    builder.close();
    finish(builder)
}

/// Returns circles around the origin.
pub(super) fn circles(radii: &[f32]) -> Path {
    let mut builder = PathBuilder::new();
    radii.iter().for_each(|&radius| builder.push_circle(0.0, 0.0, radius));
    finish(builder)
}

/// Returns an ellipse with axes along x and y.
pub(super) fn ellipse([x, y]: Point, [width, height]: [f32; 2]) -> Path {
    let frame = Rect::from_ltrb(x - width, y - height, x + width, y + height).expect("an ellipse has an inside");
    PathBuilder::from_oval(frame).expect("an ellipse has a finite frame")
}

pub(super) fn finish(builder: PathBuilder) -> Path {
    builder.finish().expect("the outlines of this world are finite and not empty")
}

pub(super) fn polar(radius: f32, angle: f32) -> Point {
    [radius * angle.cos(), radius * angle.sin()]
}

/// Returns points along an arc of a circle, both ends included.
pub(super) fn arc(center: Point, radius: f32, from: f32, to: f32) -> impl Iterator<Item = Point> {
    const STEPS: usize = 32;
    (0..=STEPS).map(move |step| {
        let [x, y] = polar(radius, from + (to - from) * step as f32 / STEPS as f32);
        [center[0] + x, center[1] + y]
    })
}

fn star() -> Path {
    let radius = |i: i32| if i % 2 == 0 { 0.99 } else { 0.46 };
    polygon((0..10).map(|i| polar(radius(i), i as f32 * TAU / 10.0 - PI / 2.0)))
}

fn heart() -> Path {
    let mut builder = PathBuilder::new();
    builder.move_to(0.0, 0.95);
    builder.cubic_to(-0.25, 0.66, -0.93, 0.28, -0.93, -0.26);
    builder.cubic_to(-0.93, -0.56, -0.69, -0.74, -0.44, -0.74);
    builder.cubic_to(-0.22, -0.74, -0.07, -0.62, 0.0, -0.44);
    builder.cubic_to(0.07, -0.62, 0.22, -0.74, 0.44, -0.74);
    builder.cubic_to(0.69, -0.74, 0.93, -0.56, 0.93, -0.26);
    builder.cubic_to(0.93, 0.28, 0.25, 0.66, 0.0, 0.95);
    builder.close();
    finish(builder)
}

fn cross() -> Path {
    const ARM: f32 = 0.33;
    const END: f32 = 0.93;
    let arm = [[-ARM, -END], [ARM, -END], [ARM, -ARM]];
    // Each quarter is the previous one rotated by 90°.
    let quarters = (0..4).scan(arm, |quarter, _| Some(std::mem::replace(quarter, quarter.map(|[x, y]| [-y, x]))));
    polygon(quarters.flatten())
}

/// Returns a disc minus another disc, tilted.
fn moon() -> Path {
    const DISC: f32 = 0.95;
    const CUT: f32 = 0.74;
    const APART: f32 = 0.50;
    let tip_x = (APART * APART + DISC * DISC - CUT * CUT) / (2.0 * APART);
    let tip_y = (DISC * DISC - tip_x * tip_x).sqrt();
    let outer = tip_y.atan2(tip_x);
    let inner = tip_y.atan2(tip_x - APART);
    let moon = polygon(arc([0.0, 0.0], DISC, outer, TAU - outer).chain(arc([APART, 0.0], CUT, TAU - inner, inner)));
    let place = Transform::from_translate(0.24, 0.0).post_scale(0.88, 0.88).post_rotate(-25.0);
    moon.transform(place).expect("the moon stays finite")
}

/// Returns the outline of six discs around the centre.
fn flower() -> Path {
    const PETALS: usize = 6;
    const AWAY: f32 = 0.60;
    const PETAL: f32 = 0.37;
    const STEPS: usize = 16;
    let points = (0..PETALS * STEPS).map(|i| {
        let angle = i as f32 * TAU / (PETALS * STEPS) as f32;
        let petal = (i / STEPS) as f32 + 0.5;
        let off = angle - petal * TAU / PETALS as f32;
        polar(AWAY * off.cos() + (PETAL * PETAL - (AWAY * off.sin()).powi(2)).sqrt(), angle)
    });
    polygon(points)
}

/// The door is a notch that shows the background, whatever the texture.
fn house() -> Path {
    let left = [[-0.17, 0.76], [-0.62, 0.76], [-0.62, -0.06], [-0.92, -0.06], [0.0, -0.95]];
    let chimney = [[0.32, -0.64], [0.32, -0.83], [0.54, -0.83], [0.54, -0.43]];
    let right = [[0.92, -0.06], [0.62, -0.06], [0.62, 0.76], [0.17, 0.76], [0.17, 0.26], [-0.17, 0.26]];
    polygon(left.into_iter().chain(chimney).chain(right))
}

fn fish() -> Path {
    let mut builder = PathBuilder::new();
    builder.move_to(-0.98, 0.04);
    builder.cubic_to(-0.72, -0.40, -0.42, -0.54, -0.10, -0.56);
    builder.cubic_to(0.16, -0.54, 0.36, -0.36, 0.50, -0.14);
    builder.line_to(0.86, -0.48);
    builder.quad_to(0.74, 0.02, 0.86, 0.48);
    builder.line_to(0.50, 0.14);
    builder.cubic_to(0.36, 0.36, 0.16, 0.54, -0.10, 0.56);
    builder.cubic_to(-0.42, 0.54, -0.72, 0.44, -0.98, 0.04);
    builder.close();
    finish(builder)
}
