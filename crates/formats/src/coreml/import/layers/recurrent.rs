//! Recurrent layers, over `[sequence, batch, C, 1, 1]`; of fewer dimensions, the first is the sequence.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{Cell, Concat, Fun, Recurrent, Reshape, Split, Transpose};

use super::Entry;
use crate::coreml::import::network::Cx;
use crate::coreml::{CoreMlError, Fields, Weights};

type Done = Result<(), CoreMlError>;

pub(super) const LAYERS: &[Entry] = &[
    ("biDirectionalLSTM", both_ways),
    ("gru", gru),
    ("simpleRecurrent", simple),
    ("uniDirectionalLSTM", lstm),
];

/// Bound on what goes into functions.
const CLIP: f32 = 50.0;

/// Matrices and vectors of one direction, by gate in the order of the graph's op.
struct Direction {
    w: Vec<f32>,
    r: Vec<f32>,
    /// Of both products.
    bias: Vec<f32>,
    /// Of input, output and forget gate.
    peepholes: Option<Vec<f32>>,
    functions: Vec<Fun>,
    backwards: bool,
}

/// Where the gates of a cell stand: fields of matrices, of recursion matrices and of biases.
type Gates<'a> = (&'a [u32], &'a [u32], &'a [u32]);

const LSTM: Gates<'_> = (&[1, 4, 2, 3], &[20, 23, 21, 22], &[40, 43, 41, 42]);

fn simple(cx: &mut Cx<'_>) -> Done {
    let params = cx.params().clone();
    let activation = params.message(10)?.unwrap_or_default();
    let functions = vec![function(cx, &activation)?];
    let part = part(cx, &params, (&[30], &[31], &[32]), params.bool(20), functions, params.bool(100))?;
    layer(cx, Cell::Plain, &[part], params.bool(15))
}

fn gru(cx: &mut Cx<'_>) -> Done {
    let params = cx.params().clone();
    let functions = functions(cx, &params, 10)?;
    let gates: Gates<'_> = (&[30, 31, 32], &[50, 51, 52], &[70, 71, 72]);
    let part = part(cx, &params, gates, params.bool(20), functions, params.bool(100))?;
    layer(cx, Cell::Gru { reset_after: false }, &[part], params.bool(15))
}

fn lstm(cx: &mut Cx<'_>) -> Done {
    let params = cx.params().clone();
    let functions = functions(cx, &params, 10)?;
    let weights = params.message(20)?.unwrap_or_default();
    lstm_layer(cx, &params, &[(weights, functions, params.bool(100))])
}

fn both_ways(cx: &mut Cx<'_>) -> Done {
    let params = cx.params().clone();
    let ahead = functions(cx, &params, 10)?;
    let back = functions(cx, &params, 11)?;
    let [first, second] = <[Fields; 2]>::try_from(params.messages(20)?)
        .map_err(|_| cx.fail("it does not have weights of two directions"))?;
    lstm_layer(cx, &params, &[(first, ahead, false), (second, back, true)])
}

/// The weights, functions and direction of each part of an LSTM.
fn lstm_layer(cx: &mut Cx<'_>, params: &Fields, given: &[(Fields, Vec<Fun>, bool)]) -> Done {
    let shared = params.message(15)?.unwrap_or_default();
    let coupled = shared.bool(50);
    let mut parts = Vec::new();
    for (weights, functions, backwards) in given {
        let mut part = part(cx, weights, LSTM, shared.bool(20), functions.clone(), *backwards)?;
        let hidden = cx.size(2);
        if shared.bool(30) {
            // The bias of the forget gate is one larger than it says.
            part.bias[2 * hidden..3 * hidden].iter_mut().for_each(|b| *b += 1.0);
        }
        if shared.bool(40) {
            part.peepholes = Some(joined(cx, weights, &[60, 62, 61], hidden, false)?);
        }
        parts.push(part);
    }
    layer(cx, Cell::Lstm { coupled }, &parts, shared.bool(10))
}

