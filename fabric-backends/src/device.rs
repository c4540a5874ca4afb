//! Devices by name, and why one cannot be had.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;

/// The backends this library knows; which of them a build contains is a matter of cargo features.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// The CPU, with burn's own kernels (feature `flex`).
    Flex,
    /// The CPU, with ndarray (feature `ndarray`).
    NdArray,
    /// The NVIDIA GPU with this index (feature `cuda`).
    Cuda(usize),
    /// A GPU of any maker, through Vulkan, Metal or DirectX (feature `wgpu`): the best one, or the discrete one with
    /// this index.
    Wgpu(Option<usize>),
    /// A device of another machine (feature `remote`), which [`serve`](crate::serve) or any of burn's servers offers there.
    Remote {
        /// The server, such as `ws://gpu:3000`.
        url: String,
        /// Which of its devices.
        index: usize,
    },
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flex => write!(f, "flex"),
            Self::NdArray => write!(f, "ndarray"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Wgpu(None) => write!(f, "wgpu"),
            Self::Wgpu(Some(index)) => write!(f, "wgpu:{index}"),
            Self::Remote { url, index: 0 } => write!(f, "{url}"),
            Self::Remote { url, index } => write!(f, "{url}#{index}"),
        }
    }
}

impl FromStr for DeviceKind {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown { name: name.to_owned() };
        match name.split_once(':') {
            None if name == "flex" || name == "cpu" => Ok(Self::Flex),
            None if name == "ndarray" => Ok(Self::NdArray),
            None if name == "cuda" => Ok(Self::Cuda(0)),
            None if name == "wgpu" => Ok(Self::Wgpu(None)),
            Some(("wgpu", index)) => index.parse().map(|index| Self::Wgpu(Some(index))).map_err(|_| unknown()),
            Some(("cuda", index)) => index.parse().map(Self::Cuda).map_err(|_| unknown()),
            Some(("ws" | "wss", _)) => {
                let (url, index) = name.split_once('#').unwrap_or((name, "0"));
                let index = index.parse().map_err(|_| unknown())?;
                Ok(Self::Remote { url: url.to_owned(), index })
            }
            _ => Err(unknown()),
        }
    }
}

/// Why a device cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The name means nothing.
    #[error(
        "device `{name}` is unknown: expected `flex` (or `cpu`), `ndarray`, `cuda`, `cuda:N`, `wgpu`, `wgpu:N`, or another machine's as `ws://HOST:PORT` or `ws://HOST:PORT#N`"
    )]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// This build has no code for it.
    #[error("this build has no `{kind}` backend: build again with `--features {feature}`")]
    NotBuilt {
        /// What was asked for.
        kind: DeviceKind,
        /// The cargo feature that brings it.
        feature: &'static str,
    },
    /// Nothing to choose from.
    #[error("this build has no backend at all: build again with one of the features `flex`, `ndarray`, `cuda`, `wgpu`")]
    NoneBuilt,
    /// The machine has no such device, or its driver does not answer.
    #[error("device `{kind}` does not answer ({message}): check the driver, or use `flex`")]
    NotAnswering {
        /// What was asked for.
        kind: DeviceKind,
        /// What the driver said.
        message: String,
    },
    /// The instruction set that the CPU's kernels are to stop at means nothing.
    #[error(
        "FABRIC_MAX_ISA is `{got}`: expected `avx512`, `avx2` or `none`, or leave it unset for the processor's best"
    )]
    Isa {
        /// What it is set to.
        got: String,
    },
    /// Another machine's device cannot be reached.
    #[error("{url}: no device there ({message}): start the server, or check address, port and firewall")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What the connection said.
        message: String,
    },
    /// A device cannot be served to others.
    #[error("serving a device at {address}: {message}; choose another port, or stop who has it")]
    NotServed {
        /// Where.
        address: String,
        /// What the system said.
        message: String,
    },
}

