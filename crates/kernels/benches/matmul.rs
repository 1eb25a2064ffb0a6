//! Speed of the matrix products beside what the machine can do, measured in the same run.
//!
//! `cargo bench -p kinglet-kernels --bench matmul -- [LEVEL] [TYPE...] [SHARE%]` prints, for the shapes of a
//! small language model: one row in GB/s of weights (a whole model's worth of matrices, larger than the caches), 512
//! rows in G operations/s, on one thread and on two. A share of the activations' groups of 32, 12 % if it is not given,
//! has a value so large that it takes 16 bits.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use kinglet_kernels::matmul::{
    Matrix, Output, PackPlan, PackedMatrix, Part, QuantRows, matmul_f32, matmul_q8, quant_row_bytes,
    quantize_rows,
};
use kinglet_simd::{Isa, Kernel, Level, dispatch};
use kinglet_tensor::{AlignedBuf, Bytes, DType};

/// Shapes `[rows, cols]` of one layer, and of the output projection.
const LAYER: [(usize, usize); 4] = [(960, 576), (576, 576), (3072, 576), (576, 1536)];
const HEAD: (usize, usize) = (49_152, 576);
/// Layers of the model.
const LAYERS: usize = 30;
const REPEATS: usize = 11;

fn main() {
    let (shares, args): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).filter(|arg| arg != "--bench").partition(|arg| arg.ends_with('%'));
    let share =
        shares.last().map_or(12.0, |share| share.trim_end_matches('%').parse().expect("a percentage"));
    let mut args = args.into_iter();
    let level =
        args.next().map_or_else(Level::detect, |name| Level::named(&name).expect("a level of this machine"));
    let mut types: Vec<DType> = args.map(|name| named(&name)).collect();
    if types.is_empty() {
        use DType::*;
        types = vec![Q4_0, Q4_1, Q5_0, Q8_0, Q4_K, Q5_K, Q6_K, IQ4_NL, F16, F32];
    }
    for threads in [1, 2] {
        let (ops, bytes) = (int8_peak(level, threads), read_peak(threads));
        println!("{level}, {threads} threads: 8-bit dot products {ops:.0} Gop/s, reading {bytes:.1} GB/s");
        println!(
            "type     1 row GB/s (of reading) ms | 8 rows ms | 512 rows Gop/s (of dot products) tok/s | packing ms"
        );
        for &dtype in &types {
            let model = Model::new(level, dtype, share);
            let decode = model.time(threads, 1, true);
            let prefill = model.time(threads, 512, false);
            let (gb, gop) =
                (model.bytes(true) / decode / 1e9, 2.0 * 512.0 * model.weights(false) / prefill / 1e9);
            let batch = model.time(threads, 8, true);
            println!(
                "{:8} {gb:9.1} ({:3.0} %) {:10.2} | {:9.2} | {gop:14.0} ({:3.0} %) {:17.0} | {:10.0}",
                dtype.name(),
                100.0 * gb / bytes,
                1e3 * decode,
                1e3 * batch,
                100.0 * gop / ops,
                512.0 / prefill,
                1e3 * model.packing.as_secs_f64(),
            );
        }
    }
}

fn named(name: &str) -> DType {
    (0..64).filter_map(DType::from_ggml).find(|dtype| dtype.name() == name).expect("the name of a type")
}

enum Weights {
    Packed(PackedMatrix),
    Plain(Matrix),
}

impl Weights {
    fn new(level: Level, dtype: DType, rows: usize, cols: usize, packing: &mut Duration) -> Self {
        let mut state = 1u32;
        let mut bytes: Vec<u8> = (0..dtype.bytes_for(rows * cols).unwrap())
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8 & 0x3f
            })
            .collect();
        bytes.chunks_exact_mut(2).filter(|_| dtype == DType::F16).for_each(|half| half[1] &= 0x2f);
        if PackPlan::supports(dtype) {
            let start = Instant::now();
            let packed = PackedMatrix::pack(level, dtype, rows, cols, &bytes).unwrap();
            *packing += start.elapsed();
            Self::Packed(packed)
        } else {
            Self::Plain(Matrix::new(dtype, rows, cols, Bytes::from(bytes)).unwrap())
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Packed(w) => w.plan().bytes(),
            Self::Plain(w) => w.rows() * w.row(0).len(),
        }
    }

    fn shape(&self) -> (usize, usize) {
        match self {
            Self::Packed(w) => (w.plan().rows(), w.plan().cols()),
            Self::Plain(w) => (w.rows(), w.cols()),
        }
    }

    /// Part `part` of `parts` of the product.
    fn multiply(&self, level: Level, x: &Activations, y: Output<'_>, part: usize, parts: usize) {
        let cut = |count: usize| count * part / parts..count * (part + 1) / parts;
        match self {
            // SAFETY: parts are disjoint, and a barrier follows.
            Self::Packed(w) => unsafe {
                let x = QuantRows::new(&x.codes, x.rows, w.plan().cols());
                matmul_q8(w, Part { rows: 0..x.rows(), tiles: cut(w.plan().tiles()) }, x, None, y);
            },
            // SAFETY: as above.
            Self::Plain(w) => unsafe { matmul_f32(level, w, cut(w.rows()), &x.values, None, y).unwrap() },
        }
    }
}

struct Activations {
    rows: usize,
    values: Vec<f32>,
    codes: AlignedBuf,
}

