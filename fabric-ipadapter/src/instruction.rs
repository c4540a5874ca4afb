//! What of an image is meant.

use std::fmt;

use crate::AdapterConfig;

/// Channels of the text that SDXL's U-Net attends to, by which its adapters are known.
pub(crate) const SDXL_CONTEXT: usize = 2048;

/// What IPAdapter-Instruct can take from an image.
///
/// ```
/// use fabric_ipadapter::Aspect;
/// assert_eq!(Aspect::Style.to_string(), "use the style");
/// assert_eq!(Aspect::Object("lamp".to_owned()).to_string(), "use the lamp");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aspect {
    /// All of it.
    Everything,
    /// How it is painted.
    Style,
    /// Its colours.
    Colour,
    /// The pose of who is in it.
    Pose,
    /// What lies where.
    Composition,
    /// Who is in it.
    Face,
    /// What is in front.
    Foreground,
    /// What is behind.
    Background,
    /// A thing, by its name (training named the thing; "object" itself is understood too).
    Object(String),
}

/// The published wordings.
impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("use everything from the image"),
            Self::Style => f.write_str("use the style"),
            Self::Colour => f.write_str("use the colour"),
            Self::Pose => f.write_str("use the pose"),
            Self::Composition => f.write_str("use the composition"),
            Self::Face => f.write_str("use the face"),
            Self::Foreground => f.write_str("use the foreground"),
            Self::Background => f.write_str("use the background"),
            Self::Object(name) => write!(f, "use the {name}"),
        }
    }
}

/// How the branches of an instruction mix.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum InstructGuidance {
    /// Classifier-free guidance: two branches.
    Simple,
    /// Four branches with the scales that are published for the adapter's model: 6 and 1 for Stable Diffusion 1.5, 5 and
    /// 1 for SDXL.
    PublishedThreeWay,
    /// The instruction and the image have scales of their own: four branches.
    ThreeWay {
        /// Scale from everything in the image towards what the instruction says.
        instruction: f64,
        /// Scale towards the image.
        image: f64,
    },
}

impl InstructGuidance {
    /// Four branches with the scales that are published for the adapter's model.
    pub const THREE_WAY: Self = Self::PublishedThreeWay;

    /// The same with numbers: [`Self::PublishedThreeWay`] becomes [`Self::ThreeWay`] with the scales that are published for
    /// this adapter's model. [`ImagePrompt::instructed`](crate::ImagePrompt::instructed) does this itself.
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

    /// Scales of the instruction and the image with this adapter; none where two branches mix.
    pub(crate) fn scales(self, adapter: &AdapterConfig) -> Option<[f64; 2]> {
        match self {
            Self::Simple => None,
            Self::PublishedThreeWay if adapter.context == SDXL_CONTEXT => Some([5.0, 1.0]),
            Self::PublishedThreeWay => Some([6.0, 1.0]),
            Self::ThreeWay { instruction, image } => Some([instruction, image]),
        }
    }
}

/// What of an image is meant, in words, and how strongly the words count.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// What the projector reads.
    pub query: String,
    /// How the branches mix.
    pub guidance: InstructGuidance,
}

/// Words that make the published code mix two branches instead of four.
const SIMPLE: [&str; 6] = ["style", "colour", "color", "everything", "face", "facial"];

impl Instruction {
    /// Free words; the published rule chooses how branches mix: two for style, colour, everything and faces, else four.
    pub fn new(query: impl Into<String>) -> Self {
        let query = query.into();
        let lower = query.to_lowercase();
        let simple = SIMPLE.iter().any(|word| lower.contains(word));
        let guidance = if simple { InstructGuidance::Simple } else { InstructGuidance::THREE_WAY };
        Self { query, guidance }
    }

    /// The same, mixed in another way.
    #[must_use]
    pub fn with_guidance(self, guidance: InstructGuidance) -> Self {
        Self { guidance, ..self }
    }

    /// The adapter's scale as the published code corrects it by default: 0.2 less for compositions and poses with Stable
    /// Diffusion 1.5, and as it is with SDXL.
    pub fn corrected_scale(&self, scale: f32, adapter: &AdapterConfig) -> f32 {
        let query = self.query.to_lowercase();
        let corrects = adapter.context != SDXL_CONTEXT;
        if corrects && (query.contains("composition") || query.contains("pose")) { scale - 0.2 } else { scale }
    }
}

impl From<Aspect> for Instruction {
    fn from(aspect: Aspect) -> Self {
        let instruction = Self::new(aspect.to_string());
        // A thing may have a name that contains one of the words: a "surface" is no face.
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
        // What somebody asked for stays, also where it is another model's published value.
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
    }
}
