//! What of a picture is meant.

use std::fmt;

/// What IPAdapter-Instruct can take from a picture.
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
    /// The instruction and the picture have scales of their own: four branches.
    ThreeWay {
        /// Towards what the instruction says, away from everything of the picture: 6 in the published defaults.
        instruction: f64,
        /// Towards the picture: 1 in the published defaults.
        image: f64,
    },
}

impl InstructGuidance {
    /// The published scales of four branches for Stable Diffusion 1.5; for SDXL the first is 5.
    pub const THREE_WAY: Self = Self::ThreeWay { instruction: 6.0, image: 1.0 };
}

/// What of a picture is meant, in words, and how strongly the words count.
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

    /// The adapter's scale as the published code corrects it for Stable Diffusion 1.5: 0.2 less for compositions and
    /// poses.
    pub fn corrected_scale(&self, scale: f32) -> f32 {
        let query = self.query.to_lowercase();
        if query.contains("composition") || query.contains("pose") { scale - 0.2 } else { scale }
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
        assert_eq!(Instruction::new("use the pose").corrected_scale(1.0), 0.8);
        assert_eq!(Instruction::new("use the style").corrected_scale(1.0), 1.0);
    }
}
