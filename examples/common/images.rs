//! Images in and out.

use std::error::Error;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use clap::Args;
use fabric::core::image::{Crop, Image, ImageError, Mark, contact_sheet};
use fabric::core::pipeline::{Generation, Request, Settings};
use fabric::models::clip::ClipVision;

/// An image encoder from its folder.
pub(crate) fn encoder(folder: &Path, device: &Device) -> Result<ClipVision, Box<dyn Error>> {
    Ok(ClipVision::open(folder, device)?)
}

/// What every example that makes a series of images takes.
#[derive(Args)]
pub(crate) struct Series {
    /// What the images should not show.
    #[arg(long)]
    pub(crate) negative: Option<String>,
    /// How many images.
    #[arg(long, default_value_t = 1)]
    images: u64,
    /// Seed of the first image; the others count up.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where the images go.
    #[arg(long, default_value = "out")]
    out: PathBuf,
}

impl Series {
    /// Makes the folder for the results and checks that they can be written there: to be called before the work.
    pub(crate) fn prepare(&self) -> Result<(), Box<dyn Error>> {
        super::prepare(&self.out, self.seeds().map(|seed| format!("seed-{seed}.png")))
    }

    fn seeds(&self) -> impl Iterator<Item = u64> {
        (0..self.images).map(|at| self.seed.wrapping_add(at))
    }

    /// The series under a prompt.
    pub(crate) fn request(&self, prompt: &str, settings: Settings) -> Request {
        let mut request = Request::new(prompt).with_seeds(self.seeds()).with_settings(settings);
        request.negative_prompt.clone_from(&self.negative);
        request
    }

    /// Saves what was made, by seeds and below what was given, and prints where and how it went.
    pub(crate) fn finish(&self, given: &[Image], made: &Generation) -> Result<(), Box<dyn Error>> {
        self.save("", made)?;
        self.sheet(&[given, &made.images]);
        super::print_report(&made.report);
        Ok(())
    }

    /// Saves each image under its seed, behind a prefix.
    pub(crate) fn save(&self, prefix: &str, made: &Generation) -> Result<(), Box<dyn Error>> {
        for (image, seed) in made.images.iter().zip(&made.seeds) {
            image.save(self.out.join(format!("{prefix}seed-{seed}.png")))?;
        }
        Ok(())
    }

    /// Saves rows of images as one, with given images in the size of made ones, and prints where.
    pub(crate) fn sheet(&self, rows: &[&[Image]]) {
        super::save_sheet(sheet(rows), &self.out.join("sheet.png"));
    }
}

fn sheet(rows: &[&[Image]]) -> Result<Image, ImageError> {
    let side = rows.last().and_then(|row| row.first()).map_or(1, Image::width);
    let rows = rows.iter().map(|row| row.iter().map(|image| image.crop_square(side, Crop::Pad)).collect());
    let rows: Vec<Vec<Image>> = rows.collect::<Result<_, _>>()?;
    let marked: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|image| (image, Mark::None)).collect()).collect();
    contact_sheet(&marked, 8)
}
