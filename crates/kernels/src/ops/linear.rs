//! `linear`: one input against one or several weight matrices.

use std::ops::Range;
use std::sync::Arc;

use crate::Worker;
use crate::arena::Span;
use crate::matmul::{
    Matrix, Output, PackedMatrix, Part, QuantRows, matmul_f32, matmul_q8, quant_row_bytes, rows_at_a_time,
};
use crate::step::{Access, Check, Step, StepCtx, StepError};

/// Tiles of packed weights that are never parted.
const UNIT_TILES: usize = 2;
/// Rows of plain weights that are never parted.
const UNIT_ROWS: usize = 16;
/// Multiplications below which sharing costs more than it saves.
const SERIAL_MULTIPLICATIONS: usize = 1 << 15;

/// A weight matrix `[outputs, inputs]`.
#[derive(Clone, Debug)]
pub enum Weight {
    /// Multiplied by quantised rows.
    Packed(PackedMatrix),
    /// As it lies in its file; multiplied by f32 rows.
    Plain(Matrix),
}

impl Weight {
    /// Outputs and inputs.
    pub fn shape(&self) -> (usize, usize) {
        match self {
            Self::Packed(w) => (w.plan().rows(), w.plan().cols()),
            Self::Plain(w) => (w.rows(), w.cols()),
        }
    }

    /// Parts that workers share out.
    fn units(&self) -> usize {
        match self {
            Self::Packed(w) => w.plan().tiles().div_ceil(UNIT_TILES),
            Self::Plain(w) => w.rows().div_ceil(UNIT_ROWS),
        }
    }

    /// The bytes of some parts.
    fn bytes(&self, units: Range<usize>) -> &[u8] {
        match self {
            Self::Packed(w) => {
                let tile = w.plan().tile_bytes() * UNIT_TILES;
                &w.data()[units.start * tile..w.data().len().min(units.end * tile)]
            }
            Self::Plain(w) => w.row_bytes(units.start * UNIT_ROWS..w.rows().min(units.end * UNIT_ROWS)),
        }
    }

    /// Rows that a part of a product of `rows` rows has.
    fn rows_at_a_time(&self, rows: usize) -> usize {
        match self {
            Self::Packed(_) => rows_at_a_time(rows),
            Self::Plain(_) => rows.max(1),
        }
    }

    fn label(&self) -> String {
        match self {
            Self::Packed(w) => format!("{} x q8", w.plan().dtype()),
            Self::Plain(w) => format!("{} x f32", w.dtype()),
        }
    }
}

/// One product of a [`linear`] step: `out = x weight^T + bias`.
#[derive(Clone, Debug)]
pub struct Product {
    /// The weights.
    pub weight: Weight,
    /// One number an output.
    pub bias: Option<Arc<[f32]>>,
    /// f32 `[rows, outputs]`.
    pub out: Span,
}

/// `out_i = x weight_i^T + bias_i` for every product. `x` is quantised rows (bytes, see [`super::quantize`]) for packed
/// weights and f32 rows for plain ones; all weights have its columns.
pub fn linear(x: Span, products: Vec<Product>) -> Result<Box<dyn Step>, StepError> {
    let check = Check("linear");
    check.that(!products.is_empty(), || "has no weights".into())?;
    for (i, product) in products.iter().enumerate() {
        let (outputs, inputs) = product.weight.shape();
        match &product.weight {
            Weight::Packed(_) => check.span::<u8>("quantised x", &x, quant_row_bytes(inputs))?,
            Weight::Plain(_) => check.span::<f32>("x", &x, inputs)?,
        }
        check.span::<f32>("out", &product.out, outputs)?;
        check.same_rows("x and out", &x, &product.out)?;
        let bias = product.bias.as_ref().map_or(outputs, |bias| bias.len());
        check.that(bias == outputs, || format!("weight {i}: bias of {bias} for {outputs} outputs"))?;
    }
    Ok(Box::new(Linear { x, products }))
}

struct Linear {
    x: Span,
    products: Vec<Product>,
}

// SAFETY: touches its spans; each unit, a range of output columns, is taken by one worker.
unsafe impl Step for Linear {
    fn label(&self) -> String {
        let mut kinds: Vec<String> = self.products.iter().map(|product| product.weight.label()).collect();
        kinds.dedup();
        format!("linear {}", kinds.join(", "))
    }

