//! What this machine can do at best: arithmetic and memory rates, measured with the instructions of one level.
//!
//! Contract: a figure is the rate of the whole team while every worker runs the same loop, in units of 10^9 per second
//! (operations, a multiply-add being two; or bytes). The caller brings the clock. A measurement takes a few tens of
//! milliseconds unless one pass over its memory takes longer, and ends even when the clock stands still.
//!
//! Deliberately absent: latencies; judging what a kernel reached.

use std::hint::black_box;

use kinglet_simd::{Isa, Kernel, Level, dispatch};
use kinglet_tensor::{AlignedBuf, AllocError};

use crate::{SharedMut, Team, Worker};

/// Samples of one measurement.
const SAMPLES: usize = 7;
/// Nanoseconds that a sample should take at least, so that entering the team does not count.
const SAMPLE: u64 = 1_000_000;
/// Nanoseconds after which a measurement takes no more samples than [`FEWEST`].
const PATIENCE: u64 = 60_000_000;
/// Samples of a measurement, however slow.
const FEWEST: usize = 3;
/// Operations or bytes of one worker in one sample, at most: seconds, not hours, under a clock that stands still.
const MOST: usize = 1 << 31;
/// Numbers of read streams that are tried.
const STREAMS: [usize; 4] = [1, 2, 4, 8];
/// Bytes that every memory loop divides into whole steps, whatever the level and the number of streams.
const PAGE: usize = 4096;
/// Vectors that a step of a memory loop touches, over all its streams.
const UNROLL: usize = 8;

/// A rate over several samples, in 10^9 operations or bytes per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// What to expect.
    pub median: f64,
    /// What was reached once: the ceiling, when other programs disturb the samples.
    pub best: f64,
}

impl Rate {
    fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self { median: samples[samples.len() / 2], best: samples[samples.len() - 1] }
    }
}

/// A rate of reading memory, with the number of streams that reached it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReadRate {
    /// Bytes read.
    pub rate: Rate,
    /// Places of its part that each worker reads from in turn: 1, 2, 4 or 8.
    pub streams: usize,
}

/// Measures what `team` can do with the instructions of `level`.
#[derive(Clone, Copy)]
pub struct Meter<'a> {
    level: Level,
    team: &'a Team,
    clock: &'a dyn Fn() -> u64,
}

impl std::fmt::Debug for Meter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").field("level", &self.level).field("team", &self.team).finish_non_exhaustive()
    }
}

impl<'a> Meter<'a> {
    /// A meter whose `clock` tells nanoseconds since any fixed moment and never goes back.
    pub fn new(level: Level, team: &'a Team, clock: &'a dyn Fn() -> u64) -> Self {
        Self { level, team, clock }
    }

    /// Multiply-adds of `f32`, as a matrix product does them from the first-level cache.
    pub fn f32_fma(&self) -> Rate {
        let level = self.level;
        self.rate(dispatch(level, F32Ops), |_, passes| dispatch(level, F32Product { passes }))
    }

    /// Multiply-adds of pairs of bfloat16 ([`Isa::dot_bf16`]), likewise.
    pub fn bf16_dot(&self) -> Rate {
        let level = self.level;
        self.rate(dispatch(level, Bf16Ops), |_, passes| dispatch(level, Bf16Product { passes }))
    }

    /// Multiply-adds of 8-bit integers ([`Isa::dot_u7`]), as a matrix product does them from the first-level cache.
    pub fn int8_dot(&self) -> Rate {
        let level = self.level;
        self.rate(dispatch(level, Int8Ops), |_, passes| dispatch(level, IntegerProduct::<false> { passes }))
    }

    /// Multiply-adds of pairs of 16-bit integers ([`Isa::dot_i16`]), likewise.
    pub fn int16_dot(&self) -> Rate {
        let level = self.level;
        self.rate(dispatch(level, Int8Ops) / 2, |_, passes| {
            dispatch(level, IntegerProduct::<true> { passes })
        })
    }

    /// Barriers of the whole team, one after the other: what a step of a program costs that does nothing.
    pub fn barriers(&self) -> Rate {
        let all = self.rate(1, |worker, passes| (0..passes).for_each(|_| worker.barrier()));
        let one = |rate: f64| rate / self.team.size() as f64;
        Rate { median: one(all.median), best: one(all.best) }
    }

