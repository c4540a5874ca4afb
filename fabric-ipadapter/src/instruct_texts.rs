//! Texts that an Instruct adapter reads.

use burn::tensor::{Device, Tensor};
use fabric_core::Error;
use fabric_core::InvalidValue;
use fabric_core::guidance::Branch;
use fabric_core::models::{TextEncoder, TextOptions};

use crate::instruction::SDXL_CONTEXT;
use crate::{AdapterConfig, AdapterError, Features, Instruction};

/// Text features for the projection of an Instruct adapter, each `[1, text_tokens, text_channels]`: the last
/// layer of CLIP ViT-L's text encoder, after the final layer norm.
#[derive(Debug, Clone)]
pub struct InstructTexts {
    /// The prompt.
    pub prompt: Tensor<3>,
    /// The negative prompt; for SDXL, the empty text.
    pub negative: Tensor<3>,
    /// The instruction.
    pub query: Tensor<3>,
    /// The word "everything".
    pub everything: Tensor<3>,
    /// The empty text.
    pub empty: Tensor<3>,
}

impl InstructTexts {
    /// Encodes all five texts with the text encoder of a model; the projection uses CLIP ViT-L's last layer.
    /// Text beyond the tokenizer window is cut off.
    ///
    /// The SDXL adapter uses the empty text instead of the negative prompt, as published.
    ///
    /// # Errors
    ///
    /// Returns an error if a text cannot be encoded.
    pub fn encode(
        encoder: &dyn TextEncoder,
        adapter: &AdapterConfig,
        prompt: &str,
        negative: &str,
        instruction: &Instruction,
        options: &TextOptions,
    ) -> Result<Self, Error> {
        let negative = if adapter.context == SDXL_CONTEXT { "" } else { negative };
        let texts = [prompt, negative, &instruction.query, "everything", ""].map(str::to_owned);
        let context = encoder.last_hidden(&texts, options)?;
        let text = |index| context.clone().narrow(0, index, 1);
        Ok(Self { prompt: text(0), negative: text(1), query: text(2), everything: text(3), empty: text(4) })
    }

    /// Moves the texts to a device.
    #[must_use]
    pub(crate) fn to_device(&self, device: &Device) -> Self {
        let to = |x: &Tensor<3>| if x.device() == *device { x.clone() } else { x.clone().to_device(device) };
        Self {
            prompt: to(&self.prompt),
            negative: to(&self.negative),
            query: to(&self.query),
            everything: to(&self.everything),
            empty: to(&self.empty),
        }
    }

    /// Checks that each text has one row.
    pub(crate) fn check(&self) -> Result<(), AdapterError> {
        let texts = [&self.prompt, &self.negative, &self.query, &self.everything, &self.empty];
        let dims = texts.map(Tensor::dims);
        if dims.iter().all(|got| *got == dims[0] && got[0] == 1 && got[1] > 0) {
            return Ok(());
        }
        Err(AdapterError::Setting(InvalidValue {
            what: "texts of an Instruct adapter".to_owned(),
            got: format!("{dims:?}"),
            expected: "one row of each, all of the same size".to_owned(),
            help: "make them with `InstructTexts::encode`".to_owned(),
        }))
    }

    /// Returns the features of a branch, with image tokens `[images, tokens, channels]`.
    pub(crate) fn features(&self, branch: Branch, tokens: &Tensor<3>) -> Features {
        // As in the published code: the projection gets the prompt with "everything", although the U-Net gets
        // the negative prompt on that branch.
        let (prompt, instruction) = match branch {
            Branch::Everything => (&self.prompt, &self.everything),
            Branch::ImageOnly => (&self.negative, &self.negative),
            Branch::Unconditional => (&self.negative, &self.empty),
            _ => (&self.prompt, &self.query),
        };
        together(tokens, prompt, instruction)
    }

    /// Returns the features of a branch of a prompt that leads away from its images: these are on the branches that
    /// guidance leads away from, with the instruction.
    pub(crate) fn features_away(&self, branch: Branch, tokens: &Tensor<3>) -> Features {
        if matches!(branch, Branch::Unconditional | Branch::ImageOnly) {
            together(tokens, &self.negative, &self.query)
        } else {
            together(tokens, &self.prompt, &self.empty)
        }
    }
}

/// Joins image tokens with texts, repeated for each image.
fn together(tokens: &Tensor<3>, prompt: &Tensor<3>, instruction: &Tensor<3>) -> Features {
    let images = tokens.dims()[0];
    let repeated = |text: &Tensor<3>| text.clone().narrow(0, 0, 1).repeat_dim(0, images);
    Features::Instructed { tokens: tokens.clone(), prompt: repeated(prompt), instruction: repeated(instruction) }
}

#[cfg(test)]
mod tests {
    use fabric_core::models::TextEmbedding;

    use super::*;

    #[test]
    fn each_branch_reads_its_own_texts() {
        let device = fabric_backends::default_device().expect("a device");
        let text = |value: f32| Tensor::<3>::ones([1, 2, 3], &device) * value;
        let texts = InstructTexts {
            prompt: text(1.0),
            negative: text(2.0),
            query: text(3.0),
            everything: text(4.0),
            empty: text(5.0),
        };
        let read = |branch| {
            let Features::Instructed { tokens, prompt, instruction } =
                texts.features(branch, &text(9.0).repeat_dim(0, 2))
            else {
                panic!("not instructed")
            };
            assert_eq!([tokens.dims()[0], prompt.dims()[0], instruction.dims()[0]], [2; 3]);
            [prompt, instruction].map(|text| text.mean().into_scalar::<f32>())
        };
        assert_eq!(read(Branch::Conditional), [1.0, 3.0]);
        assert_eq!(read(Branch::Everything), [1.0, 4.0]);
        assert_eq!(read(Branch::ImageOnly), [2.0, 2.0]);
        assert_eq!(read(Branch::Unconditional), [2.0, 5.0]);
    }

    /// Text encoder whose last layer contains the length of each text; `encode` panics.
    struct Length;

    impl TextEncoder for Length {
        fn encode(&self, _prompts: &[String], _options: &TextOptions) -> Result<TextEmbedding, Error> {
            panic!("the projection reads the last layer, normed")
        }

        fn last_hidden(&self, prompts: &[String], _options: &TextOptions) -> Result<Tensor<3>, Error> {
            let device = fabric_backends::default_device().expect("a device");
            let lengths: Vec<f32> = prompts.iter().map(|prompt| prompt.len() as f32).collect();
            Ok(Tensor::<1>::from_data(lengths.as_slice(), &device).reshape([prompts.len(), 1, 1]))
        }
    }

    #[test]
    fn the_large_models_adapter_reads_an_empty_text_instead_of_the_negative_prompt() {
        let projection = crate::ProjectionConfig::Pooled { features: 4, tokens: 1 };
        let read = |context| {
            let adapter = AdapterConfig { projection, widths: vec![8], context, lora_rank: None };
            let (instruction, options) = (Instruction::new("use all of it"), TextOptions::default());
            let texts = InstructTexts::encode(&Length, &adapter, "four", "not that", &instruction, &options);
            let InstructTexts { prompt, negative, query, everything, empty } = texts.expect("texts");
            [prompt, negative, query, everything, empty].map(|text| text.into_scalar::<f32>())
        };
        assert_eq!(read(768), [4.0, 8.0, 13.0, 10.0, 0.0]);
        assert_eq!(read(SDXL_CONTEXT), [4.0, 0.0, 13.0, 10.0, 0.0]);
    }
}