    fn spans(&self) -> Vec<Access> {
        let outs = self.products.iter().map(|product| Access::Write(product.out));
        std::iter::once(Access::Read(self.x)).chain(outs).collect()
    }

    fn serial(&self, dims: &[usize]) -> bool {
        let weights: usize = self.products.iter().map(|p| p.weight.shape()).map(|(n, k)| n * k).sum();
        let rows = self.x.rows.count(dims).unwrap_or(0);
        weights.saturating_mul(rows) <= SERIAL_MULTIPLICATIONS
    }

    fn first_weights(&self, dims: &[usize], worker: Worker<'_>) -> &[u8] {
        if self.x.rows.count(dims) != Some(1) {
            return &[];
        }
        let (many, parts) = self.parts(1, 1, worker.count());
        let mut first = worker.first_near(parts) * many;
        for product in &self.products {
            let units = product.weight.units();
            if first < units {
                return product.weight.bytes(first..units.min(first + many));
            }
            first -= units;
        }
        &[]
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let (rows, units) = (ctx.rows(self.x.rows), self.units());
        let turn = self.products[0].weight.rows_at_a_time(rows);
        let turns = rows.div_ceil(turn).max(1);
        let (many, parts) = self.parts(rows, turns, worker.count());
        while let Some(part) = ctx.take_near(worker, turns * parts) {
            let (first, from) = (part / parts * turn, part % parts * many);
            self.multiply(ctx, first..rows.min(first + turn), from..units.min(from + many));
        }
    }
}

impl Linear {
    /// Units of all products.
    fn units(&self) -> usize {
        self.products.iter().map(|product| product.weight.units()).sum()
    }

    /// Units of a part, and how many parts a turn has. One row is held to memory bandwidth: long streams. Many are
    /// arithmetic: small parts, to end at once.
    fn parts(&self, rows: usize, turns: usize, workers: usize) -> (usize, usize) {
        let units = self.units();
        let parts = match workers {
            1 => 1,
            _ if rows > 1 => (8 * workers).div_ceil(turns),
            _ => 4 * workers,
        };
        let many = units.div_ceil(parts).max(1);
        (many, units.div_ceil(many))
    }

    /// Makes some rows of some units, counted over all products.
    fn multiply(&self, ctx: &StepCtx<'_>, rows: Range<usize>, units: Range<usize>) {
        let mut first = 0;
        for product in &self.products {
            let count = product.weight.units();
            let own = units.start.max(first)..units.end.min(first + count);
            if !own.is_empty() {
                self.multiply_one(ctx, product, rows.clone(), own.start - first..own.end - first);
            }
            first += count;
        }
    }

