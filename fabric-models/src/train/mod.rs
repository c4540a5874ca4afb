//! Training loop with AdamW, weight averaging and checkpoints.
//!
//! A [`Task`] defines batches and the loss. [`Trainer`] prepares batches, updates the weights with AdamW, keeps a
//! moving average of the weights, and writes checkpoints from which a run resumes bit-exactly on the CPU.
//! [`averaged_weights`] opens the weights in a checkpoint.

mod checkpoint;
mod curve;
mod error;
mod feed;
mod optimizer;
mod rate;
mod replicas;
mod settings;
mod trainer;

pub use checkpoint::averaged_weights;
pub use curve::LossCurve;
pub use error::TrainError;
use feed::Feed;
pub use optimizer::Optimizer;
use rate::learning_rate;
pub use settings::TrainSettings;
pub use trainer::{Progress, Task, Trainer};

#[cfg(test)]
mod tests;
