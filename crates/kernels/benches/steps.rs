//! Figures of what is not a matrix product: barriers, attention, row operations, beside the ceilings measured in the same
//! run. Times are medians of many runs.
//!
//! `cargo bench -p kinglet-kernels --bench steps -- [THREADS]`

use std::time::Instant;

use kinglet_kernels::ceilings::Meter;
use kinglet_kernels::ops::{
    Activation, AttentionShape, QkvSpans, RopeStyle, attention, glu, rms_norm, rope_store, rope_table,
};
use kinglet_kernels::{
    Arena, DimId, KvStore, LENT, Limits, Profiler, Program, Rows, RunArgs, Span, Step, Team,
};
use kinglet_simd::Level;
use kinglet_tensor::{KvLayer, KvSpec, KvType, SeqRows};

const T: Rows = Rows::Dim(DimId(0));
/// Many, so that decoding finds no layer's pages in a cache.
const LAYERS: usize = 24;

fn main() {
    let threads = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(2);
    let team = Team::new(threads);
    println!("{threads} threads, {}", Level::detect());
    println!("barrier {:.3} us, empty job {:.3} us", barrier(&team), job(&team));
    for (rows, cols) in [(1, 576), (1, 4096), (512, 576), (512, 1536)] {
        rows_report(rows, cols, &team);
    }
    for (name, heads, kv_heads, dim) in [("9/3 x 64", 9, 3, 64), ("32/8 x 128", 32, 8, 128)] {
        let kv = KvLayer { heads: kv_heads, key_dim: dim, value_dim: dim };
        let shape = AttentionShape { layer: 0, kv, heads, scale: 0.1, window: None, softcap: None };
        for kind in KvType::ALL {
            for (past, len) in [(0, 512), (512, 1), (4096, 1)] {
                println!(
                    "{name:10} {:5} {past:4} + {len:3} rows: {}",
                    kind.name(),
                    attend(shape, kind, past, len, &team)
                );
            }
        }
    }
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Microseconds of one of `count` repetitions.
fn each(count: usize, mut work: impl FnMut(usize)) -> f64 {
    let sample = |_| {
        let start = Instant::now();
        work(count);
        start.elapsed().as_secs_f64() / count as f64 * 1e6
    };
    median((0..15).map(sample).collect())
}

fn barrier(team: &Team) -> f64 {
    each(50_000, |count| team.run(|worker| (0..count).for_each(|_| worker.barrier())))
}

fn job(team: &Team) -> f64 {
    each(10_000, |count| (0..count).for_each(|_| team.run(|_| ())))
}

/// Steps over an arena of their own.
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

    /// Microseconds of each step, as medians, of those that `pick` chooses from a run's times.
    fn run(
        &mut self,
        rows: usize,
        team: &Team,
        mut state: Option<(&mut KvStore, &[SeqRows<'_>])>,
        pick: impl Fn(&[f64]) -> f64,
    ) -> f64 {
        let mut once = |_| {
            let mut clock = Clock { last: Instant::now(), times: Vec::with_capacity(self.steps) };
            let (kv, seqs) = match &mut state {
                Some((kv, seqs)) => (Some(&mut **kv), *seqs),
                None => (None, &[][..]),
            };
            let args = RunArgs {
                dims: &[rows],
                seqs,
                kv,
                cancel: &|| false,
                profiler: Some(&mut clock),
                lent: [None; LENT],
            };
            self.program.run(&mut self.arena, team, args).expect("runs");
            pick(&clock.times)
        };
        median((0..15).map(&mut once).collect())
    }
}

struct Clock {
    last: Instant,
    times: Vec<f64>,
}

impl Profiler for Clock {
    fn begin(&mut self) {
        self.last = Instant::now();
    }

    fn step(&mut self, _: usize) {
        let now = Instant::now();
        self.times.push((now - self.last).as_secs_f64() * 1e6);
        self.last = now;
    }
}

fn attend(shape: AttentionShape, kind: KvType, past: usize, len: usize, team: &Team) -> String {
    let AttentionShape { kv, heads, .. } = shape;
    let spec = KvSpec { layers: vec![kv; LAYERS], kind, page_tokens: 64 };
    let mut store = KvStore::new(spec.clone()).expect("valid");
    let pages: Vec<u32> = (0..(past + len).div_ceil(64) as u32).collect();
    store.reserve(pages.len()).expect("memory");
    let mut end = 0;
    let mut place = |cols: usize| {
        let span = Span::f32(end, T, cols);
        end = span.end(&[len]).expect("small").next_multiple_of(64);
        span
    };
    let (q, k, v) = (place(heads * kv.key_dim), place(kv.heads * kv.key_dim), place(kv.heads * kv.value_dim));
    let (table, out) = (place(kv.key_dim), place(heads * kv.value_dim));
    let freqs = (0..kv.key_dim / 2).map(|i| 1.0 / (i + 1) as f64).collect();
    let mut steps = vec![rope_table(freqs, 1.0, table).expect("valid")];
    for layer in 0..LAYERS {
        let rope = Some((table, RopeStyle::Interleaved));
        steps.push(rope_store(layer, kv, QkvSpans { q, k, v }, rope).expect("valid"));
        steps.push(attention(AttentionShape { layer, ..shape }, q, out).expect("valid"));
    }
    let mut bench = Bench::new(steps, end, len, team, Some(spec));
    let seqs = [SeqRows { start: 0, len, past, pages: &pages }];
    let mut layer = |first: usize| {
        let mean = |times: &[f64]| times[first..].iter().step_by(2).sum::<f64>() / LAYERS as f64;
        bench.run(len, team, Some((&mut store, &seqs)), mean)
    };
    let (stored, attended) = (layer(1), layer(2));
    let seen: usize = (past + 1..=past + len).sum();
    let flops = 2.0 * (seen * heads * (kv.key_dim + kv.value_dim)) as f64;
    let row = kind.row_bytes(kv.key_dim).unwrap_or(0) + kind.row_bytes(kv.value_dim).unwrap_or(0);
    let bytes = ((past + len) * kv.heads * row) as f64;
    let start = Instant::now();
    let clock = || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let meter = Meter::new(Level::detect(), team, &clock);
    let (rate, ceiling, unit) = if len > 1 {
        (flops / attended / 1e3, meter.f32_fma().best, "GFLOP/s")
    } else {
        let read = meter.read(bytes as usize * LAYERS).expect("memory");
        (bytes / attended / 1e3, read.rate.best, "GB/s")
    };
    format!(
        "attention {attended:8.1} us, {rate:6.1} {unit} ({:.0} % of {ceiling:.0}); rope + store {stored:6.1} us",
        rate / ceiling * 100.0
    )
}

fn rows_report(rows: usize, cols: usize, team: &Team) {
    let bytes = (rows * cols * 4).next_multiple_of(64);
    let span = |i: usize| Span::f32(i * bytes, T, cols);
    let steps = vec![
        rms_norm(span(0), vec![1.0; cols].into(), 1e-5, span(1)).expect("valid"),
        glu(Activation::Silu, span(0), span(1), span(2)).expect("valid"),
        glu(Activation::GeluTanh, span(0), span(1), span(2)).expect("valid"),
    ];
    let mut bench = Bench::new(steps, 3 * bytes, rows, team, None);
    let mut step = |index: usize| bench.run(rows, team, None, |times| times[index]);
    let (norm, silu, gelu) = (step(0), step(1), step(2));
    println!("{rows:4} x {cols:4}: rms_norm {norm:7.2} us, silu glu {silu:7.2} us, gelu glu {gelu:7.2} us");
}
