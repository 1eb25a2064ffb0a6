//! Convolutions, products and row operations of well-known vision and embedding models, layer by layer, beside the
//! machine's peak measured in the same run. Times are medians.
//!
//! `cargo bench -p kinglet-kernels --bench nd -- [THREADS [LEVEL [FILTER]]]`

use std::sync::Arc;
use std::time::Instant;

use kinglet_kernels::ceilings::Meter;
use kinglet_kernels::nd::{Act, Conv, ConvShape, Layout, Window, conv};
use kinglet_kernels::{Arena, LENT, Limits, Program, Rows, RunArgs, Span, Step, Team};
use kinglet_simd::Level;

/// Name, channels, outputs, groups, size, kernel, stride.
type Layer = (&'static str, usize, usize, usize, usize, usize, usize);

const CONVS: [Layer; 24] = [
    ("resnet50 stem", 3, 64, 1, 224, 7, 2),
    ("resnet50", 64, 64, 1, 56, 1, 1),
    ("resnet50", 64, 64, 1, 56, 3, 1),
    ("resnet50", 64, 256, 1, 56, 1, 1),
    ("resnet50", 256, 64, 1, 56, 1, 1),
    ("resnet50", 128, 128, 1, 56, 3, 2),
    ("resnet50", 128, 128, 1, 28, 3, 1),
    ("resnet50", 512, 128, 1, 28, 1, 1),
    ("resnet50", 256, 512, 1, 56, 1, 2),
    ("resnet50", 256, 1024, 1, 14, 1, 1),
    ("resnet50", 256, 256, 1, 14, 3, 1),
    ("resnet50", 512, 512, 1, 7, 3, 1),
    ("resnet50", 2048, 512, 1, 7, 1, 1),
    ("fastvit stem", 3, 48, 1, 256, 3, 2),
    ("fastvit", 48, 48, 48, 64, 7, 1),
    ("fastvit", 48, 48, 48, 64, 3, 1),
    ("fastvit", 48, 144, 1, 64, 1, 1),
    ("fastvit", 96, 192, 96, 32, 7, 2),
    ("fastvit", 192, 192, 192, 16, 7, 1),
    ("fastvit", 576, 192, 1, 16, 1, 1),
    ("mobilenet", 16, 96, 1, 112, 1, 1),
    ("mobilenet", 96, 96, 96, 112, 3, 2),
    ("mobilenet", 144, 24, 1, 56, 1, 1),
    ("mobilenet", 960, 960, 960, 7, 3, 1),
];

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let threads = args.next().and_then(|n| n.parse().ok()).unwrap_or(2);
    let level = args.next().map_or_else(Level::detect, |name| Level::named(&name).expect("a level"));
    let filter = args.next().unwrap_or_default();
    let team = Team::new(threads);
    let start = Instant::now();
    let clock = || start.elapsed().as_nanos() as u64;
    let peak = Meter::new(level, &team, &clock).f32_fma().median;
    println!("{level}, {threads} threads, f32 peak {peak:.0} GFLOP/s");
    for layer in CONVS.iter().filter(|layer| layer.0.contains(&filter)) {
        let (name, channels, outputs, groups, size, kernel, stride) = *layer;
        let window = Window::square([size; 2], kernel, stride, kernel / 2);
        let shape = ConvShape { channels, outputs, groups, window, act: Act::RELU };
        let input = if channels == 3 { Layout::Planar } else { Layout::Blocked };
        let weights = vec![0.01; outputs * (channels / groups) * kernel * kernel];
        let packed = Conv::new(level, shape, None, input, None).and_then(|conv| conv.filled(&weights));
        let packed = Arc::new(packed.expect("packs"));
        let (ins, outs) = packed.floats();
        let [x, out] = spans([ins, outs]);
        let seconds = time(level, &team, conv(packed, x, None, out).expect("binds"), &[x, out]);
        let rate = 2.0 * shape.multiply_adds() as f64 / seconds / 1e9;
        println!(
            "{name:14} {channels:4} -> {outputs:4} /{groups:3} {kernel}x{kernel} s{stride} at {size:3}: {:8.1} us {rate:6.1} GFLOP/s ({:3.0} %)",
            seconds * 1e6,
            100.0 * rate / peak
        );
    }
}

/// Spans of one row each, one behind the other.
fn spans<const N: usize>(floats: [usize; N]) -> [Span; N] {
    let mut at = 0;
    floats.map(|cols| {
        let span = Span::f32(at, Rows::Fixed(1), cols);
        at = (at + 4 * cols).next_multiple_of(4096);
        span
    })
}

/// Median seconds of a step.
fn time(level: Level, team: &Team, step: Box<dyn Step>, spans: &[Span]) -> f64 {
    let arena_bytes = spans.iter().filter_map(|span| span.end(&[])).max().unwrap_or(0);
    let limits = Limits { arena_bytes, dims: vec![], workers: team.size(), level, kv: None };
    let program = Program::new(vec![step], limits).expect("a program");
    let mut arena = Arena::try_new(program.arena_bytes()).expect("memory");
    let mut run = || {
        let args =
            RunArgs { dims: &[], seqs: &[], kv: None, cancel: &|| false, profiler: None, lent: [None; LENT] };
        let start = Instant::now();
        program.run(&mut arena, team, args).expect("runs");
        start.elapsed().as_secs_f64()
    };
    let budget = Instant::now();
    let mut times = vec![];
    while times.len() < 5 || budget.elapsed().as_millis() < 150 {
        times.push(run());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
