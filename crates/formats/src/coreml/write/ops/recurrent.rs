//! Layers that pass a state from each position to the next: one operation a direction.

use kinglet_graph::ops::{Cell, Fun, Recurrent};
use kinglet_graph::{Dim, TensorType};
use kinglet_tensor::DType;

use super::{Entry, cells};
use crate::coreml::Literal;
use crate::coreml::write::node::{Arg, Ex, Given, shaped};

type Done = Result<(), String>;

pub(super) const OPS: &[Entry] = &[("Recurrent", recurrent)];

/// How MIL stores a cell.
struct Kind {
    operation: &'static str,
    /// The graph's gates in MIL's order.
    gates: &'static [usize],
    /// Parameters that name functions.
    functions: &'static [&'static str],
}

const GRU: Kind =
    Kind { operation: "gru", gates: &[1, 2, 0], functions: &["recurrent_activation", "activation"] };
const LSTM: Kind = Kind {
    operation: "lstm",
    gates: &[0, 2, 1, 3],
    functions: &["recurrent_activation", "cell_activation", "activation"],
};
const RNN: Kind = Kind { operation: "rnn", gates: &[0], functions: &["activation"] };
/// Peepholes of the graph (input, output, forget) in MIL's order.
const PEEPHOLES: &[usize] = &[0, 2, 1];
/// What makes a sigmoid one.
const OPEN: f32 = 64.0;

fn recurrent(ex: &mut Ex<'_, '_>) -> Done {
    let op = ex.op::<Recurrent>()?;
    if ex.has(4) {
        return Err("over sequences of several lengths".into());
    }
    let x = sequence(ex, op)?;
    let mut made = Vec::new();
    for direction in 0..op.backwards.len() {
        made.push(match operation(ex, op, direction)? {
            Some(kind) => one_way(ex, op, &kind, &x, direction)?,
            None => spelled(ex, op, &x, direction)?,
        });
    }
    for i in 0..ex.node.outputs.len().min(made[0].len()) {
        let parts: Vec<String> = made.iter().map(|results| results[i].clone()).collect();
        gathered(ex, op, i, parts)?;
    }
    Ok(())
}

/// The operation that computes a direction, when there is one.
fn operation(ex: &Ex<'_, '_>, op: &Recurrent, direction: usize) -> Result<Option<Kind>, String> {
    let kind = match op.cell {
        Cell::Plain => RNN,
        Cell::Gru { reset_after: true } => GRU,
        Cell::Lstm { coupled: false } => LSTM,
        Cell::Gru { .. } | Cell::Lstm { .. } => return Ok(None),
    };
    let functions = &op.functions[direction * op.cell.functions()..][..op.cell.functions()];
    let known = functions.iter().all(|fun| function(*fun).is_some());
    let bounded = op.clip.is_some() && kind.operation != "lstm";
    let carries = kind.operation == "gru" && functions[0] != Fun::Sigmoid && ex.has(3);
    Ok(Some(kind).filter(|_| known && !bounded && !carries))
}

/// A direction as a loop.
fn spelled(ex: &mut Ex<'_, '_>, op: &Recurrent, x: &str, direction: usize) -> Result<Vec<String>, String> {
    let (&[_, _, inputs], &[_, _, hidden]) = (ex.weight(1)?.shape(), ex.weight(2)?.shape()) else {
        return Err("with matrices of other ranks than three".into());
    };
    let (lstm, rows) = (matches!(op.cell, Cell::Lstm { .. }), op.cell.gates() * hidden);
    let matrices = cells::Matrices {
        w: direction_of(ex, 1, direction, rows * inputs)?,
        r: direction_of(ex, 2, direction, rows * hidden)?,
        bias: if ex.has(3) { direction_of(ex, 3, direction, 2 * rows)? } else { vec![0.0; 2 * rows] },
        peephole: if lstm && ex.has(7) { direction_of(ex, 7, direction, 3 * hidden)? } else { Vec::new() },
        inputs,
        hidden,
    };
    let ty = ex.ty(0)?;
    let turned = vec![ty.shape[1], ty.shape[0], ty.shape[2]];
    let ty = if op.batch_first { shaped(ty, turned) } else { ty.clone() };
    let graph = cells::direction(op, direction, &matrices, &ty).map_err(|e| e.to_string())?;
    let mut names = vec![x.to_owned(), state(ex, op, 5, direction, hidden, 0)?];
    if lstm {
        names.push(state(ex, op, 6, direction, hidden, 0)?);
    }
    let mut made = ex.writer.inline(&graph, &names);
    let mut all = made.pop().ok_or("without a result")?;
    if op.backwards[direction] {
        let ty = shaped(&ty, vec![ty.shape[0], ty.shape[1], Dim::Fixed(hidden)]);
        all = ex.temp("reverse", vec![("x", all.into()), ("axes", Arg::Ints(vec![0]))], &ty);
    }
    made.insert(0, all);
    Ok(made)
}

