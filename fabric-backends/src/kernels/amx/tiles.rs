//! The tile registers: one block of results at a time.

use std::marker::PhantomData;

use super::{BLOCK, DEPTH, TILE};

/// Factor of a product in memory: rows of [`TILE`] words, each word two bf16 values of neighbouring depth, the
/// first one in its lower half.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factor<'a> {
    pub(super) words: &'a [u32],
    /// Words from one row of a tile to the next.
    pub(super) stride: usize,
    /// Words from the first tile of a block to the second.
    pub(super) second: usize,
}

/// A block of results.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Sums(pub(super) [[f32; BLOCK]; BLOCK]);

impl Factor<'_> {
    /// Returns the number of words that a block needs from its first word on.
    fn reach(&self) -> usize {
        self.second + (TILE - 1) * self.stride + TILE
    }
}

/// The configured tile registers of this thread.
#[derive(Debug)]
pub(super) struct Tiles {
    /// They belong to a thread, so this must not be sent to another one.
    of_thread: PhantomData<*const ()>,
}

impl Tiles {
    /// Computes `sums[i][j] = Σ a[i][d] · b[d][j]` over the depths of all steps. A step has the positions of its first
    /// tile of `a`, whose rows are `i`, and of `b`, whose rows are pairs of depths.
    pub(super) fn multiply(&self, a: Factor<'_>, b: Factor<'_>, steps: &[[usize; 2]], sums: &mut Sums) {
        let last = |factor: Factor<'_>| factor.words.len().checked_sub(factor.reach());
        let within = |at: usize, factor: Factor<'_>| last(factor).is_some_and(|last| at <= last);
        let is_within = steps.iter().all(|[at_a, at_b]| within(*at_a, a) && within(*at_b, b));
        assert!(is_within, "a tile outside of its factor");
        if steps.is_empty() {
            sums.0 = [[0.0; BLOCK]; BLOCK];
            return;
        }
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if x86::are_available() {
            #[allow(unsafe_code, reason = "the tile registers have no stable functions")]
            // SAFETY: all tiles lie within their slices, as asserted; `with_tiles` configured this thread's registers.
            unsafe {
                x86::multiply(a, b, steps, sums);
            }
            return;
        }
        plain(a, b, steps, sums);
    }
}

/// Implementation without tile registers. (In the registers, subnormal numbers count as 0.)
fn plain(a: Factor<'_>, b: Factor<'_>, steps: &[[usize; 2]], sums: &mut Sums) {
    let halves = |word: u32| [word << 16, word & 0xffff_0000].map(f32::from_bits);
    let at = |factor: Factor<'_>, first: usize, tile: usize| first + tile * factor.second;
    for (i, sums) in sums.0.iter_mut().enumerate() {
        for (j, sum) in sums.iter_mut().enumerate() {
            *sum = 0.0;
            for [first_a, first_b] in steps {
                for pair in 0..DEPTH / 2 {
                    let a = halves(a.words[at(a, *first_a, i / TILE) + i % TILE * a.stride + pair]);
                    let b = halves(b.words[at(b, *first_b, j / TILE) + pair * b.stride + j % TILE]);
                    *sum += a[0] * b[0] + a[1] * b[1];
                }
            }
        }
    }
}

/// Configures the tile registers of this thread while `f` runs. `f` must not wait for other threads, because
/// another task that this thread runs meanwhile would release them.
pub(super) fn with_tiles<R>(f: impl FnOnce(&Tiles) -> R) -> R {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    let _configured = x86::are_available().then(x86::Configured::new);
    f(&Tiles { of_thread: PhantomData })
}

