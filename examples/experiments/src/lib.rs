//! The experiments of FABRIC's, IP-Adapter's and IPAdapter-Instruct's papers.
//!
//! An [`Experiment`] is data: arms that are compared on the same prompts and seeds. [`run`](fn@run) makes the images of
//! every arm on a [`Subject`] (a model with its prompts and its ruler) and records them in a [`RunFolder`];
//! [`summary`](fn@summary) turns the records into means with intervals.

#![forbid(unsafe_code)]

mod config;
mod error;
mod experiment;
mod merge;
mod prompts;
mod record;
pub mod report;
mod run;
mod run_report;
mod session;
mod shard;
mod small_world;
mod store;
mod subject;
mod summary;
mod tables;

pub use config::configured;
pub use error::ExperimentError;
pub use experiment::{Arm, Experiment, Feedback, NAMES};
pub use merge::merge;
pub use prompts::{PromptCase, PromptSet, PromptSetError, SkippedLine};
pub use record::ImageRecord;
pub use run::{Progress, Work, run};
pub use run_report::write_report;
pub use session::Plan;
pub use shard::Shard;
pub use small_world::SmallWorld;
pub use store::{RunFolder, config_hash, read_run};
pub use subject::{Case, Subject};
pub use summary::{Measure, SummaryRow, summary, table};
pub use tables::write_tables;
