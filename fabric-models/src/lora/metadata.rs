//! Scaling settings of peft. diffusers writes them into the header of a file since 0.34; peft writes them into
//! `adapter_config.json`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use fabric_core::json::{MAX_SETTINGS_MEMORY, memory_of_values};
use regex::bytes::{Regex, RegexBuilder};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::LoraError;
use crate::load::{Component, MAX_CONFIG_BYTES, read_json};

/// Name of the header entry.
const HEADER_ENTRY: &str = "lora_adapter_metadata";

/// File that peft writes in the folder of `adapter_model.safetensors`.
const ADAPTER_CONFIG: &str = "adapter_config.json";

/// peft's default of `lora_alpha`.
const PEFT_ALPHA: f64 = 8.0;

/// Limits on patterns that are regular expressions, which are expensive: their number, their length together, and the
/// size of each when compiled. Real files have module names or a few short expressions.
const MAX_EXPRESSIONS: usize = 32;
const MAX_SOURCE_BYTES: usize = 1 << 14;
const MAX_EXPRESSION_BYTES: usize = 1 << 15;

/// Maximum number of bytes of module names to compare with patterns, counted once for each comparison. A file for all
/// layers of Stable Diffusion XL, with as many expressions as are allowed, needs a fifth of it.
const MAX_COMPARED_BYTES: usize = 1 << 24;

/// Scaling of one network's products without a stored `.alpha`.
#[derive(Debug, Default)]
pub(super) struct Scaling {
    alpha: Option<f64>,
    /// Patterns of modules with their own alpha (`alpha_pattern`).
    patterns: Patterns,
    /// `alpha / sqrt(rank)` instead of `alpha / rank` (Kalajdzievski 2023).
    rank_stabilized: bool,
}

/// Settings and their origin, for error messages.
#[derive(Debug)]
pub(super) struct Found {
    place: String,
    entry: &'static str,
    settings: Settings,
}

impl Found {
    /// Reads the settings in the header of the file `place`; `None` if there are none.
    pub(super) fn in_header(metadata: &BTreeMap<String, String>, place: &str) -> Result<Option<Self>, LoraError> {
        let Some(text) = metadata.get(HEADER_ENTRY) else { return Ok(None) };
        let got = Self { place: place.to_owned(), entry: HEADER_ENTRY, settings: Settings::default() };
        if text.len() as u64 > MAX_CONFIG_BYTES {
            return Err(got.bad(&format!("{} bytes", text.len()), "at most 4 MiB of JSON with peft's settings"));
        }
        let memory = memory_of_values(text.as_bytes());
        if memory > MAX_SETTINGS_MEMORY {
            let got_memory = format!("values of {memory} bytes of memory");
            return Err(got.bad(&got_memory, "at most 8 MiB of memory for peft's settings"));
        }
        match fabric_core::json::from_str(text) {
            Ok(settings) => Ok(Some(Self { settings, ..got })),
            Err(_) => Err(got.bad(text, "a JSON object with peft's settings")),
        }
    }

    /// Reads `adapter_config.json` in the folder of a file of weights; `None` if there is none.
    pub(super) fn beside(weights: &Path) -> Result<Option<Self>, LoraError> {
        let path = weights.with_file_name(ADAPTER_CONFIG);
        if !path.is_file() {
            return Ok(None);
        }
        let settings = read_json(&path, MAX_CONFIG_BYTES)?;
        Ok(Some(Self { place: path.display().to_string(), entry: ADAPTER_CONFIG, settings }))
    }

    /// Network according to peft's `auto_mapping`.
    pub(super) fn part(&self) -> Option<Component> {
        match self.settings.object("auto_mapping")?.text("base_model_class")? {
            "UNet2DConditionModel" => Some(Component::UNet),
            "CLIPTextModel" => Some(Component::TextEncoder),
            "CLIPTextModelWithProjection" => Some(Component::TextEncoder2),
            _ => None,
        }
    }

    fn bad(&self, got: &str, expected: &'static str) -> LoraError {
        let got = got.chars().take(80).collect();
        LoraError::Metadata { place: self.place.clone(), key: self.entry.to_owned(), got, expected }
    }

    fn unsupported(&self, kind: &'static str) -> LoraError {
        LoraError::Unsupported { place: self.place.clone(), key: self.entry.to_owned(), kind }
    }
}

impl Scaling {
    /// Reads the settings of one network from a header, in which they are prefixed with the name of the network.
    pub(super) fn from_header(got: &Found, part: Component) -> Result<Self, LoraError> {
        Self::read(got, |name| format!("{part}.{name}"))
    }

