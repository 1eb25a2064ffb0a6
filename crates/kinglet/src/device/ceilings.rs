//! What this machine can do at best: the rates that a benchmark compares its own with.

use kinglet_graph::cost::Rates;
use kinglet_kernels::Team;
use kinglet_kernels::ceilings::Meter;
pub use kinglet_kernels::ceilings::Rate;
use kinglet_simd::Level;
use kinglet_tensor::AllocError;

use super::caches::{self, Cache, CacheKind};
use crate::Error;
use crate::hardware::{available_memory, level};

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
    /// Multiply-adds of bfloat16, where the instruction set has them: 10^9 operations per second, a multiply-add being two.
    pub bf16_dot: Option<Rate>,
    /// Multiply-adds of 8-bit integers: 10^9 operations per second, a multiply-add being two.
    pub int8_dot: Rate,
    /// Multiply-adds of 16-bit integers: 10^9 operations per second, a multiply-add being two.
    pub int16_dot: Rate,
    /// Barriers between the threads: 10^9 per second. A step of a plan takes one at least.
    pub barriers: Rate,
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
    /// Measures with `threads` threads and an instruction set, the best one unless named, in about a second.
    ///
    /// `clock` tells nanoseconds since any fixed moment and never goes back. Fails when memory cannot be had, or the
    /// machine does not have the instruction set.
    pub fn measure(threads: usize, isa: Option<&str>, clock: &dyn Fn() -> u64) -> Result<Ceilings, Error> {
        let (team, level) = (Team::new(threads), level(isa)?);
        let caches = caches::probe();
        Ok(Self::of(&team, level, clock, working_sets(&caches, team.size()))?)
    }

    /// The rate at which the same threads read a working set of `bytes` again and again: the ceiling of a model whose
    /// weights take so much. `clock` is as in [`measure`](Self::measure). Fails when memory cannot be had.
    pub fn read_at(&self, bytes: u64, clock: &dyn Fn() -> u64) -> Result<MemoryCeiling, Error> {
        let (team, level) = (Team::new(self.threads), level(Some(self.level))?);
        Ok(read_at(&Meter::new(level, &team, clock), "working set".into(), bytes)?)
    }

    /// What a plan's steps are held to whose weights and state take `bytes` in a run.
    pub fn rates(&self, bytes: u64, clock: &dyn Fn() -> u64) -> Result<Rates, Error> {
        let caches = self.read.split_last().map_or(&[][..], |(_memory, caches)| caches);
        Ok(Rates {
            memory: self.read_at(bytes.max(1 << 20), clock)?.rate.best * 1e9,
            caches: caches.iter().map(|cache| (cache.bytes as f64, cache.rate.best * 1e9)).collect(),
            float: self.f32_fma.best * 1e9,
            bf16: self.bf16_dot.unwrap_or(self.f32_fma).best * 1e9,
            int8: self.int8_dot.best * 1e9,
            int16: self.int16_dot.best * 1e9,
            steps: self.barriers.best * 1e9,
        })
    }

    /// Reads each working set, writes the last one.
    fn of(
        team: &Team,
        level: Level,
        clock: &dyn Fn() -> u64,
        sets: Vec<(String, u64)>,
    ) -> Result<Ceilings, AllocError> {
        let meter = Meter::new(level, team, clock);
        let (place, bytes) = sets.last().cloned().unwrap_or_default();
        let write = MemoryCeiling { rate: meter.write(size(bytes))?, place, bytes, streams: 1 };
        let read = sets.into_iter().map(|(place, bytes)| read_at(&meter, place, bytes));
        Ok(Ceilings {
            level: level.name(),
            threads: team.size(),
            f32_fma: meter.f32_fma(),
            bf16_dot: level.has_bf16().then(|| meter.bf16_dot()),
            int8_dot: meter.int8_dot(),
            int16_dot: meter.int16_dot(),
            barriers: meter.barriers(),
            read: read.collect::<Result<_, _>>()?,
            write,
        })
    }
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
        let found = Ceilings::of(&Team::new(2), Level::detect(), &clock, sets).expect("memory");
        assert_eq!((found.threads, found.level), (2, Level::detect().name()));
        let places: Vec<_> = found.read.iter().chain([&found.write]).map(|m| m.place.as_str()).collect();
        assert_eq!(places, ["L1", "memory", "memory"]);
        let rates = found.read.iter().chain([&found.write]).map(|m| m.rate);
        for rate in rates.chain([found.f32_fma, found.int8_dot, found.int16_dot, found.barriers]) {
            assert!(rate.best.is_finite() && rate.median > 0.0, "{rate:?}");
        }
        assert_eq!(found.read_at(5_000, &clock).expect("memory").bytes, 5_000);
        let rates = found.rates(5_000, &clock).expect("memory");
        assert!(rates.caches.len() == 1 && rates.memory > 0.0 && rates.steps > 0.0);
        assert!(Ceilings::measure(1, Some("abacus"), &clock).is_err());
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
