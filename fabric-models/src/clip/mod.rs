//! CLIP's text and image encoders (transformers' `CLIPTextModel`, `CLIPVisionModelWithProjection`).

mod layer;
mod names;
mod text;
mod text_config;
mod vision;
mod vision_config;
mod whole_model;

pub use text::{ClipText, ClipTextError, ClipTextOutput};
pub use text_config::ClipTextConfig;
pub use vision::{ClipVision, ClipVisionOutput};
pub use vision_config::ClipVisionConfig;

#[cfg(test)]
mod tests;
