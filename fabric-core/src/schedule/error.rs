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
    #[error("scheduler configuration, field `{field}`: found {found}, wanted {wanted}")]
    Field {
        /// The field, as diffusers names it.
        field: String,
        /// Its value.
        found: String,
        /// What would be good.
        wanted: String,
    },
    /// A number of steps for which the sampler has no schedule.
    #[error("{found} steps: {sampler} wants {wanted}")]
    Steps {
        /// How many were asked for.
        found: usize,
        /// The sampler.
        sampler: String,
        /// What would be good.
        wanted: String,
    },
    /// A strength of image-to-image that leaves nothing to do, or is no strength.
    #[error("strength {found} of {steps} steps: wanted {wanted}")]
    Strength {
        /// The strength.
        found: f64,
        /// The steps of the whole schedule.
        steps: usize,
        /// What would be good.
        wanted: String,
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
    #[error("no sampler is called `{found}`: choose one of {known}")]
    UnknownSampler {
        /// The name.
        found: String,
        /// All names.
        known: String,
    },
}

impl ScheduleError {
    pub(crate) fn field(field: &str, found: impl ToString, wanted: impl Into<String>) -> Self {
        Self::Field { field: field.to_owned(), found: found.to_string(), wanted: wanted.into() }
    }
}
