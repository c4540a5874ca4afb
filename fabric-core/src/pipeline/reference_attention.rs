//! Measures each reference's share of the self-attention, by layer and evaluation and over the images.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::attention::{AttnSite, MeasuredShare};

/// Share of the images' self-attention that went to one reference, from 0 to 1.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReferenceAttention {
    /// Mean over the layers, queries, heads and evaluations in which it was attended to.
    pub mean: f64,
    /// Share in each layer, in the order of the network.
    pub layers: Vec<LayerAttention>,
    /// Map of each image of the run: rows from top to bottom, each from left to right, of 16 by 16 cells. A cell
    /// has the mean over all layers and evaluations, in which each layer counts once, whatever its resolution.
    pub maps: Vec<Vec<Vec<f32>>>,
}

/// Share of a reference or an image prompt in the attention of one layer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerAttention {
    /// Name of the layer, as in published weights.
    pub layer: String,
    /// Share at each evaluation of the run; 0 where the reference or the image prompt had no effect.
    pub shares: Vec<f64>,
}

impl LayerAttention {
    /// Returns the same layer with shares of 0.
    fn without_shares(&self) -> Self {
        Self { layer: self.layer.clone(), shares: vec![0.0; self.shares.len()] }
    }

    /// Adds what was measured in another batch of the run, with the numbers of images of this part and of that batch.
    pub(super) fn join(&mut self, other: Self, images: [f64; 2]) {
        self.shares.iter_mut().zip(other.shares).for_each(|(mine, other)| join_mean(mine, other, images));
    }
}

impl ReferenceAttention {
    /// Adds what was measured in another batch of the run. Images that do not attend to the reference do not count.
    pub(super) fn join(&mut self, other: Self) {
        let images @ [mine, theirs] = [self.attending(), other.attending()].map(|count| count as f64);
        self.maps.extend(other.maps);
        if theirs == 0.0 {
            return;
        }
        if mine == 0.0 {
            (self.mean, self.layers) = (other.mean, other.layers);
            return;
        }
        join_mean(&mut self.mean, other.mean, images);
        // A batch does not list layers in which no reference acted.
        let is_new = |theirs: &&LayerAttention| self.layers.iter().all(|own| own.layer != theirs.layer);
        let new: Vec<LayerAttention> = other.layers.iter().filter(is_new).map(LayerAttention::without_shares).collect();
        if !new.is_empty() {
            self.layers.extend(new);
            // The names (down, mid, up, then numbers of one digit) ascend in the order of the network.
            self.layers.sort_by(|a, b| a.layer.cmp(&b.layer));
        }
        for own in &mut self.layers {
            let theirs = other.layers.iter().find(|theirs| theirs.layer == own.layer);
            let theirs = theirs.cloned().unwrap_or_else(|| own.without_shares());
            own.join(theirs, images);
        }
    }

    /// Number of images that attended to the reference.
    fn attending(&self) -> usize {
        self.maps.iter().filter(|map| map.iter().flatten().any(|share| *share > 0.0)).count()
    }
}

/// Replaces the mean of one part of a run by that of two parts, given their numbers of images.
pub(super) fn join_mean(mine: &mut f64, other: f64, [images, more]: [f64; 2]) {
    *mine = (*mine * images + other * more) / (images + more);
}

/// Cells along a side of a map.
const SIDE: usize = 16;

/// Sum of values and their number.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mean {
    sum: f64,
    count: usize,
}

impl Mean {
    pub(super) fn add(&mut self, value: f64) {
        self.add_mean(value, 1);
    }

    /// Adds the mean of several values.
    fn add_mean(&mut self, mean: f64, count: usize) {
        self.sum += mean * count as f64;
        self.count += count;
    }

    /// Mean; 0 if there are no values.
    pub(super) fn value(self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }
}

/// Collects the shares of one reference.
#[derive(Debug, Default)]
struct Collected {
    by_evaluation: BTreeMap<usize, Mean>,
    by_layer: BTreeMap<AttnSite, BTreeMap<usize, Mean>>,
    /// Cells of each image's map, row by row.
    maps: BTreeMap<usize, Vec<Mean>>,
}

/// Collects the shares of all references of a batch.
#[derive(Debug)]
pub(super) struct Collector {
    evaluations: usize,
    images: usize,
    references: BTreeMap<usize, Collected>,
}

