//! Cells that no operation of programs computes, spelled as a loop over the positions.

use std::sync::Arc;

use kinglet_graph::ops::{
    Binary, Cell, Clip, Fun, Fun2, Gather, Identity, Linear, Loop, Recurrent, Shape, Split, Squeeze, Unary,
};
use kinglet_graph::{BuildError, Dim, Graph, GraphBuilder, Op, TensorType, ValueId};
use kinglet_tensor::{DType, Tensor};

/// The matrices of a direction, gates in the graph's order.
pub(super) struct Matrices {
    pub(super) w: Vec<f32>,        // [gates * hidden, inputs]
    pub(super) r: Vec<f32>,        // [gates * hidden, hidden]
    pub(super) bias: Vec<f32>,     // [2 * gates * hidden]: of `w`, then of `r`
    pub(super) peephole: Vec<f32>, // [3 * hidden]: input, output, forget; empty without
    pub(super) inputs: usize,
    pub(super) hidden: usize,
}

/// A direction of a layer as a graph: from `x` `[T, N, in]` and its first states `[N, H]` to the last states and all hidden
/// ones `[T, N, H]`, in the order in which they are computed.
pub(super) fn direction(
    op: &Recurrent,
    direction: usize,
    matrices: &Matrices,
    x: &TensorType,
) -> Result<Graph, BuildError> {
    let mut b = GraphBuilder::new();
    let open = |dim: &Dim| dim.fixed().map_or(Dim::Unknown, Dim::Fixed);
    let x = TensorType { dtype: DType::F32, shape: x.shape.iter().map(open).collect() };
    let state = TensorType { dtype: DType::F32, shape: vec![x.shape[1], Dim::Fixed(matrices.hidden)] };
    let states = if matches!(op.cell, Cell::Lstm { .. }) { 2 } else { 1 };
    let body = Arc::new(round(op, direction, matrices, (&x, &state), states)?);
    let sequence = b.input("x", x)?;
    let mut inputs = vec![];
    for i in 0..states {
        inputs.push(b.input(&format!("state{i}"), state.clone())?);
    }
    let steps = b.node("sizes", Shape { start: 0, end: Some(1) }, &[sequence])?;
    let axis = b.weight_as("axis", constant(DType::I64, &[1], vec![0; 8])?)?;
    let steps = b.node("steps", Squeeze, &[steps, axis])?;
    let absent = b.absent();
    let inputs: Vec<ValueId> = [steps, absent].into_iter().chain(inputs).chain([sequence, steps]).collect();
    let names: Vec<String> = (0..=states).map(|i| format!("made{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let made = b.push(&names, Arc::new(Loop { body, carried: states }), &inputs, String::new())?;
    made.into_iter().for_each(|id| b.output(id));
    Ok(b.finish())
}

fn constant(dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Result<Tensor, BuildError> {
    Tensor::new("constant", dtype, shape.to_vec(), bytes.into()).map_err(|e| BuildError::Node {
        node: "constant".into(),
        op: "constant".into(),
        reason: e.to_string(),
    })
}

/// One position: the condition, the states, and the hidden state once more.
fn round(
    op: &Recurrent,
    direction: usize,
    matrices: &Matrices,
    (x, state): (&TensorType, &TensorType),
    states: usize,
) -> Result<Graph, BuildError> {
    let mut b = GraphBuilder::new();
    let scalar = |dtype| TensorType { dtype, shape: Vec::new() };
    let at = b.input("at", scalar(DType::I64))?;
    let go = b.input("go", scalar(DType::Bool))?;
    let mut held = Vec::new();
    for i in 0..states {
        held.push(b.input(&format!("state{i}"), state.clone())?);
    }
    let sequence = b.input("x", x.clone())?;
    let steps = b.input("steps", scalar(DType::I64))?;
    let at = if op.backwards[direction] {
        let one = b.weight_as("one", constant(DType::I64, &[], 1i64.to_le_bytes().to_vec())?)?;
        let left = b.node("left", Binary(Fun2::Sub), &[steps, at])?;
        b.node("at.back", Binary(Fun2::Sub), &[left, one])?
    } else {
        at
    };
    let row = b.node("row", Gather { axis: 0 }, &[sequence, at])?;
    let mut cell =
        Step { b, op, functions: &op.functions[direction * op.cell.functions()..], matrices, count: 0 };
    let made = match op.cell {
        Cell::Plain => vec![cell.plain(row, held[0])?],
        Cell::Gru { reset_after } => vec![cell.gru(row, held[0], reset_after)?],
        Cell::Lstm { coupled } => cell.lstm(row, held[0], held[1], coupled)?,
    };
    let go = cell.put(Identity, &[go])?;
    let again = cell.put(Identity, &[made[0]])?;
    let mut b = cell.b;
    [go].into_iter().chain(made).chain([again]).for_each(|id| b.output(id));
    Ok(b.finish())
}

/// A cell in the making.
struct Step<'a> {
    b: GraphBuilder,
    op: &'a Recurrent,
    functions: &'a [Fun],
    matrices: &'a Matrices,
    count: usize,
}

type Made = Result<ValueId, BuildError>;

impl Step<'_> {
    fn put(&mut self, op: impl Op, inputs: &[ValueId]) -> Made {
        self.count += 1;
        self.b.node(&format!("v{}", self.count), op, inputs)
    }

    fn constant(&mut self, shape: &[usize], values: &[f32]) -> Made {
        self.count += 1;
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.b.weight_as(&format!("c{}", self.count), constant(DType::F32, shape, bytes)?)
    }

    fn two(&mut self, fun: Fun2, a: ValueId, b: ValueId) -> Made {
        self.put(Binary(fun), &[a, b])
    }

    /// `x` times the rows of gates `from..to` of the input's (or of the state's) matrix, plus their bias.
    fn product(&mut self, x: ValueId, of_state: bool, from: usize, to: usize) -> Made {
        let (h, m) = (self.matrices.hidden, self.matrices);
        let (all, width) = if of_state { (&m.r, h) } else { (&m.w, m.inputs) };
        let bias = if of_state { self.op.cell.gates() * h } else { 0 };
        let rows = (to - from) * h;
        let weight = self.constant(&[rows, width], &all[from * h * width..to * h * width])?;
        let bias = self.constant(&[rows], &m.bias[bias + from * h..][..rows])?;
        self.put(Linear { biased: vec![true] }, &[x, weight, bias])
    }

    /// The function `i` of the bounded value.
    fn function(&mut self, i: usize, x: ValueId) -> Made {
        let x = match self.op.clip {
            Some(clip) => {
                let bounds = [self.constant(&[], &[-clip])?, self.constant(&[], &[clip])?];
                self.put(Clip, &[x, bounds[0], bounds[1]])?
            }
            None => x,
        };
        self.put(Unary(self.functions[i]), &[x])
    }

    /// Parts of equal width along the last dimension.
    fn parts(&mut self, x: ValueId, parts: usize) -> Result<Vec<ValueId>, BuildError> {
        self.count += 1;
        let names: Vec<String> = (0..parts).map(|i| format!("p{}.{i}", self.count)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.b.push(&names, Arc::new(Split { axis: -1, parts }), &[x], String::new())
    }

    fn one_less(&mut self, x: ValueId) -> Made {
        let one = self.constant(&[], &[1.0])?;
        self.two(Fun2::Sub, one, x)
    }

    fn plain(&mut self, x: ValueId, h: ValueId) -> Made {
        let (a, b) = (self.product(x, false, 0, 1)?, self.product(h, true, 0, 1)?);
        let sum = self.two(Fun2::Add, a, b)?;
        self.function(0, sum)
    }

    fn gru(&mut self, x: ValueId, h: ValueId, reset_after: bool) -> Made {
        let (a, b) = (self.product(x, false, 0, 2)?, self.product(h, true, 0, 2)?);
        let sum = self.two(Fun2::Add, a, b)?;
        let gates = self.function(0, sum)?;
        let gates = self.parts(gates, 2)?;
        let inner = if reset_after {
            let inner = self.product(h, true, 2, 3)?;
            self.two(Fun2::Mul, gates[1], inner)?
        } else {
            let kept = self.two(Fun2::Mul, gates[1], h)?;
            self.product(kept, true, 2, 3)?
        };
        let outer = self.product(x, false, 2, 3)?;
        let sum = self.two(Fun2::Add, outer, inner)?;
        let new = self.function(1, sum)?;
        let (old, share) = (self.two(Fun2::Mul, gates[0], h)?, self.one_less(gates[0])?);
        let new = self.two(Fun2::Mul, share, new)?;
        self.two(Fun2::Add, new, old)
    }

    /// `gate` plus what the cell state adds to it.
    fn peeped(&mut self, gate: ValueId, cell: ValueId, i: usize) -> Made {
        if self.matrices.peephole.is_empty() {
            return Ok(gate);
        }
        let h = self.matrices.hidden;
        let weights = self.matrices.peephole[i * h..][..h].to_vec();
        let weights = self.constant(&[h], &weights)?;
        let seen = self.two(Fun2::Mul, weights, cell)?;
        self.two(Fun2::Add, gate, seen)
    }

    /// The hidden state and the cell state.
    fn lstm(
        &mut self,
        x: ValueId,
        h: ValueId,
        c: ValueId,
        coupled: bool,
    ) -> Result<Vec<ValueId>, BuildError> {
        let (a, b) = (self.product(x, false, 0, 4)?, self.product(h, true, 0, 4)?);
        let sum = self.two(Fun2::Add, a, b)?;
        let sums = self.parts(sum, 4)?;
        let input = self.peeped(sums[0], c, 0)?;
        let input = self.function(0, input)?;
        let forget = if coupled {
            self.one_less(input)?
        } else {
            let forget = self.peeped(sums[2], c, 2)?;
            self.function(0, forget)?
        };
        let new = self.function(1, sums[3])?;
        let (kept, new) = (self.two(Fun2::Mul, forget, c)?, self.two(Fun2::Mul, input, new)?);
        let cell = self.two(Fun2::Add, kept, new)?;
        let output = self.peeped(sums[1], cell, 1)?;
        let output = self.function(0, output)?;
        // What goes out is not bounded.
        let seen = self.put(Unary(self.functions[2]), &[cell])?;
        Ok(vec![self.two(Fun2::Mul, output, seen)?, cell])
    }
}