    /// Reading `bytes` again and again, each worker its own part, with the best number of streams.
    ///
    /// A part is a whole number of 4 KiB pages, so that a little more is read when `bytes` does not come out even.
    pub fn read(&self, bytes: usize) -> Result<ReadRate, AllocError> {
        let (level, part) = (self.level, self.part(bytes));
        let memory = self.touched(part)?;
        let mut best = ReadRate { rate: Rate { median: 0.0, best: 0.0 }, streams: STREAMS[0] };
        for streams in STREAMS {
            let rate = self.rate(part, |worker, passes| {
                let memory = &memory[worker.index() * part..][..part];
                dispatch(level, Read { memory, streams, passes });
            });
            if rate.median > best.rate.median {
                best = ReadRate { rate, streams };
            }
        }
        Ok(best)
    }

    /// Overwriting `bytes` again and again, each worker its own part (as in [`read`](Self::read)), with ordinary stores.
    pub fn write(&self, bytes: usize) -> Result<Rate, AllocError> {
        let (level, part) = (self.level, self.part(bytes));
        let mut memory = self.touched(part)?;
        let view = SharedMut::new(&mut memory);
        Ok(self.rate(part, |worker, passes| {
            let at = worker.index() * part;
            // SAFETY: each worker has its own part.
            let memory = unsafe { view.part_mut(at..at + part) };
            dispatch(level, Write { memory, passes });
        }))
    }

    /// Bytes of one worker's part of `bytes`.
    fn part(&self, bytes: usize) -> usize {
        (bytes / self.team.size()).div_ceil(PAGE).max(1).saturating_mul(PAGE)
    }

    /// A part for each worker, written by it, so that every page exists and lies near the worker.
    fn touched(&self, part: usize) -> Result<AlignedBuf, AllocError> {
        let mut memory = AlignedBuf::try_new(part.saturating_mul(self.team.size()))?;
        let view = SharedMut::new(&mut memory);
        self.team.run(|worker| {
            let at = worker.index() * part;
            // SAFETY: each worker has its own part.
            unsafe { view.part_mut(at..at + part) }.fill(1);
        });
        Ok(memory)
    }

    /// The team's rate when one pass of one worker does `work` operations or bytes.
    fn rate(&self, work: usize, job: impl Fn(Worker<'_>, usize) + Sync) -> Rate {
        let work = work.max(1);
        let begin = (self.clock)();
        let mut passes = 1;
        let mut samples = Vec::with_capacity(SAMPLES);
        while samples.len() < SAMPLES
            && (samples.len() < FEWEST || (self.clock)().saturating_sub(begin) < PATIENCE)
        {
            let elapsed = self.elapsed(passes, &job);
            if elapsed < SAMPLE && passes.saturating_mul(work) < MOST {
                // Too short to tell; longer samples before were disturbed.
                passes *= 2;
                samples.clear();
            } else {
                samples.push(passes as f64 * work as f64 * self.team.size() as f64 / elapsed as f64);
            }
        }
        Rate::of(samples)
    }

    /// Nanoseconds, at least one, that the team takes for `passes` passes.
    fn elapsed(&self, passes: usize, job: &(impl Fn(Worker<'_>, usize) + Sync)) -> u64 {
        let begin = (self.clock)();
        self.team.run(|worker| job(worker, passes));
        (self.clock)().saturating_sub(begin).max(1)
    }
}

/// Steps of a product in one pass.
const STEPS: usize = 32;
/// Rows and vectors of columns of the tile: accumulators, one row and the columns fill the registers.
const SMALL: (usize, usize) = (5, 2);
const LARGE: (usize, usize) = (5, 4);
/// Dot products without an instruction of their own need registers for the intermediate results.
const TINY: (usize, usize) = (2, 3);

/// Operations of one pass of [`F32Product`].
struct F32Ops;

impl Kernel for F32Ops {
    type Out = usize;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> usize {
        let (rows, columns) = if I::REGISTERS >= 32 { LARGE } else { SMALL };
        STEPS * rows * columns * I::LANES * 2
    }
}

/// Operations of one pass of [`IntegerProduct`] of 8 bits.
struct Int8Ops;

impl Kernel for Int8Ops {
    type Out = usize;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> usize {
        let (rows, columns) = if I::REGISTERS >= 32 { LARGE } else { TINY };
        STEPS * rows * columns * I::LANES * 8
    }
}

/// Operations of one pass of [`Bf16Product`].
struct Bf16Ops;

impl Kernel for Bf16Ops {
    type Out = usize;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> usize {
        2 * F32Ops.run(isa)
    }
}

/// An outer product of pairs of bfloat16.
struct Bf16Product {
    passes: usize,
}

impl Kernel for Bf16Product {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        isa.dispatch_bf16(Bf16Pass(self.passes));
    }
}

/// The same where the instructions are enabled.
struct Bf16Pass(usize);

impl Kernel for Bf16Pass {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        if I::REGISTERS >= 32 {
            float_product::<I, true, { LARGE.0 }, { LARGE.1 }>(isa, self.0);
        } else {
            float_product::<I, true, { SMALL.0 }, { SMALL.1 }>(isa, self.0);
        }
    }
}

/// An outer product of `f32`: columns are loaded, rows broadcast, sums stay in registers.
struct F32Product {
    passes: usize,
}

impl Kernel for F32Product {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        if I::REGISTERS >= 32 {
            float_product::<I, false, { LARGE.0 }, { LARGE.1 }>(isa, self.passes);
        } else {
            float_product::<I, false, { SMALL.0 }, { SMALL.1 }>(isa, self.passes);
        }
    }
}

