//! Networks whose weights stay in host memory and are copied to the device one network at a time.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor};
use fabric_backends::ops::to_kernel_layout;
use fabric_core::Error;
use fabric_core::attention::AttnSite;
use fabric_core::models::{
    Autoencoder, CrossAttention, Posterior, TextEmbedding, TextEncoder, TextOptions, UNetInput, UNetModel, UNetOutput,
};

use super::StableDiffusionText;
use super::text::Tower;
use crate::load::{LoadError, PublishedNames, parameters};
use crate::unet::UNet;
use crate::vae::Vae;

/// A network that can be copied to another device.
pub(super) trait Moves: Send + Sync + 'static {
    fn copied_to(&self, device: &Device) -> Self;
}

/// Slot shared by the offloaded networks; holds the one that is currently on the device.
#[derive(Clone, Default)]
pub(super) struct DeviceSlot(Arc<Mutex<Option<Arc<dyn Any + Send + Sync>>>>);

/// Offloaded network: copied to the device when called, and released when another network is called.
pub(super) struct Offloaded<M> {
    in_memory: M,
    device: Device,
    slot: DeviceSlot,
}

impl<M: Moves> Offloaded<M> {
    pub(super) fn new(in_memory: M, device: &Device, slot: &DeviceSlot) -> Self {
        Self { in_memory, device: device.clone(), slot: slot.clone() }
    }

    fn load_to_device(&self) -> Arc<M> {
        // A panic leaves the slot either empty or with a complete network, so a poisoned lock is safe to use.
        let mut turn = self.slot.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(network) = turn.clone().and_then(|network| network.downcast::<M>().ok()) {
            return network;
        }
        // Release the other network before copying this one: the device may have no room for both.
        if turn.take().is_some() {
            // Kernels that still read its weights must finish before the memory is freed.
            let _ = self.device.sync();
            self.device.memory_cleanup();
        }
        let network = Arc::new(self.in_memory.copied_to(&self.device));
        *turn = Some(network.clone());
        network
    }
}

impl UNetModel for Offloaded<UNet> {
    fn forward(&self, input: UNetInput<'_>) -> UNetOutput {
        self.load_to_device().forward(input)
    }

    fn attention_sites(&self) -> Vec<AttnSite> {
        self.in_memory.attention_sites()
    }

    fn cross_attentions(&self) -> Vec<CrossAttention> {
        self.in_memory.cross_attentions()
    }

    fn skip_channels(&self) -> Vec<usize> {
        self.in_memory.skip_channels()
    }

    fn level_channels(&self) -> Vec<usize> {
        self.in_memory.level_channels()
    }

    fn levels(&self) -> usize {
        self.in_memory.levels()
    }

    fn in_channels(&self) -> usize {
        self.in_memory.in_channels()
    }

    fn reads_guidance_scale(&self) -> bool {
        self.in_memory.reads_guidance_scale()
    }

    fn working_bytes(&self, shape: [usize; 3]) -> u64 {
        self.in_memory.working_bytes_on(&self.device, shape)
    }

    fn device(&self) -> Device {
        self.device.clone()
    }
}

impl Autoencoder for Offloaded<Vae> {
    fn encode(&self, pixels: Tensor<4>, posterior: Posterior) -> Tensor<4> {
        Autoencoder::encode(&*self.load_to_device(), pixels, posterior)
    }

    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        Autoencoder::decode(&*self.load_to_device(), latents)
    }

    fn decode_in_f32(&self, latents: Tensor<4>) -> Option<Tensor<4>> {
        self.load_to_device().decode_in_f32(latents)
    }

    fn scale_factor(&self) -> usize {
        self.in_memory.scale_factor()
    }

    fn latent_channels(&self) -> usize {
        self.in_memory.latent_channels()
    }

    fn working_bytes(&self, latents: [usize; 2]) -> u64 {
        self.in_memory.working_bytes_on(&self.device, latents)
    }
}

