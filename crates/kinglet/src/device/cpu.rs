//! The processor: name, cores, caches, instructions.

use kinglet_simd::Level;
use sysinfo::{CpuRefreshKind, RefreshKind, System};

use super::caches::{self, Cache};
use crate::hardware::usable_cores;

/// The processor.
#[derive(Clone, Debug)]
pub struct Cpu {
    /// Its name, as the maker says it; empty when unknown.
    pub brand: String,
    /// The maker; empty when unknown.
    pub vendor: String,
    /// Architecture, in Rust's words: `x86_64`, `aarch64`.
    pub arch: &'static str,
    /// Cores.
    pub physical_cores: usize,
    /// Hardware threads.
    pub logical_cores: usize,
    /// Hardware threads that this process may use.
    pub usable_cores: usize,
    /// Names of the instruction sets for which Kinglet has kernels and that are here; the first is used.
    pub levels: Vec<&'static str>,
    /// Processor features that matter to kernels and are here, used or not.
    pub features: Vec<&'static str>,
    /// Caches, nearest to a core first; empty when unknown.
    pub caches: Vec<Cache>,
}

impl Cpu {
    pub(super) fn probe() -> Cpu {
        let kind = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing());
        let system = System::new_with_specifics(kind).ok();
        let cores = system.as_ref().map(System::cpus).unwrap_or_default();
        let first = cores.first();
        let usable_cores = usable_cores();
        let logical_cores = cores.len().max(usable_cores);
        Cpu {
            brand: first.map(|cpu| cpu.brand().trim().to_owned()).unwrap_or_default(),
            vendor: first.map(|cpu| cpu.vendor_id().to_owned()).unwrap_or_default(),
            arch: std::env::consts::ARCH,
            physical_cores: System::physical_core_count().unwrap_or(logical_cores).max(1),
            logical_cores,
            usable_cores,
            levels: Level::available().into_iter().map(Level::name).collect(),
            features: features(),
            caches: caches::probe(),
        }
    }
}

/// The detected ones of these features.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! detected {
    ($detect:ident: $($name:tt)*) => {
        [$(($name, $detect!($name))),*].into_iter().filter(|f| f.1).map(|f| f.0).collect()
    };
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    detected!(is_x86_feature_detected:
        "sse4.2" "avx" "avx2" "fma" "f16c" "avxvnni" "avxvnniint8" "gfni" "avx512f" "avx512bw" "avx512dq" "avx512vl"
        "avx512vnni" "avx512bf16" "avx512fp16" "avx512vbmi" "avx512vbmi2" "avx512vpopcntdq"
    )
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<&'static str> {
    use std::arch::is_aarch64_feature_detected;

    detected!(is_aarch64_feature_detected:
        "neon" "fp16" "dotprod" "i8mm" "bf16" "fhm" "sve" "sve2"
    )
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_known_by_name_and_end_with_scalar() {
        let cpu = Cpu::probe();
        assert_eq!(cpu.levels.last(), Some(&"scalar"));
        assert_eq!(cpu.levels[0], Level::detect().name());
        assert!(!cpu.levels.contains(&"avx512") || cpu.features.contains(&"avx512vnni"));
    }
}
