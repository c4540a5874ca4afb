//! The experiment `corpus`: sessions whose first round is found in a folder of drawings
//! ([`Corpus`](fabric::models::corpus::Corpus)), against sessions that generate it.
//!
//! | part | file |
//! |---|---|
//! | first round of an arm, as data | `first_round.rs` |
//! | the folder of drawings | `drawings.rs` |
//! | rounds of a session | `session.rs` |

mod drawings;
mod first_round;
mod session;

pub(crate) use drawings::Drawings;
pub use first_round::FirstRound;
pub(crate) use session::CandidateSession;
