//! The experiment `search`: the library's search for settings
//! ([`SettingsSearch`](fabric::core::pipeline::SettingsSearch)) during a session, against the published presets.
//!
//! | part | file |
//! |---|---|
//! | search of an arm, as data | `arm_search.rs` |
//! | the arms | `arms.rs` |
//! | rounds of a session, with the proposed settings | `session.rs` |
//! | comparison with the mean and the best of the presets | `against_presets.rs` |

mod against_presets;
mod arm_search;
mod arms;
mod session;

pub use against_presets::{Against, against_presets};
pub use arm_search::{ArmSearch, SearchFeedback};
pub(crate) use arms::arms;
pub(crate) use session::SearchedSession;
