//! Queries to a corpus.

use burn::tensor::Tensor;
use fabric_core::InvalidValue;

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

    /// Adds embeddings of texts, `[texts, dim]`, each with this weight. Waits for the device.
    #[must_use]
    pub fn with_text(mut self, embeddings: Tensor<2>, weight: f64) -> Self {
        self.wanted.extend(targets(embeddings, weight));
        self
    }

    /// Adds embeddings of liked images, `[images, dim]`, each with this weight. Waits for the device.
    #[must_use]
    pub fn with_liked(mut self, embeddings: Tensor<2>, weight: f64) -> Self {
        self.wanted.extend(targets(embeddings, weight));
        self
    }

    /// Adds embeddings of disliked images, `[images, dim]`, each with this weight. Waits for the device.
    #[must_use]
    pub fn with_disliked(mut self, embeddings: Tensor<2>, weight: f64) -> Self {
        self.disliked.extend(targets(embeddings, weight));
        self
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
    pub(super) fn direction(&self, dim: usize) -> Result<Vec<f64>, InvalidValue> {
        let mut direction = vec![0.0; dim];
        let mut is_empty = true;
        for (targets, sign) in [(&self.wanted, 1.0), (&self.disliked, -1.0)] {
            let rows = targets.iter().map(|target| target.row(dim)).collect::<Result<Vec<_>, _>>()?;
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
            return Err(InvalidValue::new("query to a corpus", "none", "an embedding with a weight above 0", help));
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

fn targets(embeddings: Tensor<2>, weight: f64) -> impl Iterator<Item = Target> {
    unit_rows(embeddings).into_iter().map(move |row| Target { row, weight })
}
