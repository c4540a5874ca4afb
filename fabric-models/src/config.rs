//! What the networks' `config.json` files have in common: how they are read, and how they fail.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Why a network cannot be built from its configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is not a JSON object.
    #[error("{model} configuration: not a JSON object ({message}): take config.json from the model's folder again")]
    NotJson {
        /// Which network.
        model: &'static str,
        /// What the parser said.
        message: String,
    },
    /// A field has a value that makes no sense.
    #[error(
        "{model} configuration, `{field}`: expected {expected}, got {got}: take config.json from the model's folder again"
    )]
    Invalid {
        /// Which network.
        model: &'static str,
        /// The field as it is called in the file.
        field: String,
        /// Its value.
        got: String,
        /// What would be good.
        expected: String,
    },
    /// A field asks for something that this library does not compute.
    #[error(
        "{model} configuration, `{field}`: expected {expected}, got {got}: use a model of another family, this one needs layers that fabric does not have"
    )]
    Unsupported {
        /// Which network.
        model: &'static str,
        /// The field as it is called in the file.
        field: String,
        /// Its value.
        got: String,
        /// What is supported.
        expected: String,
    },
}

impl ConfigError {
    pub(crate) fn invalid(
        model: &'static str,
        field: impl Into<String>,
        got: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self::Invalid { model, field: field.into(), got: got.to_string(), expected: expected.into() }
    }

    /// The same of another network that is built like this one.
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
        Self::Unsupported { model, field: field.into(), got: got.to_string(), expected: expected.into() }
    }
}

/// Reads a configuration all of whose fields have defaults; an error names the field at fault.
pub(crate) fn parse<T: DeserializeOwned>(model: &'static str, json: &str) -> Result<T, ConfigError> {
    let not_json = |message: String| ConfigError::NotJson { model, message };
    let value: Value = fabric_core::json::from_str(json).map_err(|e| not_json(e.to_string()))?;
    let Value::Object(fields) = &value else {
        return Err(not_json(format!("it holds {}", brief(&value))));
    };
    serde_json::from_value(value.clone()).map_err(|whole| {
        // serde does not say where it failed inside flattened and untagged values. As every field has a
        // default, the one at fault is the one that also fails alone.
        let alone = |(field, value): (&String, &Value)| {
            let object = Value::Object([(field.clone(), value.clone())].into_iter().collect());
            let error = serde_json::from_value::<T>(object).err()?;
            Some(ConfigError::invalid(model, field, brief(value), error.to_string()))
        };
        fields.iter().find_map(alone).unwrap_or_else(|| not_json(whole.to_string()))
    })
}

/// A JSON value, cut to what fits an error message.
pub(crate) fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}

/// A setting given once for all levels of a network, or once for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "one value or a list with one value per level")]
pub enum OneOrMany<T> {
    /// The same everywhere.
    One(T),
    /// One per level, from full resolution down.
    Many(Vec<T>),
}

impl<T> From<T> for OneOrMany<T> {
    fn from(value: T) -> Self {
        Self::One(value)
    }
}

impl<T: Clone> OneOrMany<T> {
    /// One value per level, or the length of a list that does not fit.
    pub(crate) fn spread(&self, levels: usize) -> Result<Vec<T>, usize> {
        match self {
            Self::One(value) => Ok(vec![value.clone(); levels]),
            Self::Many(values) if values.len() == levels => Ok(values.clone()),
            Self::Many(values) => Err(values.len()),
        }
    }
}

/// Bounds that no published network comes near, so that a damaged file cannot ask for the moon.
pub(crate) mod limits {
    /// Levels of a network.
    pub(crate) const LEVELS: usize = 16;
    /// Layers in a row.
    pub(crate) const LAYERS: usize = 256;
    /// Transformer layers of a whole network.
    pub(crate) const TRANSFORMER_LAYERS: usize = 2048;
    /// Side of an image or of latents.
    pub(crate) const SIDE: usize = 1 << 16;
    /// Channels of a layer, entries of a vocabulary.
    pub(crate) const CHANNELS: usize = 1 << 20;
}

/// Refuses a count of zero or beyond `most`.
pub(crate) fn check_count(model: &'static str, field: &str, got: usize, most: usize) -> Result<(), ConfigError> {
    if (1..=most).contains(&got) {
        return Ok(());
    }
    Err(ConfigError::invalid(model, field, got, format!("1 to {most}")))
}

/// Refuses the epsilon of a norm that is not a small positive number.
pub(crate) fn check_epsilon(model: &'static str, field: &str, got: f64) -> Result<(), ConfigError> {
    if got > 0.0 && got < 1.0 {
        return Ok(());
    }
    Err(ConfigError::invalid(model, field, got, "a number above 0 and below 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
