//! Time windows for guidance, adapters and ControlNets.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::denoise::ModelCall;

/// The part of a run, from `start` to `end` as shares of its evaluations, in which guidance, an adapter or a
/// ControlNet acts.
///
/// It acts in evaluations that lie entirely inside the window, as in diffusers for ControlNets and in the IP-Adapter
/// authors' code for SDXL.
///
/// ```
/// use fabric_core::pipeline::Window;
///
/// let first_half = Window::new(0.0, 0.5)?;
/// assert!(Window::new(0.5, 0.2).is_err());
/// assert_ne!(first_half, Window::default());
/// # Ok::<(), fabric_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "(f64, f64)", into = "(f64, f64)")]
pub struct Window {
    start: f64,
    end: f64,
}

impl TryFrom<(f64, f64)> for Window {
    type Error = Error;

    fn try_from((start, end): (f64, f64)) -> Result<Self, Error> {
        Self::new(start, end)
    }
}

impl From<Window> for (f64, f64) {
    fn from(window: Window) -> Self {
        (window.start, window.end)
    }
}

/// The whole run, 0 to 1.
impl Default for Window {
    fn default() -> Self {
        Self { start: 0.0, end: 1.0 }
    }
}

impl Window {
    /// Creates a window from `start` to `end`, each a share of the run from 0 to 1.
    ///
    /// # Errors
    ///
    /// Returns an error if `start > end`, or one of them is not between 0 and 1.
    pub fn new(start: f64, end: f64) -> Result<Self, Error> {
        if (0.0..=1.0).contains(&start) && (start..=1.0).contains(&end) {
            return Ok(Self { start, end });
        }
        let got = format!("{start} to {end}");
        Err(Error::settings("window", got, "two shares of the run, 0 to 1, in order", "0 to 1 is always"))
    }

    /// Whether an evaluation lies entirely inside the window.
    pub fn contains(&self, call: &ModelCall) -> bool {
        let share = |index: usize| index as f64 / call.total as f64;
        share(call.index) >= self.start && share(call.index + 1) <= self.end
    }
}
