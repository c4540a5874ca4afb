//! Pictures in and out.

use std::error::Error;
use std::path::Path;

use burn::tensor::Device;
use fabric::core::picture::{Crop, Mark, Picture, contact_sheet};
use fabric::core::pipeline::Generation;
use fabric::models::clip::{ClipVision, ClipVisionConfig};
use fabric::models::load::{ComponentFolder, LoadOptions, load_into};

/// An image encoder from its folder.
pub(crate) fn encoder(folder: &Path, device: &Device) -> Result<ClipVision, Box<dyn Error>> {
    let folder = ComponentFolder::open(folder, None)?;
    let network = folder.config::<ClipVisionConfig>()?.init(device)?;
    Ok(load_into(network, &*folder.weights()?, &LoadOptions::default())?.0)
}

/// Saves pictures by their seeds.
pub(crate) fn save(made: &Generation, out: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(out)?;
    for (picture, seed) in made.pictures.iter().zip(&made.seeds) {
        picture.save(out.join(format!("seed-{seed}.png")))?;
    }
    Ok(())
}

/// Saves rows of pictures as one, with given pictures in the size of made ones, and prints where.
pub(crate) fn sheet(rows: &[&[Picture]], out: &Path) -> Result<(), Box<dyn Error>> {
    let side = rows.last().and_then(|row| row.first()).map_or(1, Picture::width);
    let rows = rows.iter().map(|row| row.iter().map(|picture| picture.crop_square(side, Crop::Pad)).collect());
    let rows: Vec<Vec<Picture>> = rows.collect::<Result<_, _>>()?;
    let marked: Vec<Vec<_>> =
        rows.iter().map(|row| row.iter().map(|picture| (picture, Mark::None)).collect()).collect();
    std::fs::create_dir_all(out)?;
    let path = out.join("sheet.png");
    contact_sheet(&marked, 8)?.save(&path)?;
    println!("{}", path.display());
    Ok(())
}
