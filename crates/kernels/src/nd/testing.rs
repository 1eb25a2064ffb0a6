//! Runs steps over images in any layout, on one instruction set and several teams, against planar f64 references.

use kinglet_simd::Level;

use super::layout::Layout;
use crate::arena::{ALIGN, Arena, Rows, Span};
use crate::ops::testing::{bits, teams, values};
use crate::step::Step;
use crate::{LENT, Limits, Program, RunArgs};

/// Seeded values, roughly uniform in -1..1.
pub(super) fn random(seed: u64, count: usize) -> Vec<f32> {
    values(seed, count)
}

/// The values in bfloat16.
pub(super) fn rounded(values: &[f32]) -> Vec<f32> {
    values.iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect()
}

/// Images and their layout.
#[derive(Clone, Copy, Debug)]
pub(super) struct Map {
    pub(super) images: usize,
    pub(super) channels: usize,
    pub(super) pixels: usize,
    pub(super) layout: Layout,
}

impl Map {
    fn cols(&self) -> usize {
        self.layout.floats(self.channels, self.pixels).expect("small")
    }

    /// Where the value at `index` of the planar images lies, in values.
    fn index(&self, index: usize) -> usize {
        let (image, rest) = (index / (self.channels * self.pixels), index % (self.channels * self.pixels));
        let (channel, pixel) = (rest / self.pixels, rest % self.pixels);
        let cols = if self.layout == Layout::Halves { 2 } else { 1 } * self.cols();
        image * cols + self.layout.index(self.channels, self.pixels, channel, pixel)
    }

    /// The value at `index` of the planar images, of images that lie as the map says.
    fn value(&self, laid: &[f32], index: usize) -> f32 {
        let at = self.index(index);
        if self.layout != Layout::Halves {
            return laid[at];
        }
        half::bf16::from_bits(bytemuck::cast_slice::<f32, u16>(laid)[at]).to_f32()
    }
}

/// The error of rounding to bfloat16.
pub(super) const HALF_ERROR: f64 = 1.0 / 256.0;

/// An arena under construction.
pub(super) struct Case {
    level: Level,
    size: usize,
    inputs: Vec<(Span, Vec<f32>)>,
    truths: Vec<(Span, Vec<u8>)>,
}

impl Case {
    pub(super) fn new(level: Level) -> Self {
        Self { level, size: 0, inputs: Vec::new(), truths: Vec::new() }
    }

    /// Room for images.
    pub(super) fn output(&mut self, map: Map) -> Span {
        self.span(map.images, map.cols())
    }

    /// Room for a matrix.
    pub(super) fn span(&mut self, rows: usize, cols: usize) -> Span {
        let span = Span::f32(self.size, Rows::Fixed(rows), cols);
        self.size = span.end(&[]).expect("small").next_multiple_of(ALIGN);
        span
    }

    /// Images given as planar values; what lies between them is NaN.
    pub(super) fn input(&mut self, map: Map, planar: &[f32]) -> Span {
        let span = self.output(map);
        let mut laid = vec![f32::NAN; map.images * map.cols()];
        if map.layout == Layout::Halves {
            let halves = bytemuck::cast_slice_mut::<f32, u16>(&mut laid);
            let bits = |x| half::bf16::from_f32(x).to_bits();
            halves.fill(bits(f32::NAN));
            planar.iter().enumerate().for_each(|(i, &x)| halves[map.index(i)] = bits(x));
        } else {
            planar.iter().enumerate().for_each(|(i, &x)| laid[map.index(i)] = x);
        }
        self.inputs.push((span, laid));
        span
    }

    /// A matrix.
    pub(super) fn matrix(&mut self, cols: usize, values: &[f32]) -> Span {
        let span = self.span(values.len() / cols, cols);
        self.inputs.push((span, values.to_vec()));
        span
    }

    /// A row of bytes.
    pub(super) fn bytes(&mut self, values: &[u8]) -> Span {
        let span = Span::bytes(self.size, Rows::Fixed(1), values.len());
        self.size = span.end(&[]).expect("small").next_multiple_of(ALIGN);
        self.truths.push((span, values.to_vec()));
        span
    }

    pub(super) fn run(&self, step: Box<dyn Step>, out: Span, team: &crate::Team) -> Vec<f32> {
        let limits = Limits {
            arena_bytes: self.size,
            dims: vec![],
            workers: team.size(),
            level: self.level,
            kv: None,
        };
        let program = Program::new(vec![step], limits).expect("valid program");
        let mut arena = Arena::try_new(program.arena_bytes()).expect("memory");
        self.inputs.iter().for_each(|(span, values)| arena.write(span, values).expect("fits"));
        self.truths.iter().for_each(|(span, values)| arena.write(span, values).expect("fits"));
        let args =
            RunArgs { dims: &[], seqs: &[], kv: None, cancel: &|| false, profiler: None, lent: [None; LENT] };
        program.run(&mut arena, team, args).expect("runs");
        arena.read::<f32>(&out, &[]).expect("fits").to_vec()
    }

    /// What a step leaves in `out`, planar.
    pub(super) fn values(&self, step: impl Fn() -> Box<dyn Step>, out: Span, map: Map) -> Vec<f32> {
        let team = teams().next().expect("teams");
        let found = self.run(step(), out, team);
        (0..map.images * map.channels * map.pixels).map(|i| map.value(&found, i)).collect()
    }

    /// `out` is within `bound * max(1, |expected|)` of the planar `expected`, and the same for every team.
    pub(super) fn check(
        &self,
        step: impl Fn() -> Box<dyn Step>,
        out: Span,
        map: Map,
        expected: &[f64],
        bound: f64,
    ) {
        let mut runs = teams().map(|team| self.run(step(), out, team));
        let first = runs.next().expect("teams");
        let what = format!("{} {} {map:?}", self.level, step().label());
        for (i, &e) in expected.iter().enumerate() {
            let found = f64::from(map.value(&first, i));
            let error = (found - e).abs() / e.abs().max(1.0);
            assert!(error <= bound || found.is_nan() && e.is_nan(), "{what}: {i} is {found}, not {e}");
        }
        runs.for_each(|other| assert!(bits(&first) == bits(&other), "{what}: depends on the team"));
    }

    /// Like [`check`](Self::check) for a matrix.
    pub(super) fn check_matrix(
        &self,
        step: impl Fn() -> Box<dyn Step>,
        out: Span,
        expected: &[f64],
        bound: f64,
    ) {
        let map = Map { images: 1, channels: 1, pixels: expected.len(), layout: Layout::Planar };
        self.check(step, out, map, expected, bound);
    }
}
