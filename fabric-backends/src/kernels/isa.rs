//! Selects the instruction set of the kernels.

use std::sync::OnceLock;

use pulp::Arch;

use crate::DeviceError;

/// Returns the processor's best instruction set, or the best one that `FABRIC_MAX_ISA` allows.
#[inline]
pub(crate) fn arch() -> Arch {
    static CHOSEN: OnceLock<Arch> = OnceLock::new();
    *CHOSEN.get_or_init(|| allowed().unwrap_or_default())
}

/// Returns the instruction set to use, or an error if the value of `FABRIC_MAX_ISA` is unknown.
pub(crate) fn allowed() -> Result<Arch, DeviceError> {
    match std::env::var("FABRIC_MAX_ISA") {
        Err(std::env::VarError::NotPresent) => Ok(Arch::new()),
        Err(std::env::VarError::NotUnicode(name)) => up_to(&name.to_string_lossy()),
        Ok(name) => up_to(&name),
    }
}

/// Returns the processor's best instruction set up to this one.
fn up_to(name: &str) -> Result<Arch, DeviceError> {
    match name {
        "avx512" => Ok(Arch::new()),
        "avx2" => Ok(without_avx512(Arch::new())),
        "none" => Ok(Arch::Scalar),
        _ => Err(DeviceError::Isa { got: name.to_owned() }),
    }
}

fn without_avx512(best: Arch) -> Arch {
    #[cfg(target_arch = "x86_64")]
    if let Arch::V4(_) = best
        && let Some(simd) = pulp::x86::V3::try_new()
    {
        return Arch::V3(simd);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_set_that_is_unknown_is_an_error_that_names_the_known() {
        let error = up_to("sse9").expect_err("unknown").to_string();
        assert!(error.contains("`sse9`") && error.contains("`avx2`") && error.contains("FABRIC_MAX_ISA"), "{error}");
    }

    #[test]
    fn none_is_used_beyond_what_is_allowed() {
        assert!(matches!(up_to("none"), Ok(Arch::Scalar)));
        #[cfg(target_arch = "x86_64")]
        assert!(!matches!(up_to("avx2"), Ok(Arch::V4(_)) | Err(_)));
        let name = |arch: Arch| format!("{arch:?}");
        assert_eq!(up_to("avx512").map(name).ok(), Some(name(Arch::new())));
    }
}
