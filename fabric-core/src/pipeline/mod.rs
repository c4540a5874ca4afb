//! The text-to-image and image-to-image pipeline, which works with any model behind the network traits.

mod budget;
mod callback;
mod conditioning;
mod guided_model;
mod init_image;
mod inpaint;
mod notes;
mod plan;
mod pool;
mod references;
mod report;
mod request;
mod rounds;
mod run;
mod text;
mod warm_up;
mod window;

pub use crate::layout::BatchLayout;
pub use conditioning::{Conditioning, PreparedConditioning, RequestConditioning, RunContext};
pub use pool::{DevicePool, PoolStep, Pooled};
pub use report::{Observer, Phase, PhaseEvent, Report, StepEvent};
pub use request::{FeedbackImage, InitImage, Request, Settings};
pub use run::{Generation, Pipeline};
pub use window::Window;
