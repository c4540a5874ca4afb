//! Shared parsing, validation and errors of the networks' `config.json` files.

use fabric_core::json::{MAX_SETTINGS_MEMORY, from_str_within};
use fabric_core::{InvalidValue, printable_value};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Error in a network's configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is not a JSON object.
    #[error(
        "{model} configuration: not a JSON object ({message}): take config.json from the model's folder again",
        message = printable_value(.message)
    )]
    NotJson {
        /// Name of the network.
        model: &'static str,
        /// The parser's message.
        message: String,
    },
    /// A field has an invalid value.
    #[error("{model} configuration, {value}")]
    Invalid {
        /// Name of the network.
        model: &'static str,
        /// The field and its value.
        value: InvalidValue,
    },
    /// A field requires a feature that this library does not support.
    #[error("{model} configuration, {value}")]
    Unsupported {
        /// Name of the network.
        model: &'static str,
        /// The field and its value.
        value: InvalidValue,
    },
}

impl ConfigError {
    pub(crate) fn invalid(
        model: &'static str,
        field: impl Into<String>,
        got: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        let help = "take config.json from the model's folder again";
        Self::Invalid { model, value: InvalidValue::new(format!("`{}`", field.into()), got, expected, help) }
    }

    /// Returns the same error for another network that reuses this configuration.
    pub(crate) fn of(mut self, network: &'static str) -> Self {
        match &mut self {
            Self::NotJson { model, .. } | Self::Invalid { model, .. } | Self::Unsupported { model, .. } => {
                *model = network;
            }
        }
        self
    }

    pub(crate) fn unsupported(
        model: &'static str,
        field: impl Into<String>,
        got: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        let help = "use a model of another family, this one needs layers that fabric does not have";
        Self::Unsupported { model, value: InvalidValue::new(format!("`{}`", field.into()), got, expected, help) }
    }
}

/// Parses a configuration in which every field has a default; the error names the invalid field.
pub(crate) fn parse<T: DeserializeOwned>(model: &'static str, json: &str) -> Result<T, ConfigError> {
    let not_json = |message: String| ConfigError::NotJson { model, message };
    let value: Value = from_str_within(json, MAX_SETTINGS_MEMORY).map_err(|e| not_json(e.to_string()))?;
    let Value::Object(fields) = &value else {
        return Err(not_json(format!("it holds {}", brief(&value))));
    };
    T::deserialize(&value).map_err(|whole| {
        // serde does not report the location of a failure inside flattened and untagged values. As every field has a
        // default, the invalid field is the one that also fails when parsed alone.
        let alone = |(field, value): (&String, &Value)| {
            let object = Value::Object([(field.clone(), value.clone())].into_iter().collect());
            let error = serde_json::from_value::<T>(object).err()?;
            Some(ConfigError::invalid(model, field, brief(value), printable_value(error)))
        };
        fields.iter().find_map(alone).unwrap_or_else(|| not_json(whole.to_string()))
    })
}

/// Formats a JSON value for an error message, truncated to 80 characters.
pub(crate) fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}

/// Setting with one value for all levels of a network, or one value per level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "one value or a list with one value per level")]
pub enum OneOrMany<T> {
    /// The same value for every level.
    One(T),
    /// One value per level, from full resolution down.
    Many(Vec<T>),
}

impl<T> From<T> for OneOrMany<T> {
    fn from(value: T) -> Self {
        Self::One(value)
    }
}

impl<T: Clone> OneOrMany<T> {
    /// Expands to one value per level. Fails with the list's length if it differs from `levels`.
    pub(crate) fn spread(&self, levels: usize) -> Result<Vec<T>, usize> {
        match self {
            Self::One(value) => Ok(vec![value.clone(); levels]),
            Self::Many(values) if values.len() == levels => Ok(values.clone()),
            Self::Many(values) => Err(values.len()),
        }
    }
}

/// Bounds far beyond all published networks, so that a damaged file cannot cause huge allocations, or values that are
/// not finite.
pub(crate) mod limits {
    /// Levels of a network.
    pub(crate) const LEVELS: usize = 16;
    /// Consecutive layers.
    pub(crate) const LAYERS: usize = 256;
    /// Transformer layers of a whole network.
    pub(crate) const TRANSFORMER_LAYERS: usize = 2048;
    /// Resnets or residual blocks of a whole network; Stable Diffusion 1 has 22, its VAE 24.
    pub(crate) const RESNETS: usize = 1024;
    /// Side of an image or of latents.
    pub(crate) const SIDE: usize = 1 << 16;
    /// Channels of a layer, entries of a vocabulary.
    pub(crate) const CHANNELS: usize = 1 << 20;
    /// Lower bound of a norm's epsilon. Published are 1e-6 and 1e-5; below 1e-38, it would be 0 as f32, and the norm of
    /// a constant not a number.
    pub(crate) const LEAST_EPSILON: f64 = 1e-30;
    /// Largest magnitude of the shift of the sinusoidal embedding's frequencies; published are 0 and 1. Half of the
    /// channels is an upper bound already, so this one matters below 0.
    pub(crate) const FREQUENCY_SHIFT: f64 = 1e6;
}

