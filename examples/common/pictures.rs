//! Pictures in and out.

use std::error::Error;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use clap::Args;
use fabric::core::picture::{Crop, Mark, Picture, contact_sheet};
use fabric::core::pipeline::{Generation, Request, Settings};
use fabric::models::clip::ClipVision;

/// An image encoder from its folder.
pub(crate) fn encoder(folder: &Path, device: &Device) -> Result<ClipVision, Box<dyn Error>> {
    Ok(ClipVision::open(folder, device)?)
}

/// What every example that makes a series of pictures takes.
#[derive(Args)]
pub(crate) struct Series {
    /// What the pictures should not show.
    #[arg(long)]
    pub(crate) negative: Option<String>,
    /// How many pictures.
    #[arg(long, default_value_t = 1)]
    pictures: u64,
    /// Seed of the first picture; the others count up.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where the pictures go.
    #[arg(long, default_value = "out")]
    out: PathBuf,
}

impl Series {
    /// The series under a prompt.
    pub(crate) fn request(&self, prompt: &str, settings: Settings) -> Request {
        let seeds = (0..self.pictures).map(|at| self.seed.wrapping_add(at));
        let mut request = Request::new(prompt).with_seeds(seeds).with_settings(settings);
        request.negative_prompt.clone_from(&self.negative);
        request
    }

    /// Saves what was made, by seeds and below what was given, and prints where and how it went.
    pub(crate) fn finish(&self, given: &[Picture], made: &Generation) -> Result<(), Box<dyn Error>> {
        std::fs::create_dir_all(&self.out)?;
        for (picture, seed) in made.pictures.iter().zip(&made.seeds) {
            picture.save(self.out.join(format!("seed-{seed}.png")))?;
        }
        self.sheet(&[given, &made.pictures])?;
        super::print_report(&made.report);
        Ok(())
    }

    /// Saves rows of pictures as one, with given pictures in the size of made ones, and prints where.
    pub(crate) fn sheet(&self, rows: &[&[Picture]]) -> Result<(), Box<dyn Error>> {
        let side = rows.last().and_then(|row| row.first()).map_or(1, Picture::width);
        let rows = rows.iter().map(|row| row.iter().map(|picture| picture.crop_square(side, Crop::Pad)).collect());
        let rows: Vec<Vec<Picture>> = rows.collect::<Result<_, _>>()?;
        let marked: Vec<Vec<_>> =
            rows.iter().map(|row| row.iter().map(|picture| (picture, Mark::None)).collect()).collect();
        std::fs::create_dir_all(&self.out)?;
        let path = self.out.join("sheet.png");
        contact_sheet(&marked, 8)?.save(&path)?;
        println!("{}", path.display());
        Ok(())
    }
}
