//! Passes the keys and values of several groups through burn's backend dispatch.

use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Backend, BackendTensor, Dispatch, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind, ExtensionType,
};

/// Keys and values of each group. burn derives [`ExtensionType`] for structs of tensors, but not for lists of
/// them.
#[derive(Debug)]
pub(super) struct Groups<B: Backend>(pub(super) Vec<[FloatTensor<B>; 2]>);

#[cfg(feature = "autodiff")]
impl<B: Backend> Groups<B> {
    /// Returns the keys of all groups and the values of all groups.
    pub(super) fn keys_and_values(self) -> [Vec<FloatTensor<B>>; 2] {
        let (keys, values) = self.0.into_iter().map(|[key, value]| (key, value)).unzip();
        [keys, values]
    }
}

impl<B: Backend> ExtensionType<B> for Groups<B> {
    type Target = Groups<Dispatch>;

    fn map_to_dispatch<F>(self, map_kind: F, autodiff: DispatchAutodiffContext) -> Self::Target
    where
        F: Fn(BackendTensor<B>) -> DispatchTensorKind,
    {
        let outside = |x| DispatchTensor { kind: map_kind(BackendTensor::Float(x)), autodiff };
        Groups(self.0.into_iter().map(|group| group.map(outside)).collect())
    }

    fn map_from_dispatch<F>(target: Self::Target, unwrap_kind: F) -> Self
    where
        F: Fn(DispatchTensor) -> BackendTensor<B>,
    {
        Self(target.0.into_iter().map(|group| group.map(|x| unwrap_kind(x).float())).collect())
    }

    fn routing_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        target.0.first().map(|[key, _]| key)
    }

    fn routing_float_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        Self::routing_tensor(target)
    }

    fn autodiff_context(target: &Self::Target) -> DispatchAutodiffContext {
        let all = target.0.iter().flatten();
        all.fold(DispatchAutodiffContext::Disabled, |context, x| context.merge(x.autodiff))
    }
}