    /// Reads the settings from `adapter_config.json`, which apply to a single network.
    pub(super) fn from_adapter_config(got: &Found) -> Result<Self, LoraError> {
        if let Some(kind) = got.settings.text("peft_type").filter(|kind| *kind != "LORA") {
            let kind = match kind {
                "LOHA" => "LoHa, a product element by element",
                "LOKR" => "LoKr, a Kronecker product",
                "OFT" | "BOFT" | "HRA" => "a rotation of the weights",
                "IA3" => "(IA)³, which scales activations",
                _ => "another of peft's methods than LoRA",
            };
            return Err(got.unsupported(kind));
        }
        let scaling = Self::read(got, str::to_owned)?;
        Ok(Self { alpha: scaling.alpha.or(Some(PEFT_ALPHA)), ..scaling })
    }

    fn read(got: &Found, full_name: impl Fn(&str) -> String) -> Result<Self, LoraError> {
        let get = |name: &str| got.settings.get(&full_name(name));
        let number = |setting: &Setting| match setting {
            Setting::Value(Value::Number(number)) => number.as_f64(),
            _ => None,
        };
        let flag = |name: &str| get(name).is_some_and(|flag| !matches!(flag, Setting::Value(Value::Bool(false))));
        if flag("use_dora") {
            return Err(got.unsupported("DoRA, which also scales each row"));
        }
        let mut patterns = Patterns::default();
        if let Some(setting) = get("alpha_pattern") {
            let wrong = |found_here: String| {
                got.bad(&found_here, "`alpha_pattern` with a number for each name or regular expression")
            };
            let Setting::Object(Settings(pairs)) = setting else { return Err(wrong(setting.to_string())) };
            for (pattern, alpha) in pairs {
                let alpha = number(alpha).ok_or_else(|| wrong(format!("{alpha} for `{pattern}`")))?;
                patterns.add(pattern, alpha).map_err(|expected| got.bad(pattern, expected))?;
            }
        }
        let alpha = get("lora_alpha")
            .map(|alpha| number(alpha).ok_or_else(|| got.bad(&alpha.to_string(), "a number as `lora_alpha`")))
            .transpose()?;
        Ok(Self { alpha, patterns, rank_stabilized: flag("use_rslora") })
    }

    /// Returns an error if the settings `got` have patterns that are too expensive to compare with all these modules.
    pub(super) fn check_cost<'a>(
        &self,
        got: &Found,
        mut modules: impl Iterator<Item = &'a String>,
    ) -> Result<(), LoraError> {
        let add = |sum: usize, module: &String| {
            Some(sum.saturating_add(self.patterns.cost(module))).filter(|sum| *sum <= MAX_COMPARED_BYTES)
        };
        if modules.try_fold(0, add).is_some() {
            return Ok(());
        }
        let (expressions, names) = (self.patterns.expressions.len(), self.patterns.named());
        let found_here = format!("{expressions} regular expressions and {names} names for too many modules");
        Err(got.bad(&found_here, "an `alpha_pattern` with fewer regular expressions"))
    }

    /// Returns the alpha of a module and the factor of its product. `stored` is the value of an `.alpha` tensor.
    ///
    /// `rank` is that of the matrices, so `r` and `rank_pattern` are not needed.
    pub(super) fn of(&self, module: &str, rank: usize, stored: Option<f64>) -> (f64, f64) {
        let rank = rank as f64;
        if let Some(alpha) = stored {
            return (alpha, alpha / rank);
        }
        match self.patterns.find(module).or(self.alpha) {
            Some(alpha) if self.rank_stabilized => (alpha, alpha / rank.sqrt()),
            Some(alpha) => (alpha, alpha / rank),
            None => (rank, 1.0),
        }
    }
}

/// Names longer than this match no pattern, because every suffix of a name is looked up. Published names have up to 90
/// bytes.
const MAX_MODULE_BYTES: usize = 1024;

/// Alphas by pattern. As in peft, patterns match suffixes of module names, and the first matching pattern counts.
#[derive(Debug, Default)]
struct Patterns {
    /// Patterns that are the name of one module (`^a.to_q`), with their position in the file.
    modules: HashMap<String, (usize, f64)>,
    /// Patterns that are the end of names (`to_q`).
    ends: HashMap<String, (usize, f64)>,
    expressions: Vec<(usize, Regex, f64)>,
    /// Length of all expressions in the file.
    source_bytes: usize,
}

