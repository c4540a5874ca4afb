//! The attention that the references and the image prompts of a round got, kept beside the images and shown in the
//! report.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use fabric::core::image::Image;
use fabric::core::pipeline::{ImagePromptEffect, ReferenceAttention};
use serde::{Deserialize, Serialize};

use crate::ExperimentError;
use crate::files::{make_folder_of, write_beside};
use crate::report::HeatMap;

/// Attention that the references and the image prompts of one round got.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RoundAttention {
    /// Round, from 0.
    pub(crate) round: usize,
    /// Number of liked references; they come before the disliked ones.
    pub(crate) liked: usize,
    /// Whether all images of earlier rounds are references, so that each side has one of each round.
    pub(crate) has_all_rounds: bool,
    /// The references, oldest first on each side.
    pub(crate) references: Vec<ReferenceAttention>,
    /// The image prompts, which are the votes with a reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) image_prompts: Vec<ImagePromptEffect>,
}

impl RoundAttention {
    /// Returns the name of a reference in reports.
    pub(crate) fn name(&self, reference: usize) -> String {
        let (side, at) = reference.checked_sub(self.liked).map_or(("liked", reference), |at| ("disliked", at));
        let kind = if self.has_all_rounds { "image of round" } else { "reference" };
        format!("{side} {kind} {}", at + 1)
    }

    /// Returns a heat map of the share of the attention that a reference got, by layer and evaluation.
    pub(crate) fn heat_map(&self, reference: usize, caption: &str) -> HeatMap {
        let layers = &self.references[reference].layers;
        // Only the address of the layer tells self-attentions apart.
        let name = |layer: &str| layer.split(".transformer_blocks").next().unwrap_or(layer).to_owned();
        let evaluations = layers.iter().map(|layer| layer.shares.len()).max().unwrap_or(0);
        HeatMap {
            caption: format!(
                "{caption}, {}: share of the attention in percent, by layer and evaluation",
                self.name(reference)
            ),
            rows: layers.iter().map(|layer| name(&layer.layer)).collect(),
            columns: (1..=evaluations).map(|evaluation| evaluation.to_string()).collect(),
            values: layers.iter().map(|layer| layer.shares.iter().map(|share| 100.0 * share).collect()).collect(),
        }
    }

    /// Returns a heat map of the share of the cross-attention that each vote with a reason contributed, by evaluation:
    /// the mean over the layers in which it acted. `None` if there were no such votes.
    pub(crate) fn heat_map_of_votes(&self, caption: &str) -> Option<HeatMap> {
        let layers = self.image_prompts.iter().flat_map(|effect| &effect.layers);
        let evaluations = layers.map(|layer| layer.shares.len()).max()?;
        let name = |(index, effect): (usize, &ImagePromptEffect)| format!("{}: {effect}", index + 1);
        let values = |effect: &ImagePromptEffect| {
            let by_evaluation = (0..evaluations).map(|evaluation| mean_of_acting_layers(effect, evaluation));
            by_evaluation.chain([effect.mean]).map(|share| 100.0 * share).collect()
        };
        Some(HeatMap {
            caption: format!("{caption}, votes with a reason: share of the cross-attention in percent, by evaluation"),
            rows: self.image_prompts.iter().enumerate().map(name).collect(),
            columns: (1..=evaluations).map(|at| at.to_string()).chain(["mean".to_owned()]).collect(),
            values: self.image_prompts.iter().map(values).collect(),
        })
    }

    /// Returns an image of the round, turned grey where a reference got little attention: entirely at the lower of the
    /// two shares, and not at all at the higher one.
    pub(crate) fn veil(&self, reference: usize, at: usize, image: &Image, [low, high]: [f32; 2]) -> Option<Image> {
        const GREY: f32 = 128.0;
        let map = self.references.get(reference)?.maps.get(at)?;
        let (width, height) = (image.width(), image.height());
        let mut rgb = image.rgb().to_vec();
        for (number, pixel) in rgb.chunks_exact_mut(3).enumerate() {
            let (x, y) = (number % width, number / width);
            let row = map.get(y * map.len() / height)?;
            let share = *row.get(x * row.len() / width)?;
            let clear = ((share - low) / (high - low).max(f32::MIN_POSITIVE)).clamp(0.0, 1.0);
            pixel
                .iter_mut()
                .for_each(|value| *value = (f32::from(*value) * clear + GREY * (1.0 - clear)).round() as u8);
        }
        Image::from_rgb(width, height, rgb).ok()
    }