/// `x` as `[T, N, in]`.
fn sequence(ex: &mut Ex<'_, '_>, op: &Recurrent) -> Result<String, String> {
    let (x, ty) = (ex.input(0)?, ex.ty(0)?);
    Ok(if op.batch_first { turned(ex, x, ty) } else { x })
}

/// With the first two dimensions in the other order.
fn turned(ex: &mut Ex<'_, '_>, x: String, ty: &TensorType) -> String {
    let turned = shaped(ty, vec![ty.shape[1], ty.shape[0], ty.shape[2]]);
    ex.temp("transpose", vec![("x", x.into()), ("perm", Arg::Ints(vec![1, 0, 2]))], &turned)
}

/// All hidden states `[T, N, H]`, the last one and for LSTM the last cell state `[N, H]`.
fn one_way(
    ex: &mut Ex<'_, '_>,
    op: &Recurrent,
    kind: &Kind,
    x: &str,
    direction: usize,
) -> Result<Vec<String>, String> {
    let cell = Weights::of(ex, kind, direction)?;
    let mut given = vec![("x", Arg::Name(x.to_owned()))];
    let hidden = state(ex, op, 5, direction, cell.hidden, cell.extra)?;
    given.push(("initial_h", hidden.into()));
    let lstm = kind.operation == "lstm";
    if lstm {
        given.push(("initial_c", state(ex, op, 6, direction, cell.hidden, 0)?.into()));
        if ex.has(7) {
            let peephole = gates(&direction_of(ex, 7, direction, 3 * cell.hidden)?, PEEPHOLES, cell.hidden);
            given.push(("peephole", floats(ex, "peephole", &[peephole.len()], &peephole)?.into()));
        }
        given.extend(op.clip.map(|clip| ("clip", Arg::Float(clip))));
    }
    let rows = kind.gates.len() * (cell.hidden + cell.extra);
    given.push(("weight_ih", floats(ex, "weight_ih", &[rows, cell.inputs], &cell.w)?.into()));
    given.push(("weight_hh", floats(ex, "weight_hh", &[rows, cell.hidden + cell.extra], &cell.r)?.into()));
    given.push(("bias", floats(ex, "bias", &[rows], &cell.bias)?.into()));
    given.push(("direction", Arg::Text(if op.backwards[direction] { "reverse" } else { "forward" })));
    given.push(("output_sequence", Arg::Flag(true)));
    let first = direction * op.cell.functions();
    for (parameter, fun) in kind.functions.iter().zip(&op.functions[first..]) {
        given.push((parameter, Arg::Text(function(*fun).unwrap_or_default())));
    }
    results(ex, op, kind, given, &cell)
}

fn results(
    ex: &mut Ex<'_, '_>,
    op: &Recurrent,
    kind: &Kind,
    given: Given<'_>,
    cell: &Weights,
) -> Result<Vec<String>, String> {
    let x = ex.ty(0)?;
    let (steps, batch) = if op.batch_first { (x.shape[1], x.shape[0]) } else { (x.shape[0], x.shape[1]) };
    let of = |hidden: usize, steps: Option<Dim>| {
        shaped(x, steps.into_iter().chain([batch, Dim::Fixed(hidden)]).collect())
    };
    let wide = cell.hidden + cell.extra;
    let mut types = vec![of(wide, Some(steps)), of(wide, None)];
    if kind.operation == "lstm" {
        types.push(of(wide, None));
    }
    let mut names = ex.temps(kind.operation, given, &types);
    if cell.extra > 0 {
        for (name, steps) in names.iter_mut().zip([Some(steps), None]) {
            let rank = 2 + i64::from(steps.is_some()) as usize;
            let mut end = vec![0; rank];
            end[rank - 1] = cell.hidden as i64;
            let mut kept = vec![true; rank];
            kept[rank - 1] = false;
            let given = vec![
                ("x", Arg::Name(name.clone())),
                ("begin", Arg::Ints(vec![0; rank])),
                ("end", Arg::Ints(end)),
                ("end_mask", Arg::Flags(kept)),
            ];
            *name = ex.temp("slice_by_index", given, &of(cell.hidden, steps));
        }
    }
    Ok(names)
}

