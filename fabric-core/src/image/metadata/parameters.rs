//! The `parameters` text of AUTOMATIC1111's web UI, which many programs write and show.
//!
//! It has the prompt, the negative prompt behind `Negative prompt:`, and a last line of fields such as `Steps: 20`, of
//! which values with commas, colons or line breaks are JSON strings. Read as `parse_generation_parameters` of version
//! 1.10 does, with two additions: values that are JSON objects or lists are taken as a whole, and the fields may be
//! followed by further lines, as an extension writes them.

use std::str::FromStr;

use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::chunks::PARAMETERS;
use super::prompt_syntax::report_web_ui_syntax;
use super::samplers::{from_web_ui, web_ui_names};
use super::{ImageMetadata, MetadataError, Parsed, ReferenceRecord, shown, without_folders};
use crate::schedule::SamplerKind;

const NEGATIVE: &str = "Negative prompt:";

/// Fewest fields of a line of fields; lines with fewer are part of the prompt.
const FEWEST_FIELDS: usize = 3;

/// Returns the text of metadata. Settings that it cannot express are left out.
pub(super) fn write(metadata: &ImageMetadata) -> String {
    let ImageMetadata { settings, width, height, .. } = metadata;
    let mut fields: Vec<(&str, String)> = Vec::new();
    let mut add = |name, value: Option<String>| fields.extend(value.map(|value| (name, value)));
    add("Steps", settings["steps"].as_u64().map(|steps| steps.to_string()));
    let sampler = settings["sampler"].as_str().and_then(|name| name.parse::<SamplerKind>().ok());
    if let Some((name, schedule)) = sampler.and_then(web_ui_names) {
        add("Sampler", Some(name.to_owned()));
        add("Schedule type", schedule.map(str::to_owned));
    }
    add("CFG scale", settings["guidance_scale"].as_f64().map(|scale| scale.to_string()));
    add("Seed", metadata.seed().map(|seed| seed.to_string()));
    add("Size", (*width > 0 && *height > 0).then(|| format!("{width}x{height}")));
    add("Model", metadata.origin.first().map(|model| quote(&without_folders(model))));
    // The web UI counts the last layer as 1.
    let clip_skip = settings["text"]["clip_skip"].as_u64().filter(|skip| *skip > 0);
    add("Clip skip", clip_skip.map(|skip| skip.saturating_add(1).to_string()));
    add("Denoising strength", metadata.init_image.as_ref().map(|one| one.strength.to_string()));
    let count = |is_counted: fn(f64) -> bool| {
        let acts = |one: &&ReferenceRecord| one.images.as_ref().is_none_or(|images| images.contains(&metadata.index));
        let count = metadata.references.iter().filter(acts).filter(|one| is_counted(one.strength)).count();
        (count > 0).then(|| count.to_string())
    };
    add("FABRIC liked", count(|strength| strength > 0.0));
    add("FABRIC disliked", count(|strength| strength < 0.0));
    add("Version", Some(quote(&metadata.software)).filter(|software| !software.is_empty()));

    let mut lines = vec![metadata.prompt.clone()];
    let negative = metadata.negative_prompt.as_ref().filter(|text| !text.is_empty());
    lines.extend(negative.map(|text| format!("{NEGATIVE} {text}")));
    lines.push(fields.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join(", "));
    // A zero byte would end the text of a chunk for some programs.
    lines.join("\n").trim().replace('\0', " ")
}

/// Returns a value as a JSON string if it could not be told from the fields around it.
fn quote(value: &str) -> String {
    if value.contains([',', ':', '\n']) { Value::from(value).to_string() } else { value.to_owned() }
}

