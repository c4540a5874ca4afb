//! Computations that a device records once and replays: on a GPU, one launch instead of a thousand.
//!
//! The only unsafe code of this crate beside its kernels; what makes it sound is said where it stands, and what burn
//! does not promise is checked in every replay.

#![allow(unsafe_code, reason = "a graph replays onto memory that nothing tracks; see `Replay::run`")]

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Graph, Tensor, capture};

type Step = Box<dyn FnMut() -> Vec<Tensor<4>> + Send>;

/// A computation of tensors of fixed shapes and types, recorded by devices that can (CUDA, ROCm, wgpu) and run anew on others.
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Tensor};
/// use fabric_backends::Replay;
/// let (device, number) = (Device::flex(), |x: f32| Tensor::<4>::full([1, 1, 1, 1], x, &Device::flex()));
/// let mut double = Replay::record(&device, vec![number(1.0)], |mut inputs| inputs.remove(0) * 2.0).expect("a sound recording");
/// assert_eq!(double.run(&[number(4.0)]).into_scalar::<f32>(), 8.0);
/// # }
/// ```
pub struct Replay {
    graph: Graph<Vec<Tensor<4>>, Step>,
    inputs: Arc<Mutex<Vec<Tensor<4>>>>,
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("is_recorded", &self.is_recorded()).finish_non_exhaustive()
    }
}

impl Replay {
    /// Runs `f` a few times, so that everything it needs is compiled, chosen and allocated, and records it.
    ///
    /// `f` brings nothing to the device: numbers of the host would stay what they are now. On the device it may read
    /// its inputs and what it owns.
    ///
    /// `None` when what the device recorded does not follow its inputs, which is tried out here.
    pub fn record(
        device: &Device,
        inputs: Vec<Tensor<4>>,
        f: impl Fn(Vec<Tensor<4>>) -> Tensor<4> + Send + 'static,
    ) -> Option<Self> {
        let given = inputs.clone();
        // Memory of its own for each, which the recording reads from now on.
        let own = |x: Tensor<4>| overwritten(Tensor::zeros(x.dims(), (device, x.dtype())), &x);
        let inputs = Arc::new(Mutex::new(inputs.into_iter().map(own).collect::<Vec<_>>()));
        let read = inputs.clone();
        let step = move || {
            let inputs = read.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // What it saw, for `run` to compare.
            let seen: Vec<_> = inputs.iter().map(|x| x.clone() * 1.0).collect();
            std::iter::once(f(inputs)).chain(seen).collect()
        };
        let mut recorded = Self { graph: capture(device, Box::new(step) as Step), inputs };
        if recorded.is_recorded() {
            for times in [0.5, 0.25, 1.0] {
                let inputs: Vec<_> = given.iter().map(|x| x.clone() * times).collect();
                let (_, apart) = recorded.replayed(&inputs);
                if apart.is_some_and(|apart| apart.into_scalar::<f64>() != 0.0) {
                    return None;
                }
            }
        }
        Some(recorded)
    }

    /// Whether the device recorded it; otherwise each run computes it anew.
    pub fn is_recorded(&self) -> bool {
        self.graph.is_hardware()
    }

    /// The result for these inputs, on the thread that recorded it. A result made from anything but them is NaN throughout.
    ///
    /// # Panics
    ///
    /// If an input differs in shape or type from what was recorded, or the device fails.
    pub fn run(&mut self, inputs: &[Tensor<4>]) -> Tensor<4> {
        let (result, apart) = self.replayed(inputs);
        match apart {
            Some(apart) => {
                let other = apart.equal_elem(0.0).bool_not().reshape([1, 1, 1, 1]).expand(result.dims());
                result.mask_fill(other, f32::NAN)
            }
            // A copy: the next replay writes there.
            None => result * 1.0,
        }
    }

    /// The result, in memory that the next replay writes to, and how far what it was made from is apart from these inputs.
    fn replayed(&mut self, inputs: &[Tensor<4>]) -> (Tensor<4>, Option<Tensor<1>>) {
        {
            let mut own = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
            assert_eq!(own.len(), inputs.len(), "replay: inputs");
            for (own, given) in own.iter_mut().zip(inputs) {
                assert_eq!((own.dims(), own.dtype()), (given.dims(), given.dtype()), "replay: an input");
                own.inplace(|own| overwritten(own, given));
            }
        }
        // SAFETY: burn asks for three things.
        // - Everything that the recording read or wrote exists: the inputs lie in `self.inputs`, what `f` owns lies in the graph
        //   with `f`, and so do the results; nothing gives them away.
        // - Nobody else uses them meanwhile: inputs are never handed out, the results only as copies, which are ordered
        //   behind this replay on the same stream; and `run` takes `&mut self`.
        // - Inputs are written and results read on the stream that recorded: streams belong to threads, and the documentation
        //   asks for the same one.
        // Should an input have been moved to other memory in spite of that, or another thread have called, then the recording
        // saw other numbers than were given here, which is what the comparison below finds.
        let results = unsafe { self.graph.replay() }.clone();
        let mut results = results.into_iter();
        let result = results.next().expect("the first result is the computation's");
        let apart = results.zip(inputs).map(|(seen, given)| (seen - given.clone()).abs().sum());
        (result, apart.reduce(|sum, more| sum + more))
    }
}

/// Written into the memory of `own`, which nobody else holds.
fn overwritten(own: Tensor<4>, given: &Tensor<4>) -> Tensor<4> {
    let all = own.dims().map(|side| 0..side);
    own.slice_assign(all, given.clone())
}
