//! A U-Net whose steps the device records once and replays.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};

use burn::tensor::{DType, Device, Tensor};
use fabric_backends::Replay;
use fabric_core::attention::{AttnSite, KeptProcessor};
use fabric_core::models::{CrossAttention, NoisePredictor, Record, UNetInput, UNetOutput};

use super::UNet;
use crate::layers::{cast, computes_in};

/// A pass is recorded when it comes for the third time: recording takes as long as some passes, and a weight that
/// changes from step to step makes each pass another one.
const SEEN_BEFORE: usize = 2;
/// Graphs at most; each holds the memory of a pass.
const KEPT: usize = 4;
/// Kinds of passes remembered.
const REMEMBERED: usize = 256;

/// A [`UNet`] that makes equal passes as graphs: where a device records work (CUDA, ROCm, wgpu), the third pass of a kind and all
/// that follow are one launch, instead of more than a thousand that the processor hands over one by one.
///
/// Passes are of a kind when they have the same shapes, are called on the same thread, and are steered equally; plain diffusion and
/// FABRIC's interleaved references (unmerged) can be recorded. Passes with adapters, control networks, kept references or XL's
/// added conditions run as ever, and so does whatever comes after four kinds are recorded, or what the device did not record soundly. Results are those of the network itself.
///
/// On devices that do not record, recording only costs time. No GPU has run this yet. On wgpu with a software renderer some kinds of passes replay
/// rightly and others do not see their inputs; those are refused when they are recorded, and one that goes wrong later gives NaN, never another
/// picture.
pub struct GraphedUNet {
    network: UNet,
    graphs: Mutex<Graphs>,
}

#[derive(Default)]
struct Graphs {
    seen: HashMap<Kind, usize>,
    made: Vec<(Kind, Replay)>,
}

/// What a recording is good for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    thread: ThreadId,
    sample: [usize; 4],
    context: [usize; 3],
    timesteps: usize,
    lending_rows: usize,
    dtype: DType,
    processor: String,
}

impl fmt::Debug for GraphedUNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphedUNet").field("graphs", &self.graphs()).finish_non_exhaustive()
    }
}

impl GraphedUNet {
    /// The network, with nothing recorded yet.
    pub fn new(network: UNet) -> Self {
        Self { network, graphs: Mutex::default() }
    }

    /// How many kinds of passes are graphs now.
    pub fn graphs(&self) -> usize {
        self.lock().made.len()
    }

    /// How many of them the device recorded, instead of running them anew.
    pub fn recorded(&self) -> usize {
        self.lock().made.iter().filter(|(_, graph)| graph.is_recorded()).count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Graphs> {
        // A panic in between leaves a kind that counts as seen, at most.
        self.graphs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pass as a graph, if it is of a kind that can be one and has come often enough.
    fn replayed(&self, input: &UNetInput<'_>) -> Option<Tensor<4>> {
        let alone = input.residuals.is_none() && input.added.is_none() && input.record == Record::Nothing;
        let KeptProcessor { name, processor } = if alone { input.processor.kept()? } else { return None };
        let kind = Kind {
            thread: thread::current().id(),
            sample: input.sample.dims(),
            context: input.context.dims(),
            timesteps: input.timesteps.len(),
            lending_rows: input.lending_rows,
            dtype: input.sample.dtype(),
            processor: name,
        };
        let compute = computes_in(&self.network.trunk.conv_in.weight);
        let inputs = [
            input.sample.clone(),
            self.network.sinusoids(input.timesteps).unsqueeze_dims(&[2, 3]),
            cast(input.context.clone(), compute).unsqueeze_dim(3),
        ];
        let mut graphs = self.lock();
        if let Some((_, graph)) = graphs.made.iter_mut().find(|(made, _)| *made == kind) {
            return Some(graph.run(&inputs));
        }
        if graphs.made.len() == KEPT {
            return None;
        }
        if graphs.seen.len() >= REMEMBERED && !graphs.seen.contains_key(&kind) {
            graphs.seen.clear();
        }
        let seen = graphs.seen.entry(kind.clone()).or_default();
        *seen += 1;
        // A kind that was refused once is never tried again.
        if *seen != SEEN_BEFORE + 1 {
            return None;
        }
        let (network, lending_rows) = (self.network.clone(), input.lending_rows);
        let pass = move |inputs: Vec<Tensor<4>>| {
            let [sample, time, context] = <[_; 3]>::try_from(inputs).expect("as many as were recorded");
            let input = UNetInput::new(sample, &[], context.squeeze_dim(3));
            let input = UNetInput { processor: &*processor, lending_rows, ..input };
            let output = network.run_at(time.squeeze_dims(&[2, 3]), input, None);
            output.sample.expect("a pass that was not asked to record only predicts")
        };
        let mut graph = Replay::record(&self.device(), inputs.to_vec(), pass)?;
        let sample = graph.run(&inputs);
        graphs.made.push((kind, graph));
        Some(sample)
    }
}

impl NoisePredictor for GraphedUNet {
    fn forward(&self, input: UNetInput<'_>) -> UNetOutput {
        match self.replayed(&input) {
            Some(sample) => UNetOutput { sample: Some(sample), recorded: Vec::new() },
            None => self.network.forward(input),
        }
    }

    fn attention_sites(&self) -> Vec<AttnSite> {
        self.network.attention_sites()
    }

    fn cross_attentions(&self) -> Vec<CrossAttention> {
        self.network.cross_attentions()
    }

    fn skip_channels(&self) -> Vec<usize> {
        self.network.skip_channels()
    }

    fn level_channels(&self) -> Vec<usize> {
        self.network.level_channels()
    }

    fn levels(&self) -> usize {
        self.network.levels()
    }

    fn in_channels(&self) -> usize {
        self.network.in_channels()
    }

    fn working_bytes(&self, shape: [usize; 3]) -> u64 {
        self.network.working_bytes(shape)
    }

    fn device(&self) -> Device {
        self.network.device()
    }
}