/// Reads what can be read of a text.
pub(super) fn read(place: &str, text: &str) -> Result<Parsed, MetadataError> {
    let refused =
        |why: &str| Err(MetadataError::Text { place: place.to_owned(), keyword: PARAMETERS, source: why.into() });
    let text = text.trim();
    if text.is_empty() {
        return refused("it is empty");
    }
    if text.starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok() {
        return refused("it is JSON of another program");
    }
    let mut parsed = Parsed::default();
    let Parsed { metadata, unread } = &mut parsed;
    let lines: Vec<&str> = text.split('\n').collect();
    let (before, fields, behind) = split(&lines);
    for line in behind.iter().filter(|line| !line.trim().is_empty()) {
        unread.push(format!("a line behind the settings: `{}`", shown(line)));
    }

    let (mut prompt, mut negative) = (String::new(), None);
    for line in before.iter().map(|line| line.trim()) {
        let line = match line.strip_prefix(NEGATIVE) {
            Some(rest) => {
                negative.get_or_insert_with(String::new);
                rest.trim()
            }
            None => line,
        };
        let text = negative.as_mut().unwrap_or(&mut prompt);
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(line);
    }
    metadata.negative_prompt = negative.filter(|text| !text.is_empty());

    let mut fields = Fields(fields);
    if let Some(model) = fields.take("Model") {
        let hash = fields.take("Model hash").map(|hash| format!(" (hash {hash})")).unwrap_or_default();
        metadata.origin.push(without_folders(&model) + &hash);
    }
    metadata.origin.extend(fields.take("VAE").map(|name| format!("VAE {}", without_folders(&name))));
    metadata.prompt = without_networks(&prompt, &mut metadata.origin, unread);
    report_web_ui_syntax(&metadata.prompt, metadata.negative_prompt.as_deref().unwrap_or_default(), unread);
    // Other programs that write this text name themselves here.
    let is_number = |version: &str| version.trim_start_matches(['v', 'f']).starts_with(char::is_numeric);
    metadata.software = match fields.take("Version") {
        Some(version) if is_number(&version) => format!("AUTOMATIC1111 {version}"),
        version => version.unwrap_or_default(),
    };
    match fields.number::<u64>("Seed", unread) {
        Some(seed) => metadata.seeds = vec![seed],
        None => unread.push("the text has no seed".to_owned()),
    }
    metadata.settings = Value::Object(settings(&mut fields, unread));
    unread.extend(fields.0.iter().map(|(name, value)| format!("`{}: {}` is not used here", shown(name), shown(value))));
    Ok(parsed)
}

/// Returns the settings that the fields describe.
fn settings(fields: &mut Fields, unread: &mut Vec<String>) -> Map<String, Value> {
    let mut settings = Map::new();
    let mut set = |name: &str, value: Option<Value>| settings.extend(value.map(|value| (name.to_owned(), value)));
    set("steps", fields.number::<usize>("Steps", unread).map(Value::from));
    let schedule = fields.take("Schedule type");
    let sampler = fields.take("Sampler").and_then(|name| from_web_ui(&name, schedule.as_deref(), unread));
    set("sampler", sampler.map(|kind| kind.to_string().into()));
    let scale = fields.number::<f64>("CFG scale", unread).filter(|scale| scale.is_finite());
    set("guidance_scale", scale.map(Value::from));
    if let Some(size) = fields.take("Size") {
        let sides = size.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
        let (width, height): (Option<usize>, Option<usize>) = sides.unzip();
        if width.is_none() {
            unread.push(format!("size `{}` is none", shown(&size)));
        }
        set("width", width.map(Value::from));
        set("height", height.map(Value::from));
    }

    // The web UI reads weights in prompts, and prompts of any length.
    let (weights, normalisation) = match fields.take("Emphasis").as_deref() {
        None | Some("Original") => (true, "mean"),
        Some("No norm") => (true, "none"),
        Some("None") => (false, "mean"),
        Some(other) => {
            unread.push(format!("emphasis `{}` has no counterpart here", shown(other)));
            (true, "mean")
        }
    };
    let mut text = json!({"weights": weights, "weight_normalisation": normalisation, "long_prompts": true});
    // The web UI counts the last layer as 1, and there 1 is the model's own choice.
    if let Some(skip) = fields.number::<usize>("Clip skip", unread).filter(|skip| *skip > 1) {
        text["clip_skip"] = (skip - 1).into();
    }
    set("text", Some(text));
    if let Some(strength) = fields.take("Denoising strength") {
        let is_second_pass = fields.0.iter().any(|(name, _)| name.starts_with("Hires"));
        let of = if is_second_pass { "a second pass" } else { "an init image, which the text does not name" };
        unread.push(format!("denoising strength `{}` of {of}", shown(&strength)));
    }
    settings
}

