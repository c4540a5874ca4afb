//! Drawing of faces from their identities.

use std::f32::consts::{PI, TAU};
use std::sync::LazyLock;

use tiny_skia::{Path, PathBuilder};

use super::canvas::Canvas;
use super::palette::{Rgb, shaded};
use super::shapes::{Point, arc, ellipse, finish, polar, polygon};
use super::{Brows, Eyes, Factor, Glasses, Hair, Identity, Mouth};

/// Colour of lines and pupils: not quite black, like pencil on paper.
const INK: Rgb = [28, 16, 18];
const WHITE: Rgb = [250, 250, 250];
const LENS: Rgb = [206, 232, 246];
const THROAT: Rgb = [150, 20, 36];

/// Distance of the eyes from the middle, and their height.
const EYE: Point = [0.27, 0.20];

/// Parts of the head, from back to front: hair behind the head, the head, hair in front of it.
struct Head {
    behind: Path,
    skin: Path,
    before: Path,
}

/// Returns the parts of the head for a haircut, all within the circle of radius 1.
fn head(hair: Hair) -> &'static Head {
    static HEADS: LazyLock<[Head; Hair::ALL.len()]> = LazyLock::new(|| {
        Hair::ALL.map(|hair| Head {
            behind: hair_behind(hair),
            skin: ellipse([0.0, 0.22], [0.62, 0.72]),
            before: hair_before(hair),
        })
    });
    &HEADS[hair.index()]
}

/// Draws a face of radius 1 with this hair colour; `shade` brightens all other colours.
pub(super) fn draw(canvas: &mut Canvas, identity: &Identity, hair: Rgb, shade: f32) {
    let Head { behind, skin, before } = head(identity.hair);
    canvas.fill(behind, hair, None);
    canvas.fill(skin, shaded(identity.skin.rgb(), shade), None);
    canvas.fill(before, hair, None);
    mouth(canvas, identity.mouth);
    for side in [-1.0, 1.0] {
        if identity.glasses == Glasses::Worn {
            lens(canvas, side);
        }
        eye(canvas, identity.eyes, side);
        brow(canvas, identity.brows, side);
    }
}

/// Draws the whole area of a face in one colour.
pub(super) fn draw_silhouette(canvas: &mut Canvas, identity: &Identity, rgb: Rgb) {
    let Head { behind, skin, before } = head(identity.hair);
    [behind, skin, before].into_iter().for_each(|part| canvas.fill(part, rgb, None));
}

fn hair_behind(hair: Hair) -> Path {
    match hair {
        Hair::Short | Hair::Spiky => ellipse([0.0, 0.0], [0.70, 0.60]),
        Hair::Long => {
            let mut builder = PathBuilder::new();
            builder.move_to(-0.74, -0.2);
            builder.quad_to(-0.98, 0.35, -0.76, 0.62);
            builder.line_to(0.76, 0.62);
            builder.quad_to(0.98, 0.35, 0.74, -0.2);
            builder.close();
            finish(builder)
        }
    }
}

/// Returns the hair above the brows, from its top along its lower edge; black hair must not hide raised brows.
fn hair_before(hair: Hair) -> Path {
    let edge: &[Point] = match hair {
        Hair::Short => {
            &[[0.74, 0.08], [0.60, -0.06], [0.52, -0.22], [-0.30, -0.34], [-0.56, -0.16], [-0.62, -0.06], [-0.74, 0.08]]
        }
        Hair::Long => {
            &[[0.76, 0.10], [0.58, 0.04], [0.46, -0.18], [0.0, -0.42], [-0.46, -0.18], [-0.58, 0.04], [-0.76, 0.10]]
        }
        Hair::Spiky => &[
            [0.60, -0.02],
            [0.53, -0.22],
            [0.36, -0.24],
            [0.18, -0.38],
            [0.0, -0.20],
            [-0.18, -0.38],
            [-0.36, -0.24],
            [-0.53, -0.22],
            [-0.60, -0.02],
        ],
    };
    let top: Vec<Point> = match hair {
        Hair::Short => arc([0.0, -0.15], 0.78, PI - 0.28, TAU + 0.28).collect(),
        Hair::Long => arc([0.0, -0.12], 0.80, PI - 0.28, TAU + 0.28).collect(),
        Hair::Spiky => {
            let radius = |i: i32| if i % 2 == 0 { 0.66 } else { 0.99 };
            (0..=14).map(|i| polar(radius(i), PI - 0.04 + i as f32 * (PI + 0.08) / 14.0)).collect()
        }
    };
    polygon(top.into_iter().chain(edge.iter().copied()))
}

fn eye(canvas: &mut Canvas, eyes: Eyes, side: f32) {
    let [x, y] = [side * EYE[0], EYE[1]];
    match eyes {
        Eyes::Round => canvas.fill(&ellipse([x, y], [0.11, 0.12]), INK, None),
        Eyes::Wide => {
            canvas.fill(&ellipse([x, y], [0.19, 0.19]), WHITE, None);
            canvas.fill(&ellipse([x, y + 0.02], [0.085, 0.085]), INK, None);
        }
        Eyes::Closed => canvas.stroke(&bow([x, y], 0.17, 0.18), 0.1, INK, None),
    }
}

fn brow(canvas: &mut Canvas, brows: Brows, side: f32) {
    let [x, y] = [side * EYE[0], EYE[1] - 0.26];
    let line = match brows {
        Brows::Flat => bow([x, y], 0.16, 0.0),
        Brows::Raised => bow([x, y - 0.07], 0.16, -0.20),
        Brows::Angry => {
            let mut builder = PathBuilder::new();
            builder.move_to(x + side * 0.17, y - 0.12);
            builder.line_to(x - side * 0.14, y + 0.10);
            finish(builder)
        }
    };
    canvas.stroke(&line, 0.105, INK, None);
}

fn lens(canvas: &mut Canvas, side: f32) {
    let rim = ellipse([side * EYE[0], EYE[1] + 0.01], [0.25, 0.23]);
    canvas.fill(&rim, LENS, None);
    canvas.stroke(&rim, 0.08, INK, None);
    let mut temple = PathBuilder::new();
    temple.move_to(side * 0.52, EYE[1]);
    temple.line_to(side * 0.60, EYE[1] - 0.03);
    canvas.stroke(&finish(temple), 0.07, INK, None);
}

fn mouth(canvas: &mut Canvas, mouth: Mouth) {
    match mouth {
        Mouth::Smile => canvas.stroke(&bow([0.0, 0.55], 0.29, 0.40), 0.12, INK, None),
        Mouth::Frown => canvas.stroke(&bow([0.0, 0.73], 0.27, -0.38), 0.12, INK, None),
        Mouth::Open => {
            let lips = ellipse([0.0, 0.64], [0.19, 0.17]);
            canvas.fill(&lips, THROAT, None);
            canvas.stroke(&lips, 0.06, INK, None);
        }
    }
}

/// Returns an arc of width `2 * half` whose middle is `sag / 2` lower than its ends.
fn bow([x, y]: Point, half: f32, sag: f32) -> Path {
    let mut builder = PathBuilder::new();
    builder.move_to(x - half, y);
    builder.quad_to(x, y + sag, x + half, y);
    finish(builder)
}