impl Collector {
    /// Creates a collector for a batch of this many images and evaluations.
    pub(super) fn new(images: usize, evaluations: usize) -> Self {
        Self { evaluations, images, references: BTreeMap::new() }
    }

    /// Notes what a layer measured of a reference at an evaluation.
    pub(super) fn note(&mut self, reference: usize, evaluation: usize, share: &MeasuredShare) {
        let ([rows, queries], [height, width]) = (share.shares.dims(), share.grid);
        let values = share.shares.to_data().convert::<f32>().try_to_vec::<f32>().expect("shares are plain numbers");
        let collected = self.references.entry(reference).or_default();
        let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / (rows * queries).max(1) as f64;
        // By rows, because a reference of single images has several ranges of rows.
        collected.by_evaluation.entry(evaluation).or_default().add_mean(mean, rows);
        collected.by_layer.entry(share.site).or_default().entry(evaluation).or_default().add_mean(mean, rows);
        for (row, values) in values.chunks_exact(queries).enumerate() {
            // Each branch of the guidance has the images of the batch in the same order.
            let image = (share.first_row + row) % self.images;
            let map = collected.maps.entry(image).or_insert_with(|| vec![Mean::default(); SIDE * SIDE]);
            for (at, cell) in map.iter_mut().enumerate() {
                // First the mean of the layer's cells, so that layers of high resolution do not count more.
                let mut here = Mean::default();
                for y in cells(height, at / SIDE) {
                    cells(width, at % SIDE).for_each(|x| here.add(f64::from(values[y * width + x])));
                }
                cell.add(here.value());
            }
        }
    }

    /// Returns the shares of this many references; those that were never attended to have shares of 0.
    pub(super) fn finish(mut self, references: usize) -> Vec<ReferenceAttention> {
        let sites: BTreeSet<AttnSite> =
            self.references.values().flat_map(|collected| collected.by_layer.keys().copied()).collect();
        let of = |reference: usize| {
            let collected = self.references.remove(&reference).unwrap_or_default();
            let mut mean = Mean::default();
            collected.by_evaluation.values().for_each(|one| mean.add(one.value()));
            let layers = sites.iter().map(|site| {
                let by_evaluation = collected.by_layer.get(site);
                let share = |evaluation| by_evaluation.and_then(|all| all.get(&evaluation)).copied();
                let shares = (0..self.evaluations).map(|evaluation| share(evaluation).unwrap_or_default().value());
                LayerAttention { layer: site.to_string(), shares: shares.collect() }
            });
            let map = |image: usize| {
                let map = collected.maps.get(&image);
                let cell = |at: usize| map.map_or(0.0, |map| map[at].value() as f32);
                (0..SIDE).map(|y| (0..SIDE).map(|x| cell(y * SIDE + x)).collect()).collect()
            };
            ReferenceAttention {
                mean: mean.value(),
                layers: layers.collect(),
                maps: (0..self.images).map(map).collect(),
            }
        };
        (0..references).map(of).collect()
    }
}

