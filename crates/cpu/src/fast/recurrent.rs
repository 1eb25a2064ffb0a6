//! Layers of long short-term memory with the usual functions; all other recurrent layers are computed by host kernels.

use kinglet_graph::ops::{Cell, Fun, Recurrent};
use kinglet_graph::{Def, ExecError, Node, ValueId};
use kinglet_kernels::nd::{self, Lstm, LstmSpans};
use kinglet_tensor::{AlignedBuf, Bytes, DType};

use crate::lower::{BufferId, Lowering, Work, op_of};

pub(crate) fn recurrent(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let op = op_of::<Recurrent>(node)?;
    let input = |i: usize| node.inputs.get(i).copied().filter(|id| there(low, *id));
    if !usual(op) || input(4).is_some() || input(7).is_some() {
        return Ok(false);
    }
    let Some(layer) = layer(low, op, node) else { return Ok(false) };
    let (first, zero) = ([input(5), input(6)], |low: &Lowering<'_>, id: ValueId| {
        low.graph.weight(id).map(|tensor| tensor.data().iter().all(|byte| *byte == 0))
    });
    let mut states = [None; 2];
    for (state, id) in states.iter_mut().zip(first) {
        match id.map(|id| (id, zero(low, id), low.sizes(id).is_some())) {
            None | Some((_, Some(true), _)) => {}
            Some((id, None, true)) => *state = Some(low.value(id)?),
            Some(_) => return Ok(false),
        }
    }
    let x = low.value(node.inputs[0])?;
    let mut out = [None; 3];
    for (buffer, id) in out.iter_mut().zip(&node.outputs) {
        *buffer = Some(low.value(*id)?);
    }
    let reads: Vec<BufferId> = std::iter::once(x).chain(states.into_iter().flatten()).collect();
    let writes: Vec<BufferId> = out.into_iter().flatten().collect();
    let work = Work {
        multiply_adds: 4 * layer.hidden * (layer.wide + layer.hidden),
        ..Work::bytes(layer.input.len() + layer.state.len())
    };
    low.step(node, &reads, &writes, work, move |s| {
        let place = |buffer: Option<BufferId>| buffer.map(|buffer| s[buffer]);
        nd::lstm(layer.clone(), LstmSpans { x: s[x], first: states.map(place), out: out.map(place) })
    });
    Ok(true)
}

/// Whether an optional input is given.
fn there(low: &Lowering<'_>, id: ValueId) -> bool {
    !matches!(low.graph.value(id).def, Def::Absent)
}

/// Whether the kernel computes this layer.
fn usual(op: &Recurrent) -> bool {
    let functions = op.functions.chunks(3).all(|of| of == [Fun::Sigmoid, Fun::Tanh, Fun::Tanh]);
    op.cell == Cell::Lstm { coupled: false } && functions && op.clip.is_none()
}

/// Floats that can be read where they lie; a copy where a file has them at odd places.
fn aligned(bytes: &Bytes) -> Option<Bytes> {
    if bytemuck::try_cast_slice::<u8, f32>(bytes).is_ok() {
        return Some(bytes.clone());
    }
    let mut copy = AlignedBuf::<u8>::try_new(bytes.len()).ok()?;
    copy.copy_from_slice(bytes);
    Some(copy.into())
}

/// Sizes and weights, when they are known and are floats.
fn layer(low: &Lowering<'_>, op: &Recurrent, node: &Node) -> Option<Lstm> {
    let x = low.sizes(node.inputs[0])?;
    let (time, batch) = if op.batch_first { (x[1], x[0]) } else { (x[0], x[1]) };
    let weights = |i: usize| {
        let tensor = low.graph.weight(*node.inputs.get(i)?).filter(|t| t.dtype() == DType::F32)?;
        Some((aligned(tensor.data())?, tensor.shape().to_vec()))
    };
    let ((input, _), (state, shape)) = (weights(1)?, weights(2)?);
    let bias: Option<Bytes> = match node.inputs.get(3).filter(|id| there(low, **id)) {
        Some(_) => Some(weights(3)?.0),
        None => None,
    };
    let hidden = *shape.get(2)?;
    Some(Lstm {
        time,
        batch,
        wide: *x.get(2)?,
        hidden,
        backwards: op.backwards.clone(),
        batch_first: op.batch_first,
        input,
        state,
        bias,
    })
    .filter(|layer| layer.hidden > 0)
}
