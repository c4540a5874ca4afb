//! The `prompt` text of ComfyUI: the graph of nodes that was run, as JSON.
//!
//! Keys are ids of nodes. A node has a `class_type` and `inputs`, which are values or links `[id, output]` to other
//! nodes. The sampler is found by its inputs and not by its class, because extensions bring samplers of their own; from
//! there, links lead to the prompts, the model and the empty latents.
//!
//! Prompts are returned in the syntax of this library, with escapes for what is text in ComfyUI only.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::chunks::PROMPT;
use super::file_names::file_name;
use super::prompt_syntax::from_comfy_syntax;
use super::samplers::from_comfy;
use super::{ImageMetadata, MAX_PROMPT, MetadataError, Parsed, shown};
use crate::json::{MAX_SETTINGS_MEMORY, from_str_within};

/// Most nodes on a way through the graph, and most nodes that lead to one prompt.
const MOST_NODES: usize = 256;

/// Most links that are followed in one graph. Graphs of some hundred nodes need some hundred.
const MOST_LINKS: usize = 16 * MOST_NODES;

/// Most bytes of text that are copied from one graph.
const MOST_BYTES: usize = 4 * MAX_PROMPT;

/// Inputs of a node that encodes text.
const TEXTS: [&str; 6] = ["text", "text_g", "text_l", "clip_l", "t5xxl", "prompt"];

/// Inputs of a node that returns one value.
const VALUES: [&str; 6] = ["value", "text", "string", "prompt", "seed", "number"];

/// Inputs that name the file of a model.
const MODELS: [&str; 3] = ["ckpt_name", "unet_name", "model_name"];

/// Reads what can be read of a graph.
pub(super) fn read(place: &str, text: &str) -> Result<Parsed, MetadataError> {
    let refused = |source: Box<dyn std::error::Error + Send + Sync>| MetadataError::Text {
        place: place.to_owned(),
        keyword: PROMPT,
        source,
    };
    let graph = Graph::parse(text).map_err(|error| refused(error.into()))?;
    let mut walk = Walk::new();
    let Some(sampler) = graph.sampler(&mut walk) else { return Err(refused("it has no node that samples".into())) };

    let seed = graph.setting(sampler, &["seed", "noise_seed"], "noise", "seed", Value::as_u64, &mut walk);
    let prompt = graph.prompt(sampler, &["positive", "conditioning"], &mut walk).unwrap_or_else(|| {
        walk.unread.push("the graph has no prompt that is written out".to_owned());
        String::new()
    });
    let negative_prompt = graph.prompt(sampler, &["negative"], &mut walk).filter(|text| !text.is_empty());
    let metadata = ImageMetadata {
        software: "ComfyUI".to_owned(),
        prompt,
        negative_prompt,
        seeds: seed.into_iter().collect(),
        origin: graph.origin(sampler, &mut walk),
        settings: Value::Object(graph.settings(sampler, &mut walk)),
        ..ImageMetadata::default()
    };
    Ok(Parsed { metadata, unread: walk.into_unread() })
}

#[derive(Debug)]
struct Node {
    class: String,
    inputs: Map<String, Value>,
}

impl Node {
    fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.inputs.contains_key(*name))
    }
}

/// Nodes by id.
#[derive(Debug)]
struct Graph(BTreeMap<String, Node>);

/// A node of the graph, and the output that a link names.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    id: &'a str,
    node: &'a Node,
    output: u64,
}

impl Place<'_> {
    /// Names the node in a report.
    fn shown(&self) -> String {
        format!("node {} (`{}`)", shown(self.id), shown(&self.node.class))
    }
}

/// Amount of something that may still be used.
#[derive(Debug)]
struct Limit {
    left: usize,
    is_exceeded: bool,
}

impl Limit {
    fn new(most: usize) -> Self {
        Self { left: most, is_exceeded: false }
    }

    /// Uses an amount, or nothing if less is left.
    fn take(&mut self, amount: usize) -> Option<()> {
        let left = self.left.checked_sub(amount);
        self.is_exceeded |= left.is_none();
        self.left = left?;
        Some(())
    }
}

/// Limits of the work on one graph, and notes on what could not be read.
///
/// Links can lead in circles, and many nodes can link to one long text. The limits therefore hold for everything that
/// is read of a graph together.
#[derive(Debug)]
struct Walk {
    links: Limit,
    bytes: Limit,
    unread: Vec<String>,
}

impl Walk {
    fn new() -> Self {
        Self { links: Limit::new(MOST_LINKS), bytes: Limit::new(MOST_BYTES), unread: Vec::new() }
    }