/// Returns the cells of an axis of this length that lie in a cell of a map; at least one.
fn cells(length: usize, at: usize) -> Range<usize> {
    let first = at * length / SIDE;
    first..((at + 1) * length).div_ceil(SIDE).max(first + 1).min(length)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Tensor, TensorData};

    use super::*;
    use crate::attention::{AttnKind, Block};

    fn share(block: Block, grid: [usize; 2], first_row: usize, shares: Vec<f32>) -> MeasuredShare {
        let device = fabric_backends::default_device().expect("a device");
        let site = AttnSite { block, attention: 0, layer: 0, kind: AttnKind::SelfAttention };
        let shape = [shares.len() / (grid[0] * grid[1]), grid[0] * grid[1]];
        let shares = Tensor::from_data(TensorData::new(shares, shape), &device);
        MeasuredShare { source: 0, site, grid, first_row, shares }
    }

    #[test]
    fn shares_are_told_apart_by_layer_evaluation_and_image() {
        let mut collector = Collector::new(2, 3);
        collector.note(1, 0, &share(Block::Down(0), [1, 2], 0, vec![0.2, 0.4, 0.6, 0.8]));
        collector.note(1, 2, &share(Block::Mid, [1, 1], 1, vec![0.1]));
        let got = collector.finish(3);
        assert_eq!((got.len(), got[0].mean), (3, 0.0));
        assert!((got[1].mean - (0.5 + 0.1) / 2.0).abs() < 1e-6);
        let layers: Vec<(&str, Vec<f64>)> =
            got[1].layers.iter().map(|one| (one.layer.as_str(), one.shares.clone())).collect();
        assert!(layers[0].0.starts_with("down_blocks.0") && layers[1].0.starts_with("mid_block"), "{layers:?}");
        assert!((layers[0].1[0] - 0.5).abs() < 1e-6 && layers[0].1[1..] == [0.0, 0.0], "{layers:?}");
        assert!((layers[1].1[2] - 0.1).abs() < 1e-6 && layers[1].1[..2] == [0.0, 0.0], "{layers:?}");
        assert!(got[0].layers.iter().all(|layer| layer.shares == [0.0; 3]));
        // The first image was seen once, the second by both layers.
        let near = |cell: f32, expected: f32| assert!((cell - expected).abs() < 1e-6, "{cell}, {expected} expected");
        near(got[1].maps[0][3][0], 0.2);
        near(got[1].maps[0][3][15], 0.4);
        near(got[1].maps[1][0][0], (0.6 + 0.1) / 2.0);
        assert_eq!((got[1].maps.len(), got[1].maps[0].len(), got[1].maps[0][0].len()), (2, 16, 16));
    }

    #[test]
    fn batches_join_by_the_images_that_attend_and_by_layer() {
        let of = |notes: &[(Block, usize, f32)]| {
            let mut collector = Collector::new(2, 1);
            for &(block, image, value) in notes {
                collector.note(0, 0, &share(block, [1, 1], image, vec![value]));
            }
            collector.finish(1).remove(0)
        };
        // Two images attend in the first batch, none in the second, and one in the third.
        let mut joined =
            of(&[(Block::Down(0), 0, 0.2), (Block::Down(0), 1, 0.4), (Block::Up(0), 0, 0.6), (Block::Up(0), 1, 0.6)]);
        joined.join(of(&[]));
        joined.join(of(&[(Block::Mid, 1, 0.9), (Block::Up(0), 1, 0.3)]));
        let near = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-6, "{got}, {expected} expected");
        near(joined.mean, (0.45 * 2.0 + 0.6) / 3.0);
        let layers: Vec<&str> = joined.layers.iter().map(|one| one.layer.split('.').next().unwrap()).collect();
        assert_eq!(layers, ["down_blocks", "mid_block", "up_blocks"]);
        for (layer, expected) in joined.layers.iter().zip([0.3 * 2.0 / 3.0, 0.9 / 3.0, (0.6 * 2.0 + 0.3) / 3.0]) {
            near(layer.shares[0], expected);
        }
        assert_eq!(joined.maps.len(), 6);
        // The other way round, nothing of an empty first batch is lost.
        let mut late = of(&[]);
        late.join(of(&[(Block::Mid, 0, 0.5)]));
        near(late.mean, 0.5);
        assert_eq!(late.layers.len(), 1);
    }

    #[test]
    fn the_mean_of_a_map_is_that_of_the_layers_at_any_resolution() {
        let mut collector = Collector::new(1, 1);
        for (block, side, value) in [(Block::Down(0), 64, 0.2), (Block::Down(1), 17, 0.9), (Block::Mid, 4, 0.4)] {
            collector.note(0, 0, &share(block, [side, side], 0, vec![value; side * side]));
        }
        let got = collector.finish(1).remove(0);
        assert!((got.mean - 0.5).abs() < 1e-6, "{}", got.mean);
        assert!(got.maps[0].iter().flatten().all(|cell| (cell - 0.5).abs() < 1e-6), "{:?}", got.maps);
    }

    #[test]
    fn cells_cover_an_axis_of_any_length() {
        for length in [1, 3, 8, 16, 17, 64, 100] {
            let all: BTreeSet<usize> = (0..SIDE).flat_map(|at| cells(length, at)).collect();
            assert_eq!(all.len(), length);
            assert!((0..SIDE).all(|at| !cells(length, at).is_empty()));
        }
    }
}
