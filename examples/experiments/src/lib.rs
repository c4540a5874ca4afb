//! The experiments of FABRIC's paper, experiments that ask what its settings do, and the experiments of IP-Adapter and
//! IPAdapter-Instruct.
//!
//! An [`Experiment`] is data: arms that are compared on the same prompts and seeds. [`run`](fn@run) makes the images of
//! every arm on a [`Subject`] (a model with its prompts and its ruler) and records them in a [`RunFolder`];
//! [`summary`](fn@summary) turns the records into means with intervals. Votes can have reasons ([`ArmReasons`]), which
//! the readers of the small world tell; settings can be searched during a session ([`ArmSearch`]), and first rounds
//! found in a folder ([`FirstRound`]). An [`AdapterExperiment`] has condition images instead of rounds of feedback;
//! [`run_adapters`] makes its images on an [`AdapterWorld`], and all else is the same.

#![forbid(unsafe_code)]

mod across_runs;
mod adapters;
mod arm;
mod config;
mod corpus;
mod error;
mod estimate;
mod experiment;
mod factor_shares;
mod files;
mod hash;
mod image_origin;
mod merge;
mod own_arms;
mod pipelines;
mod prompt_set_subject;
mod prompts;
mod reasons;
mod record;
pub mod report;
mod round_attention;
mod round_maker;
mod run;
mod run_report;
mod run_settings;
mod search;
mod session;
mod shard;
mod small_world;
mod store;
mod subject;
mod summary;
mod tables;
mod text_ruler;
mod wanted_factor;

pub use across_runs::across_runs;
pub use adapters::{
    ADAPTER_NAMES, AdapterArm, AdapterCases, AdapterExperiment, AdapterPlan, AdapterRecord, AdapterWorld,
    adapter_tables, run_adapters,
};
pub use arm::Arm;
pub use config::{IdentifiedInputs, Inputs, PromptInputs, configured, configured_adapters};
pub use corpus::FirstRound;
pub use error::ExperimentError;
pub use estimate::{Estimate, FEWEST_PROMPTS};
pub use experiment::{Experiment, Feedback, NAMES, OWN};
pub use factor_shares::FactorShares;
pub use image_origin::ImageOrigin;
pub use merge::merge;
pub use prompt_set_subject::PromptSetSubject;
pub use prompts::{PromptCase, PromptFormat, PromptSet, PromptSetError, SkippedLine};
pub use reasons::{ArmReasons, DislikedImages, GivenReasons, ReasonAdapter};
pub use record::ImageRecord;
pub use run::{Progress, Work, run};
pub use run_report::write_report;
pub use search::{Against, ArmSearch, SearchFeedback, against_presets};
pub use session::Plan;
pub use shard::Shard;
pub use small_world::SmallWorld;
pub use store::{RunFolder, config_hash, read_run};
pub use subject::{Case, Subject};
pub use summary::{Group, Measure, SummaryRow, summary, table};
pub use tables::write_tables;
pub use wanted_factor::WantedFactor;

/// Compiles and runs the code of the guide for researchers, which extends an experiment.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guides/researcher.md")]
struct ResearcherGuide;
