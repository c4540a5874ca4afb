//! Options and output of the examples that make one image per seed.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use fabric::core::image::{Crop, Image, ImageError, Mark, contact_sheet};
use fabric::core::pipeline::{Generation, Request, Settings};

/// Options for making one image per seed.
#[derive(Args)]
pub(crate) struct Series {
    /// Negative prompt: what the images should not show.
    #[arg(long)]
    pub(crate) negative: Option<String>,
    /// Number of images.
    #[arg(long, default_value_t = 1)]
    images: u64,
    /// Seed of the first image. The following images use the following seeds.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Output folder.
    #[arg(long, default_value = "out")]
    out: PathBuf,
}

impl Series {
    /// Creates the output folder and checks that the results can be written to it. Call it before generation.
    pub(crate) fn prepare(&self) -> Result<(), Box<dyn Error>> {
        super::prepare(&self.out, self.seeds().map(|seed| format!("seed-{seed}.png")))
    }

    fn seeds(&self) -> impl Iterator<Item = u64> {
        (0..self.images).map(|at| self.seed.wrapping_add(at))
    }

    /// Returns the request for the images of a prompt.
    pub(crate) fn request(&self, prompt: &str, settings: Settings) -> Request {
        let mut request = Request::new(prompt).with_seeds(self.seeds()).with_settings(settings);
        request.negative_prompt.clone_from(&self.negative);
        request
    }

    /// Saves each image under its seed, saves a sheet with the given images above the made ones, and prints the report.
    pub(crate) fn finish(&self, given: &[Image], made: &Generation) -> Result<(), Box<dyn Error>> {
        self.save("", made)?;
        self.sheet(&[given, &made.images]);
        super::print_report(&made.report);
        Ok(())
    }

    /// Saves each image as `{prefix}seed-{seed}.png`.
    pub(crate) fn save(&self, prefix: &str, made: &Generation) -> Result<(), Box<dyn Error>> {
        for (image, seed) in made.images.iter().zip(&made.seeds) {
            image.save(self.out.join(format!("{prefix}seed-{seed}.png")))?;
        }
        Ok(())
    }

    /// Saves rows of images as one sheet and prints its path. All images are resized to the width of the last row's.
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
