//! Instructions for IPAdapter-Instruct: which aspect of an image is used.

use fabric_core::Aspect;

use crate::AdapterConfig;

/// Context channels of SDXL's U-Net, which identify its adapters.
pub(crate) const SDXL_CONTEXT: usize = 2048;

/// Guidance of an Instruct adapter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum InstructGuidance {
    /// Classifier-free guidance with two branches.
    Simple,
    /// Four branches with the scales published for the adapter's base model: instruction 6 and image 1 for
    /// Stable Diffusion 1.5, 5 and 1 for SDXL.
    PublishedThreeWay,
    /// Four branches with separate scales for the instruction and the image.
    ThreeWay {
        /// Scale from "everything" towards the instruction.
        instruction: f64,
        /// Scale towards the image.
        image: f64,
    },
}

impl InstructGuidance {
    /// Four branches with the scales published for the adapter's base model.
    pub const THREE_WAY: Self = Self::PublishedThreeWay;

    /// Resolves [`Self::PublishedThreeWay`] to [`Self::ThreeWay`] with the scales published for the base model
    /// of this adapter. An [`ImagePrompt`](crate::ImagePrompt) does this itself.
    ///
    /// ```
    /// use fabric_ipadapter::{AdapterConfig, InstructGuidance, ProjectionConfig};
    ///
    /// let projection = ProjectionConfig::Pooled { features: 1024, tokens: 4 };
    /// let sdxl = AdapterConfig { projection, widths: vec![640], context: 2048, lora_rank: None };
    /// let guidance = InstructGuidance::THREE_WAY.for_adapter(&sdxl);
    /// assert_eq!(guidance, InstructGuidance::ThreeWay { instruction: 5.0, image: 1.0 });
    /// ```
    #[must_use]
    pub fn for_adapter(self, adapter: &AdapterConfig) -> Self {
        self.scales(adapter).map_or(Self::Simple, |[instruction, image]| Self::ThreeWay { instruction, image })
    }

    /// Returns the scales of the instruction and the image for this adapter; `None` with two branches.
    pub(crate) fn scales(self, adapter: &AdapterConfig) -> Option<[f64; 2]> {
        match self {
            Self::Simple => None,
            Self::PublishedThreeWay if adapter.context == SDXL_CONTEXT => Some([5.0, 1.0]),
            Self::PublishedThreeWay => Some([6.0, 1.0]),
            Self::ThreeWay { instruction, image } => Some([instruction, image]),
        }
    }
}

/// Instruction for an Instruct adapter, and its guidance.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// Text of the instruction.
    pub query: String,
    /// Guidance that combines the branches.
    pub guidance: InstructGuidance,
}

/// Words for which the published code uses two branches instead of four.
const SIMPLE: [&str; 6] = ["style", "colour", "color", "everything", "face", "facial"];

impl Instruction {
    /// Creates an instruction from any text. The guidance follows the published rule: two branches for style,
    /// colour, everything and faces, otherwise four.
    pub fn new(query: impl Into<String>) -> Self {
        let query = query.into();
        let lower = query.to_lowercase();
        let simple = SIMPLE.iter().any(|word| lower.contains(word));
        let guidance = if simple { InstructGuidance::Simple } else { InstructGuidance::THREE_WAY };
        Self { query, guidance }
    }

    /// Sets the guidance.
    #[must_use]
    pub fn with_guidance(self, guidance: InstructGuidance) -> Self {
        Self { guidance, ..self }
    }

    /// Returns the scale with the correction that the published code applies by default: 0.2 less for
    /// compositions and poses with Stable Diffusion 1.5 (at least 0), unchanged with SDXL.
    pub fn corrected_scale(&self, scale: f32, adapter: &AdapterConfig) -> f32 {
        let query = self.query.to_lowercase();
        let corrects = adapter.context != SDXL_CONTEXT;
        let is_corrected = corrects && (query.contains("composition") || query.contains("pose"));
        // The published code would also turn 0, which is no image prompt, into -0.2.
        if is_corrected && scale > 0.0 { (scale - 0.2).max(0.0) } else { scale }
    }
}

impl From<Aspect> for Instruction {
    fn from(aspect: Aspect) -> Self {
        let instruction = Self::new(aspect.to_string());
        // The name of an object may contain one of the words: "surface" contains "face".
        if let Aspect::Object(_) = aspect {
            instruction.with_guidance(InstructGuidance::THREE_WAY)
        } else {
            instruction
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_rule_chooses_between_two_and_four_branches() {
        let simple = [Aspect::Everything, Aspect::Style, Aspect::Colour, Aspect::Face];
        for aspect in simple {
            assert_eq!(Instruction::from(aspect).guidance, InstructGuidance::Simple);
        }
        let surface = Aspect::Object("surface".to_owned());
        for aspect in [Aspect::Pose, Aspect::Composition, Aspect::Foreground, Aspect::Background, surface] {
            assert_eq!(Instruction::from(aspect).guidance, InstructGuidance::THREE_WAY);
        }
        assert_eq!(Instruction::new("Copy the STYLE").guidance, InstructGuidance::Simple);
    }

    fn adapter(context: usize) -> AdapterConfig {
        let projection = crate::ProjectionConfig::Pooled { features: 4, tokens: 1 };
        AdapterConfig { projection, widths: vec![8], context, lora_rank: None }
    }

    #[test]
    fn each_model_has_its_own_published_scales() {
        let (sd15, sdxl) = (adapter(768), adapter(2048));
        let pose = Instruction::from(Aspect::Pose);
        let three_way = |instruction| InstructGuidance::ThreeWay { instruction, image: 1.0 };
        assert_eq!(pose.guidance.for_adapter(&sd15), three_way(6.0));
        assert_eq!(pose.guidance.for_adapter(&sdxl), three_way(5.0));
        // Scales chosen by the user are kept, even if they are the published values of another model.
        assert_eq!(three_way(6.0).for_adapter(&sdxl), three_way(6.0));
        assert_eq!(InstructGuidance::Simple.for_adapter(&sdxl), InstructGuidance::Simple);
    }

    #[test]
    fn the_scale_of_compositions_and_poses_is_corrected_with_stable_diffusion_15_alone() {
        let (sd15, sdxl) = (adapter(768), adapter(2048));
        for aspect in [Aspect::Pose, Aspect::Composition] {
            assert_eq!(Instruction::from(aspect.clone()).corrected_scale(1.0, &sd15), 0.8);
            assert_eq!(Instruction::from(aspect).corrected_scale(1.0, &sdxl), 1.0);
        }
        assert_eq!(Instruction::from(Aspect::Style).corrected_scale(1.0, &sd15), 1.0);
        for (scale, expected) in [(0.0, 0.0), (0.1, 0.0), (-0.5, -0.5)] {
            assert_eq!(Instruction::from(Aspect::Pose).corrected_scale(scale, &sd15), expected);
        }
    }
}
