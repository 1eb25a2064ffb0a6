//! Figures of the parts that are not matrix products: barriers, attention, row operations, each against what the
//! machine can do, measured in the same run.
//!
//! `cargo run --release -p kinglet-kernels --example steps [THREADS]`

use std::hint::black_box;
use std::time::Instant;

use kinglet_kernels::ops::{
    Activation, AttentionShape, QkvSpans, RopeStyle, attention, glu, rms_norm, rope_store, rope_table,
};
use kinglet_kernels::{Arena, DimId, KvStore, Limits, Profiler, Program, Rows, RunArgs, Span, Step, Team};
use kinglet_simd::{Isa, Kernel, Level, dispatch};
use kinglet_tensor::{DType, KvLayer, KvSpec, SeqRows};

const T: Rows = Rows::Dim(DimId(0));

fn main() {
    let threads = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(2);
    let team = Team::new(threads);
    let ceilings = Ceilings::measure(&team);
    println!("{threads} threads, {}: {ceilings:?}", Level::detect());
    println!("barrier                          {:8.3} us", barrier(&team));
    println!("empty job                        {:8.3} us", job(&team));
    let smollm = AttentionShape {
        layer: 0,
        kv: KvLayer { heads: 3, key_dim: 64, value_dim: 64 },
        heads: 9,
        scale: 0.125,
        window: None,
        softcap: None,
    };
    let large =
        AttentionShape { kv: KvLayer { heads: 8, key_dim: 128, value_dim: 128 }, heads: 32, ..smollm };
    for (name, shape) in [("9/3 x 64", smollm), ("32/8 x 128", large)] {
        for dtype in [DType::F32, DType::F16, DType::BF16, DType::Q8_0] {
            for (past, len) in [(0, 512), (3584, 512), (512, 1), (4096, 1)] {
                Attend { shape, dtype, past, len }.report(name, &team, &ceilings);
            }
        }
    }
    rows(&team);
}

#[derive(Debug)]
struct Ceilings {
    gflops: f64,
    gbytes: f64,
}

impl Ceilings {
    fn measure(team: &Team) -> Self {
        let flops = best(20, || {
            team.run(|_| {
                black_box(dispatch(Level::detect(), Fma));
            });
        });
        let flops = team.size() as f64 * Fma::FLOPS as f64 * Level::detect().lanes() as f64 / flops;
        let memory = vec![1u64; 32 << 20];
        let seconds = best(10, || {
            team.run(|worker| {
                let part = &memory[worker.share(memory.len(), 4096)];
                black_box(dispatch(Level::detect(), Read(part)));
            });
        });
        Self { gflops: flops / 1e9, gbytes: size_of_val(&memory[..]) as f64 / seconds / 1e9 }
    }
}

/// Independent chains of multiply-adds.
struct Fma;

impl Fma {
    const CHAINS: usize = 12;
    const ROUNDS: usize = 100_000;
    const FLOPS: usize = 2 * Self::CHAINS * Self::ROUNDS;
}

impl Kernel for Fma {
    type Out = f32;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f32 {
        let mut acc = [isa.splat(1.0); Self::CHAINS];
        let (a, b) = (isa.splat(black_box(0.999)), isa.splat(black_box(0.001)));
        for _ in 0..Self::ROUNDS {
            for acc in &mut acc {
                *acc = isa.fma(*acc, a, b);
            }
        }
        acc.into_iter().map(|acc| isa.reduce_sum(acc)).sum()
    }
}

/// Four streams at once.
struct Read<'a>(&'a [u64]);

impl Kernel for Read<'_> {
    type Out = u64;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> u64 {
        let quarter = self.0.len() / 4;
        let mut sums = [0u64; 32];
        for i in (0..quarter).step_by(8) {
            for stream in 0..4 {
                let part = &self.0[stream * quarter + i..][..8];
                sums[stream * 8..stream * 8 + 8].iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
            }
        }
        sums.iter().sum()
    }
}

/// Best of `rounds`, in seconds.
fn best(rounds: usize, mut work: impl FnMut()) -> f64 {
    let once = |_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..rounds).map(once).fold(f64::INFINITY, f64::min)
}

fn barrier(team: &Team) -> f64 {
    const MANY: usize = 100_000;
    best(10, || team.run(|worker| (0..MANY).for_each(|_| worker.barrier()))) / MANY as f64 * 1e6
}

fn job(team: &Team) -> f64 {
    const MANY: usize = 10_000;
    best(10, || (0..MANY).for_each(|_| team.run(|_| ()))) / MANY as f64 * 1e6
}

/// Runs steps over an arena of their own; the time of each in microseconds, the best of several runs.
struct Bench {
    program: Program,
    arena: Arena,
    steps: usize,
}

impl Bench {
    fn new(steps: Vec<Box<dyn Step>>, bytes: usize, rows: usize, team: &Team, kv: Option<KvSpec>) -> Self {
        let count = steps.len();
        let limits =
            Limits { arena_bytes: bytes, dims: vec![rows], workers: team.size(), level: Level::detect(), kv };
        let program = Program::new(steps, limits).expect("valid");
        let arena = Arena::try_new(program.arena_bytes()).expect("memory");
        Self { program, arena, steps: count }
    }