fn part(
    cx: &Cx<'_>,
    fields: &Fields,
    (w, r, bias): Gates<'_>,
    has_bias: bool,
    functions: Vec<Fun>,
    backwards: bool,
) -> Result<Direction, CoreMlError> {
    let (inputs, hidden) = (cx.size(1), cx.size(2));
    let both = inputs.checked_mul(hidden).zip(hidden.checked_mul(hidden));
    let (wide, square) = both.ok_or_else(|| cx.fail("its sizes overflow"))?;
    // A forget gate that is coupled to the input gate has no weights.
    let mut given =
        if has_bias { joined(cx, fields, bias, hidden, true)? } else { vec![0.0; w.len() * hidden] };
    given.resize(2 * w.len() * hidden, 0.0);
    let (w, r) = (joined(cx, fields, w, wide, true)?, joined(cx, fields, r, square, true)?);
    Ok(Direction { w, r, bias: given, peepholes: None, functions, backwards })
}

/// Weights in these fields one after another, `count` of each; zeros for absent ones where that is allowed.
fn joined(
    cx: &Cx<'_>,
    fields: &Fields,
    tags: &[u32],
    count: usize,
    absent: bool,
) -> Result<Vec<f32>, CoreMlError> {
    let mut all = Vec::new();
    for tag in tags {
        let weights = fields.message(*tag)?.map(|f| Weights::of(&cx.layer.name, &f)).transpose()?;
        match weights {
            None if absent => all.resize(all.len() + count, 0.0),
            Some(weights) => {
                let values = weights.floats(count);
                let values =
                    values.ok_or_else(|| cx.fail(format!("weights {tag} are not {count} numbers")))?;
                all.extend(values);
            }
            None => return Err(cx.fail(format!("weights {tag} are missing"))),
        }
    }
    Ok(all)
}

fn functions(cx: &Cx<'_>, params: &Fields, tag: u32) -> Result<Vec<Fun>, CoreMlError> {
    params.messages(tag)?.iter().map(|fields| function(cx, fields)).collect()
}

fn function(cx: &Cx<'_>, fields: &Fields) -> Result<Fun, CoreMlError> {
    const KINDS: [(u32, Fun); 4] = [
        (10, Fun::Relu),
        (30, Fun::Tanh),
        (40, Fun::Sigmoid),
        (41, Fun::HardSigmoid { alpha: 0.2, beta: 0.5 }),
    ];
    if let Some(linear) = fields.message(5)? {
        let plain = linear.float(1) == 1.0 && linear.float(2) == 0.0;
        return if plain {
            Ok(Fun::LeakyRelu(1.0))
        } else {
            Err(cx.fail("scaled functions cannot run here"))
        };
    }
    let known = KINDS.iter().find(|(tag, _)| fields.has(*tag)).map(|(_, fun)| *fun);
    known.ok_or_else(|| {
        cx.fail("its activation cannot run here: sigmoid, tanh, ReLU, hard sigmoid and linear can")
    })
}

/// Adds the layer; `sequence` keeps all positions, not the last one alone.
fn layer(cx: &mut Cx<'_>, cell: Cell, parts: &[Direction], sequence: bool) -> Done {
    let (directions, inputs, hidden) = (parts.len(), cx.size(1), cx.size(2));
    let rows = cell.gates() * hidden;
    if inputs == 0 || hidden == 0 || parts.iter().any(|part| part.functions.len() != cell.functions()) {
        return Err(cx.fail("its sizes or functions are missing"));
    }
    let given = cx.input(0)?;
    let rank = cx.making.rank(given).ok_or_else(|| cx.fail("the rank of its input is not known"))?;
    let x =
        if rank == 5 { cx.reshaped(given, &[0, 0, inputs as i64])? } else { flat(cx, given, rank, inputs)? };
    let all = |pick: fn(&Direction) -> &[f32]| {
        parts.iter().flat_map(|p| pick(p).iter().copied()).collect::<Vec<f32>>()
    };
    let name = |what: &str| format!("{}.{what}", cx.layer.name);
    let names = ["w", "r", "bias", "peepholes"].map(name);
    let mut values = vec![
        x,
        cx.making.floats(&names[0], &[directions, rows, inputs], &all(|p| &p.w))?,
        cx.making.floats(&names[1], &[directions, rows, hidden], &all(|p| &p.r))?,
        cx.making.floats(&names[2], &[directions, 2 * rows], &all(|p| &p.bias))?,
        cx.making.builder.absent(),
    ];
    let lstm = matches!(cell, Cell::Lstm { .. });
    let per = if lstm { 2 } else { 1 };
    for state in 0..per {
        values.push(first_state(cx, state, per, directions, hidden)?);
    }
    if parts.iter().all(|part| part.peepholes.is_some()) {
        let peepholes = all(|p| p.peepholes.as_deref().unwrap_or_default());
        values.push(cx.making.floats(&names[3], &[directions, 3 * hidden], &peepholes)?);
    }
    let op = Recurrent {
        cell,
        backwards: parts.iter().map(|part| part.backwards).collect(),
        functions: parts.iter().flat_map(|part| part.functions.clone()).collect(),
        clip: Some(CLIP),
        batch_first: false,
    };
    let made = temps(cx, op, &values, 1 + per)?;
    outputs(cx, &made, [rank, directions, hidden], sequence)
}

