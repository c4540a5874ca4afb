//! Restriction of a reference to a part of the run and of the U-Net.

use serde::{Deserialize, Serialize};

use super::BlockWeights;
use super::settings::within;
use crate::InvalidValue;
use crate::denoise::ModelCall;
use crate::window::Window;

/// The part of a run and of the U-Net in which one reference acts, with a factor on its weight.
///
/// It applies in addition to [`FabricSettings`](super::FabricSettings), which hold for all references. The default
/// restricts nothing.
///
/// ```
/// use fabric_core::fabric::{BlockWeights, ReferenceScope};
/// use fabric_core::pipeline::Window;
///
/// // The arrangement of an image: the first steps, and the coarse layers of a U-Net with three levels.
/// let coarse = BlockWeights { down: vec![0.0, 1.0, 1.0], up: vec![1.0, 1.0, 0.0], ..BlockWeights::default() };
/// let scope = ReferenceScope { window: Window::new(0.0, 0.4)?, blocks: coarse, ..ReferenceScope::default() };
/// assert!(scope.validate("composition").is_ok());
/// # Ok::<(), fabric_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReferenceScope {
    /// Factor on the weight of the reference.
    pub weight: f64,
    /// The part of the run in which it acts, with the weight that the settings have there: outside of their own window
    /// it is `min_weight`.
    pub window: Window,
    /// Factors on its weight by block of the U-Net.
    pub blocks: BlockWeights,
}

/// Weight 1 in the whole run and the whole U-Net.
impl Default for ReferenceScope {
    fn default() -> Self {
        Self { weight: 1.0, window: Window::default(), blocks: BlockWeights::default() }
    }
}

impl ReferenceScope {
    /// Returns the factor on the reference's weight at an evaluation: 0 outside of the window.
    pub(crate) fn factor(&self, call: &ModelCall) -> f64 {
        if self.window.contains(call) { self.weight } else { 0.0 }
    }

    /// Checks the ranges of all factors. `name` is the setting that holds the scope, for the error.
    ///
    /// # Errors
    ///
    /// Returns an error that names the first invalid factor.
    pub fn validate(&self, name: &str) -> Result<(), InvalidValue> {
        within(&format!("{name}.weight"), self.weight, 0.0, 1000.0)?;
        self.blocks.validate(&format!("{name}.blocks"))
    }
}
