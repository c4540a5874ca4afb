//! The prompt of a JSON object.

use serde_json::Value;

use super::cut;

/// Returns the prompt of one JSON entry, or why it has none.
pub(super) fn prompt_of(entry: &Value) -> Result<&str, String> {
    let Value::Object(fields) = entry else {
        return Err(format!("expected an object with the field `prompt`, got {}", kind(entry)));
    };
    match fields.get("prompt") {
        Some(Value::String(prompt)) => Ok(prompt),
        Some(other) => Err(format!("`prompt`: expected a string, got {}", kind(other))),
        None => {
            let names: Vec<_> = fields.keys().map(String::as_str).collect();
            Err(format!("expected the field `prompt`, got the fields {:?}", cut(&names.join(", "))))
        }
    }
}

/// Returns the kind of a JSON value for messages.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a Boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Returns what is wrong with a JSON text, without the place.
pub(super) fn fault(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message.split(" at line ").next().unwrap_or_default().to_owned()
}