#[inline(always)]
fn float_product<I: Isa, const PAIRS: bool, const ROWS: usize, const COLUMNS: usize>(isa: I, passes: usize) {
    let columns = [[1e-3f32; 16 * 4]; STEPS];
    let rows = [[1e-3f32; ROWS]; STEPS];
    let mut sums = [[isa.zero(); COLUMNS]; ROWS];
    for _ in 0..passes {
        for (columns, rows) in black_box(&columns).iter().zip(black_box(&rows)) {
            // SAFETY: at most four vectors of at most 16 lanes.
            let w: [_; COLUMNS] = unsafe { load_f32(isa, columns.as_ptr()) };
            for (sums, &row) in sums.iter_mut().zip(rows) {
                let a = isa.splat(row);
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = if PAIRS {
                        isa.dot_bf16(*sum, isa.bits_of(w), isa.bits_of(a))
                    } else {
                        isa.fma(w, a, *sum)
                    };
                }
            }
        }
    }
    for sum in sums.into_iter().flatten() {
        black_box(isa.reduce_sum(sum));
    }
}

/// # Safety
/// `p` is valid for reading `16 * N` floats.
#[inline(always)]
unsafe fn load_f32<I: Isa, const N: usize>(isa: I, p: *const f32) -> [I::F32; N] {
    let mut all = [isa.zero(); N];
    for (n, one) in all.iter_mut().enumerate() {
        // SAFETY: the caller vouches for the memory.
        *one = unsafe { isa.load_ptr(p.add(n * I::LANES)) };
    }
    all
}

/// An outer product of integers, four of 8 bits to a lane, or two of 16 with `WORDS`.
struct IntegerProduct<const WORDS: bool> {
    passes: usize,
}

impl<const WORDS: bool> Kernel for IntegerProduct<WORDS> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        if I::REGISTERS >= 32 {
            integer_product::<I, WORDS, { LARGE.0 }, { LARGE.1 }>(isa, self.passes);
        } else {
            integer_product::<I, WORDS, { TINY.0 }, { TINY.1 }>(isa, self.passes);
        }
    }
}

#[inline(always)]
fn integer_product<I: Isa, const WORDS: bool, const ROWS: usize, const COLUMNS: usize>(
    isa: I,
    passes: usize,
) {
    let columns = [[1u8; 64 * 4]; STEPS];
    // Each group of four bytes sums to zero, so that the accumulators never overflow; those of words may.
    let rows = [[[1i8, -1, 2, -2]; ROWS]; STEPS];
    let mut sums = [[isa.splat_i32(0); COLUMNS]; ROWS];
    for _ in 0..passes {
        for (columns, rows) in black_box(&columns).iter().zip(black_box(&rows)) {
            let mut w = [isa.splat_bytes(0); COLUMNS];
            for (n, w) in w.iter_mut().enumerate() {
                // SAFETY: at most four vectors of at most 64 bytes.
                *w = unsafe { isa.load_bytes_ptr(columns.as_ptr().add(n * 4 * I::LANES)) };
            }
            for (sums, row) in sums.iter_mut().zip(rows) {
                // SAFETY: a row is four bytes.
                let a = unsafe { isa.broadcast4_ptr(row.as_ptr()) };
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = if WORDS {
                        isa.dot_i16(*sum, isa.lanes_of(w), isa.lanes_of(a))
                    } else {
                        isa.dot_u7(*sum, w, a)
                    };
                }
            }
        }
    }
    for sum in sums.into_iter().flatten() {
        black_box(isa.reduce_sum(isa.to_f32(sum)));
    }
}

