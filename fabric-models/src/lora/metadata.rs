//! What the header of a file says of the scaling: diffusers writes peft's settings there since 0.34.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

use super::LoraError;
use crate::load::Component;

/// The header's entry.
const KEY: &str = "lora_adapter_metadata";

/// How the products of one network are scaled where no `.alpha` says so.
#[derive(Debug, Default)]
pub(super) struct Scaling {
    alpha: Option<f64>,
    /// Modules with an alpha of their own.
    patterns: Vec<(Regex, f64)>,
    /// `alpha / sqrt(rank)` instead of `alpha / rank` (Kalajdzievski 2023).
    rank_stabilized: bool,
}

impl Scaling {
    /// Reads the settings of one network from a header.
    pub(super) fn read(metadata: &BTreeMap<String, String>, part: Component, place: &str) -> Result<Self, LoraError> {
        let Some(text) = metadata.get(KEY) else { return Ok(Self::default()) };
        let bad = |found: &str, wanted| LoraError::Metadata {
            place: place.to_owned(),
            key: KEY.to_owned(),
            found: found.chars().take(80).collect(),
            wanted,
        };
        let settings: Map<String, Value> =
            serde_json::from_str(text).map_err(|_| bad(text, "a JSON object with peft's settings"))?;
        let get = |name: &str| settings.get(&format!("{part}.{name}")).filter(|value| !value.is_null());
        let number = |value: &Value| value.as_f64().ok_or_else(|| bad(&value.to_string(), "a number for each alpha"));
        let flag = |name: &str| get(name).is_some_and(|value| *value != Value::Bool(false));
        if flag("use_dora") {
            let kind = "DoRA, which also scales each row";
            return Err(LoraError::Unsupported { place: place.to_owned(), key: KEY.to_owned(), kind });
        }
        let mut patterns = Vec::new();
        if let Some(value) = get("alpha_pattern") {
            let wanted = "`alpha_pattern` with a number for each regular expression";
            let list = value.as_object().ok_or_else(|| bad(&value.to_string(), wanted))?;
            for (pattern, alpha) in list {
                let whole = Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$")).map_err(|_| bad(pattern, wanted))?;
                patterns.push((whole, number(alpha)?));
            }
        }
        let alpha = get("lora_alpha").map(number).transpose()?;
        Ok(Self { alpha, patterns, rank_stabilized: flag("use_rslora") })
    }

    /// The alpha of a module, and what its product is multiplied by; `stored` is what an `.alpha` says.
    pub(super) fn of(&self, module: &str, rank: usize, stored: Option<f64>) -> (f64, f64) {
        let rank = rank as f64;
        if let Some(alpha) = stored {
            return (alpha, alpha / rank);
        }
        let own = self.patterns.iter().find(|(pattern, _)| pattern.is_match(module)).map(|(_, alpha)| *alpha);
        match own.or(self.alpha) {
            Some(alpha) if self.rank_stabilized => (alpha, alpha / rank.sqrt()),
            Some(alpha) => (alpha, alpha / rank),
            None => (rank, 1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, part: Component) -> Result<Scaling, LoraError> {
        Scaling::read(&BTreeMap::from([(KEY.to_owned(), json.to_owned())]), part, "x.safetensors")
    }

    #[test]
    fn alpha_comes_from_the_tensor_then_the_pattern_then_the_setting() {
        let json = r#"{"unet.r": 4, "unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 2, "^mid$": 1},
            "text_encoder.lora_alpha": 16, "text_encoder.use_rslora": true, "text_encoder.alpha_pattern": null}"#;
        let unet = read(json, Component::UNet).unwrap();
        assert_eq!(unet.of("a.attn1.to_k", 4, None), (8.0, 2.0));
        assert_eq!(unet.of("a.attn1.to_q", 4, None), (2.0, 0.5));
        assert_eq!(unet.of("a.xattn1.to_q", 4, None), (8.0, 2.0));
        assert_eq!(unet.of("mid", 4, None), (1.0, 0.25));
        assert_eq!(unet.of("a.attn1.to_q", 4, Some(4.0)), (4.0, 1.0));
        assert_eq!(read(json, Component::TextEncoder).unwrap().of("a", 4, None), (16.0, 8.0));
        assert_eq!(read(json, Component::TextEncoder2).unwrap().of("a", 4, None), (4.0, 1.0));
        assert_eq!(Scaling::read(&BTreeMap::new(), Component::UNet, "").unwrap().of("a", 3, None), (3.0, 1.0));
    }

    #[test]
    fn bad_settings_are_errors() {
        for json in ["", "[]", r#"{"unet.lora_alpha": "8"}"#, r#"{"unet.alpha_pattern": {"(": 1}}"#] {
            assert!(matches!(read(json, Component::UNet), Err(LoraError::Metadata { .. })), "{json}");
        }
        let dora = read(r#"{"unet.use_dora": true}"#, Component::UNet);
        assert!(matches!(dora, Err(LoraError::Unsupported { .. })));
    }
}