impl Patterns {
    fn add(&mut self, pattern: &str, alpha: f64) -> Result<(), &'static str> {
        let order = self.named() + self.expressions.len();
        // In a pattern that is a module name, a dot is taken literally and not as a regular expression.
        let is_word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let name = pattern.strip_suffix('$').unwrap_or(pattern);
        let (names, name) = match name.strip_prefix('^') {
            Some(name) => (&mut self.modules, name),
            None => (&mut self.ends, name),
        };
        if name.split('.').all(is_word) {
            names.entry(name.to_owned()).or_insert((order, alpha));
            return Ok(());
        }
        self.source_bytes = self.source_bytes.saturating_add(pattern.len());
        if self.expressions.len() == MAX_EXPRESSIONS || self.source_bytes > MAX_SOURCE_BYTES {
            return Err("at most 32 patterns that are no names of modules, of 16 KiB together");
        }
        // Without Unicode, `\w` and `.` are small: the names of modules are ASCII.
        let whole = RegexBuilder::new(&format!(r"^(?:.*\.)?(?:{pattern})$"))
            .unicode(false)
            .size_limit(MAX_EXPRESSION_BYTES)
            .build();
        let expression = whole.map_err(|_| "a short regular expression for the end of a module's name")?;
        self.expressions.push((order, expression, alpha));
        Ok(())
    }

    /// Number of patterns that are names.
    fn named(&self) -> usize {
        self.modules.len() + self.ends.len()
    }

    fn find(&self, module: &str) -> Option<f64> {
        if module.len() > MAX_MODULE_BYTES {
            return None;
        }
        let ends = std::iter::once(module).chain(module.match_indices('.').map(|(dot, _)| &module[dot + 1..]));
        let named = ends.filter_map(|end| self.ends.get(end)).chain(self.modules.get(module)).copied();
        let matching = self.expressions.iter().filter(|(_, expression, _)| expression.is_match(module.as_bytes()));
        let first = named.chain(matching.map(|(order, _, alpha)| (*order, *alpha))).min_by_key(|(order, _)| *order);
        first.map(|(_, alpha)| alpha)
    }

    /// Returns an upper bound of the number of bytes that [`Self::find`] compares.
    fn cost(&self, module: &str) -> usize {
        if module.len() > MAX_MODULE_BYTES || (self.named() == 0 && self.expressions.is_empty()) {
            return 0;
        }
        module.len() * (2 + module.matches('.').count() + self.expressions.len())
    }
}

/// JSON object that keeps the order of its entries, which `serde_json`'s map does not.
#[derive(Debug, Default)]
struct Settings(Vec<(String, Setting)>);

/// Value of an entry of [`Settings`].
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Setting {
    Object(Settings),
    Value(Value),
}

impl Settings {
    /// Returns the value of a name unless it is null. Of several entries with this name the last counts, as in Python.
    fn get(&self, name: &str) -> Option<&Setting> {
        let (_, got) = self.0.iter().rev().find(|(key, _)| key == name)?;
        Some(got).filter(|got| !matches!(got, Setting::Value(Value::Null)))
    }

