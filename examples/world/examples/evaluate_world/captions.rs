//! Measures how often images made from captions show the factors that the captions name.

use std::error::Error;
use std::time::Instant;

use fabric::core::image::{Image, Mark, contact_sheet};
use fabric_world::{Split, Tally, measure};

use super::{Evaluation, print_head, print_line, samples};

/// Number of images per row of the contact sheet.
const ROW: usize = 8;

/// Prints how often images show the factors that their captions name, and writes the contact sheet of `--sheet`.
pub(crate) fn measure(evaluation: &Evaluation<'_>) -> Result<(), Box<dyn Error>> {
    print_head(&["images made from captions, percent right"]);
    let mut sheet: Vec<Image> = Vec::new();
    let mut seconds = 0.0;
    for (name, split) in [("combinations shown", Split::Train), ("combinations never shown", Split::HeldOut)] {
        let expected = samples(split, evaluation.arguments.captions);
        let requests: Vec<_> =
            (0..).zip(&expected).map(|(seed, sample)| evaluation.request(&sample.caption.text, seed)).collect();
        let clock = Instant::now();
        let made = measure::generate_all(&evaluation.pipeline, &requests)?;
        seconds += clock.elapsed().as_secs_f64();
        let mut tally = Tally::default();
        for (sample, seen) in expected.iter().zip(evaluation.judge.read(&made)?) {
            tally.add(&sample.caption.named, &seen);
        }
        print_line(&[name], &tally);
        sheet.extend(made.into_iter().take(2 * ROW));
    }
    let images = 2 * evaluation.arguments.captions.max(1);
    println!("\n{:.2} s for each image, several at once on the cores of this machine", seconds / images as f64);
    if let Some(path) = &evaluation.arguments.sheet {
        let rows: Vec<Vec<_>> =
            sheet.chunks(ROW).map(|row| row.iter().map(|image| (image, Mark::None)).collect()).collect();
        contact_sheet(&rows, 4)?.save(path)?;
        println!("{}", path.display());
    }
    Ok(())
}
