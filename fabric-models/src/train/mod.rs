//! Training: what a task has to say, and everything around it.
//!
//! A [`Task`] says what a batch is and what its loss is; [`Trainer`] feeds it, steps the weights with AdamW, keeps a
//! moving average of them, and writes checkpoints from which a run goes on to the bit.

mod checkpoint;
mod curve;
mod error;
mod feed;
mod optimizer;
mod rate;
mod replicas;
mod settings;
mod trainer;

pub use curve::LossCurve;
pub use error::TrainError;
pub use feed::Feed;
pub use optimizer::Optimizer;
pub use rate::learning_rate;
pub use settings::TrainSettings;
pub use trainer::{Progress, Task, Trainer};

#[cfg(test)]
mod tests;
