//! Runs a step on every instruction set and several team sizes, and compares with an f64 reference.

use std::sync::{Arc, LazyLock};

use kinglet_simd::Level;
use kinglet_tensor::SeqRows;

use crate::arena::{ALIGN, Arena, DimId, Element, Rows, Span};
use crate::kv::KvStore;
use crate::step::Step;
use crate::{LENT, Limits, Program, RunArgs, Team};

/// The dimension that `Bench` spans have.
pub(crate) const T: Rows = Rows::Dim(DimId(0));

/// Rows and columns that exercise tails of every vector length, serial and shared work.
pub(crate) const SHAPES: [(usize, usize); 7] =
    [(1, 1), (1, 576), (2, 33), (5, 17), (7, 100), (37, 160), (64, 96)];

static TEAMS: LazyLock<[Team; 3]> = LazyLock::new(|| [Team::new(1), Team::new(2), Team::new(3)]);

/// Seeded values, roughly uniform in -1..1.
pub(crate) fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// An arena under construction, with `rows` as the value of its dimension.
pub(crate) struct Bench {
    pub(crate) rows: usize,
    size: usize,
    writes: Vec<(Span, Vec<u8>)>,
}

impl Bench {
    pub(crate) fn new(rows: usize) -> Self {
        Self { rows, size: 0, writes: vec![] }
    }

    fn place(&mut self, mut span: Span) -> Span {
        span.offset = self.size;
        self.size = span.end(&[self.rows]).expect("small").next_multiple_of(ALIGN);
        span
    }

    pub(crate) fn input(&mut self, values: &[f32], cols: usize) -> Span {
        let span = self.place(Span::f32(0, T, cols));
        self.writes.push((span, bytemuck::cast_slice(values).to_vec()));
        span
    }

    pub(crate) fn indices(&mut self, values: &[i32]) -> Span {
        let span = self.place(Span::indices(0, Rows::Fixed(values.len())));
        self.writes.push((span, bytemuck::cast_slice(values).to_vec()));
        span
    }

    pub(crate) fn output(&mut self, cols: usize) -> Span {
        self.place(Span::f32(0, T, cols))
    }

    pub(crate) fn place_span(&mut self, span: Span) -> Span {
        self.place(span)
    }

    /// Runs the steps in a fresh arena and returns what `out` holds.
    pub(crate) fn run<E: Element>(
        &self,
        steps: Vec<Box<dyn Step>>,
        out: Span,
        level: Level,
        team: &Team,
        state: Option<(&mut KvStore, &[SeqRows<'_>])>,
    ) -> Vec<E> {
        let (kv, seqs) = state.map_or((None, &[][..]), |(kv, seqs)| (Some(kv), seqs));
        let limits = Limits {
            arena_bytes: self.size,
            dims: vec![self.rows],
            workers: team.size(),
            level,
            kv: kv.as_ref().map(|kv| kv.spec().clone()),
        };
        let program = Program::new(steps, limits).expect("valid program");
        let mut arena = Arena::try_new(program.arena_bytes()).expect("memory");
        for (span, bytes) in &self.writes {
            match span.elem {
                crate::Elem::I32 => arena.write::<i32>(span, &plain(bytes)),
                _ => arena.write::<f32>(span, &plain(bytes)),
            }
            .expect("fits");
        }
        let dims = [self.rows];
        let args = RunArgs { dims: &dims, seqs, kv, cancel: &|| false, profiler: None, lent: [None; LENT] };
        program.run(&mut arena, team, args).expect("runs");
        arena.read::<E>(&out, &[self.rows]).expect("fits").to_vec()
    }

    /// `out` is within `bound * max(1, |expected|)` of `expected` on every level, and the same for every team.
    pub(crate) fn check(&self, step: Box<dyn Step>, out: Span, expected: &[f64], bound: f64) {
        let step: Arc<dyn Step> = step.into();
        for level in Level::available() {
            let mut runs = TEAMS.iter().map(|team| {
                self.run::<f32>(vec![Box::new(Shared(Arc::clone(&step)))], out, level, team, None)
            });
            let first = runs.next().expect("teams");
            close(&format!("{level}"), &first, expected, bound);
            for other in runs {
                assert_eq!(bits(&first), bits(&other), "{level}: depends on the team");
            }
        }
    }
}

/// Fails with the worst element when `found` is not within `bound * max(1, |expected|)`.
pub(crate) fn close(what: &str, found: &[f32], expected: &[f64], bound: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (&f, &e)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(f) - e).abs() / e.abs().max(1.0);
        assert!(error <= bound, "{what}: element {i} is {f}, expected {e} (error {error:e})");
    }
}

pub(crate) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// The teams that results must not depend on.
pub(crate) fn teams() -> impl Iterator<Item = &'static Team> {
    TEAMS.iter()
}

/// A step that several programs use.
struct Shared(Arc<dyn Step>);

// SAFETY: does what the inner step does.
unsafe impl Step for Shared {
    fn label(&self) -> String {
        self.0.label()
    }
    fn spans(&self) -> Vec<crate::Access> {
        self.0.spans()
    }
    fn needs(&self) -> crate::Needs {
        self.0.needs()
    }
    fn serial(&self, dims: &[usize]) -> bool {
        self.0.serial(dims)
    }
    unsafe fn run(&self, ctx: &crate::StepCtx<'_>, worker: crate::Worker<'_>) {
        // SAFETY: the same call.
        unsafe { self.0.run(ctx, worker) }
    }
}

/// Values out of bytes of any alignment.
fn plain<E: Element>(bytes: &[u8]) -> Vec<E> {
    bytes.chunks_exact(size_of::<E>()).map(bytemuck::pod_read_unaligned).collect()
}