    fn run(
        &mut self,
        rows: usize,
        team: &Team,
        mut state: Option<(&mut KvStore, &[SeqRows<'_>])>,
    ) -> Vec<f64> {
        let mut times = vec![f64::INFINITY; self.steps];
        for _ in 0..30 {
            let mut clock = Clock { last: Instant::now(), times: &mut times };
            let (kv, seqs) = match &mut state {
                Some((kv, seqs)) => (Some(&mut **kv), *seqs),
                None => (None, &[][..]),
            };
            let args = RunArgs { dims: &[rows], seqs, kv, cancel: &|| false, profiler: Some(&mut clock) };
            self.program.run(&mut self.arena, team, args).expect("runs");
        }
        times
    }
}

struct Clock<'a> {
    last: Instant,
    times: &'a mut [f64],
}

impl Profiler for Clock<'_> {
    fn begin(&mut self) {
        self.last = Instant::now();
    }

    fn step(&mut self, index: usize) {
        let now = Instant::now();
        self.times[index] = self.times[index].min((now - self.last).as_secs_f64() * 1e6);
        self.last = now;
    }
}

struct Attend {
    shape: AttentionShape,
    dtype: DType,
    past: usize,
    len: usize,
}

impl Attend {
    /// Many layers, so that decoding finds no layer's pages in a cache.
    const LAYERS: usize = 24;

    fn report(&self, name: &str, team: &Team, ceilings: &Ceilings) {
        let AttentionShape { kv, heads, .. } = self.shape;
        let spec = KvSpec { layers: vec![kv; Self::LAYERS], dtype: self.dtype, page_tokens: 64 };
        let mut store = KvStore::new(spec.clone()).expect("valid");
        let pages: Vec<u32> = (0..(self.past + self.len).div_ceil(64) as u32).collect();
        store.reserve(pages.len()).expect("memory");
        let mut end = 0;
        let mut place = |cols: usize| {
            let span = Span::f32(end, T, cols);
            end = span.end(&[self.len]).expect("small").next_multiple_of(64);
            span
        };
        let (q, k, v) =
            (place(heads * kv.key_dim), place(kv.heads * kv.key_dim), place(kv.heads * kv.value_dim));
        let (table, out) = (place(kv.key_dim), place(heads * kv.value_dim));
        let freqs = (0..kv.key_dim / 2).map(|i| 1.0 / (i + 1) as f64).collect();
        let mut steps = vec![rope_table(freqs, 1.0, table).expect("valid")];
        for layer in 0..Self::LAYERS {
            let rope = Some((table, RopeStyle::Interleaved));
            steps.push(rope_store(layer, kv, QkvSpans { q, k, v }, rope).expect("valid"));
            steps.push(attention(AttentionShape { layer, ..self.shape }, q, out).expect("valid"));
        }
        let mut bench = Bench::new(steps, end, self.len, team, Some(spec));
        let seqs = [SeqRows { start: 0, len: self.len, past: self.past, pages: &pages }];
        let times = bench.run(self.len, team, Some((&mut store, &seqs)));
        let mean = |first: usize| times[first..].iter().step_by(2).sum::<f64>() / Self::LAYERS as f64;
        let (store_us, attend_us) = (mean(1), mean(2));
        let seen: usize = (self.past + 1..=self.past + self.len).sum();
        let flops = 2.0 * (seen * heads * (kv.key_dim + kv.value_dim)) as f64;
        let row =
            self.dtype.bytes_for(kv.key_dim).unwrap_or(0) + self.dtype.bytes_for(kv.value_dim).unwrap_or(0);
        let bytes = ((self.past + self.len) * kv.heads * row) as f64;
        println!(
            "attention {name:10} {:5} {:4} + {:4} rows: {attend_us:8.1} us  {:6.1} GFLOP/s ({:2.0} %)  {:5.1} GB/s ({:2.0} %)   table {:5.1} us  rope+store {store_us:6.1} us",
            self.dtype.name(),
            self.past,
            self.len,
            flops / attend_us / 1e3,
            flops / attend_us / 1e3 / ceilings.gflops * 100.0,
            bytes / attend_us / 1e3,
            bytes / attend_us / 1e3 / ceilings.gbytes * 100.0,
            times[0],
        );
    }
}

fn rows(team: &Team) {
    for (rows, cols) in [(1usize, 576usize), (1, 4096), (512, 576), (512, 1536)] {
        let bytes = rows * cols * 4;
        let span = |i: usize| Span::f32(i * bytes.next_multiple_of(64), T, cols);
        let steps = vec![
            rms_norm(span(0), vec![1.0; cols].into(), 1e-5, span(1)).expect("valid"),
            glu(Activation::Silu, span(0), span(1), span(2)).expect("valid"),
            glu(Activation::GeluTanh, span(0), span(1), span(2)).expect("valid"),
        ];
        let mut bench = Bench::new(steps, 3 * bytes.next_multiple_of(64), rows, team, None);
        let times = bench.run(rows, team, None);
        println!(
            "{rows:4} x {cols:5}: rms_norm {:7.2} us  silu glu {:7.2} us  gelu glu {:7.2} us",
            times[0], times[1], times[2]
        );
    }
}
