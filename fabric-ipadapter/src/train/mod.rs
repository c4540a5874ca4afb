//! Training of IP-Adapters and IPAdapter-Instruct, as published: only the adapter is trained.
//!
//! [`Dataset`] reads the examples, [`AdapterTask`] computes the loss, and [`first_weights`] and
//! [`first_weights_of_instruct`] create the initial weights. [`Trainer`](fabric_models::train::Trainer) runs
//! the training, and [`IpAdapter::save`](crate::IpAdapter::save) writes the result in the published layout.

mod data;
mod first;
mod options;
mod task;

pub use data::{DataError, Dataset, Example, FurtherPrompt, Skipped};
pub use first::{first_weights, first_weights_of_instruct};
pub use options::{AdapterOptions, TaskOptions, published_settings};
pub use task::{AdapterBatch, AdapterTask, Partners};

#[cfg(test)]
mod tests;