/// The device of this kind.
///
/// The kernels of `flex` use the best instruction set that the processor has, or the best up to the one that the environment variable
/// `FABRIC_MAX_ISA` names (`avx512`, `avx2`, `none`), so that a machine can compute as a smaller one would.
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use fabric_backends::{DeviceKind, device};
/// let cpu = device(DeviceKind::Flex).unwrap();
/// # }
/// ```
///
/// # Errors
///
/// When this build or this machine does not have it.
pub fn device(kind: DeviceKind) -> Result<Device, DeviceError> {
    match kind {
        #[cfg(feature = "flex")]
        DeviceKind::Flex => crate::kernels::isa::allowed().map(|_| Device::flex()),
        #[cfg(feature = "ndarray")]
        DeviceKind::NdArray => Ok(ndarray()),
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(index) => answering(DeviceKind::Cuda(index), || Device::cuda(index)),
        #[cfg(feature = "wgpu")]
        DeviceKind::Wgpu(index) => answering(DeviceKind::Wgpu(index), || wgpu(index)),
        #[cfg(feature = "remote")]
        DeviceKind::Remote { url, index } => crate::remote::connect(&url, index),
        #[allow(unreachable_patterns, reason = "reachable in builds without all backends")]
        _ => {
            let feature = match kind {
                DeviceKind::Flex => "flex",
                DeviceKind::NdArray => "ndarray",
                DeviceKind::Cuda(_) => "cuda",
                DeviceKind::Wgpu(_) => "wgpu",
                DeviceKind::Remote { .. } => "remote",
            };
            Err(DeviceError::NotBuilt { kind, feature })
        }
    }
}

#[cfg(feature = "ndarray")]
#[allow(deprecated, reason = "kept on purpose, as a second opinion on every number")]
pub(crate) fn ndarray() -> Device {
    Device::ndarray()
}

#[cfg(feature = "wgpu")]
fn wgpu(index: Option<usize>) -> Device {
    use burn::tensor::DeviceKind::{DefaultDevice, DiscreteGpu};
    Device::wgpu(index.map_or(DefaultDevice, DiscreteGpu))
}

/// A missing driver shows only at first use, and as a panic: ask once, here, and say it as an error.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn answering(
    kind: DeviceKind,
    device: impl FnOnce() -> Device + std::panic::UnwindSafe,
) -> Result<Device, DeviceError> {
    use burn::tensor::Tensor;
    let asked = std::panic::catch_unwind(|| {
        let device = device();
        let one = Tensor::<1>::ones([1], &device);
        let _two = (one.clone() + one).into_data();
        device
    });
    match asked {
        Ok(device) => Ok(device),
        Err(panic) => Err(DeviceError::NotAnswering { kind, message: crate::panic_message(&*panic) }),
    }
}

#[allow(unused_variables, reason = "a build without CPU backends has nothing to compare with")]
pub(crate) fn is_cpu(device: &Device) -> bool {
    let device = device.clone().inner();
    #[cfg(feature = "flex")]
    if device == Device::flex() {
        return true;
    }
    #[cfg(feature = "ndarray")]
    if device == ndarray() {
        return true;
    }
    false
}

/// The device named by `FABRIC_DEVICE`, or else the first of `flex`, `ndarray`, `cuda` and `wgpu` in this build.
///
/// The CPU comes first so that a result does not change because some other crate switched a GPU on.
///
/// # Errors
///
/// When this build or this machine does not have it.
pub fn default_device() -> Result<Device, DeviceError> {
    if let Ok(name) = std::env::var("FABRIC_DEVICE") {
        return device(name.parse()?);
    }
    [DeviceKind::Flex, DeviceKind::NdArray, DeviceKind::Cuda(0), DeviceKind::Wgpu(None)]
        .into_iter()
        .map(device)
        .find(|got| !matches!(got, Err(DeviceError::NotBuilt { .. })))
        .unwrap_or(Err(DeviceError::NoneBuilt))
}

/// The CPU, whatever else this build has.
///
/// # Errors
///
/// When this build has no backend for it.
pub fn cpu() -> Result<Device, DeviceError> {
    device(DeviceKind::Flex).or_else(|flex| device(DeviceKind::NdArray).map_err(|_| flex))
}

/// The device in words, for reports.
pub fn describe(device: &Device) -> String {
    format!("{device:?}")
}