/// A value of fewer dimensions as `[sequence, batch, C]`.
fn flat(cx: &mut Cx<'_>, x: ValueId, rank: usize, inputs: usize) -> Result<ValueId, CoreMlError> {
    let inputs = inputs as i64;
    match rank {
        1 => cx.reshaped(x, &[1, 1, inputs]),
        2 | 4 => cx.reshaped(x, &[-1, 1, inputs]),
        3 => Ok(x),
        _ => Err(cx.fail(format!("it cannot read {rank} dimensions"))),
    }
}

/// State number `state` of the inputs behind the first one, `[directions, batch, H]`; absent ones are zero.
fn first_state(
    cx: &mut Cx<'_>,
    state: usize,
    per: usize,
    directions: usize,
    hidden: usize,
) -> Result<ValueId, CoreMlError> {
    let mut parts = Vec::new();
    for direction in 0..directions {
        let at = 1 + direction * per + state;
        if at >= cx.layer.inputs.len() {
            return Ok(cx.making.builder.absent());
        }
        let x = cx.input(at)?;
        parts.push(cx.reshaped(x, &[1, -1, hidden as i64])?);
    }
    cx.temp(Concat { axis: 0 }, &parts)
}

fn temps(
    cx: &mut Cx<'_>,
    op: Recurrent,
    inputs: &[ValueId],
    count: usize,
) -> Result<Vec<ValueId>, CoreMlError> {
    let names: Vec<String> = (0..count).map(|i| format!("{}.made.{i}", cx.layer.name)).collect();
    Ok(cx.making.ops(&names, op, inputs)?)
}

/// What the op makes, in the layout of the layer: the directions of each position side by side, then the last states.
fn outputs(
    cx: &mut Cx<'_>,
    made: &[ValueId],
    [rank, directions, hidden]: [usize; 3],
    sequence: bool,
) -> Done {
    let wide = (directions * hidden) as i64;
    let rows = if sequence {
        cx.temp(Transpose { perm: vec![0, 2, 1, 3] }, &[made[0]])?
    } else {
        cx.temp(Transpose { perm: vec![1, 0, 2] }, &[made[1]])?
    };
    let rows = if sequence { cx.reshaped(rows, &[0, 0, wide])? } else { cx.reshaped(rows, &[1, -1, wide])? };
    let mut results = vec![in_rank(cx, rows, rank, wide)?];
    for direction in 0..directions {
        for state in &made[1..] {
            let one = if directions == 1 { *state } else { direction_of(cx, *state, direction)? };
            results.push(in_rank(cx, one, rank, hidden as i64)?);
        }
    }
    let names = cx.layer.outputs.clone();
    if names.is_empty() || names.len() > results.len() {
        return Err(cx.fail(format!("it makes {} values, not {}", results.len(), names.len())));
    }
    for (name, id) in names.iter().zip(results) {
        let id = cx.making.op(name, kinglet_graph::ops::Identity, &[id])?;
        cx.making.bind(name, id);
    }
    Ok(())
}

fn direction_of(cx: &mut Cx<'_>, state: ValueId, direction: usize) -> Result<ValueId, CoreMlError> {
    let names = [0, 1].map(|i| format!("{}.direction.{i}", cx.layer.name));
    Ok(cx.making.ops(&names, Split { axis: 0, parts: 2 }, &[state])?[direction])
}

/// `[sequence, batch, C]` in the rank of the input.
fn in_rank(cx: &mut Cx<'_>, x: ValueId, rank: usize, wide: i64) -> Result<ValueId, CoreMlError> {
    let shape: &[i64] = match rank {
        1 => &[wide],
        2 => &[-1, wide],
        3 => return Ok(x),
        4 => &[-1, wide, 1, 1],
        _ => &[0, 0, wide, 1, 1],
    };
    let shape = cx.ints(shape)?;
    cx.temp(Reshape { allow_zero: false }, &[x, shape])
}