/// Returns an error if the count is zero or greater than `most`.
pub(crate) fn check_count(model: &'static str, field: &str, got: usize, most: usize) -> Result<(), ConfigError> {
    if (1..=most).contains(&got) {
        return Ok(());
    }
    Err(ConfigError::invalid(model, field, got, format!("1 to {most}")))
}

/// Returns an error if a network would have more than [`limits::RESNETS`] resnets in all blocks.
pub(crate) fn check_resnets(model: &'static str, field: &str, resnets: usize) -> Result<(), ConfigError> {
    if resnets <= limits::RESNETS {
        return Ok(());
    }
    let expected = format!("at most {} resnets in all blocks", limits::RESNETS);
    Err(ConfigError::invalid(model, field, format!("{resnets} resnets"), expected))
}

/// Returns an error unless a norm's epsilon is at least [`limits::LEAST_EPSILON`] and below 1.
pub(crate) fn check_epsilon(model: &'static str, field: &str, got: f64) -> Result<(), ConfigError> {
    if (limits::LEAST_EPSILON..1.0).contains(&got) {
        return Ok(());
    }
    let expected = format!("a number of at least {:e} and below 1", limits::LEAST_EPSILON);
    Err(ConfigError::invalid(model, field, got, expected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile_texts::{assert_printable, hostile_texts};

    #[derive(Debug, Deserialize)]
    #[serde(default)]
    struct Sample {
        width: usize,
        heads: OneOrMany<usize>,
    }

    impl Default for Sample {
        fn default() -> Self {
            Self { width: 3, heads: OneOrMany::One(8) }
        }
    }

    #[test]
    fn a_wrong_field_is_named_with_its_value() {
        let error = parse::<Sample>("sample", r#"{"width": 4, "heads": "many"}"#).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("`heads`") && message.contains("\"many\""), "{message}");
        assert!(message.contains("one value or a list"), "{message}");
        let error = parse::<Sample>("sample", r#"{"width": -4}"#).unwrap_err();
        assert!(error.to_string().contains("`width`: expected") && error.to_string().contains("got -4"), "{error}");
    }

    #[test]
    fn no_message_hands_a_text_from_a_file_to_the_terminal() {
        for text in hostile_texts() {
            let value = Value::from(text.as_str());
            let nested = format!(r#"{{"heads": {{{value}: {value}}}}}"#);
            for json in [format!(r#"{{"width": {value}}}"#), nested, value.to_string(), text.clone()] {
                let error = parse::<Sample>("sample", &json).unwrap_err();
                assert_printable(&error.to_string());
            }
            for (field, got) in [(text.as_str(), "1"), ("width", text.as_str())] {
                assert_printable(&ConfigError::invalid("sample", field, got, "a number").to_string());
                assert_printable(&ConfigError::unsupported("sample", field, got, "a number").to_string());
            }
        }
    }

    #[test]
    fn missing_fields_take_their_default_and_unknown_ones_are_ignored() {
        let sample: Sample = parse("sample", r#"{"heads": [1, 2], "colour": "red"}"#).unwrap();
        assert_eq!((sample.width, sample.heads), (3, OneOrMany::Many(vec![1, 2])));
    }

    #[test]
    fn a_configuration_is_read_as_python_writes_it() {
        let sample: Sample = parse("sample", "\u{feff}{\"heads\": 2, \"colour\": NaN, \"size\": -Infinity}").unwrap();
        assert_eq!((sample.width, sample.heads), (3, OneOrMany::One(2)));
        let error = parse::<Sample>("sample", r#"{"width": Infinity}"#).unwrap_err();
        assert!(
            error.to_string().contains("`width`: expected") && error.to_string().contains("got \"Infinity\""),
            "{error}"
        );
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for text in ["", "{", "[1]", "3", "null", "NaN", "{\"width\": Infinity"] {
            let error = parse::<Sample>("sample", text).unwrap_err();
            assert!(matches!(error, ConfigError::NotJson { .. }), "{text:?}: {error}");
        }
    }
}
