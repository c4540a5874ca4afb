/// Why a noise schedule cannot be built.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The text is not a JSON object.
    #[error(
        "the scheduler configuration is not a JSON object: {message}; take `scheduler/scheduler_config.json` of a model folder"
    )]
    Json {
        /// What the parser said.
        message: String,
    },
    /// One setting cannot be used.
    #[error("scheduler configuration, field `{field}`: expected {expected}, got {got}")]
    Field {
        /// The field, as diffusers names it.
        field: String,
        /// Its value.
        got: String,
        /// What would be good.
        expected: String,
    },
    /// A number of steps for which the sampler has no schedule.
    #[error("{got} steps: {sampler} wants {expected}")]
    Steps {
        /// How many were asked for.
        got: usize,
        /// The sampler.
        sampler: String,
        /// What would be good.
        expected: String,
    },
    /// A strength of image-to-image that leaves nothing to do, or is no strength.
    #[error("strength {got} of {steps} steps: expected {expected}")]
    Strength {
        /// The strength.
        got: f64,
        /// The steps of the whole schedule.
        steps: usize,
        /// What would be good.
        expected: String,
    },
    /// A network that predicts noise is asked at a level that holds nothing but noise.
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
        /// The name.
        got: String,
        /// All names.
        known: String,
    },
}

impl ScheduleError {
    pub(crate) fn field(field: &str, got: impl ToString, expected: impl Into<String>) -> Self {
        Self::Field { field: field.to_owned(), got: got.to_string(), expected: expected.into() }
    }
}
