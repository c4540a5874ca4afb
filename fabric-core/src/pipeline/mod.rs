//! The text-to-image and image-to-image pipeline, which works with any model behind the network traits.

mod budget;
mod callback;
mod denoiser;
mod init_image;
mod inpaint;
mod latents;
mod notes;
mod pool;
mod references;
mod report;
mod request;
mod rounds;
mod run;
mod steering;
mod text;
mod warm_up;
mod window;

pub use pool::{DevicePool, PoolStep, Pooled};
pub use report::{Observer, Report, StepEvent};
pub use request::{FeedbackImage, InitImage, Request, Settings};
pub use run::{Generation, Pipeline};
pub use steering::Steering;
pub use window::Window;
