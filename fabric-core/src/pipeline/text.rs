//! Text embeddings of a run, arranged as rows of a batch.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use burn::tensor::Tensor;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::finite::{NetworkOutputs, Output};
use super::{Request, Settings};
use crate::Error;
use crate::guidance::Branch;
use crate::models::{AddedConditions, TextEncoder, TextKvCache};

/// Text embeddings of one batch of images.
#[derive(Debug)]
pub(super) struct Conditions {
    context: Tensor<3>,
    pooled: Option<Tensor<2>>,
    time_ids: [f32; 6],
    images: usize,
    unconditional_is_zero: bool,
    pub(super) truncated: Vec<String>,
    stacked: RefCell<HashMap<Arrangement, Rc<TextRows>>>,
}

/// Branches, and the number of references after them.
type Arrangement = (Vec<Branch>, usize);

/// Text inputs of the rows of one U-Net pass.
#[derive(Debug)]
pub(super) struct TextRows {
    /// `[rows, tokens, context_dim]`.
    pub(super) context: Tensor<3>,
    pub(super) added: Option<AddedConditions>,
    /// The U-Net's cross-attention keys and values for the context.
    pub(super) keys: TextKvCache,
}

impl Conditions {
    /// Encodes each image's prompt, the negative prompt and the empty prompt in one call.
    ///
    /// The encoder pads all rows of a call to as many windows as the longest prompt has, and the U-Net attends
    /// to empty windows too. If prompt dropout is on, the full prompt is therefore encoded as well and not used
    /// otherwise: the number of windows then depends only on the request, not on the words dropped in other
    /// images of the batch.
    ///
    /// The number of rows of a call changes rounding. With references, the empty prompt is therefore taken from a call
    /// of three rows, whatever the number of images: its keys and values may be cached for batches of other sizes.
    pub(super) fn encode(
        text: &dyn TextEncoder,
        request: &Request,
        seeds: &[u64],
        [width, height]: [usize; 2],
        has_references: bool,
    ) -> Result<Self, Error> {
        let settings = &request.settings;
        let dropped = seeds.iter().map(|&seed| without_words(text, &request.prompt, settings, seed));
        let mut prompts: Vec<String> = dropped.collect::<Result<_, _>>()?;
        prompts.push(request.negative_prompt.clone().unwrap_or_default());
        prompts.push(String::new());
        let read = prompts.len();
        if settings.prompt_dropout > 0.0 && settings.text.long_prompts {
            prompts.push(request.prompt.clone());
        }
        let mut embedding = text.encode(&prompts, &settings.text)?;
        let of_references = [request.prompt.clone(), prompts[seeds.len()].clone(), String::new()];
        if has_references && prompts != of_references {
            let other = text.encode(&of_references, &settings.text)?;
            embedding.context = with_last_row(embedding.context, other.context, read);
            embedding.pooled =
                embedding.pooled.zip(other.pooled).map(|(pooled, other)| with_last_row(pooled, other, read));
        }
        let cut_off = embedding.truncated.into_iter().take(read);
        let mut truncated: Vec<String> = cut_off.filter(|rest| !rest.is_empty()).collect();
        truncated.dedup();
        let (width, height) = (width as f32, height as f32);
        Ok(Self {
            context: embedding.context,
            pooled: embedding.pooled,
            time_ids: [height, width, 0.0, 0.0, height, width],
            images: seeds.len(),
            unconditional_is_zero: request.negative_prompt.is_none() && text.force_zeros_for_empty_prompt(),
            truncated,
            stacked: RefCell::default(),
        })
    }

    /// Notes the embeddings among the outputs of networks.
    pub(super) fn note(&self, outputs: &mut NetworkOutputs) {
        outputs.note(Output::Text, &self.context);
        if let Some(pooled) = &self.pooled {
            outputs.note(Output::Text, pooled);
        }
    }

    /// Number of tokens in the context.
    pub(super) fn tokens(&self) -> usize {
        self.context.dims()[1]
    }

    /// Returns the text context of each image's prompt, `[images, tokens, context_dim]`.
    pub(super) fn prompts(&self) -> Tensor<3> {
        self.context.clone().slice_dim(0, 0..self.images)
    }