    /// Returns the notes. Exceeded limits come first, because long lists of notes are shortened.
    fn into_unread(self) -> Vec<String> {
        let limits = [(self.links, "it has too many links"), (self.bytes, "its texts are too long")];
        let exceeded = limits.into_iter().filter(|(limit, _)| limit.is_exceeded);
        let notes = exceeded.map(|(_, why)| format!("parts of the graph were not read, because {why}"));
        notes.chain(self.unread).collect()
    }
}

/// Texts that are found on the way from a sampler to its prompt.
#[derive(Debug, Default)]
struct Found<'a> {
    seen: BTreeSet<&'a str>,
    texts: Vec<String>,
}

impl Graph {
    fn parse(text: &str) -> Result<Self, serde_json::Error> {
        // Graphs contain Python's `NaN`.
        let nodes: Map<String, Value> = from_str_within(text, MAX_SETTINGS_MEMORY)?;
        let nodes = nodes.into_iter().filter_map(|(id, node)| {
            let Value::Object(mut node) = node else { return None };
            match (node.remove("class_type"), node.remove("inputs")) {
                (Some(Value::String(class)), Some(Value::Object(inputs))) => Some((id, Node { class, inputs })),
                _ => None,
            }
        });
        Ok(Self(nodes.collect()))
    }

    /// Returns the node that made the image: of several passes, the one that begins with noise alone.
    fn sampler(&self, walk: &mut Walk) -> Option<&Node> {
        let all = self.0.iter().map(|(id, node)| Place { id, node, output: 0 });
        let mut samplers: Vec<Place<'_>> = all
            .filter(|one| one.node.has_any(&["latent_image"]) && one.node.has_any(&["seed", "noise_seed", "noise"]))
            .collect();
        let number = |one: &Place<'_>| one.id.parse::<u64>().unwrap_or(u64::MAX);
        samplers.sort_by_cached_key(|one| (self.empty_latents(one.node, walk).is_none(), number(one)));
        let (first, others) = samplers.split_first()?;
        for other in others {
            walk.unread.push(format!("{} also samples; only {} was read", other.shown(), first.shown()));
        }
        Some(first.node)
    }

    /// Returns the node with the size of the latents that a sampler begins with, if they are empty.
    fn empty_latents(&self, sampler: &Node, walk: &mut Walk) -> Option<&Node> {
        let latents = self.follow(sampler, "latent_image", walk)?.node;
        let is_empty = latents.has_any(&["width"]) && !latents.has_any(&["samples", "pixels", "image"]);
        is_empty.then_some(latents)
    }

