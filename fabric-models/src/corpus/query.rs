//! Queries to a corpus.

use std::collections::HashSet;

use burn::tensor::Tensor;
use fabric_backends::catch_panic;
use fabric_core::image::ContentHash;
use fabric_core::{Error, InvalidValue};

use super::CorpusError;
use super::rows::{Row, unit_rows};

/// Texts and images that the images of a corpus are compared with.
///
/// The score of an image `x` is the weighted mean of its cosine similarities to the texts and liked images `a`, minus
/// the weighted mean of those to the disliked images `b`:
///
/// `score = Σ w_a cos(x, a) / Σ w_a − Σ w_b cos(x, b) / Σ w_b`
///
/// CLIP's similarities of images to a text lie close together (about 0.15 to 0.35), those of images to an image far
/// apart (about 0.3 to 1). With equal weights, liked images thus decide more of the order than the text.
///
/// All embeddings must be from the model that embedded the corpus; they need not be normalised.
#[derive(Debug, Clone, Default)]
pub struct Query {
    wanted: Vec<Target>,
    disliked: Vec<Target>,
    lambda: Option<f64>,
    /// Images that are no candidates.
    excluded: HashSet<ContentHash>,
    /// Message of the first failure of a device.
    failure: Option<String>,
}

/// Embedding that images are compared with.
#[derive(Debug, Clone)]
struct Target {
    /// `None` if the embedding has NaN or infinity.
    row: Option<Row>,
    weight: f64,
}

impl Query {
    /// Creates an empty query; at least one text or image must be added.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds embeddings of texts, `[texts, dim]`, each with this weight. Waits for the device; if it fails,
    /// [`Corpus::nearest`](super::Corpus::nearest) returns the error.
    #[must_use]
    pub fn with_text(self, embeddings: Tensor<2>, weight: f64) -> Self {
        self.with_wanted(|| unit_rows(embeddings), weight)
    }

    /// Adds embeddings of liked images, `[images, dim]`, each with this weight. Waits for the device; if it fails,
    /// [`Corpus::nearest`](super::Corpus::nearest) returns the error.
    ///
    /// Images that are themselves in the corpus are the nearest to themselves: exclude them with [`Self::without`].
    #[must_use]
    pub fn with_liked(self, embeddings: Tensor<2>, weight: f64) -> Self {
        self.with_wanted(|| unit_rows(embeddings), weight)
    }

    /// Adds embeddings of disliked images, `[images, dim]`, each with this weight. Waits for the device; if it fails,
    /// [`Corpus::nearest`](super::Corpus::nearest) returns the error.
    #[must_use]
    pub fn with_disliked(mut self, embeddings: Tensor<2>, weight: f64) -> Self {
        let targets = self.targets(|| unit_rows(embeddings), weight);
        self.disliked.extend(targets);
        self
    }

    /// Excludes images with these content hashes, such as those that are liked or disliked already, so that they are
    /// not returned again. Copies with the same pixels are excluded too.
    #[must_use]
    pub fn without(mut self, hashes: impl IntoIterator<Item = ContentHash>) -> Self {
        self.excluded.extend(hashes);
        self
    }

    /// Adds embeddings of texts or liked images, which `rows` returns.
    pub(super) fn with_wanted(mut self, rows: impl FnOnce() -> Vec<Option<Row>>, weight: f64) -> Self {
        let targets = self.targets(rows, weight);
        self.wanted.extend(targets);
        self
    }

    /// Returns the embeddings that `rows` returns, each with this weight. A failure is kept for [`Self::direction`].
    fn targets(&mut self, rows: impl FnOnce() -> Vec<Option<Row>>, weight: f64) -> Vec<Target> {
        // Devices report failures as panics.
        match catch_panic(rows) {
            Ok(rows) => rows.into_iter().map(|row| Target { row, weight }).collect(),
            Err(message) => {
                self.failure.get_or_insert(message);
                Vec::new()
            }
        }
    }

    /// Chooses images that differ from one another, by maximal marginal relevance (Carbonell and Goldstein 1998).
    ///
    /// The first image is that with the highest score. Each further one has the highest value of
    /// `lambda · score − (1 − lambda) · s`, where `s` is its largest cosine similarity to an image chosen before.
    /// 1 chooses by score alone, 0 by difference alone. With a text alone, whose scores lie close together, values near
    /// 1 are useful, such as 0.9.
    #[must_use]
    pub fn with_mmr_lambda(mut self, lambda: f64) -> Self {
        self.lambda = Some(lambda);
        self
    }

    /// Returns whether an image is no candidate.
    pub(super) fn is_excluded(&self, hash: ContentHash) -> bool {
        self.excluded.contains(&hash)
    }

    /// Returns the lambda of maximal marginal relevance, if images are to be chosen by it.
    pub(super) fn mmr_lambda(&self) -> Result<Option<f64>, InvalidValue> {
        match self.lambda {
            Some(lambda) if !(0.0..=1.0).contains(&lambda) => {
                let help = "1 chooses by score alone, 0 by difference alone";
                Err(InvalidValue::new("lambda of maximal marginal relevance", lambda, "a number from 0 to 1", help))
            }
            lambda => Ok(lambda),
        }
    }

    /// Returns the vector whose dot product with a normalised embedding is its score: means of cosine similarities are
    /// linear in the embedding.
    pub(super) fn direction(&self, dim: usize) -> Result<Vec<f64>, CorpusError> {
        if let Some(message) = self.failure.clone() {
            let doing = "reading the embeddings of a query".to_owned();
            return Err(CorpusError::Query(Error::Backend { doing, message }));
        }
        let mut direction = vec![0.0; dim];
        let mut is_empty = true;
        for (targets, sign) in [(&self.wanted, 1.0), (&self.disliked, -1.0)] {
            let rows = targets.iter().map(|target| target.row(dim)).collect::<Result<Vec<_>, InvalidValue>>()?;
            let total: f64 = targets.iter().map(|target| target.weight).sum();
            if total <= 0.0 {
                continue;
            }
            is_empty = false;
            for (row, target) in rows.into_iter().zip(targets) {
                for (sum, value) in direction.iter_mut().zip(row) {
                    *sum += sign * target.weight / total * f64::from(*value);
                }
            }
        }
        if is_empty {
            let help = "add a text, a liked or a disliked image";
            let expected = "an embedding with a weight above 0";
            return Err(InvalidValue::new("query to a corpus", "none", expected, help).into());
        }
        Ok(direction)
    }
}

impl Target {
    /// Returns the embedding, of length `dim`, after checks of it and its weight.
    fn row(&self, dim: usize) -> Result<&[f32], InvalidValue> {
        if !self.weight.is_finite() || self.weight < 0.0 {
            let help = "add images to avoid with `with_disliked`";
            return Err(InvalidValue::new("weight in a query", self.weight, "a finite number from 0", help));
        }
        match &self.row {
            Some(row) if row.len() == dim => Ok(&row[..]),
            Some(row) => {
                let help = "embed texts and images with the model that embedded the corpus";
                Err(InvalidValue::new("length of an embedding in a query", row.len(), dim.to_string(), help))
            }
            None => {
                let help = "run the encoder in f32, or use another image";
                Err(InvalidValue::new("embedding in a query", "NaN or infinity", "finite numbers", help))
            }
        }
    }
}
