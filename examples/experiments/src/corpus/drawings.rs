//! A folder of drawings, as the corpus of first rounds.

use std::path::Path;

use burn::tensor::Device;
use fabric::core::InvalidValue;
use fabric::core::image::Image;
use fabric::models::clip::ClipVision;
use fabric::models::corpus::{Candidate, Corpus, CorpusError, ImageEmbedder, Query};
use fabric_world::sample;
use rayon::ThreadPoolBuilder;
use tempfile::TempDir;

use crate::ExperimentError;
use crate::small_world::drawn;
use crate::text_ruler::TextRuler;

/// Seed of the drawings; the scenes of the prompts, training and the evaluation of networks use others.
const SEED: u64 = 990_023;

/// Drawings of random scenes in a temporary folder, with their embeddings. They are the same in every process, so a
/// process that resumes a run, or has a share of it, draws them again.
#[derive(Debug)]
pub(crate) struct Drawings {
    count: usize,
    corpus: Corpus,
    texts: TextRuler,
    /// Number of channels of an embedding.
    channels: usize,
    /// Removed with the value.
    _folder: TempDir,
}

impl Drawings {
    /// Draws `count` scenes and embeds them with the image encoder of a model of the small world. `model` is the folder
    /// of that model.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no drawing, the drawings cannot be written or embedded, or the text encoder cannot
    /// be loaded.
    pub(crate) fn new(
        count: usize,
        model: &Path,
        encoder: &ClipVision,
        device: &Device,
    ) -> Result<Self, ExperimentError> {
        let place = std::env::temp_dir();
        let folder = tempfile::tempdir().map_err(ExperimentError::io(&place, "make a folder for drawings"))?;
        for index in 0..count {
            let path = folder.path().join(format!("{index:04}.png"));
            drawing(index)?.save(&path).map_err(fabric::core::Error::from)?;
        }
        // The number of threads changes the order of sums, and could change which drawings are nearest.
        let pool = ThreadPoolBuilder::new().num_threads(1).build();
        let pool = pool.map_err(|error| ExperimentError::Other(error.into()))?;
        let corpus = pool.install(|| Corpus::open(folder.path(), encoder))?;
        let channels = encoder.image_embeddings(&[drawing(0)?])?.dims()[1];
        let texts = TextRuler::open(model, device)?;
        Ok(Self { count, corpus, texts, channels, _folder: folder })
    }

    /// The number of drawings.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Returns the `count` drawings that are nearest to a prompt, nearest first, with the names of their files.
    ///
    /// # Errors
    ///
    /// Returns an error if there are fewer drawings, or the prompt cannot be embedded.
    pub(crate) fn nearest(&self, prompt: &str, count: usize) -> Result<Vec<(Image, String)>, ExperimentError> {
        let query = Query::new().with_text(self.texts.embed(prompt, self.channels)?, 1.0);
        let found = self.corpus.nearest(&query, count)?;
        if found.len() < count {
            let expected = format!("at least {count}, the images of a round");
            let help = "give the arm more drawings, or make smaller rounds";
            return Err(InvalidValue::new("drawings of the corpus", found.len(), expected, help).into());
        }
        let opened = |candidate: &Candidate| -> Result<(Image, String), CorpusError> {
            let name = candidate.path.file_name().map(|name| name.to_string_lossy().into_owned());
            Ok((candidate.open()?, name.unwrap_or_default()))
        };
        Ok(found.iter().map(opened).collect::<Result<_, _>>()?)
    }
}

/// Draws the scene of an index: any combination of factors, also those that training never shows.
fn drawing(index: usize) -> Result<Image, ExperimentError> {
    drawn(&sample(SEED, index as u64, None))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fabric::core::metrics::similarity;
    use fabric::models::demo_folder;

    use super::*;
    use crate::{Arm, Experiment, FirstRound, SmallWorld, Subject};

    /// Number of drawings.
    const COUNT: usize = 12;

    #[test]
    fn the_drawings_of_the_first_round_are_those_most_similar_to_the_prompt() {
        let (model, device) = (demo_folder().expect("the model ships"), fabric::default_device().expect("a device"));
        let experiment = Experiment::named("corpus", &BTreeMap::new()).expect("an experiment");
        let first_round = Some(FirstRound::Corpus { drawings: COUNT });
        let arm = Arm { first_round, ..experiment.arms[0].clone() };
        let world = SmallWorld::open(&model, None, &device).expect("a model");
        let world = world.with_drawings(&model, &[arm]).expect("drawings");
        let drawings = world.drawings(COUNT).expect("drawings");
        assert!(world.drawings(COUNT + 1).is_none());

        let images: Vec<Image> = (0..COUNT).map(|index| drawing(index).expect("a drawing")).collect();
        let embedded = world.embed(&images).expect("embeddings");
        for prompt in ["a star", "a heart", "a large red circle"] {
            let text = drawings.texts.embed(prompt, drawings.channels).expect("an embedding");
            let similarities = similarity(embedded.clone(), text).concat();
            let mut order: Vec<usize> = (0..COUNT).collect();
            order.sort_by(|a, b| similarities[*b].total_cmp(&similarities[*a]));
            let found = drawings.nearest(prompt, 4).expect("drawings");
            for ((image, file), index) in found.iter().zip(&order) {
                assert_eq!((file, image), (&format!("{index:04}.png"), &images[*index]), "{prompt}");
            }
            assert_eq!(found.len(), 4);
        }
    }
}