    /// Returns the node that a value links to.
    fn link(&self, value: &Value, walk: &mut Walk) -> Option<Place<'_>> {
        let [id, output] = value.as_array()?.as_slice() else { return None };
        let id = match id {
            Value::String(id) => Cow::Borrowed(id.as_str()),
            Value::Number(id) => Cow::Owned(id.to_string()),
            _ => return None,
        };
        let output = output.as_u64()?;
        walk.links.take(1)?;
        self.0.get_key_value(&*id).map(|(id, node)| Place { id, node, output })
    }

    /// Returns the node that an input links to.
    fn follow(&self, node: &Node, input: &str, walk: &mut Walk) -> Option<Place<'_>> {
        self.link(node.inputs.get(input)?, walk)
    }

    /// Returns the value of an input; links to nodes that return one value are followed.
    fn value<'a>(&'a self, node: &'a Node, input: &str, walk: &mut Walk) -> Option<&'a Value> {
        let mut value = node.inputs.get(input)?;
        for _ in 0..MOST_NODES {
            let Some(Place { node, .. }) = self.link(value, walk) else {
                // A link that leads to no node is no value.
                return Some(value).filter(|value| !value.is_array());
            };
            value = [input].into_iter().chain(VALUES).find_map(|name| node.inputs.get(name))?;
        }
        None
    }

    /// Returns the value of an input, converted. Reports an input that the node has and that cannot be read.
    fn converted<'a, T>(
        &'a self,
        node: &'a Node,
        input: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
        walk: &mut Walk,
    ) -> Option<T> {
        if !node.inputs.contains_key(input) {
            return None;
        }
        let value = self.value(node, input, walk);
        let converted = value.and_then(convert);
        if converted.is_none() {
            let why = if value.is_some() { "has no usable value" } else { "is not written out" };
            walk.unread.push(format!("`{input}` {why}"));
        }
        converted
    }

    /// Returns the node that has one of these inputs, and which: the sampler, or a node that its input `via` leads to.
    fn holder<'a>(
        &'a self,
        sampler: &'a Node,
        inputs: &[&'static str],
        via: &str,
        walk: &mut Walk,
    ) -> Option<(&'a Node, &'static str)> {
        let mut node = sampler;
        for _ in 0..MOST_NODES {
            if let Some(input) = inputs.iter().find(|input| node.inputs.contains_key(**input)) {
                return Some((node, *input));
            }
            node = self.follow(node, via, walk)?.node;
        }
        None
    }

    /// Returns a setting of a sampler, from the sampler itself or from the nodes behind its input `via`. Reports a
    /// setting that cannot be read or is not there, by its name `what`.
    fn setting<'a, T>(
        &'a self,
        sampler: &'a Node,
        inputs: &[&'static str],
        via: &str,
        what: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
        walk: &mut Walk,
    ) -> Option<T> {
        let Some((node, input)) = self.holder(sampler, inputs, via, walk) else {
            walk.unread.push(format!("the graph has no {what}"));
            return None;
        };
        self.converted(node, input, convert, walk)
    }

    fn settings(&self, sampler: &Node, walk: &mut Walk) -> Map<String, Value> {
        let mut settings = Map::new();
        let mut set = |name: &str, value: Option<Value>| settings.extend(value.map(|value| (name.to_owned(), value)));
        let steps = self.setting(sampler, &["steps"], "sigmas", "number of steps", Value::as_u64, walk);
        set("steps", steps.map(Value::from));
        let scale = self.setting(sampler, &["cfg"], "guider", "guidance scale", Value::as_f64, walk);
        set("guidance_scale", scale.map(Value::from));
        let name = self.setting(sampler, &["sampler_name"], "sampler", "named sampler", Value::as_str, walk);
        let schedule = "named noise schedule";
        let scheduler = self.setting(sampler, &["scheduler"], "sigmas", schedule, Value::as_str, walk);
        let kind = name.and_then(|name| from_comfy(name, scheduler, &mut walk.unread));
        set("sampler", kind.map(|kind| kind.to_string().into()));
        match self.empty_latents(sampler, walk) {
            Some(latents) => {
                for side in ["width", "height"] {
                    // No node behind that of the latents has a size, so `via` leads nowhere.
                    let length = self.setting(latents, &[side], side, side, Value::as_u64, walk);
                    set(side, length.map(Value::from));
                }
                let count = self.converted(latents, "batch_size", Value::as_u64, walk).unwrap_or(1);
                if count > 1 {
                    walk.unread.push(format!("the image is one of {count}, and the graph does not say which"));
                }
            }
            None => walk.unread.push("the run begins with latents or an image that the graph does not have".to_owned()),
        }
        let denoise = self.holder(sampler, &["denoise"], "sigmas", walk);
        let share = denoise.and_then(|(node, input)| self.converted(node, input, Value::as_f64, walk));
        if let Some(share) = share.filter(|share| *share < 1.0) {
            walk.unread.push(format!("denoising strength {share} has no counterpart without an init image"));
        }
        let start = self.converted(sampler, "start_at_step", Value::as_u64, walk);
        let end = self.converted(sampler, "end_at_step", Value::as_u64, walk);
        if start.is_some_and(|start| start > 0) || end.zip(steps).is_some_and(|(end, steps)| end < steps) {
            walk.unread.push("the sampler makes only some of its steps".to_owned());
        }

        // ComfyUI reads weights in prompts, and prompts of any length.
        let mut text = json!({"weights": true, "weight_normalisation": "comfy", "long_prompts": true});
        let layers = self.0.values().filter_map(|node| self.converted(node, "stop_at_clip_layer", Value::as_i64, walk));
        // The last layer is -1.
        let skips: BTreeSet<u64> = layers.map(|layer| layer.unsigned_abs().saturating_sub(1)).collect();
        match (skips.first(), skips.len()) {
            (Some(skip), 1) if *skip > 0 => text["clip_skip"] = (*skip).into(),
            (_, 0 | 1) => {}
            _ => walk.unread.push("several nodes skip different layers of the text encoder".to_owned()),
        }
        set("text", Some(text));
        settings
    }

    /// Returns the name of the file of which an input has the path.
    fn file(&self, node: &Node, input: &str, walk: &mut Walk) -> Option<String> {
        let name = file_name(self.value(node, input, walk)?.as_str()?);
        walk.bytes.take(name.len())?;
        Some(name.to_owned())
    }

    /// Returns the model, its LoRAs and a VAE of its own, by the names of their files.
    fn origin(&self, sampler: &Node, walk: &mut Walk) -> Vec<String> {
        let (mut origin, mut loras) = (Vec::new(), Vec::new());
        let start = self.holder(sampler, &["model"], "guider", walk);
        let mut next = start.and_then(|(node, input)| self.follow(node, input, walk));
        let mut seen = BTreeSet::new();
        while let Some(one) = next.filter(|one| seen.insert(one.id)) {
            if let Some(name) = MODELS.iter().find_map(|input| self.file(one.node, input, walk)) {
                origin.push(name);
                break;
            }
            match self.file(one.node, "lora_name", walk) {
                Some(name) => {
                    let scale = self.converted(one.node, "strength_model", Value::as_f64, walk).unwrap_or(1.0);
                    loras.push(format!("LoRA {name} at {scale}"));
                    walk.unread.push(format!("LoRA `{}` must be loaded with the model", shown(&name)));
                }
                None => walk.unread.push(format!("{} changes the model and was not read", one.shown())),
            }
            next = self.follow(one.node, "model", walk);
        }
        // The way leads from the last LoRA to the model.
        origin.extend(loras.into_iter().rev());
        let vae = self.0.values().find_map(|node| self.file(node, "vae_name", walk));
        origin.extend(vae.map(|name| format!("VAE {name}")));
        origin
    }

    /// Returns the text of one of a sampler's prompts.
    fn prompt(&self, sampler: &Node, inputs: &[&'static str], walk: &mut Walk) -> Option<String> {
        let (node, input) = self.holder(sampler, inputs, "guider", walk)?;
        let mut found = Found::default();
        self.collect(node.inputs.get(input)?, &mut found, walk);
        let Found { texts, .. } = found;
        if texts.len() > 1 {
            walk.unread.push(format!("{} texts of `{input}` were joined to one", texts.len()));
        }
        let text = (!texts.is_empty()).then(|| from_comfy_syntax(&texts.join(", ")))?;
        if text.len() > MAX_PROMPT {
            walk.unread.push(format!("`{input}` has {} bytes, more than a prompt can have", text.len()));
            return None;
        }
        Some(text)
    }

    /// Collects the texts that a link leads to, in nodes that encode text or combine others.
    fn collect<'a>(&'a self, value: &Value, found: &mut Found<'a>, walk: &mut Walk) {
        let Some(one) = self.link(value, walk) else { return };
        let Place { id, node, output } = one;
        if found.seen.len() == MOST_NODES {
            walk.links.is_exceeded = true;
            return;
        }
        if !found.seen.insert(id) {
            return;
        }
        if node.class.contains("ZeroOut") {
            walk.unread.push(format!("{} makes a prompt zero", one.shown()));
            return;
        }
        let inputs = TEXTS.iter().filter_map(|input| node.inputs.get(*input));
        let texts: Vec<String> = inputs.filter_map(|value| self.text(value, walk)).collect();
        let mut texts = texts.into_iter();
        if let Some(text) = texts.next() {
            // The encoders of SDXL can have different texts.
            if texts.any(|other| !other.is_empty() && other != text) {
                walk.unread.push(format!("{} has several texts, of which the first was read", one.shown()));
            }
            found.texts.push(text);
            return;
        }
        walk.unread.push(format!("{} acts on a prompt and was not read", one.shown()));
        // A node for both prompts returns the positive one first.
        let side = if output == 1 && node.has_any(&["negative"]) { "negative" } else { "positive" };
        let is_on_the_way = |name: &str| name == side || name.starts_with("conditioning");
        let mut inputs: Vec<_> = node.inputs.iter().filter(|(name, _)| is_on_the_way(name.as_str())).collect();
        inputs.sort_by_key(|(name, _)| *name);
        for (_, value) in inputs {
            self.collect(value, found, walk);
        }
    }

    /// Returns a text that is written out, or that nodes return or join.
    fn text(&self, value: &Value, walk: &mut Walk) -> Option<String> {
        let mut text = String::new();
        let mut links = Limit::new(MOST_NODES);
        // Parts that are still to be added, the next one at the end.
        let mut parts = vec![value];
        while let Some(part) = parts.pop() {
            if let Some(part) = part.as_str() {
                walk.bytes.take(part.len())?;
                text.push_str(part);
                continue;
            }
            links.take(1)?;
            let node = self.link(part, walk)?.node;
            if let (Some(first), Some(second)) = (node.inputs.get("string_a"), node.inputs.get("string_b")) {
                parts.push(second);
                parts.extend(node.inputs.get("delimiter"));
                parts.push(first);
            } else {
                parts.push(VALUES.iter().find_map(|input| node.inputs.get(*input))?);
            }
        }
        Some(text)
    }
}
