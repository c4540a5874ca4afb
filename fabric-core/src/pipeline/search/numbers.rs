//! Access to the real numbers of a request by name.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::pipeline::Request;
use crate::{Error, InvalidValue};

const IMAGE_CONDITIONS: &str = "image_conditions";
const FEEDBACK: &str = "feedback";
/// Settings that act when a session makes a request. In a request they have no effect.
const OF_SESSIONS: &str = "reasons.";

/// The settings of a request as JSON, with the scales of its image conditions and the strengths of its references.
#[derive(Debug)]
pub(super) struct Numbers {
    document: Value,
    /// JSON pointer of each real number by its name, such as `fabric.max_weight` or `image_conditions[0].scale`.
    pointers: BTreeMap<String, String>,
}

impl Numbers {
    /// Reads the numbers of a valid request.
    pub(super) fn of(request: &Request) -> Self {
        let mut document = serde_json::to_value(&request.settings).expect("settings are plain data");
        let scales = request.image_conditions.iter().map(|one| json!({ "scale": one.scale }));
        let strengths = request.feedback.iter().map(|one| json!({ "strength": one.strength }));
        document[IMAGE_CONDITIONS] = scales.collect::<Vec<Value>>().into();
        document[FEEDBACK] = strengths.collect::<Vec<Value>>().into();
        let mut pointers = BTreeMap::new();
        add_pointers(&document, "", "", &mut pointers);
        pointers.retain(|name, _| !name.starts_with(OF_SESSIONS));
        Self { document, pointers }
    }

    /// Returns the number of this name.
    ///
    /// # Errors
    ///
    /// Returns an error if there is none.
    pub(super) fn get(&self, name: &str) -> Result<f64, InvalidValue> {
        let number = self.pointers.get(name).and_then(|pointer| self.document.pointer(pointer)?.as_f64());
        number.ok_or_else(|| self.unknown(name))
    }

    /// Sets the number of this name.
    ///
    /// # Errors
    ///
    /// Returns an error if there is none, or the value is not finite.
    pub(super) fn set(&mut self, name: &str, value: f64) -> Result<(), InvalidValue> {
        if !value.is_finite() {
            let help = "use a value that a search proposed";
            return Err(InvalidValue::new(format!("value of `{name:.80}`"), value, "a finite number", help));
        }
        if let Some(pointer) = self.pointers.get(name)
            && let Some(number) = self.document.pointer_mut(pointer)
        {
            *number = value.into();
            return Ok(());
        }
        Err(self.unknown(name))
    }

    /// Writes the numbers into the request that they were read from, or a copy of it.
    ///
    /// # Errors
    ///
    /// Returns an error if the numbers are no settings, because a window ends before it starts.
    pub(super) fn write_to(self, request: &mut Request) -> Result<(), Error> {
        let mut document = self.document;
        let (scales, strengths) = (document[IMAGE_CONDITIONS].take(), document[FEEDBACK].take());
        if let Some(fields) = document.as_object_mut() {
            fields.retain(|name, _| name != IMAGE_CONDITIONS && name != FEEDBACK);
        }
        for (index, condition) in request.image_conditions.iter_mut().enumerate() {
            condition.scale = scales[index]["scale"].as_f64().unwrap_or(condition.scale);
        }
        for (index, feedback) in request.feedback.iter_mut().enumerate() {
            let strength = strengths[index]["strength"].as_f64().unwrap_or(feedback.strength);
            if strength * feedback.strength < 0.0 {
                return Err(Error::settings(
                    format!("{FEEDBACK}[{index}].strength of a candidate"),
                    strength,
                    format!("a strength of the direction of the base request's, {}", feedback.strength),
                    "begin another search if the likes and dislikes of the base request have changed",
                ));
            }
            feedback.strength = strength;
        }
        request.settings = serde_json::from_value(document).map_err(|error| {
            Error::settings("settings of a candidate", error, "valid settings", "narrow the ranges of the search")
        })?;
        Ok(())
    }

    fn unknown(&self, name: &str) -> InvalidValue {
        let names: Vec<String> = self.pointers.keys().map(|name| format!("`{name}`")).collect();
        InvalidValue::new(
            "name of a searched setting",
            format!("`{name:.80}`"),
            format!("one of {}", names.join(", ")),
            "correct the name; only real numbers can be searched, and an option that is off (`apg`, `cads`) or an \
             image that is missing has none until the base request has it",
        )
    }
}

/// Adds the names and JSON pointers of all real numbers in a value.
fn add_pointers(value: &Value, name: &str, pointer: &str, all: &mut BTreeMap<String, String>) {
    match value {
        Value::Number(number) if number.is_f64() => {
            all.insert(name.to_owned(), pointer.to_owned());
        }
        Value::Object(fields) => {
            let separator = if name.is_empty() { "" } else { "." };
            for (key, value) in fields {
                add_pointers(value, &format!("{name}{separator}{key}"), &format!("{pointer}/{key}"), all);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                add_pointers(value, &format!("{name}[{index}]"), &format!("{pointer}/{index}"), all);
            }
        }
        Value::Number(_) | Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