/// Output `i` out of those of the directions.
fn gathered(ex: &mut Ex<'_, '_>, op: &Recurrent, i: usize, mut parts: Vec<String>) -> Done {
    let ty = ex.made(i)?;
    if i == 0 && op.batch_first {
        let ty = shaped(ty, vec![ty.shape[1], ty.shape[0], ty.shape[3]]);
        parts = parts.into_iter().map(|part| turned(ex, part, &ty)).collect();
    }
    let axis = match (i == 0, op.batch_first) {
        (true, true) => 2,
        (false, false) => 0,
        _ => 1,
    };
    ex.emit_at(i, "stack", vec![("values", Arg::Names(parts)), ("axis", Arg::Int(axis))])
}

/// A first state `[N, H]` of a direction, zeros when it is not given; then `ones` columns of ones.
fn state(
    ex: &mut Ex<'_, '_>,
    op: &Recurrent,
    i: usize,
    direction: usize,
    hidden: usize,
    ones: usize,
) -> Result<String, String> {
    let x = ex.ty(0)?;
    let at = usize::from(!op.batch_first);
    let (batch, of) = (x.shape[at], |width| shaped(x, vec![x.shape[at], Dim::Fixed(width)]));
    let name = if ex.has(i) {
        let (given, axis) = (ex.input(i)?, i64::from(op.batch_first));
        let given = vec![
            ("x", Arg::Name(given)),
            ("indices", Arg::Int(direction as i64)),
            ("axis", Arg::Int(axis)),
            ("batch_dims", Arg::Int(0)),
        ];
        ex.temp("gather", given, &of(hidden))
    } else {
        filled(ex, batch, at, hidden, 0.0)?
    };
    if ones == 0 {
        return Ok(name);
    }
    let more = filled(ex, batch, at, ones, 1.0)?;
    let given = vec![
        ("values", Arg::Names(vec![name, more])),
        ("axis", Arg::Int(1)),
        ("interleave", Arg::Flag(false)),
    ];
    Ok(ex.temp("concat", given, &of(hidden + ones)))
}

/// `[N, width]` of one number, where `N` is dimension `at` of `x`.
fn filled(ex: &mut Ex<'_, '_>, batch: Dim, at: usize, width: usize, value: f32) -> Result<String, String> {
    if let Some(n) = batch.fixed() {
        return floats(ex, "state", &[n, width], &vec![value; n * width]);
    }
    let x = ex.input(0)?;
    let sizes = |n| TensorType { dtype: DType::I32, shape: vec![Dim::Fixed(n)] };
    let shape = ex.temp("shape", vec![("x", x.into())], &sizes(3));
    let given = vec![
        ("x", Arg::Name(shape)),
        ("indices", Arg::Ints(vec![at as i64])),
        ("axis", Arg::Int(0)),
        ("batch_dims", Arg::Int(0)),
    ];
    let rows = ex.temp("gather", given, &sizes(1));
    let columns = ex.tensor("width", DType::I64, &[1], (width as i64).to_le_bytes().to_vec().into())?;
    let given = vec![
        ("values", Arg::Names(vec![rows, columns])),
        ("axis", Arg::Int(0)),
        ("interleave", Arg::Flag(false)),
    ];
    let shape = ex.temp("concat", given, &sizes(2));
    let ty = shaped(ex.ty(0)?, vec![batch, Dim::Fixed(width)]);
    Ok(ex.temp("fill", vec![("shape", shape.into()), ("value", Arg::Float(value))], &ty))
}

