//! Training of IP-Adapters and of IPAdapter-Instruct, as published: everything but the adapter stays as it is.
//!
//! [`Dataset`] reads what to learn from, [`AdapterTask`] is the loss, [`first_weights`] and [`first_weights_of_instruct`]
//! are where to begin; [`Trainer`](fabric_models::train::Trainer) does the rest, and
//! [`IpAdapter::save`](crate::IpAdapter::save) writes the result in the published layout.

mod data;
mod first;
mod options;
mod task;

pub use data::{DataError, Dataset, Example, Skipped};
pub use first::{first_weights, first_weights_of_instruct};
pub use options::{AdapterOptions, TaskOptions, published_settings};
pub use task::{AdapterBatch, AdapterTask, Partners};

#[cfg(test)]
mod tests;