/// Reads memory in `streams` places in turn.
struct Read<'a> {
    memory: &'a [u8],
    streams: usize,
    passes: usize,
}

impl Kernel for Read<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match self.streams {
            1 => read::<I, 1>(isa, self.memory, self.passes),
            2 => read::<I, 2>(isa, self.memory, self.passes),
            4 => read::<I, 4>(isa, self.memory, self.passes),
            _ => read::<I, 8>(isa, self.memory, self.passes),
        }
    }
}

/// Adds up all vectors of `memory`; what does not fill a step of every stream is left out.
#[inline(always)]
fn read<I: Isa, const STREAMS: usize>(isa: I, memory: &[u8], passes: usize) {
    let step = UNROLL / STREAMS * 4 * I::LANES;
    let stride = memory.len() / STREAMS / step * step;
    let mut sums = [isa.splat_i32(0); UNROLL];
    for _ in 0..passes {
        let memory = black_box(memory).as_ptr();
        for at in (0..stride).step_by(step) {
            for (n, sum) in sums.iter_mut().enumerate() {
                let (stream, vector) = (n % STREAMS, n / STREAMS);
                // SAFETY: `at + step <= stride`, and so many strides as streams lie within the memory.
                let bytes =
                    unsafe { isa.load_bytes_ptr(memory.add(stream * stride + at + vector * 4 * I::LANES)) };
                *sum = isa.add_i32(*sum, isa.lanes_of(bytes));
            }
        }
    }
    for sum in sums {
        black_box(isa.reduce_sum(isa.to_f32(sum)));
    }
}

/// Overwrites memory, with another value each pass.
struct Write<'a> {
    memory: &'a mut [u8],
    passes: usize,
}

impl Kernel for Write<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let vector = 4 * I::LANES;
        for pass in 0..self.passes {
            let value = isa.splat_bytes(pass as u8);
            for part in self.memory.chunks_exact_mut(UNROLL * vector) {
                for n in 0..UNROLL {
                    // SAFETY: the part holds UNROLL vectors.
                    unsafe { isa.store_bytes_ptr(value, part.as_mut_ptr().add(n * vector)) };
                }
            }
            black_box(&mut *self.memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Every figure of every level, by a clock that moves on by `tick` nanoseconds whenever it is read.
    fn check(threads: usize, tick: u64) {
        let team = Team::new(threads);
        let now = Cell::new(0);
        let clock = || now.replace(now.get() + tick);
        let bytes = 40_000; // a few pages for each worker
        for level in Level::available() {
            let meter = Meter::new(level, &team, &clock);
            let read = meter.read(bytes).expect("memory");
            assert!(STREAMS.contains(&read.streams));
            let write = meter.write(bytes).expect("memory");
            let rates = [
                meter.f32_fma(),
                meter.bf16_dot(),
                meter.int8_dot(),
                meter.int16_dot(),
                meter.barriers(),
                read.rate,
                write,
            ];
            for rate in rates {
                assert!(rate.median > 0.0 && rate.best >= rate.median && rate.best.is_finite(), "{rate:?}");
            }
        }
    }

    #[test]
    fn rates_are_positive_and_finite() {
        check(1, 2_000_000);
        check(2, 3_000_000);
        check(3, 50_000_000);
    }

    #[test]
    fn a_rate_is_work_by_time() {
        let team = Team::new(2);
        let now = Cell::new(0);
        let clock = || now.replace(now.get() + SAMPLE);
        let rate =
            Meter::new(Level::SCALAR, &team, &clock).rate(SAMPLE as usize, |_, passes| assert_eq!(passes, 1));
        assert_eq!(rate, Rate { median: 2.0, best: 2.0 });
    }

    #[test]
    fn a_clock_that_stands_still_ends_too() {
        let team = Team::new(1);
        let rate =
            Meter::new(Level::SCALAR, &team, &|| 0).rate(1 << 20, |_, passes| assert!(passes <= 1 << 11));
        assert!(rate.best.is_finite());
    }

    #[test]
    fn parts_are_whole_pages_and_memory_that_cannot_be_had_is_an_error() {
        let team = Team::new(3);
        let meter = Meter::new(Level::detect(), &team, &|| 0);
        for (bytes, pages) in [(0, 1), (1, 1), (3 * PAGE, 1), (4 * PAGE, 2), (30 * PAGE, 10)] {
            assert_eq!(meter.part(bytes), pages * PAGE);
        }
        assert!(meter.read(usize::MAX).is_err() && meter.write(usize::MAX).is_err());
    }
}
