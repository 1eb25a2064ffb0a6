//! What this machine can do at best: the rates that a benchmark compares its own with.

use kinglet_kernels::Team;
use kinglet_kernels::ceilings::Meter;
pub use kinglet_kernels::ceilings::Rate;
use kinglet_simd::Level;
use kinglet_tensor::AllocError;

use super::caches::{self, Cache, CacheKind};
use crate::hardware::available_memory;

/// Bytes that no cache holds, unless the machine's caches are huge.
const LARGE: u64 = 256 << 20;
/// Bytes to use at most, however large the caches.
const LARGEST: u64 = 1 << 30;

/// The best rates of a team of threads.
#[derive(Clone, Debug, PartialEq)]
pub struct Ceilings {
    /// Name of the instruction set.
    pub level: &'static str,
    /// Threads that worked.
    pub threads: usize,
    /// Multiply-adds of 32-bit floats: 10^9 operations per second, a multiply-add being two.
    pub f32_fma: Rate,
    /// Multiply-adds of 8-bit integers: 10^9 operations per second, a multiply-add being two.
    pub int8_dot: Rate,
    /// Reading, from each data cache (nearest first) and from main memory: 10^9 bytes per second.
    pub read: Vec<MemoryCeiling>,
    /// Writing to main memory with ordinary stores: 10^9 bytes per second.
    pub write: MemoryCeiling,
}

/// The rate of reading or writing memory, in 10^9 bytes per second.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryCeiling {
    /// Where the working set lies: `L1`, `L2`, `L3`, `memory`.
    pub place: String,
    /// Bytes of the working set, all threads together.
    pub bytes: u64,
    /// The rate.
    pub rate: Rate,
    /// Places that each thread worked on in turn.
    pub streams: usize,
}

impl Ceilings {
    /// Measures with `threads` threads and the best instruction set, in about a second.
    ///
    /// `clock` tells nanoseconds since any fixed moment and never goes back. Fails when memory cannot be had.
    pub fn measure(threads: usize, clock: &dyn Fn() -> u64) -> Result<Ceilings, AllocError> {
        let team = Team::new(threads);
        let caches = caches::probe();
        Self::of(&team, clock, working_sets(&caches, team.size()))
    }

    /// Reads each working set, writes the last one.
    fn of(team: &Team, clock: &dyn Fn() -> u64, sets: Vec<(String, u64)>) -> Result<Ceilings, AllocError> {
        let level = Level::detect();
        let meter = Meter::new(level, team, clock);
        let (place, bytes) = sets.last().cloned().unwrap_or_default();
        let write = MemoryCeiling { rate: meter.write(size(bytes))?, place, bytes, streams: 1 };
        let read = sets.into_iter().map(|(place, bytes)| read_at(&meter, place, bytes));
        Ok(Ceilings {
            level: level.name(),
            threads: team.size(),
            f32_fma: meter.f32_fma(),
            int8_dot: meter.int8_dot(),
            read: read.collect::<Result<_, _>>()?,
            write,
        })
    }
}

/// The rate at which `threads` threads read a working set of `bytes` again and again: the ceiling of a model whose
/// weights take so much. `clock` is as in [`Ceilings::measure`]. Fails when memory cannot be had.
pub fn read_ceiling(
    threads: usize,
    bytes: u64,
    clock: &dyn Fn() -> u64,
) -> Result<MemoryCeiling, AllocError> {
    let team = Team::new(threads);
    read_at(&Meter::new(Level::detect(), &team, clock), "working set".into(), bytes)
}

fn read_at(meter: &Meter<'_>, place: String, bytes: u64) -> Result<MemoryCeiling, AllocError> {
    let found = meter.read(size(bytes))?;
    Ok(MemoryCeiling { place, bytes, rate: found.rate, streams: found.streams })
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Half of each data cache that `threads` threads have, and main memory.
fn working_sets(caches: &[Cache], threads: usize) -> Vec<(String, u64)> {
    let data = caches.iter().filter(|cache| cache.kind != CacheKind::Instruction);
    let set = |cache: &Cache| {
        let owned = if cache.level == 1 { threads } else { threads.min(cache.instances.unwrap_or(1)) };
        (format!("L{}", cache.level), cache.bytes / 2 * owned as u64)
    };
    data.map(set).chain([("memory".into(), main_memory(caches))]).collect()
}

/// Bytes that caches cannot hold: four times the largest, within what the machine can spare.
fn main_memory(caches: &[Cache]) -> u64 {
    let whole = |cache: &Cache| cache.bytes.saturating_mul(cache.instances.unwrap_or(1) as u64);
    let cached = caches.iter().map(whole).max().unwrap_or(0);
    cached.saturating_mul(4).clamp(LARGE, LARGEST).min(available_memory() / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn every_place_is_measured() {
        let now = Cell::new(0);
        let clock = || now.replace(now.get() + 50_000_000);
        let sets = vec![("L1".into(), 20_000), ("memory".into(), 100_000)];
        let found = Ceilings::of(&Team::new(2), &clock, sets).expect("memory");
        assert_eq!((found.threads, found.level), (2, Level::detect().name()));
        let places: Vec<_> = found.read.iter().chain([&found.write]).map(|m| m.place.as_str()).collect();
        assert_eq!(places, ["L1", "memory", "memory"]);
        let rates = found.read.iter().chain([&found.write]).map(|m| m.rate);
        for rate in rates.chain([found.f32_fma, found.int8_dot]) {
            assert!(rate.best.is_finite() && rate.median > 0.0, "{rate:?}");
        }
        assert_eq!(read_ceiling(1, 5_000, &clock).expect("memory").bytes, 5_000);
    }

    #[test]
    fn working_sets_are_half_of_what_the_threads_have() {
        let cache = |level, kind, bytes, instances| Cache { level, kind, bytes, instances };
        let caches = [
            cache(1, CacheKind::Data, 32 << 10, Some(8)),
            cache(1, CacheKind::Instruction, 32 << 10, Some(8)),
            cache(2, CacheKind::Unified, 1 << 20, Some(8)),
            cache(3, CacheKind::Unified, 32 << 20, None),
        ];
        let sets = working_sets(&caches, 4);
        let expected = [("L1", 64 << 10), ("L2", 2 << 20), ("L3", 16 << 20)];
        for ((place, bytes), (name, size)) in sets.iter().zip(expected) {
            assert_eq!((place.as_str(), *bytes), (name, size));
        }
        assert_eq!(sets.len(), 4);
    }
}
