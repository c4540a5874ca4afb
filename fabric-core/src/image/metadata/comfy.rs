//! The `prompt` text of ComfyUI: the graph of nodes that was run, as JSON.
//!
//! Keys are ids of nodes. A node has a `class_type` and `inputs`, which are values or links `[id, output]` to other
//! nodes. The sampler is found by its inputs and not by its class, because extensions bring samplers of their own; from
//! there, links lead to the prompts, the model and the empty latents.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::chunks::PROMPT;
use super::file_names::file_name;
use super::samplers::from_comfy;
use super::{MAX_PROMPT, MetadataError, Parsed, shown};

/// Most nodes on a way through the graph, and most texts of one prompt.
const MOST_NODES: usize = 256;

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
    let mut parsed = Parsed::default();
    let Parsed { metadata, unread } = &mut parsed;
    let Some(sampler) = graph.sampler(unread) else { return Err(refused("it has no node that samples".into())) };

    metadata.software = "ComfyUI".to_owned();
    match graph.setting(sampler, &["seed", "noise_seed"], "noise").and_then(Value::as_u64) {
        Some(seed) => metadata.seeds = vec![seed],
        None => unread.push("the graph has no seed that is written out".to_owned()),
    }
    metadata.prompt = graph.prompt(sampler, &["positive", "conditioning"], unread).unwrap_or_else(|| {
        unread.push("the graph has no prompt that is written out".to_owned());
        String::new()
    });
    metadata.negative_prompt = graph.prompt(sampler, &["negative"], unread).filter(|text| !text.is_empty());
    metadata.origin = graph.origin(sampler, unread);
    metadata.settings = Value::Object(graph.settings(sampler, unread));
    Ok(parsed)
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

/// Texts that are found on the way from a sampler to its prompt.
#[derive(Debug)]
struct Walk<'a, 'b> {
    seen: BTreeSet<&'a str>,
    texts: Vec<String>,
    unread: &'b mut Vec<String>,
}

impl Graph {
    fn parse(text: &str) -> Result<Self, serde_json::Error> {
        // Graphs contain Python's `NaN`.
        let nodes: Map<String, Value> = crate::json::from_str(text)?;
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
    fn sampler(&self, unread: &mut Vec<String>) -> Option<&Node> {
        let all = self.0.iter().map(|(id, node)| Place { id, node, output: 0 });
        let mut samplers: Vec<Place<'_>> = all
            .filter(|one| one.node.has_any(&["latent_image"]) && one.node.has_any(&["seed", "noise_seed", "noise"]))
            .collect();
        let number = |one: &Place<'_>| one.id.parse::<u64>().unwrap_or(u64::MAX);
        samplers.sort_by_key(|one| (self.empty_latents(one.node).is_none(), number(one)));
        let (first, others) = samplers.split_first()?;
        for other in others {
            unread.push(format!("{} also samples; only {} was read", other.shown(), first.shown()));
        }
        Some(first.node)
    }

    /// Returns the node with the size of the latents that a sampler begins with, if they are empty.
    fn empty_latents(&self, sampler: &Node) -> Option<&Node> {
        let latents = self.follow(sampler, "latent_image")?.node;
        let is_empty = latents.has_any(&["width"]) && !latents.has_any(&["samples", "pixels", "image"]);
        is_empty.then_some(latents)
    }

    /// Returns the node that a value links to.
    fn link(&self, value: &Value) -> Option<Place<'_>> {
        let [id, output] = value.as_array()?.as_slice() else { return None };
        let id = match id {
            Value::String(id) => id.clone(),
            Value::Number(id) => id.to_string(),
            _ => return None,
        };
        let output = output.as_u64()?;
        self.0.get_key_value(&id).map(|(id, node)| Place { id, node, output })
    }

