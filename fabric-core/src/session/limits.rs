//! Limits of prompts and settings, of which each round of a session has its own copy.

use serde_json::Value;

use crate::InvalidValue;
use crate::image::MAX_PROMPT;

/// Largest length of settings in bytes of JSON: hundreds of times that of all settings of this library.
const MAX_SETTINGS: usize = 1 << 20;

/// Checks the prompts and settings of a round, or those that a session begins with.
pub(super) fn check_texts(prompt: &str, negative_prompt: &str, settings: &Value) -> Result<(), InvalidValue> {
    check_prompt("prompt", prompt)?;
    check_prompt("negative prompt", negative_prompt)?;
    check_settings(settings)
}

/// Checks the length of a prompt, which is called `name` in the error.
pub(super) fn check_prompt(name: &str, prompt: &str) -> Result<(), InvalidValue> {
    check_length(name, prompt.len(), MAX_PROMPT)
}

/// Checks the length of settings.
pub(super) fn check_settings(settings: &Value) -> Result<(), InvalidValue> {
    check_length("settings", settings.to_string().len(), MAX_SETTINGS)
}

fn check_length(name: &str, got: usize, most: usize) -> Result<(), InvalidValue> {
    if got <= most {
        return Ok(());
    }
    let expected = format!("at most {most} bytes");
    Err(InvalidValue::new(name, format!("{got} bytes"), expected, "shorten it before the next round"))
}