impl Activations {
    fn new(level: Level, rows: usize, cols: usize, share: f32) -> Self {
        let mut values: Vec<f32> = (0..rows * cols).map(|i| ((i * 37) % 101) as f32 * 0.02 - 1.0).collect();
        let mut state = 1u32;
        for group in values.chunks_exact_mut(32) {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if (state >> 8) as f32 / ((1 << 24) as f32) < share / 100.0 {
                group[5] = 10.0;
            }
        }
        let mut codes = AlignedBuf::try_new(rows * quant_row_bytes(cols)).unwrap();
        quantize_rows(level, &values, cols, &mut codes);
        Self { rows, values, codes }
    }
}

struct Model {
    level: Level,
    /// Percentage of the activations' groups that have a value of 16 bits.
    share: f32,
    layers: Vec<Weights>,
    head: Weights,
    /// What packing took, on one thread.
    packing: Duration,
}

impl Model {
    fn new(level: Level, dtype: DType, share: f32) -> Self {
        let cols = |cols: usize| {
            if cols.is_multiple_of(dtype.block_len()) { cols } else { cols.next_multiple_of(256) }
        };
        let layers = (0..LAYERS).flat_map(|_| LAYER);
        let mut packing = Duration::ZERO;
        let layers =
            layers.map(|(rows, k)| Weights::new(level, dtype, rows, cols(k), &mut packing)).collect();
        let head = Weights::new(level, dtype, HEAD.0, cols(HEAD.1), &mut packing);
        Self { level, share, layers, head, packing }
    }

    fn matrices(&self, head: bool) -> impl Iterator<Item = &Weights> {
        self.layers.iter().chain(head.then_some(&self.head))
    }

    fn bytes(&self, head: bool) -> f64 {
        self.matrices(head).map(|w| w.bytes() as f64).sum()
    }

    fn weights(&self, head: bool) -> f64 {
        self.matrices(head).map(|w| (w.shape().0 * w.shape().1) as f64).sum()
    }

    /// Median seconds of a pass over the model.
    fn time(&self, threads: usize, rows: usize, head: bool) -> f64 {
        let widths: std::collections::BTreeSet<usize> = self.matrices(head).map(|w| w.shape().1).collect();
        let inputs: std::collections::BTreeMap<usize, Activations> = widths
            .into_iter()
            .map(|cols| (cols, Activations::new(self.level, rows, cols, self.share)))
            .collect();
        let mut y = vec![0.0; rows * if head { HEAD.0 } else { 3072 }];
        let y = kinglet_kernels::SharedMut::new(&mut y);
        median(threads, |part| {
            for w in self.matrices(head) {
                let out = Output { data: y, stride: w.shape().0 };
                w.multiply(self.level, &inputs[&w.shape().1], out, part, threads);
            }
        })
    }
}

/// Median seconds of `work(part)` on all threads together.
fn median(threads: usize, work: impl Fn(usize) + Sync) -> f64 {
    let barrier = Barrier::new(threads);
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        for part in 1..threads {
            let (barrier, work) = (&barrier, &work);
            scope.spawn(move || {
                for _ in 0..=REPEATS {
                    barrier.wait();
                    work(part);
                    barrier.wait();
                }
            });
        }
        for _ in 0..=REPEATS {
            barrier.wait();
            let start = Instant::now();
            work(0);
            barrier.wait();
            times.push(start.elapsed().as_secs_f64());
        }
    });
    times.remove(0);
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Independent dot products in registers.
struct Dots;

impl Kernel for Dots {
    type Out = f64;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f64 {
        const CHAINS: usize = 12;
        const ROUNDS: usize = 2_000_000;
        let w = isa.splat_bytes(3);
        let mut sums = [isa.splat_i32(1); CHAINS];
        for _ in 0..ROUNDS {
            for i in 0..CHAINS {
                // Operands change all the time, so that nothing is computed once and for all.
                sums[i] = isa.dot_u7(sums[i], w, isa.bytes_of(sums[(i + 1) % CHAINS]));
            }
        }
        std::hint::black_box(sums.map(|sum| isa.to_f32(sum)).map(|sum| isa.reduce_sum(sum)));
        (2 * 4 * I::LANES * CHAINS * ROUNDS) as f64
    }
}

/// G operations (a multiplication and an addition are two) per second.
fn int8_peak(level: Level, threads: usize) -> f64 {
    let operations = dispatch(level, Dots) * threads as f64;
    operations / median(threads, |_| _ = dispatch(level, Dots)) / 1e9
}

/// GB/s of reading 128 MiB, four streams a thread.
fn read_peak(threads: usize) -> f64 {
    let data = AlignedBuf::<u64>::try_new(16 << 20).unwrap();
    let seconds = median(threads, |part| {
        let mine = &data[data.len() * part / threads..data.len() * (part + 1) / threads];
        let mut streams = mine.chunks_exact(mine.len() / 4);
        let [a, b, c, d] = std::array::from_fn(|_| streams.next().unwrap());
        let mut sums = [0u64; 32];
        for (((a, b), c), d) in a
            .as_chunks::<8>()
            .0
            .iter()
            .zip(b.as_chunks::<8>().0)
            .zip(c.as_chunks::<8>().0)
            .zip(d.as_chunks::<8>().0)
        {
            for i in 0..8 {
                sums[i] ^= a[i];
                sums[8 + i] ^= b[i];
                sums[16 + i] ^= c[i];
                sums[24 + i] ^= d[i];
            }
        }
        std::hint::black_box(sums);
    });
    data.bytes().len() as f64 / seconds / 1e9
}
