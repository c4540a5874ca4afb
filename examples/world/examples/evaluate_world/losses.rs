//! Measures where factors are lost: in the readers, in the VAE, or in the U-Net.

use std::error::Error;

use fabric_world::{Factor, Named, Sample, Size, Tally, full_caption, measure, sample};

use super::{Evaluation, SEED, networks, print_head, print_line};

/// Prints the readers' accuracy per object size, for scenes without faces: on drawings, on the same drawings after
/// the VAE, and on images made from full captions.
pub(crate) fn measure(evaluation: &Evaluation<'_>) -> Result<(), Box<dyn Error>> {
    let vae = networks::load_vae(evaluation)?;
    print_head(&["size", "image, percent right"]);
    for size in Size::ALL {
        let scenes = (0..).map(|index| sample(SEED + 1, index, None));
        let scenes = scenes.filter(|sample| sample.scene.size == size && !sample.scene.is_face());
        let scenes: Vec<Sample> = scenes.take(evaluation.arguments.scenes as usize).collect();
        let drawn = measure::drawn(&scenes)?;
        let decoded = measure::reconstructed(&vae, &drawn, &evaluation.device)?;
        let requests: Vec<_> =
            (0..).zip(&scenes).map(|(seed, sample)| evaluation.request(&full_caption(&sample.scene), seed)).collect();
        let made = measure::generate_all(&evaluation.pipeline, &requests)?;
        for (name, images) in [("drawn", drawn), ("after the VAE", decoded), ("made by the U-Net", made)] {
            let mut tally = Tally::default();
            for (sample, seen) in scenes.iter().zip(evaluation.judge.read(&images)?) {
                tally.add(&Named::of(&sample.scene), &seen);
            }
            print_line(&[size.name(), name], &tally);
        }
    }
    Ok(())
}
