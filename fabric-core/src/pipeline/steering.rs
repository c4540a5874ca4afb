//! What adapters add to a run.

use std::fmt;
use std::ops::Range;

use crate::attention::AttnProcessor;
use crate::denoise::ModelCall;
use crate::guidance::{Branch, Guidance};

/// Steers a run besides its text and FABRIC's references: an adapter with its pictures, say.
///
/// It enters the network through attention alone, and each evaluation asks it anew.
pub trait Steering: fmt::Debug + Send + Sync {
    /// What one evaluation attends to. `rows` says which rows of the batch belong to which branch; references that ride
    /// along come after them and see nothing of this.
    fn processor<'a>(&'a self, call: &ModelCall, rows: &[(Branch, Range<usize>)]) -> Box<dyn AttnProcessor + 'a>;

    /// How branches are to mix, if not by classifier-free guidance of this scale.
    fn guidance(&self, scale: f64) -> Option<Guidance> {
        let _ = scale;
        None
    }
}