    /// Returns the node that an input links to.
    fn follow(&self, node: &Node, input: &str) -> Option<Place<'_>> {
        self.link(node.inputs.get(input)?)
    }

    /// Returns the value of an input; links to nodes that return one value are followed.
    fn value<'a>(&'a self, node: &'a Node, input: &str) -> Option<&'a Value> {
        let mut value = node.inputs.get(input)?;
        for _ in 0..MOST_NODES {
            let Some(Place { node, .. }) = self.link(value) else { return Some(value) };
            value = [input].into_iter().chain(VALUES).find_map(|name| node.inputs.get(name))?;
        }
        None
    }

    /// Returns the node that has one of these inputs, and which: the sampler, or a node that its input `via` leads to.
    fn holder<'a>(&'a self, sampler: &'a Node, inputs: &[&'static str], via: &str) -> Option<(&'a Node, &'static str)> {
        let mut node = sampler;
        for _ in 0..MOST_NODES {
            if let Some(input) = inputs.iter().find(|input| node.inputs.contains_key(**input)) {
                return Some((node, *input));
            }
            node = self.follow(node, via)?.node;
        }
        None
    }

    /// Returns a setting of a sampler, from the sampler itself or from the nodes behind its input `via`.
    fn setting<'a>(&'a self, sampler: &'a Node, inputs: &[&'static str], via: &str) -> Option<&'a Value> {
        let (node, input) = self.holder(sampler, inputs, via)?;
        self.value(node, input)
    }

    fn settings(&self, sampler: &Node, unread: &mut Vec<String>) -> Map<String, Value> {
        let mut settings = Map::new();
        let mut set = |name: &str, value: Option<Value>| settings.extend(value.map(|value| (name.to_owned(), value)));
        let steps = self.setting(sampler, &["steps"], "sigmas").and_then(Value::as_u64);
        set("steps", steps.map(Value::from));
        let scale = self.setting(sampler, &["cfg"], "guider").and_then(Value::as_f64);
        set("guidance_scale", scale.map(Value::from));
        let name = self.setting(sampler, &["sampler_name"], "sampler").and_then(Value::as_str);
        let scheduler = self.setting(sampler, &["scheduler"], "sigmas").and_then(Value::as_str);
        let kind = name.and_then(|name| from_comfy(name, scheduler, unread));
        set("sampler", kind.map(|kind| kind.to_string().into()));
        match self.empty_latents(sampler) {
            Some(latents) => {
                for side in ["width", "height"] {
                    set(side, self.value(latents, side).and_then(Value::as_u64).map(Value::from));
                }
                let count = self.value(latents, "batch_size").and_then(Value::as_u64).unwrap_or(1);
                if count > 1 {
                    unread.push(format!("the image is one of {count}, and the graph does not say which"));
                }
            }
            None => unread.push("the run begins with latents or an image that the graph does not have".to_owned()),
        }
        let is_less = |share: &f64| *share < 1.0;
        if let Some(share) = self.setting(sampler, &["denoise"], "sigmas").and_then(Value::as_f64).filter(is_less) {
            unread.push(format!("denoising strength {share} has no counterpart without an init image"));
        }
        let step = |name: &str| self.value(sampler, name).and_then(Value::as_u64);
        let (start, end) = (step("start_at_step"), step("end_at_step"));
        if start.is_some_and(|start| start > 0) || end.zip(steps).is_some_and(|(end, steps)| end < steps) {
            unread.push("the sampler makes only some of its steps".to_owned());
        }

        // ComfyUI reads weights in prompts, and prompts of any length.
        let mut text = json!({"weights": true, "weight_normalisation": "comfy", "long_prompts": true});
        // The last layer is -1.
        let layers = self.0.values().filter_map(|node| self.value(node, "stop_at_clip_layer")?.as_i64());
        let skips: BTreeSet<u64> = layers.map(|layer| layer.unsigned_abs().saturating_sub(1)).collect();
        match (skips.first(), skips.len()) {
            (Some(skip), 1) if *skip > 0 => text["clip_skip"] = (*skip).into(),
            (_, 0 | 1) => {}
            _ => unread.push("several nodes skip different layers of the text encoder".to_owned()),
        }
        set("text", Some(text));
        settings
    }

    /// Returns the model, its LoRAs and a VAE of its own, by the names of their files.
    fn origin(&self, sampler: &Node, unread: &mut Vec<String>) -> Vec<String> {
        let (mut origin, mut loras) = (Vec::new(), Vec::new());
        let start = self.holder(sampler, &["model"], "guider");
        let mut next = start.and_then(|(node, input)| self.follow(node, input));
        let mut seen = BTreeSet::new();
        while let Some(one) = next.filter(|one| seen.insert(one.id)) {
            if let Some(name) = MODELS.iter().find_map(|input| self.value(one.node, input)?.as_str()) {
                origin.push(file_name(name).to_owned());
                break;
            }
            match self.value(one.node, "lora_name").and_then(Value::as_str) {
                Some(name) => {
                    let scale = self.value(one.node, "strength_model").and_then(Value::as_f64).unwrap_or(1.0);
                    loras.push(format!("LoRA {} at {scale}", file_name(name)));
                    unread.push(format!("LoRA `{}` must be loaded with the model", shown(file_name(name))));
                }
                None => unread.push(format!("{} changes the model and was not read", one.shown())),
            }
            next = self.follow(one.node, "model");
        }
        // The way leads from the last LoRA to the model.
        origin.extend(loras.into_iter().rev());
        let vae = self.0.values().find_map(|node| self.value(node, "vae_name")?.as_str());
        origin.extend(vae.map(|name| format!("VAE {}", file_name(name))));
        origin
    }

    /// Returns the text of one of a sampler's prompts.
    fn prompt(&self, sampler: &Node, inputs: &[&'static str], unread: &mut Vec<String>) -> Option<String> {
        let (node, input) = self.holder(sampler, inputs, "guider")?;
        let mut walk = Walk { seen: BTreeSet::new(), texts: Vec::new(), unread };
        self.collect(node.inputs.get(input)?, &mut walk);
        let Walk { texts, unread, .. } = walk;
        if texts.len() > 1 {
            unread.push(format!("{} texts of `{input}` were joined to one", texts.len()));
        }
        let text = (!texts.is_empty()).then(|| texts.join(", "))?;
        if text.len() > MAX_PROMPT {
            unread.push(format!("`{input}` has {} bytes, more than a prompt can have", text.len()));
            return None;
        }
        Some(text)
    }

    /// Collects the texts that a link leads to, in nodes that encode text or combine others.
    fn collect<'a>(&'a self, value: &Value, walk: &mut Walk<'a, '_>) {
        let Some(one) = self.link(value) else { return };
        let Place { id, node, output } = one;
        let is_too_long = walk.texts.iter().map(String::len).sum::<usize>() > MAX_PROMPT;
        if is_too_long || walk.seen.len() == MOST_NODES || !walk.seen.insert(id) {
            return;
        }
        if node.class.contains("ZeroOut") {
            walk.unread.push(format!("{} makes a prompt zero", one.shown()));
            return;
        }
        let inputs = TEXTS.iter().filter_map(|input| node.inputs.get(*input));
        let mut texts = inputs.filter_map(|value| self.text(value, &mut { MOST_NODES }));
        if let Some(text) = texts.next() {
            // The encoders of SDXL can have different texts.
            if texts.any(|other| !other.is_empty() && other != text) {
                walk.unread.push(format!("{} has several texts, of which the first was read", one.shown()));
            }
            walk.texts.push(text);
            return;
        }
        walk.unread.push(format!("{} acts on a prompt and was not read", one.shown()));
        // A node for both prompts returns the positive one first.
        let side = if output == 1 && node.has_any(&["negative"]) { "negative" } else { "positive" };
        let is_on_the_way = |name: &str| name == side || name.starts_with("conditioning");
        let mut inputs: Vec<_> = node.inputs.iter().filter(|(name, _)| is_on_the_way(name.as_str())).collect();
        inputs.sort_by_key(|(name, _)| *name);
        for (_, value) in inputs {
            self.collect(value, walk);
        }
    }

    /// Returns a text that is written out, or that a node returns. At most `left` links are followed.
    fn text(&self, value: &Value, left: &mut usize) -> Option<String> {
        if let Value::String(text) = value {
            return Some(text.clone());
        }
        *left = left.checked_sub(1)?;
        let Place { node, .. } = self.link(value)?;
        if let (Some(first), Some(second)) = (node.inputs.get("string_a"), node.inputs.get("string_b")) {
            let delimiter = node.inputs.get("delimiter").and_then(Value::as_str).unwrap_or_default();
            let first = self.text(first, left)?;
            // Texts that are too long are refused, so nothing needs to be added to them.
            let is_too_long = first.len() + delimiter.len() > MAX_PROMPT;
            return if is_too_long { Some(first) } else { Some(first + delimiter + &self.text(second, left)?) };
        }
        let value = VALUES.iter().find_map(|input| node.inputs.get(*input))?;
        self.text(value, left)
    }
}