/// Whether the processor has tile registers for bf16, and the operating system lets this process use them.
#[cfg(target_arch = "x86_64")]
pub(super) fn are_available() -> bool {
    #[cfg(target_os = "linux")]
    return x86::are_available();
    #[cfg(not(target_os = "linux"))]
    return false;
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[allow(unsafe_code, reason = "the tile registers have no stable functions")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    use std::sync::OnceLock;

    use super::{BLOCK, Factor, Sums};

    /// Configuration of the tile registers (Intel's manual, `LDTILECFG`): sixteen rows of 64 bytes each.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes_per_row: [u16; 16],
        rows: [u8; 16],
    }

    static CONFIGURATION: Configuration = Configuration {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        bytes_per_row: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
        rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
    };

    pub(super) fn are_available() -> bool {
        static AVAILABLE: OnceLock<bool> = OnceLock::new();
        *AVAILABLE.get_or_init(|| has_tiles() && is_permitted())
    }

    fn has_tiles() -> bool {
        const AMX_BF16: u32 = 1 << 22;
        const AMX_TILE: u32 = 1 << 24;
        __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & (AMX_BF16 | AMX_TILE) == AMX_BF16 | AMX_TILE
    }

    /// Asks Linux for the permission to use the tile registers, which it grants to the whole process.
    fn is_permitted() -> bool {
        const ARCH_PRCTL: i64 = 158;
        const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
        const TILE_DATA: u64 = 18;
        let result: i64;
        // SAFETY: this system call only changes what the process may do; the kernel overwrites rcx and r11.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => result,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") TILE_DATA,
                out("rcx") _,
                out("r11") _,
                options(nostack)
            );
        }
        result == 0
    }

    /// The configuration of this thread's registers, until it is dropped.
    pub(super) struct Configured(());

    impl Configured {
        /// Configures the registers of this thread, which must be available.
        pub(super) fn new() -> Self {
            assert!(are_available());
            // SAFETY: the processor has tile registers, and the process may use them.
            unsafe {
                asm!(
                    "ldtilecfg [{}]",
                    in(reg) &raw const CONFIGURATION,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, readonly)
                );
            }
            Self(())
        }
    }

    impl Drop for Configured {
        fn drop(&mut self) {
            // SAFETY: as in `new`.
            unsafe {
                asm!(
                    "tilerelease",
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, nomem)
                );
            }
        }
    }

    /// See [`Tiles::multiply`](super::Tiles::multiply).
    ///
    /// # Safety
    ///
    /// There is a step, all its tiles lie within their slices, and the tile registers are configured.
    pub(super) unsafe fn multiply(a: Factor<'_>, b: Factor<'_>, steps: &[[usize; 2]], sums: &mut Sums) {
        const WORD: usize = 4;
        // SAFETY: reads tiles that the caller checked, and writes the whole of `sums`.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "mov {tile}, [{step}]",
                "lea {tile}, [{a} + 4*{tile}]",
                "tileloadd tmm4, [{tile} + {a_stride}]",
                "add {tile}, {a_second}",
                "tileloadd tmm5, [{tile} + {a_stride}]",
                "mov {tile}, [{step} + 8]",
                "lea {tile}, [{b} + 4*{tile}]",
                "tileloadd tmm6, [{tile} + {b_stride}]",
                "add {tile}, {b_second}",
                "tileloadd tmm7, [{tile} + {b_stride}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {step}, 16",
                "cmp {step}, {end}",
                "jne 2b",
                "mov {tile}, {row}",
                "tilestored [{sums} + {tile}], tmm0",
                "tilestored [{sums} + {tile} + 64], tmm1",
                "tilestored [{sums} + {tile} + 2048], tmm2",
                "tilestored [{sums} + {tile} + 2112], tmm3",
                tile = out(reg) _,
                step = inout(reg) steps.as_ptr() => _,
                end = in(reg) steps.as_ptr_range().end,
                a = in(reg) a.words.as_ptr(),
                a_stride = in(reg) a.stride * WORD,
                a_second = in(reg) a.second * WORD,
                b = in(reg) b.words.as_ptr(),
                b_stride = in(reg) b.stride * WORD,
                b_second = in(reg) b.second * WORD,
                sums = in(reg) sums.0.as_mut_ptr(),
                row = const BLOCK * WORD,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tile_registers_give_what_the_plain_implementation_gives() {
        let words: Vec<u32> = (0..4096_u32)
            .map(|at| {
                let value = |at: u32| ((at.wrapping_mul(2_654_435_761) >> 20) as f32 / 2048.0 - 1.0).to_bits() >> 16;
                value(2 * at) | value(2 * at + 1) << 16
            })
            .collect();
        let a = Factor { words: &words, stride: 16, second: 256 };
        let b = Factor { words: &words, stride: 70, second: 16 };
        let steps = [[0, 3], [512, 777], [1024, 1555]];
        let (mut got, mut expected) = (Sums([[1.0; BLOCK]; BLOCK]), Sums([[2.0; BLOCK]; BLOCK]));
        with_tiles(|tiles| tiles.multiply(a, b, &steps, &mut got));
        plain(a, b, &steps, &mut expected);
        let mut pairs = got.0.iter().flatten().zip(expected.0.iter().flatten());
        assert!(pairs.all(|(got, expected)| (got - expected).abs() < 1e-5), "{got:?}, {expected:?} expected");
    }

    #[test]
    #[should_panic(expected = "outside")]
    fn a_tile_outside_of_its_factor_is_refused() {
        let words = [0; 1024];
        let factor = Factor { words: &words, stride: 16, second: 256 };
        with_tiles(|tiles| tiles.multiply(factor, factor, &[[0, 513]], &mut Sums([[0.0; BLOCK]; BLOCK])));
    }

    #[test]
    #[should_panic(expected = "outside")]
    fn a_factor_shorter_than_a_block_is_refused() {
        let factor = Factor { words: &[0; 100], stride: 16, second: 256 };
        with_tiles(|tiles| tiles.multiply(factor, factor, &[[0, 0]], &mut Sums([[0.0; BLOCK]; BLOCK])));
    }
}