    fn multiply_one(&self, ctx: &StepCtx<'_>, product: &Product, rows: Range<usize>, units: Range<usize>) {
        let y = Output { data: ctx.view(&product.out), stride: product.out.cols };
        let bias = product.bias.as_deref();
        match &product.weight {
            Weight::Packed(w) => {
                let x = ctx.view::<u8>(&self.x);
                // SAFETY: the input is only read.
                let x = QuantRows::new(unsafe { x.part(0..x.len()) }, ctx.rows(self.x.rows), w.plan().cols());
                let tiles = units.start * UNIT_TILES..(units.end * UNIT_TILES).min(w.plan().tiles());
                // SAFETY: these rows and columns are this worker's.
                unsafe { matmul_q8(w, Part { rows, tiles }, x, bias, y) };
            }
            Weight::Plain(w) => {
                let x = ctx.view::<f32>(&self.x);
                // SAFETY: the input is only read.
                let x = unsafe { x.part(0..x.len()) };
                let outputs = units.start * UNIT_ROWS..(units.end * UNIT_ROWS).min(w.rows());
                // SAFETY: these rows and columns are this worker's.
                let done = unsafe { matmul_f32(ctx.level(), w, outputs, x, bias, y) };
                done.expect("memory for four decoded rows");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, T, bits, close, teams, values};
    use super::*;
    use crate::Rows;
    use crate::ops::quantize;
    use kinglet_simd::Level;
    use kinglet_tensor::DType;

    fn packed(level: Level, w: &[f32], rows: usize, cols: usize) -> Weight {
        let blocks: Vec<u8> = w.chunks(32).flat_map(q8_block).collect();
        Weight::Packed(PackedMatrix::pack(level, DType::Q8_0, rows, cols, &blocks).expect("packable"))
    }

    /// A Q8_0 block whose scale is 1/128, for values that are multiples of it.
    fn q8_block(x: &[f32]) -> Vec<u8> {
        let scale = 0x2000u16.to_le_bytes();
        scale.into_iter().chain(x.iter().map(|x| (x * 128.0) as i8 as u8)).collect()
    }

    fn product(x: &[f64], w: &[f32], cols: usize, bias: Option<&[f32]>) -> Vec<f64> {
        let dot = |x: &[f64], w: &[f32]| x.iter().zip(w).map(|(x, &w)| x * f64::from(w)).sum::<f64>();
        let row = |x: &[f64]| {
            let plus = |n: usize| bias.map_or(0.0, |bias| f64::from(bias[n]));
            w.chunks(cols).enumerate().map(|(n, w)| dot(x, w) + plus(n)).collect::<Vec<_>>()
        };
        x.chunks(cols).flat_map(row).collect()
    }

    #[test]
    fn products_share_an_input() {
        for (rows, cols, outputs) in [(1, 64, 100), (1, 576, 200), (5, 64, 33), (40, 96, 70)] {
            let grid =
                |seed, n| values(seed, n).iter().map(|x| (x * 100.0).trunc() / 128.0).collect::<Vec<f32>>();
            let (x, a, b) = (values(1, rows * cols), grid(2, outputs * cols), grid(3, 7 * cols));
            let bias: Arc<[f32]> = values(4, outputs).into();
            let wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            let expected = [product(&wide, &a, cols, Some(&bias)), product(&wide, &b, cols, None)];
            for level in Level::available() {
                let mut bench = Bench::new(rows);
                let input = bench.input(&x, cols);
                let codes = bench.place_span(Span::bytes(0, T, quant_row_bytes(cols)));
                let outs = [bench.output(outputs), bench.output(7)];
                let plain = |w: &[f32], n| {
                    let bytes = bytemuck::cast_slice(w).to_vec().into();
                    Weight::Plain(Matrix::new(DType::F32, n, cols, bytes).expect("whole"))
                };
                let weights = [
                    (codes, packed(level, &a, outputs, cols), packed(level, &b, 7, cols), 0.02),
                    (input, plain(&a, outputs), plain(&b, 7), 1e-5),
                ];
                for (x, first, second, bound) in weights {
                    for (out, expected) in outs.iter().zip(&expected) {
                        let run = |team| {
                            let products = vec![
                                Product { weight: first.clone(), bias: Some(bias.clone()), out: outs[0] },
                                Product { weight: second.clone(), bias: None, out: outs[1] },
                            ];
                            let steps = vec![
                                quantize(input, codes).expect("valid"),
                                linear(x, products).expect("valid"),
                            ];
                            bench.run::<f32>(steps, *out, level, team, None)
                        };
                        let mut runs = teams().map(run);
                        let first = runs.next().expect("teams");
                        close(
                            &format!("{level} {rows}x{cols}"),
                            &first,
                            expected,
                            bound * (cols as f64).sqrt(),
                        );
                        runs.for_each(|other| assert_eq!(bits(&first), bits(&other)));
                    }
                }
            }
        }
    }

    #[test]
    fn shapes_must_agree() {
        let weight = packed(Level::SCALAR, &[0.0; 64], 2, 32);
        let span = |offset, cols| Span::f32(offset, Rows::Fixed(1), cols);
        let check = |x, out, bias: Option<Arc<[f32]>>| {
            linear(x, vec![Product { weight: weight.clone(), bias, out }]).err().expect("refused");
        };
        let codes = Span::bytes(0, Rows::Fixed(1), quant_row_bytes(32));
        check(span(0, 32), span(128, 2), None);
        check(codes, span(128, 3), None);
        check(codes, span(128, 2), Some(vec![0.0; 3].into()));
        assert!(linear(codes, vec![]).is_err());
    }
}
