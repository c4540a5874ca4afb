//! AdamW with gradient clipping and a moving average of the weights.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, GradientsParams, Optimizer as _};
use burn::tensor::{Device, Tensor};

use super::TrainSettings;
use crate::load::{ModulePath, PublishedNames};

/// AdamW with clipping of the global gradient norm and a moving average of the weights. The state is keyed by
/// published names.
///
/// burn's `ModuleOptimizer` clips the gradient of each weight separately and keys its state by ids that change from
/// process to process. The arithmetic of a step is burn's.
#[derive(Debug)]
pub struct Optimizer {
    settings: TrainSettings,
    /// State of each weight, by published name.
    pub(super) slots: BTreeMap<String, Slot>,
}

/// State of the optimizer for one weight, as flattened tensors.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) moment_1: Tensor<1>,
    pub(super) moment_2: Tensor<1>,
    pub(super) average: Tensor<1>,
    pub(super) shape: Vec<usize>,
}

impl Optimizer {
    /// Creates an optimizer for a network, with moments of zero and the weights as the initial average.
    pub fn new<M: Module + PublishedNames>(module: &M, settings: &TrainSettings) -> Self {
        let mut slots = BTreeMap::new();
        visit(module, &mut |name, weight, shape| {
            let zero = weight.zeros_like();
            slots.insert(name, Slot { moment_1: zero.clone(), moment_2: zero, average: weight, shape });
        });
        Self { settings: settings.clone(), slots }
    }

    /// Applies one optimizer step; `step` counts from 0. Returns the network and the gradient norm before clipping. If the
    /// norm is not finite, the network stays as it was.
    pub fn step<M: Module + PublishedNames>(
        &mut self,
        module: M,
        mut gradients: GradientsParams,
        rate: f64,
        step: u64,
    ) -> (M, f64) {
        let length = length(&module, &gradients);
        if !length.is_finite() {
            return (module, length);
        }
        let factor = (self.settings.clip / (length + 1e-6)).min(1.0);
        let config = AdamWConfig::new()
            .with_beta_1(self.settings.beta_1)
            .with_beta_2(self.settings.beta_2)
            .with_epsilon(self.settings.epsilon);
        // Early in a run the decay is smaller, so that the average forgets the random initial weights.
        let decay = self.settings.average.min((1.0 + step as f64) / (10.0 + step as f64));
        let mut mapper = Step {
            path: ModulePath::default(),
            name: M::published_name,
            decayed: config.clone().with_weight_decay(self.settings.weight_decay).build(),
            spared: config.with_weight_decay(0.0).build(),
            gradients: &mut gradients,
            slots: &mut self.slots,
            factor,
            rate,
            step,
            decay,
        };
        (module.map(&mut mapper), length)
    }

    /// Returns the network with the averaged weights.
    pub fn averaged<M: Module + PublishedNames>(&self, module: M) -> M {
        let mut mapper = Replace { path: ModulePath::default(), name: M::published_name, slots: &self.slots };
        module.map(&mut mapper)
    }
}

/// Calls `f` with the published name, the values (flattened, detached from autodiff) and the shape of every weight.
pub(super) fn visit<M: Module + PublishedNames>(module: &M, f: &mut dyn FnMut(String, Tensor<1>, Vec<usize>)) {
    struct Visitor<'a, N> {
        path: ModulePath,
        name: N,
        f: &'a mut dyn FnMut(String, Tensor<1>, Vec<usize>),
    }
    impl<N: Fn(&str) -> String> ModuleVisitor for Visitor<'_, N> {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.enter(name);
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.exit();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let value = param.val().inner();
            (self.f)((self.name)(&self.path.join()), value.clone().flatten(0, D - 1), value.dims().to_vec());
        }
    }
    module.visit(&mut Visitor { path: ModulePath::default(), name: M::published_name, f });
}

/// Euclidean norm of all gradients together.
fn length<M: Module>(module: &M, gradients: &GradientsParams) -> f64 {
    struct Sum<'a> {
        gradients: &'a GradientsParams,
        sum: Option<Tensor<1>>,
    }
    impl ModuleVisitor for Sum<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.gradients.get::<D>(param.id) {
                let square = gradient.square().sum();
                self.sum = Some(match self.sum.take() {
                    Some(sum) => sum + square,
                    None => square,
                });
            }
        }
    }
    let mut visitor = Sum { gradients, sum: None };
    module.visit(&mut visitor);
    visitor.sum.map_or(0.0, |sum| sum.into_scalar::<f64>().sqrt())
}

struct Step<'a, N> {
    path: ModulePath,
    name: N,
    decayed: AdamW,
    spared: AdamW,
    gradients: &'a mut GradientsParams,
    slots: &'a mut BTreeMap<String, Slot>,
    factor: f64,
    rate: f64,
    step: u64,
    decay: f64,
}

impl<N: Fn(&str) -> String> ModuleMapper for Step<'_, N> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let name = (self.name)(&self.path.join());
        let (Some(gradient), Some(slot)) = (self.gradients.remove::<D>(id), self.slots.get_mut(&name)) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let shape = tensor.dims();
        let state = AdamWState::new(AdaptiveMomentumState::new(
            self.step as usize,
            slot.moment_1.clone(),
            slot.moment_2.clone(),
        ));
        let optimizer = if D > 1 { &self.decayed } else { &self.spared };
        let gradient = gradient.flatten::<1>(0, D - 1) * self.factor;
        let (weight, state) = optimizer.step(self.rate, tensor.inner().flatten::<1>(0, D - 1), gradient, Some(state));
        if let Some(state) = state {
            (slot.moment_1, slot.moment_2) = (state.momentum.moment_1, state.momentum.moment_2);
        }
        slot.average = slot.average.clone() * self.decay + weight.clone() * (1.0 - self.decay);
        let weight = Tensor::<D>::from_inner(weight.reshape(shape)).require_grad();
        Param::from_mapped_value(id, weight, mapper)
    }
}

struct Replace<'a, N> {
    path: ModulePath,
    name: N,
    slots: &'a BTreeMap<String, Slot>,
}

impl<N: Fn(&str) -> String> ModuleMapper for Replace<'_, N> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let name = (self.name)(&self.path.join());
        let Some(slot) = self.slots.get(&name) else { return Param::from_mapped_value(id, tensor, mapper) };
        Param::from_mapped_value(id, slot.average.clone().reshape(tensor.dims()), mapper)
    }
}

impl Slot {
    pub(super) fn on(values: [Tensor<1>; 3], shape: Vec<usize>, device: &Device) -> Self {
        let [moment_1, moment_2, average] = values.map(|values| values.to_device(device));
        Self { moment_1, moment_2, average, shape }
    }
}