    /// Returns a copy with another text context of the images' prompts, `[images, tokens, context_dim]`, and no cached
    /// keys and values. The pooled text stays.
    pub(super) fn with_prompts(&self, prompts: Tensor<3>) -> Self {
        let rows = self.context.dims()[0];
        let others = self.context.clone().slice_dim(0, self.images..rows);
        Self {
            context: Tensor::cat(vec![prompts, others], 0),
            pooled: self.pooled.clone(),
            truncated: self.truncated.clone(),
            stacked: RefCell::default(),
            ..*self
        }
    }

    /// Returns the rows of every image in every branch, followed by `references` rows with the empty prompt.
    pub(super) fn rows(&self, branches: &[Branch], references: usize) -> Rc<TextRows> {
        let key = (branches.to_vec(), references);
        self.stacked.borrow_mut().entry(key).or_insert_with(|| Rc::new(self.stack_all(branches, references))).clone()
    }

    fn stack_all(&self, branches: &[Branch], references: usize) -> TextRows {
        let context = self.stack(&self.context, branches, &[Branch::Conditional], references);
        let added = self.pooled.as_ref().map(|pooled| {
            // IPAdapter-Instruct's published code gives the prompt's pooled text to every branch with the image
            // prompt.
            let of_prompt = [Branch::Conditional, Branch::ImageOnly, Branch::Everything];
            let pooled = self.stack(pooled, branches, &of_prompt, references);
            let rows = pooled.dims()[0];
            let time_ids = Tensor::<1>::from_data(self.time_ids, (&pooled.device(), pooled.dtype()));
            AddedConditions { pooled, time_ids: time_ids.unsqueeze::<2>().expand([rows, 6]) }
        });
        TextRows { context, added, keys: TextKvCache::default() }
    }

    /// Stacks rows of the prompt for the branches in `of_prompt`, of the negative prompt for other branches,
    /// and of the empty prompt for references.
    fn stack<const D: usize>(
        &self,
        all: &Tensor<D>,
        branches: &[Branch],
        of_prompt: &[Branch],
        references: usize,
    ) -> Tensor<D> {
        let repeated = |row: usize, count: usize| all.clone().slice_dim(0, row..row + 1).repeat_dim(0, count);
        let mut parts = Vec::new();
        for branch in branches {
            parts.push(if of_prompt.contains(branch) {
                all.clone().slice_dim(0, 0..self.images)
            } else if self.unconditional_is_zero {
                repeated(self.images, self.images).zeros_like()
            } else {
                repeated(self.images, self.images)
            });
        }
        if references > 0 {
            parts.push(repeated(self.images + 1, references));
        }
        Tensor::cat(parts, 0)
    }
}

/// Returns the first `rows` rows of `all`, the last of them replaced by the last row of `other`.
fn with_last_row<const D: usize>(all: Tensor<D>, other: Tensor<D>, rows: usize) -> Tensor<D> {
    let last = other.dims()[0] - 1;
    Tensor::cat(vec![all.slice_dim(0, 0..rows - 1), other.slice_dim(0, last..last + 1)], 0)
}

