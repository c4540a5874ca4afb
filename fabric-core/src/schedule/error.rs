use crate::InvalidValue;
use crate::printable_text::printable_value;

/// Error of building a noise schedule.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The text is not a JSON object.
    #[error(
        "the scheduler configuration is not a JSON object: {}; take `scheduler/scheduler_config.json` of a model \
         folder",
        printable_value(.message)
    )]
    Json {
        /// The message of the parser.
        message: String,
    },
    /// One field of the configuration cannot be used.
    #[error("scheduler configuration, {0}")]
    Field(InvalidValue),
    /// The sampler has no schedule with this number of steps.
    #[error(transparent)]
    Steps(InvalidValue),
    /// The image-to-image strength is out of range or leaves no step.
    #[error(transparent)]
    Strength(InvalidValue),
    /// The schedule evaluates a noise-predicting network at a level without signal.
    #[error(
        "timestep {timestep} holds no signal (zero terminal SNR), and a network that predicts noise says nothing \
         there: use a v_prediction model, `leading` spacing, or `rescale_betas_zero_snr: false`"
    )]
    NoSignal {
        /// The timestep.
        timestep: f64,
    },
    /// No sampler has this name.
    #[error("no sampler is called `{}`: choose one of {known}", printable_value(.got))]
    UnknownSampler {
        /// The unknown name.
        got: String,
        /// All known names.
        known: String,
    },
}

impl ScheduleError {
    pub(crate) fn field(field: &str, got: impl ToString, expected: impl Into<String>) -> Self {
        let help = "correct it in the model's scheduler_config.json";
        Self::Field(InvalidValue::new(format!("field `{field}`"), got, expected, help))
    }
}
