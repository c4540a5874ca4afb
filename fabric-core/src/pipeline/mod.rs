//! The text-to-image and image-to-image pipeline, which works with any model behind the network traits.

mod budget;
mod cads;
mod callback;
mod conditioning;
mod guided_model;
mod init_image;
mod inpaint;
mod metadata;
mod notes;
mod plan;
mod pool;
mod reasons;
mod reference_attention;
mod references;
mod report;
mod request;
mod rounds;
mod run;
mod run_guidance;
mod search;
mod sweep;
mod text;
mod warm_up;

pub use crate::cache::CacheStats;
pub use crate::layout::BatchLayout;
pub use crate::window::Window;
pub use cads::Cads;
pub use conditioning::{Conditioning, ImageAdapter, PreparedConditioning, RequestConditioning, RunContext};
pub use pool::{DevicePool, PoolStep, Pooled};
pub use reasons::ReasonSettings;
pub use reference_attention::{LayerAttention, ReferenceAttention};
pub use report::{Observer, Phase, PhaseEvent, Report, StepEvent};
pub use request::{FeedbackImage, Request, Settings};
pub use run::{Generation, Pipeline};
pub use search::{Candidate, CandidateSeeds, SearchedSettings, SettingsSearch};