    /// Returns the lowest and the highest share of a cell of all images' maps.
    pub(crate) fn range(&self, reference: usize) -> [f32; 2] {
        let cells = self.references[reference].maps.iter().flatten().flatten();
        cells.fold([f32::INFINITY, 0.0], |[low, high], share| [low.min(*share), high.max(*share)])
    }

    /// Writes the attention of the rounds of a session.
    pub(crate) fn save(all: &[Self], folder: &Path, arm: &str, case: usize) -> Result<(), ExperimentError> {
        let path = place(folder, arm, case);
        let json = serde_json::to_vec(all).expect("shares are plain data");
        write(&path, &json)
    }

    /// Copies the attention of the rounds of a session into the folder of another run, if it was kept.
    pub(crate) fn copy(from: &Path, into: &Path, arm: &str, case: usize) -> Result<(), ExperimentError> {
        match bytes(&place(from, arm, case))? {
            Some(json) => write(&place(into, arm, case), &json),
            None => Ok(()),
        }
    }

    /// Reads the attention of the rounds of a session; none if it was not kept.
    pub(crate) fn read(folder: &Path, arm: &str, case: usize) -> Result<Vec<Self>, ExperimentError> {
        let path = place(folder, arm, case);
        let Some(json) = bytes(&path)? else { return Ok(Vec::new()) };
        let damaged = |got: String| ExperimentError::Attention { path: path.clone(), got };
        let all: Vec<Self> = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
        for Self { liked, references, .. } in &all {
            if *liked > references.len() {
                return Err(damaged(format!("{liked} liked of {} references", references.len())));
            }
        }
        Ok(all)
    }
}

/// Returns the mean share at an evaluation of the layers in which the image prompt acted; 0 if there are none.
fn mean_of_acting_layers(effect: &ImagePromptEffect, evaluation: usize) -> f64 {
    let shares = effect.layers.iter().filter_map(|layer| layer.shares.get(evaluation).copied());
    let acting: Vec<f64> = shares.filter(|share| *share > 0.0).collect();
    if acting.is_empty() { 0.0 } else { acting.iter().sum::<f64>() / acting.len() as f64 }
}

/// Returns the content of a file of attention; `None` if there is no such file.
fn bytes(path: &Path) -> Result<Option<Vec<u8>>, ExperimentError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ExperimentError::io(path, "read the attention")(error)),
    }
}

fn write(path: &Path, json: &[u8]) -> Result<(), ExperimentError> {
    let written = make_folder_of(path).and_then(|()| write_beside(path, json));
    written.map_err(ExperimentError::io(path, "write the attention"))
}

fn place(folder: &Path, arm: &str, case: usize) -> PathBuf {
    folder.join("attention").join(arm.replace(' ', "-")).join(format!("{case:04}.json"))
}

#[cfg(test)]
mod tests {
    use fabric::core::Aspect;
    use fabric::core::pipeline::LayerAttention;

    use super::*;

    #[test]
    fn an_image_stays_clear_where_the_reference_acted() {
        let layers = vec![LayerAttention {
            layer: "mid_block.attentions.0.transformer_blocks.0.attn1".to_owned(),
            shares: vec![0.1, 0.3],
        }];
        let references = vec![ReferenceAttention { mean: 0.2, layers, maps: vec![vec![vec![0.4, 0.0]]] }];
        let image_prompts = Vec::new();
        let attention = RoundAttention { round: 1, liked: 0, has_all_rounds: true, references, image_prompts };
        let image = Image::filled(4, 2, [200, 100, 0]).expect("an image");
        let veiled = attention.veil(0, 0, &image, attention.range(0)).expect("a map of the image");
        assert_eq!((veiled.pixel(0, 1), veiled.pixel(3, 0)), ([200, 100, 0], [128; 3]));
        assert!(attention.veil(0, 1, &image, [0.0, 1.0]).is_none(), "there is one image only");
        let map = attention.heat_map(0, "a star");
        assert_eq!(
            (map.rows, map.columns.len(), map.values),
            (vec!["mid_block.attentions.0".to_owned()], 2, vec![vec![10.0, 30.0]])
        );
        assert!(map.caption.contains("by layer and evaluation"), "{}", map.caption);
        assert_eq!(attention.name(0), "disliked image of round 1");
        let some_left_out = RoundAttention { liked: 1, has_all_rounds: false, ..attention.clone() };
        assert_eq!([some_left_out.name(0), some_left_out.name(1)], ["liked reference 1", "disliked reference 1"]);
        let folder = tempfile::tempdir().expect("a folder");
        RoundAttention::save(std::slice::from_ref(&attention), folder.path(), "liked and disliked", 3).expect("a file");
        let read = |arm| RoundAttention::read(folder.path(), arm, 3).expect("a file or none");
        assert_eq!((read("liked and disliked"), read("liked")), (vec![attention], Vec::new()));
    }

