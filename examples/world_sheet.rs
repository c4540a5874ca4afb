//! Draws contact sheets of the synthetic world, to look at: `cargo run --example world_sheet -- FOLDER`.

use std::path::{Path, PathBuf};

use fabric_models::world::{
    Background, BackgroundColour, BackgroundPattern, Colour, Factor, Glasses, Identity, Kind, Position, SIDE, Scene,
    Size, Split, Texture, Variation, sample,
};
use image::{ImageError, RgbImage, imageops};

/// Scenes in rows of a given length, each with its variation.
type Sheet = (usize, Vec<(Scene, Variation)>);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    for (name, sheet) in [
        ("kinds", kinds()),
        ("textures", textures()),
        ("texture-colours", texture_colours()),
        ("small", small()),
        ("positions", positions()),
        ("backgrounds", backgrounds()),
        ("faces", faces()),
        ("samples", samples()),
    ] {
        save(&folder.join(format!("sheet-{name}.png")), sheet)?;
    }
    Ok(())
}

fn save(path: &Path, (columns, scenes): Sheet) -> Result<(), Box<dyn std::error::Error>> {
    const ZOOM: u32 = 3;
    let cell = SIDE + 2;
    let rows = scenes.len().div_ceil(columns);
    let mut sheet = RgbImage::from_pixel(columns as u32 * cell, rows as u32 * cell, image::Rgb([255, 0, 255]));
    for (i, (scene, variation)) in scenes.iter().enumerate() {
        let rgb = scene.render(variation, SIDE)?;
        let picture = RgbImage::from_raw(SIDE, SIDE, rgb).ok_or("the picture is no square")?;
        imageops::replace(
            &mut sheet,
            &picture,
            (i % columns) as i64 * i64::from(cell),
            (i / columns) as i64 * i64::from(cell),
        );
    }
    let (width, height) = (sheet.width() * ZOOM, sheet.height() * ZOOM);
    let saved: Result<(), ImageError> =
        imageops::resize(&sheet, width, height, imageops::FilterType::Nearest).save(path);
    Ok(saved?)
}

fn base() -> Scene {
    Scene {
        kind: Kind::Circle,
        colour: Colour::Red,
        texture: Texture::Plain,
        size: Size::Large,
        position: Position::Center,
        background: Background { colour: BackgroundColour::Gray, pattern: BackgroundPattern::Plain },
        identity: Identity::default(),
    }
}

fn still(scene: Scene) -> (Scene, Variation) {
    (scene, Variation::default())
}

fn kinds() -> Sheet {
    let scenes =
        Colour::ALL.into_iter().flat_map(|colour| Kind::ALL.map(|kind| still(Scene { kind, colour, ..base() })));
    (Kind::ALL.len(), scenes.collect())
}

fn textures() -> Sheet {
    let rows = [Size::Large, Size::Medium].into_iter().flat_map(|size| Texture::ALL.map(|texture| (size, texture)));
    let row = |(size, texture)| {
        Kind::ALL.map(|kind| still(Scene { kind, size, texture, colour: Colour::ALL[kind.index() % 9], ..base() }))
    };
    (Kind::ALL.len(), rows.flat_map(row).collect())
}

fn texture_colours() -> Sheet {
    let rows = [Kind::Square, Kind::Star].into_iter().flat_map(|kind| Texture::ALL.map(|texture| (kind, texture)));
    let row = |(kind, texture)| Colour::ALL.map(|colour| still(Scene { kind, texture, colour, ..base() }));
    (Colour::ALL.len(), rows.flat_map(row).collect())
}

fn small() -> Sheet {
    let row = |texture: Texture| {
        Kind::ALL.map(|kind| {
            let colour = Colour::ALL[(kind.index() + 2 * texture.index()) % 9];
            still(Scene { kind, texture, colour, size: Size::Small, ..base() })
        })
    };
    (Kind::ALL.len(), Texture::ALL.into_iter().flat_map(row).collect())
}

fn positions() -> Sheet {
    let row = |size| {
        Position::ALL.map(|position| {
            let scene = Scene { kind: Kind::Heart, size, position, ..base() };
            (scene, Variation::default())
        })
    };
    (Position::ALL.len(), Size::ALL.into_iter().flat_map(row).collect())
}

fn backgrounds() -> Sheet {
    let row = |pattern| {
        BackgroundColour::ALL.map(|colour| {
            let thing = if colour == BackgroundColour::Black { Colour::White } else { Colour::Black };
            still(Scene {
                background: Background { colour, pattern },
                colour: thing,
                size: Size::Medium,
                kind: Kind::Fish,
                ..base()
            })
        })
    };
    let orange = BackgroundColour::ALL.map(|colour| {
        let background = Background { colour, pattern: BackgroundPattern::Striped };
        still(Scene { background, colour: Colour::Orange, texture: Texture::Striped, ..base() })
    });
    (BackgroundColour::ALL.len(), BackgroundPattern::ALL.into_iter().flat_map(row).chain(orange).collect())
}

fn faces() -> Sheet {
    let scenes = (0..84).map(|i| {
        // 101 is coprime to their number: all factors change from one to the next.
        let mut identity = Identity::from_index(i * 101);
        if i < 6 {
            identity.glasses = Glasses::ALL[i % 2];
        }
        let size = if i < 60 { Size::Large } else { Size::ALL[i % 2] };
        still(Scene { kind: Kind::Face, identity, colour: Colour::ALL[i % 9], size, ..base() })
    });
    (12, scenes.collect())
}

fn samples() -> Sheet {
    let scenes = (0..96).map(|index| {
        let example = sample(1, index, Split::Train);
        (example.scene, example.variation)
    });
    (12, scenes.collect())
}
