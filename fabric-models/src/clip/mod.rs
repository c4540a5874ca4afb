//! CLIP's text and image encoders (transformers' `CLIPTextModel`, `CLIPVisionModelWithProjection`), and the preference
//! models that are made of both: PickScore, HPS and HPS v2.

mod layer;
mod longest_side;
mod names;
mod preference;
mod preference_kind;
mod text;
mod text_config;
mod vision;
mod vision_config;
mod whole_model;

pub use preference::PreferenceModel;
pub use preference_kind::{PreferenceKind, PreferenceOptions};
pub use text::{ClipText, ClipTextError, ClipTextOutput};
pub use text_config::ClipTextConfig;
pub use vision::{ClipVision, ClipVisionOutput};
pub use vision_config::ClipVisionConfig;

#[cfg(test)]
mod preference_tests;
#[cfg(test)]
mod tests;
