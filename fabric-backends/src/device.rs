//! Selects devices by name and reports why a device is not available.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;

use crate::printable_text::{printable, printable_value};

/// Backend and device to compute on. Cargo features decide which backends a build contains.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// The CPU, with burn's Flex backend and this crate's f32 kernels (feature `flex`).
    Flex,
    /// The CPU, with burn's ndarray backend (feature `ndarray`).
    NdArray,
    /// The NVIDIA GPU with this index (feature `cuda`).
    Cuda(usize),
    /// A GPU of any vendor, through Vulkan, Metal or DirectX (feature `wgpu`): the best available one, or the
    /// discrete GPU with this index.
    Wgpu(Option<usize>),
    /// A device of another machine (feature `remote`), served there by [`serve`](crate::serve) or another burn
    /// server.
    Remote {
        /// URL of the server, such as `ws://gpu:3000`.
        url: String,
        /// Index of the device on that server.
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

/// Error from selecting, reaching or serving a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The device name is unknown.
    #[error(
        "device `{name}` is unknown: expected `flex` (or `cpu`), `ndarray`, `cuda`, `cuda:N`, `wgpu`, `wgpu:N`, or another machine's as `ws://HOST:PORT` or `ws://HOST:PORT#N`",
        name = printable(.name)
    )]
    Unknown {
        /// The requested device.
        name: String,
    },
    /// This build does not contain the backend.
    #[error("this build has no `{kind}` backend: build again with `--features {feature}`")]
    NotBuilt {
        /// The requested device.
        kind: DeviceKind,
        /// The cargo feature that adds the backend.
        feature: &'static str,
    },
    /// This build contains no backend.
    #[error("this build has no backend at all: build again with one of the features `flex`, `ndarray`, `cuda`, `wgpu`")]
    NoneBuilt,
    /// The machine has no such device, or its driver does not respond.
    #[error(
        "device `{kind}` does not answer ({message}): check the driver, or use `flex`",
        kind = printable(.kind),
        message = printable_value(.message)
    )]
    NotAnswering {
        /// The requested device.
        kind: DeviceKind,
        /// Message of the driver.
        message: String,
    },
    /// `FABRIC_MAX_ISA`, which limits the instruction set of the CPU kernels, has an unknown value.
    #[error(
        "FABRIC_MAX_ISA is `{got}`: expected `avx512`, `avx2` or `none`, or leave it unset for the processor's best",
        got = printable(.got)
    )]
    Isa {
        /// The value of the variable.
        got: String,
    },
    /// `FABRIC_MATMUL`, which selects the number format of matrix products on the CPU, has an unknown value.
    #[error(
        "FABRIC_MATMUL is `{got}`: expected `f32` or `bf16`, or leave it unset for `f32`",
        got = printable(.got)
    )]
    Matmul {
        /// The value of the variable.
        got: String,
    },
    /// A device of another machine cannot be reached.
    #[error(
        "{url}: no device there ({message}): start the server, or check address, port, firewall and the token in FABRIC_REMOTE_TOKEN",
        url = printable(.url),
        message = printable_value(.message)
    )]
    Unreachable {
        /// URL of the server.
        url: String,
        /// Error message of the connection.
        message: String,
    },
    /// A server accepted the connection, and then said nothing.
    #[error(
        "{url}: no answer within {seconds} s: is this a server of devices? Start it again, or use another device",
        url = printable(.url)
    )]
    Silent {
        /// URL of the server.
        url: String,
        /// Time that the server had for an answer, in seconds.
        seconds: u64,
    },
    /// A device cannot be served to other machines.
    #[error(
        "serving a device at {address}: {message}; choose another port, or stop who has it",
        address = printable(.address),
        message = printable_value(.message)
    )]
    NotServed {
        /// Address of the listener.
        address: String,
        /// Error message of the system.
        message: String,
    },
}

/// Returns the number format in which the CPU device `flex` multiplies large matrices: `bf16` if `FABRIC_MATMUL` asks for
/// it and the processor has AMX, else `f32`.
pub fn matmul_format() -> &'static str {
    #[cfg(feature = "flex")]
    if crate::kernels::amx::is_on() {
        return "bf16";
    }
    "f32"
}

/// Returns the device of this kind.
///
/// The kernels of `flex` use the processor's best instruction set. The environment variable `FABRIC_MAX_ISA`
/// (`avx512`, `avx2`, `none`) sets an upper limit, so that a machine can compute as an older one would.
///
/// With `FABRIC_MATMUL=bf16`, `flex` rounds the factors of large matrix products and convolutions to bf16 (8 bits of
/// precision) and sums in f32, on processors with AMX; on others the variable has no effect. This is faster, and no
/// longer exact to 1e-4.
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
/// Returns an error if the build does not contain the backend, the device, its driver or its server does not respond,
/// or the value of `FABRIC_MAX_ISA` or `FABRIC_MATMUL` is unknown.
pub fn device(kind: DeviceKind) -> Result<Device, DeviceError> {
    match kind {
        #[cfg(feature = "flex")]
        DeviceKind::Flex => {
            crate::kernels::isa::allowed()?;
            crate::kernels::amx::requested()?;
            Ok(Device::flex())
        }
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

/// Returns the device after a test computation, or an error if that panics: a missing driver shows only at
/// first use, as a panic.
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

/// Returns the device named by `FABRIC_DEVICE`, or else the first of `flex`, `ndarray`, `cuda` and `wgpu` in
/// this build.
///
/// The CPU comes first so that results do not change when another crate enables a GPU feature.
///
/// # Errors
///
/// Returns an error if `FABRIC_DEVICE` is not a known device name, and in the cases of [`device`].
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

/// Returns the CPU device, whichever other backends this build contains.
///
/// # Errors
///
/// Returns an error if the build contains no CPU backend.
pub fn cpu() -> Result<Device, DeviceError> {
    device(DeviceKind::Flex).or_else(|flex| device(DeviceKind::NdArray).map_err(|_| flex))
}

/// Returns a description of the device for reports.
pub fn describe(device: &Device) -> String {
    format!("{device:?}")
}