    fn object(&self, name: &str) -> Option<&Self> {
        match self.get(name)? {
            Setting::Object(object) => Some(object),
            Setting::Value(_) => None,
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Setting::Object(_) => None,
            Setting::Value(value) => value.as_str(),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(Settings(pairs)) => write!(f, "an object with {} entries", pairs.len()),
            Self::Value(value) => value.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Settings;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Settings, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Settings(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    fn read(json: &str, part: Component) -> Result<Scaling, LoraError> {
        let metadata = BTreeMap::from([(HEADER_ENTRY.to_owned(), json.to_owned())]);
        Scaling::from_header(&Found::in_header(&metadata, "x.safetensors")?.expect("settings"), part)
    }

    fn peft(json: &str) -> Result<Scaling, LoraError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(ADAPTER_CONFIG), json).unwrap();
        let got = Found::beside(&folder.path().join("adapter_model.safetensors"))?.expect("settings");
        Scaling::from_adapter_config(&got)
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
        assert_eq!(Scaling::default().of("a", 3, None), (3.0, 1.0));
    }

    #[test]
    fn of_patterns_the_first_in_the_file_counts() {
        let json = r#"{"lora_alpha": 8, "alpha_pattern": {"to_k": 1, "attn2.to_k": 2, "z.*to_v": 3, "to_v": 4,
            "to_.": 5, "to_q": 6}}"#;
        let scaling = peft(json).unwrap();
        let alpha = |module: &str| scaling.of(module, 1, None).0;
        assert_eq!([alpha("a.attn2.to_k"), alpha("z.to_v"), alpha("a.to_v"), alpha("a.to_q")], [1.0, 3.0, 4.0, 5.0]);
        assert_eq!([alpha("to_k"), alpha("a.xto_k"), alpha("a.attn2")], [1.0, 8.0, 8.0]);
    }

    #[test]
    fn pefts_settings_have_pefts_defaults() {
        assert_eq!(peft(r#"{"r": 4, "lora_alpha": 2}"#).unwrap().of("a", 4, None), (2.0, 0.5));
        assert_eq!(peft("{}").unwrap().of("a", 4, None), (8.0, 2.0));
        let stabilized = peft(r#"{"lora_alpha": 2, "use_rslora": true, "alpha_pattern": {"b": 6}}"#).unwrap();
        assert_eq!((stabilized.of("a", 4, None), stabilized.of("b", 9, None)), ((2.0, 1.0), (6.0, 2.0)));
        for kind in ["LOHA", "LOKR", "OFT", "IA3", "VERA"] {
            let other = peft(&format!(r#"{{"peft_type": "{kind}", "lora_alpha": 2}}"#));
            assert!(matches!(other, Err(LoraError::Unsupported { .. })), "{kind}");
        }
        assert!(matches!(peft(r#"{"use_dora": true}"#), Err(LoraError::Unsupported { .. })));
        assert!(matches!(peft(r#"{"lora_alpha": "2"}"#), Err(LoraError::Metadata { .. })));
        assert!(matches!(peft("[]"), Err(LoraError::Load(_))));
    }

    #[test]
    fn bad_settings_are_errors() {
        for json in [
            "",
            "[]",
            r#"{"unet.lora_alpha": "8"}"#,
            r#"{"unet.alpha_pattern": {"(": 1}}"#,
            r#"{"unet.alpha_pattern": [1]}"#,
            r#"{"unet.alpha_pattern": {"a": null}}"#,
            r#"{"unet.lora_alpha": NaN}"#,
        ] {
            assert!(matches!(read(json, Component::UNet), Err(LoraError::Metadata { .. })), "{json}");
        }
        let dora = read(r#"{"unet.use_dora": true}"#, Component::UNet);
        assert!(matches!(dora, Err(LoraError::Unsupported { .. })));
    }

    #[test]
    fn expressions_that_are_many_or_large_are_refused() {
        let refused = |patterns: Vec<String>| {
            let patterns: Map<String, Value> = patterns.into_iter().map(|pattern| (pattern, 1.into())).collect();
            let json = serde_json::json!({ "unet.alpha_pattern": patterns }).to_string();
            matches!(read(&json, Component::UNet), Err(LoraError::Metadata { .. }))
        };
        assert!(refused(vec![r"\w{90}".repeat(10)]));
        assert!(!refused((0..32).map(|i| format!("a{i}.*")).collect()));
        assert!(refused((0..33).map(|i| format!("a{i}.*")).collect()));
        assert!(refused((0..20).map(|i| format!("{i}.*|{}", "a|".repeat(500))).collect()), "20 kB of expressions");
        assert!(!refused((0..5000).map(|i| format!("down_blocks.{i}.to_q")).collect()), "names cost nothing");
        assert!(!refused((0..5000).map(|i| format!("^down_blocks.{i}.to_q$")).collect()), "also with anchors");
        let padded = format!("{{}}{}", " ".repeat(MAX_CONFIG_BYTES as usize));
        let message = read(&padded, Component::UNet).unwrap_err().to_string();
        assert!(message.contains("expected at most 4 MiB") && message.contains("got 4194306 bytes"), "{message}");
    }

    #[test]
    fn anchors_choose_the_module_of_that_name() {
        let json = r#"{"lora_alpha": 8, "alpha_pattern": {"^a.to_k$": 1, "^a.to_q": 2, "to_v$": 3, "to_[kv]": 4}}"#;
        let scaling = peft(json).unwrap();
        let alpha = |module: &str| scaling.of(module, 1, None).0;
        assert_eq!([alpha("a.to_k"), alpha("b.a.to_k"), alpha("a.to_q"), alpha("b.a.to_q")], [1.0, 4.0, 2.0, 8.0]);
        assert_eq!([alpha("a.to_v"), alpha("to_v"), alpha("a.xto_v")], [3.0, 3.0, 8.0]);
    }

    #[test]
    fn no_pattern_matches_a_name_that_no_model_has() {
        let mut patterns = Patterns::default();
        patterns.add("to_q", 2.0).expect("a pattern");
        assert_eq!(patterns.find("blocks.0.to_q"), Some(2.0));
        // Each dot starts another suffix of the name.
        assert_eq!(patterns.find(&format!("{}to_q", "a.".repeat(600))), None);
    }
}