    #[test]
    fn votes_with_a_reason_have_a_line_each_and_are_kept() {
        let layer = |name: &str, shares: [f64; 2]| LayerAttention { layer: name.to_owned(), shares: shares.to_vec() };
        let towards = ImagePromptEffect {
            aspect: Some(Aspect::Style),
            scale: 0.5,
            mean: 0.2,
            layers: vec![layer("a", [0.1, 0.0]), layer("b", [0.3, 0.0])],
            ..ImagePromptEffect::default()
        };
        let never = layer("a", [0.0; 2]);
        let away = ImagePromptEffect { away: true, layers: vec![never.clone(), never], ..ImagePromptEffect::default() };
        let image_prompts = vec![towards, away];
        let references = Vec::new();
        let attention = RoundAttention { round: 1, liked: 0, has_all_rounds: false, references, image_prompts };
        let map = attention.heat_map_of_votes("a star").expect("a heat map");
        let rows =
            ["1: towards, use the style, scale 0.50, window 0 to 1", "2: away, no aspect, scale 0.00, window 0 to 1"];
        assert_eq!(map.rows, rows);
        assert_eq!(map.columns, ["1", "2", "mean"]);
        // The mean over the layers in which a vote acted.
        let near = |got: &f64, expected: f64| (got - expected).abs() < 1e-9;
        assert!(map.values[0].iter().zip([20.0, 0.0, 20.0]).all(|(got, expected)| near(got, expected)), "{map:?}");
        assert_eq!(map.values[1], [0.0; 3]);

        let folder = tempfile::tempdir().expect("a folder");
        RoundAttention::save(std::slice::from_ref(&attention), folder.path(), "reasons", 0).expect("a file");
        let kept = RoundAttention::read(folder.path(), "reasons", 0).expect("a file");
        assert_eq!(kept, std::slice::from_ref(&attention));
        let none = RoundAttention { image_prompts: Vec::new(), ..attention };
        assert!(none.heat_map_of_votes("a star").is_none());
        // Files from before there were such votes have none.
        let older = serde_json::to_string(std::slice::from_ref(&none)).expect("plain data");
        assert!(!older.contains("image_prompts"), "{older}");
        assert_eq!(serde_json::from_str::<Vec<RoundAttention>>(&older).expect("plain data"), [none]);
    }

    #[test]
    fn attention_is_copied_and_a_damaged_file_is_named() {
        let (from, into) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let (from, into) = (from.path(), into.path());
        let (references, image_prompts) = (Vec::new(), Vec::new());
        let attention = RoundAttention { round: 1, liked: 0, has_all_rounds: true, references, image_prompts };
        RoundAttention::save(std::slice::from_ref(&attention), from, "liked", 0).expect("a file");
        RoundAttention::copy(from, into, "liked", 0).expect("a copy");
        RoundAttention::copy(from, into, "liked", 1).expect("nothing to copy");
        assert_eq!(RoundAttention::read(into, "liked", 0).expect("a file"), std::slice::from_ref(&attention));
        let too_many = serde_json::to_string(&[RoundAttention { liked: 1, ..attention }]).expect("plain data");
        for text in ["[{", too_many.as_str()] {
            fs::write(place(into, "liked", 0), text).expect("a file");
            let error = RoundAttention::read(into, "liked", 0).expect_err("damaged").to_string();
            assert!(
                error.contains("0000.json") && error.contains("remove it, the report is then without it"),
                "{error}"
            );
        }
    }
}
