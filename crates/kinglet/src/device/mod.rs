//! The device that models run on: what it has, what Kinglet uses of it, and what it can do at best.
//!
//! Contract: probing never fails and takes milliseconds; what cannot be found out is empty or `None`. Deliberately
//! absent: changing anything, and asking drivers of devices that Kinglet does not use.

mod caches;
mod ceilings;
mod cpu;
mod gpus;
mod kernels;

use std::fs;
use std::path::Path;

use sysinfo::{Components, System};

pub use caches::{Cache, CacheKind};
pub use ceilings::{Ceilings, MemoryCeiling, Rate};
pub use cpu::Cpu;
pub use gpus::Gpu;
pub use kernels::{InstructionSet, WeightType, instruction_sets, weight_types};

use crate::hardware::{available_memory, group_limits, memory};

/// This machine.
#[derive(Clone, Debug)]
pub struct Device {
    /// The processor.
    pub cpu: Cpu,
    /// Main memory.
    pub memory: Memory,
    /// Graphics processors and other display devices; Kinglet does not use them yet.
    pub gpus: Vec<Gpu>,
    /// Temperature sensors.
    pub sensors: Vec<Sensor>,
    /// The operating system.
    pub os: Os,
}

/// Main memory.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Bytes installed, as far as the system sees them; 0 when it does not say.
    pub total: u64,
    /// Bytes that this process can have without swapping, its limit regarded.
    pub available: u64,
    /// Bytes that this process's control group may use, when that is less than the total.
    pub limit: Option<u64>,
    /// The system's setting for transparent huge pages: `always`, `madvise` or `never`. Linux only.
    pub huge_pages: Option<String>,
}

/// A temperature sensor.
#[derive(Clone, Debug)]
pub struct Sensor {
    /// The system's name for it.
    pub name: String,
    /// Degrees Celsius.
    pub celsius: f32,
}

/// The operating system.
#[derive(Clone, Debug)]
pub struct Os {
    /// Name and version.
    pub name: String,
    /// Version of the kernel, empty when unknown.
    pub kernel: String,
}

impl Device {
    /// Looks at this machine.
    pub fn probe() -> Device {
        Device {
            cpu: Cpu::probe(),
            memory: Memory::probe(),
            gpus: gpus::probe(),
            sensors: sensors(),
            os: Os::probe(),
        }
    }
}

impl Memory {
    fn probe() -> Memory {
        let total = memory().map_or(0, |system| system.total_memory());
        Memory {
            total,
            available: available_memory(),
            limit: group_limits().map(|group| group.total_memory).filter(|&limit| limit < total),
            huge_pages: line("/sys/kernel/mm/transparent_hugepage/enabled").and_then(|line| chosen(&line)),
        }
    }
}

impl Os {
    fn probe() -> Os {
        Os {
            name: System::long_os_version().unwrap_or_else(|_| std::env::consts::OS.into()),
            kernel: System::kernel_version().unwrap_or_default(),
        }
    }
}

fn sensors() -> Vec<Sensor> {
    let Ok(components) = Components::new_with_refreshed_list() else { return Vec::new() };
    let sensor = |c: &sysinfo::Component| {
        let celsius = c.temperature().filter(|t| t.is_finite())?;
        Some(Sensor { name: c.label().to_owned(), celsius })
    };
    components.iter().filter_map(sensor).collect()
}

/// The text of a small file without the blanks around it; none when it is missing or empty.
fn line(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The word in brackets: of `always [madvise] never`, the one that is chosen.
fn chosen(choices: &str) -> Option<String> {
    let (_, rest) = choices.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_consistent() {
        let Device { cpu, memory, os, sensors, .. } = Device::probe();
        assert!(cpu.physical_cores >= 1 && cpu.usable_cores >= 1 && cpu.logical_cores >= cpu.usable_cores);
        assert!(memory.total > 0 && memory.available <= memory.limit.unwrap_or(memory.total));
        assert!(!os.name.is_empty());
        assert!(sensors.iter().all(|s| s.celsius.is_finite()));
    }

    #[test]
    fn the_chosen_word_is_in_brackets() {
        let cases =
            [("always [madvise] never", Some("madvise")), ("[always]", Some("always")), ("never", None)];
        for (text, word) in cases {
            assert_eq!(chosen(text).as_deref(), word);
        }
    }
}
