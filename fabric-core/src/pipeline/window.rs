//! When something acts.

use crate::Error;
use crate::denoise::ModelCall;

/// The share of a run in which something acts: in the evaluations that lie wholly within it, as diffusers counts for
/// ControlNets and IP-Adapter's authors for SDXL.
///
/// ```
/// use fabric_core::pipeline::Window;
///
/// let first_half = Window::new(0.0, 0.5)?;
/// assert!(Window::new(0.5, 0.2).is_err());
/// assert_ne!(first_half, Window::default());
/// # Ok::<(), fabric_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    start: f64,
    end: f64,
}

/// Always.
impl Default for Window {
    fn default() -> Self {
        Self { start: 0.0, end: 1.0 }
    }
}

impl Window {
    /// From one share of the run to another, 0 to 1.
    ///
    /// # Errors
    ///
    /// When they are not in order, or not between 0 and 1.
    pub fn new(start: f64, end: f64) -> Result<Self, Error> {
        if (0.0..=1.0).contains(&start) && (start..=1.0).contains(&end) {
            return Ok(Self { start, end });
        }
        let got = format!("{start} to {end}");
        Err(Error::settings("window", got, "two shares of the run, 0 to 1, in order", "0 to 1 is always"))
    }

    /// Whether an evaluation lies within.
    pub fn contains(&self, call: &ModelCall) -> bool {
        let share = |index: usize| index as f64 / call.total as f64;
        share(call.index) >= self.start && share(call.index + 1) <= self.end
    }
}