/// Splits the lines into those of the prompts, the fields, and the lines behind the fields.
fn split<'a>(lines: &'a [&'a str]) -> (&'a [&'a str], Vec<(String, String)>, &'a [&'a str]) {
    let in_line = |at: usize| Some(fields(lines[at])).filter(|fields| fields.len() >= FEWEST_FIELDS);
    let last = lines.len().saturating_sub(1);
    let found = in_line(last).map(|fields| (last, fields)).or_else(|| {
        let mut earlier = (0..last).rev().filter(|at| lines[*at].trim_start().starts_with("Steps:"));
        earlier.find_map(|at| Some((at, in_line(at)?)))
    });
    match found {
        Some((at, fields)) => (&lines[..at], fields, &lines[at + 1..]),
        None => (lines, Vec::new(), &[]),
    }
}

/// Reads the fields of a line. What is no field is skipped.
fn fields(line: &str) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let mut rest = line;
    while let Some(start) = rest.find(is_word) {
        rest = &rest[start..];
        let end = rest.find(|letter: char| !is_word(letter) && !" -/".contains(letter)).unwrap_or(rest.len());
        let name = &rest[..end];
        // A name has at least two letters. No name begins within a run of letters that no colon follows.
        let Some(value) = rest[end..].strip_prefix(':').filter(|_| name.chars().nth(1).is_some()) else {
            rest = &rest[end..];
            continue;
        };
        let (value, behind) = value_of(value.trim_start());
        fields.push((name.trim_end().to_owned(), value));
        rest = behind;
    }
    fields
}

/// Returns whether a character is part of a word.
pub(super) fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Returns the value at the beginning of a text, and what comes behind the comma that ends it.
fn value_of(text: &str) -> (String, &str) {
    let is_json = text.starts_with(['"', '{', '[']);
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    if let Some(value) = is_json.then(|| values.next()).flatten().and_then(Result::ok) {
        let behind = &text[values.byte_offset()..];
        if let Some(behind) = behind.strip_prefix(',').or_else(|| Some(behind).filter(|rest| rest.trim().is_empty())) {
            return (value.as_str().map_or_else(|| value.to_string(), str::to_owned), behind);
        }
    }
    let (value, behind) = text.split_once(',').unwrap_or((text, ""));
    (value.trim_end().to_owned(), behind)
}

/// Fields that were not used yet.
struct Fields(Vec<(String, String)>);

impl Fields {
    /// Removes a field and returns its value. Of several with one name, the last one counts.
    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().rposition(|(known, _)| known == name)?;
        Some(self.0.remove(at).1)
    }

    /// Removes a field and returns its value, which should be a number.
    fn number<T: FromStr>(&mut self, name: &str, unread: &mut Vec<String>) -> Option<T> {
        let value = self.take(name)?;
        let number = value.parse().ok();
        if number.is_none() {
            unread.push(format!("`{name}: {}` has no usable number", shown(&value)));
        }
        number
    }
}

/// Returns the prompt without the names of LoRAs and hypernetworks, such as `<lora:name:0.8>`, which the web UI does
/// not encode as text. Their names are added to `origin`.
fn without_networks(prompt: &str, origin: &mut Vec<String>, unread: &mut Vec<String>) -> String {
    let mut kept = String::new();
    let mut rest = prompt;
    while let Some(start) = rest.find('<') {
        let (before, tag) = rest.split_at(start);
        kept.push_str(before);
        let inner = tag[1..].split(['<', '>']).next().unwrap_or_default();
        let is_closed = tag[1 + inner.len()..].starts_with('>');
        match inner.split_once(':').filter(|_| is_closed).and_then(|(kind, name)| Some((network(kind)?, name))) {
            Some((kind, name)) => {
                let (name, scale) = name.split_once(':').unwrap_or((name, "1"));
                origin.push(format!("{kind} {} at {}", without_folders(name), shown(scale)));
                unread.push(format!("{kind} `{}` must be loaded with the model", shown(name)));
                rest = &tag[inner.len() + 2..];
            }
            None => {
                kept.push('<');
                rest = &tag[1..];
            }
        }
    }
    kept + rest
}

fn network(kind: &str) -> Option<&'static str> {
    match kind {
        "lora" | "lyco" => Some("LoRA"),
        "hypernet" => Some("hypernetwork"),
        _ => None,
    }
}