impl TextEncoder for Offloaded<StableDiffusionText> {
    fn encode(&self, prompts: &[String], options: &TextOptions) -> Result<TextEmbedding, Error> {
        self.load_to_device().encode(prompts, options)
    }

    fn without_words(
        &self,
        prompt: &str,
        options: &TextOptions,
        keep: &mut dyn FnMut() -> bool,
    ) -> Result<String, Error> {
        self.in_memory.without_words(prompt, options, keep)
    }

    fn last_hidden(&self, prompts: &[String], options: &TextOptions) -> Result<Tensor<3>, Error> {
        self.load_to_device().last_hidden(prompts, options)
    }

    fn force_zeros_for_empty_prompt(&self) -> bool {
        self.in_memory.force_zeros_for_empty_prompt()
    }
}

impl Moves for UNet {
    fn copied_to(&self, device: &Device) -> Self {
        copied(self, device)
    }
}

impl Moves for Vae {
    fn copied_to(&self, device: &Device) -> Self {
        copied(self, device)
    }
}

impl Moves for StableDiffusionText {
    fn copied_to(&self, device: &Device) -> Self {
        let tower = |tower: &Tower| Tower {
            tokenizer: tower.tokenizer.clone(),
            encoder: copied(&tower.encoder, device),
            ..*tower
        };
        Self { towers: self.towers.iter().map(tower).collect(), ..*self }
    }
}

/// Returns an error if a weight has a type that the device does not support; the host may still support it.
pub(super) fn check_types<M: Module + PublishedNames>(network: &M, device: &Device) -> Result<(), LoadError> {
    struct Types(Vec<DType>);
    impl ModuleVisitor for Types {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.val().dtype());
        }
    }
    let mut types = Types(Vec::new());
    network.visit(&mut types);
    for (parameter, dtype) in parameters(network).into_iter().zip(types.0) {
        if dtype != DType::F32 && !device.supports_dtype(dtype) {
            let place = format!("off-loading to {}", fabric_backends::describe(device));
            return Err(LoadError::UnsupportedType { place, tensor: parameter.name, dtype });
        }
    }
    Ok(())
}

/// Copies a network to a device.
pub(super) fn copied<M: Module>(network: &M, device: &Device) -> M {
    network.clone().to_device(device).map(&mut LaidOut)
}

/// Restores the kernel layout of the weights, which is lost on the copy through host memory.
struct LaidOut;

impl ModuleMapper for LaidOut {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(to_kernel_layout)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    static ALIVE: AtomicUsize = AtomicUsize::new(0);
    static MADE: AtomicUsize = AtomicUsize::new(0);

    /// Test network; `true` for the copy on the device, `false` for the one in host memory.
    struct One<const KIND: usize>(bool);

    impl<const KIND: usize> Moves for One<KIND> {
        fn copied_to(&self, _device: &Device) -> Self {
            assert_eq!(ALIVE.fetch_add(1, Ordering::SeqCst), 0, "another network is still there");
            MADE.fetch_add(1, Ordering::SeqCst);
            Self(true)
        }
    }

    impl<const KIND: usize> Drop for One<KIND> {
        fn drop(&mut self) {
            if self.0 {
                ALIVE.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    #[test]
    fn one_network_at_most_is_on_the_device_and_stays_until_another_is_called() {
        let (device, slot) = (fabric_backends::cpu().expect("a CPU"), DeviceSlot::default());
        let text = Offloaded::new(One::<0>(false), &device, &slot);
        let unet = Offloaded::new(One::<1>(false), &device, &slot);
        let made = || MADE.load(Ordering::SeqCst);
        assert_eq!(made(), 0);
        drop(text.load_to_device());
        drop(text.load_to_device());
        assert_eq!(made(), 1);
        (0..5).for_each(|_| drop(unet.load_to_device()));
        assert_eq!((made(), ALIVE.load(Ordering::SeqCst)), (2, 1));
        drop(text.load_to_device());
        assert_eq!(made(), 3);
    }
}