/// Drops each word with probability [`Settings::prompt_dropout`], as in the official code: split at white space and
/// joined by one space. The text encoder splits the words, because weighting brackets do not count as words.
fn without_words(text: &dyn TextEncoder, prompt: &str, settings: &Settings, seed: u64) -> Result<String, Error> {
    let dropout = settings.prompt_dropout;
    if dropout == 0.0 {
        return Ok(prompt.to_owned());
    }
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    rng.set_stream(u64::from_le_bytes(*b"dropout\0"));
    let mut unit = || (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    text.without_words(prompt, &settings.text, &mut || unit() > dropout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{TextEmbedding, TextOptions};

    #[test]
    fn dropout_leaves_out_about_its_share_of_words_and_depends_on_the_seed() {
        let without_words = |prompt: &str, prompt_dropout: f64, seed: u64| {
            without_words(&Length, prompt, &Settings { prompt_dropout, ..Settings::default() }, seed).expect("a prompt")
        };
        let prompt = vec!["word"; 2000].join("  ");
        assert_eq!(without_words(&prompt, 0.0, 1), prompt);
        let kept = without_words(&prompt, 0.3, 1).split(' ').count();
        assert!((1300..1500).contains(&kept), "{kept}");
        assert_ne!(without_words("a b c d e f g h", 0.5, 1), without_words("a b c d e f g h", 0.5, 2));
        assert_eq!(without_words("a b c", 1.0, 1), "");
    }

    /// Text encoder whose embedding of a prompt is its length.
    struct Length;

    impl TextEncoder for Length {
        fn encode(&self, prompts: &[String], _options: &TextOptions) -> Result<TextEmbedding, Error> {
            let device = fabric_backends::default_device().expect("a device");
            let lengths: Vec<f32> = prompts.iter().map(|prompt| prompt.len() as f32).collect();
            let pooled = Tensor::<1>::from_data(lengths.as_slice(), &device).reshape([prompts.len(), 1]);
            let context = pooled.clone().reshape([prompts.len(), 1, 1]);
            Ok(TextEmbedding { context, pooled: Some(pooled), truncated: Vec::new() })
        }
    }

    #[test]
    fn branches_with_the_image_have_the_prompts_pooled_text() {
        let request = Request::new("four").with_negative_prompt("negative");
        let conditions = Conditions::encode(&Length, &request, &[0], [64, 64], false).expect("conditions");
        let branches = [Branch::Conditional, Branch::ImageOnly, Branch::Everything, Branch::Unconditional];
        let rows = conditions.rows(&branches, 1);
        let values = |x: Tensor<1>| x.into_data().try_to_vec::<f32>().expect("f32");
        // References come last, with the empty prompt.
        assert_eq!(values(rows.context.clone().reshape([5])), [4.0, 8.0, 8.0, 8.0, 0.0]);
        assert_eq!(
            values(rows.added.as_ref().expect("pooled text").pooled.clone().reshape([5])),
            [4.0, 4.0, 4.0, 8.0, 0.0]
        );
    }

    /// Text encoder whose embedding is the number of prompts of the call, as rounding depends on it.
    struct Count;

    impl TextEncoder for Count {
        fn encode(&self, prompts: &[String], _options: &TextOptions) -> Result<TextEmbedding, Error> {
            let device = fabric_backends::default_device().expect("a device");
            let pooled = Tensor::<2>::full([prompts.len(), 1], prompts.len() as f64, &device);
            Ok(TextEmbedding { context: pooled.clone().unsqueeze_dim(2), pooled: Some(pooled), truncated: Vec::new() })
        }
    }

    #[test]
    fn the_empty_prompt_of_references_does_not_depend_on_the_number_of_images() {
        let request = Request::new("a cat").with_negative_prompt("blurry");
        for images in 1..4_u64 {
            let seeds: Vec<u64> = (0..images).collect();
            let rows = |has_references| {
                let conditions = Conditions::encode(&Count, &request, &seeds, [64, 64], has_references);
                let rows = conditions.expect("conditions").rows(&[Branch::Unconditional], 1);
                let pooled = rows.added.as_ref().expect("pooled text").pooled.clone();
                let values = |x: Tensor<2>| x.into_data().try_to_vec::<f32>().expect("f32");
                [values(rows.context.clone().squeeze_dim(2)), values(pooled)]
            };
            let of_call = vec![(images + 2) as f32; seeds.len()];
            let expected = [of_call, vec![3.0]].concat();
            assert_eq!(rows(true), [expected.clone(), expected]);
        }
    }

    #[test]
    fn another_context_of_the_prompts_is_that_of_the_conditional_branch_alone() {
        let request = Request::new("four").with_negative_prompt("negative");
        let conditions = Conditions::encode(&Length, &request, &[0, 1], [64, 64], false).expect("conditions");
        let branches = [Branch::Conditional, Branch::ImageOnly, Branch::Unconditional];
        let values = |x: Tensor<1>| x.into_data().try_to_vec::<f32>().expect("f32");
        let context = |of: &Conditions| values(of.rows(&branches, 1).context.clone().reshape([7]));
        let pooled = |of: &Conditions| {
            values(of.rows(&branches, 1).added.as_ref().expect("pooled text").pooled.clone().reshape([7]))
        };
        assert_eq!(context(&conditions), [4.0, 4.0, 8.0, 8.0, 8.0, 8.0, 0.0]);
        let other = conditions.with_prompts(conditions.prompts() + 1.0);
        assert_eq!(context(&other), [5.0, 5.0, 8.0, 8.0, 8.0, 8.0, 0.0]);
        assert_eq!(pooled(&other), pooled(&conditions));
    }
}
