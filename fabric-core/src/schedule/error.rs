/// Error of building a noise schedule.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The text is not a JSON object.
    #[error(
        "the scheduler configuration is not a JSON object: {message}; take `scheduler/scheduler_config.json` of a model folder"
    )]
    Json {
        /// The message of the parser.
        message: String,
    },
    /// One setting cannot be used.
    #[error("scheduler configuration, field `{field}`: expected {expected}, got {got}")]
    Field {
        /// Name of the field in diffusers.
        field: String,
        /// The value that was given.
        got: String,
        /// The accepted values.
        expected: String,
    },
    /// The sampler has no schedule with this number of steps.
    #[error("steps of {sampler}: expected {expected}, got {got}")]
    Steps {
        /// The requested number of steps.
        got: usize,
        /// The sampler.
        sampler: String,
        /// The accepted values.
        expected: String,
    },
    /// The image-to-image strength is out of range or leaves no step.
    #[error("strength {got} of {steps} steps: expected {expected}")]
    Strength {
        /// The strength.
        got: f64,
        /// Number of steps of the full schedule.
        steps: usize,
        /// The accepted values.
        expected: String,
    },
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
    #[error("no sampler is called `{got}`: choose one of {known}")]
    UnknownSampler {
        /// The unknown name.
        got: String,
        /// All known names.
        known: String,
    },
}

impl ScheduleError {
    pub(crate) fn field(field: &str, got: impl ToString, expected: impl Into<String>) -> Self {
        Self::Field { field: field.to_owned(), got: got.to_string(), expected: expected.into() }
    }
}
