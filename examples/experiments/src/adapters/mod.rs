//! The experiments of IP-Adapter and IPAdapter-Instruct, on the small world: images made with a condition image are
//! compared with it and with their text.
//!
//! | part | file |
//! |---|---|
//! | experiments and their arms, as data | `experiment.rs` |
//! | condition image, text and instruction of a case, and what its images should show | `case.rs` |
//! | the adapter, and the networks that measure its images | `world.rs`, `beyond_texts.rs` |
//! | the images of one arm and one case | `session.rs`, `record.rs` |
//! | tables, curves and report | `tables.rs`, `matrix.rs`, `curves.rs`, `report.rs` |

mod beyond_texts;
mod case;
mod curves;
mod experiment;
mod matrix;
mod record;
mod report;
mod session;
mod tables;
mod world;

pub use experiment::{ADAPTER_NAMES, AdapterArm, AdapterCases, AdapterExperiment};
pub use record::AdapterRecord;
pub(crate) use report::write_report;
pub use session::{AdapterPlan, run_adapters};
pub use tables::adapter_tables;
pub use world::AdapterWorld;