/// The matrices of a direction, gates in MIL's order.
struct Weights {
    w: Vec<f32>,    // [gates * (hidden + extra), inputs]
    r: Vec<f32>,    // [gates * (hidden + extra), hidden + extra]
    bias: Vec<f32>, // [gates * (hidden + extra)]
    inputs: usize,
    hidden: usize,
    /// One for a hidden element that stays one, which carries a bias within the reset gate; MIL has none there.
    extra: usize,
}

impl Weights {
    fn of(ex: &Ex<'_, '_>, kind: &Kind, direction: usize) -> Result<Self, String> {
        let (&[_, _, inputs], &[_, _, hidden]) = (ex.weight(1)?.shape(), ex.weight(2)?.shape()) else {
            return Err("with matrices of other ranks than three".into());
        };
        let count = kind.gates.len();
        let w = gates(&direction_of(ex, 1, direction, count * hidden * inputs)?, kind.gates, hidden * inputs);
        let r = gates(&direction_of(ex, 2, direction, count * hidden * hidden)?, kind.gates, hidden * hidden);
        let both = if ex.has(3) {
            direction_of(ex, 3, direction, 2 * count * hidden)?
        } else {
            vec![0.0; 2 * count * hidden]
        };
        let (outer, inner) = both.split_at(count * hidden);
        let mut bias = outer.to_vec();
        let gated = kind.operation == "gru";
        let reset = &inner[(count - 1) * hidden..];
        for (i, inner) in inner.iter().enumerate() {
            if !gated || i < (count - 1) * hidden {
                bias[i] += inner;
            }
        }
        let bias = gates(&bias, kind.gates, hidden);
        let plain = Self { w, r, bias, inputs, hidden, extra: 0 };
        Ok(if gated && reset.iter().any(|b| *b != 0.0) { plain.widened(reset) } else { plain })
    }

    /// With a hidden element that stays one: its update gate is open.
    fn widened(self, reset: &[f32]) -> Self {
        let (h, n) = (self.hidden, self.inputs);
        let (mut w, mut r, mut bias) = (Vec::new(), Vec::new(), Vec::new());
        // MIL: reset, hidden, update.
        for gate in 0..3 {
            w.extend_from_slice(&self.w[gate * h * n..][..h * n]);
            w.extend(std::iter::repeat_n(0.0, n));
            for (row, reset) in reset.iter().enumerate() {
                r.extend_from_slice(&self.r[(gate * h + row) * h..][..h]);
                r.push(if gate == 1 { *reset } else { 0.0 });
            }
            r.extend(std::iter::repeat_n(0.0, h + 1));
            bias.extend_from_slice(&self.bias[gate * h..][..h]);
            bias.push(if gate == 2 { OPEN } else { 0.0 });
        }
        Self { w, r, bias, extra: 1, ..self }
    }
}

/// What the constant at input `i` holds for a direction: so many numbers.
fn direction_of(ex: &Ex<'_, '_>, i: usize, direction: usize, length: usize) -> Result<Vec<f32>, String> {
    let tensor = ex.weight(i)?;
    let all = Literal::Tensor(tensor.clone()).floats().ok_or("with weights that are no floats")?;
    all.get(direction * length..(direction + 1) * length)
        .map(<[f32]>::to_vec)
        .ok_or_else(|| "with short weights".into())
}

/// Pieces of this length in another order.
fn gates(all: &[f32], order: &[usize], length: usize) -> Vec<f32> {
    order.iter().flat_map(|gate| &all[gate * length..][..length]).copied().collect()
}

fn floats(ex: &mut Ex<'_, '_>, stem: &str, shape: &[usize], values: &[f32]) -> Result<String, String> {
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    ex.tensor(stem, DType::F32, shape, bytes.into())
}

/// The name of a function, when operations know it.
fn function(fun: Fun) -> Option<&'static str> {
    Some(match fun {
        Fun::Tanh => "tanh",
        Fun::Sigmoid => "sigmoid",
        Fun::Relu => "relu",
        Fun::HardSigmoid { alpha: 0.2, beta: 0.5 } => "sigmoid_hard",
        Fun::LeakyRelu(1.0) => "linear",
        _ => return None,
    })
}
