//! Branches and loops: bodies become blocks, which read what is around them by its name.

use kinglet_graph::ops::{If, Loop};
use kinglet_graph::{Dim, Graph, TensorType, ValueId};
use kinglet_tensor::DType;

use super::Entry;
use crate::coreml::proto;
use crate::coreml::write::node::{Arg, Ex};
use crate::coreml::write::weights;

type Done = Result<(), String>;

pub(super) const OPS: &[Entry] = &[("If", branch), ("Loop", repeat)];

fn scalar_of(dtype: DType) -> TensorType {
    TensorType { dtype, shape: Vec::new() }
}

/// Input `i`, which is one number, without dimensions.
fn scalar(ex: &mut Ex<'_, '_>, i: usize) -> Result<String, String> {
    let (x, ty) = (ex.input(i)?, ex.ty(i)?);
    Ok(squeezed(ex, x, ty))
}

fn squeezed(ex: &mut Ex<'_, '_>, x: String, ty: &TensorType) -> String {
    if ty.rank() == 0 { x } else { ex.temp("squeeze", vec![("x", x.into())], &scalar_of(ty.dtype)) }
}

fn branch(ex: &mut Ex<'_, '_>) -> Done {
    let If { then, otherwise } = ex.op()?;
    let pred = scalar(ex, 0)?;
    let around = (1..ex.node.inputs.len()).map(|i| ex.input(i)).collect::<Result<Vec<_>, _>>()?;
    let split = then.inputs().len().min(around.len());
    let count = ex.node.outputs.len();
    let mut blocks = Vec::new();
    for (body, names) in [(then, &around[..split]), (otherwise, &around[split..])] {
        let outer = ex.writer.enter(body, names);
        let made = results(ex, body, &body.outputs()[..count.min(body.outputs().len())]);
        let operations = ex.writer.leave_block(outer);
        blocks.push(proto::Block { inputs: Vec::new(), outputs: made?, operations });
    }
    let outputs = (0..count).map(|i| result(ex, i)).collect::<Result<Vec<_>, _>>()?;
    let stem = outputs[0].name.clone();
    let inputs = ex.arguments(&stem, vec![("pred", pred.into())]);
    ex.writer.push_blocks("cond", inputs, outputs, blocks);
    Ok(())
}

/// The nodes of a body, and the names of these values of it, which operations of the block make.
fn results(ex: &mut Ex<'_, '_>, body: &Graph, ids: &[ValueId]) -> Result<Vec<String>, String> {
    ex.writer.nodes(body);
    let one = |id: &ValueId| {
        let ty = body.tensor_type(*id).ok_or("with a result whose shape only the data decides")?;
        let name = ex.writer.name_of(body, *id);
        Ok(ex.temp("identity", vec![("x", name.into())], ty))
    };
    ids.iter().map(one).collect()
}

/// Output `i` of the node, named and typed.
fn result(ex: &mut Ex<'_, '_>, i: usize) -> Result<proto::NamedType, String> {
    let ty = ex.made(i)?;
    weights::computed(ty.dtype, false)?;
    let name = ex.writer.name_of(ex.graph, ex.node.outputs[i]);
    Ok(ex.writer.named(&name, ty))
}

/// What a loop carries: its name before the loop, and its type.
struct Carried {
    first: String,
    ty: proto::ValueType,
}

/// The round and the condition are carried first, then the loop's own values, then a list for each scan output.
fn repeat(ex: &mut Ex<'_, '_>) -> Done {
    let Loop { body, carried } = ex.op()?;
    let most = if ex.has(0) { Some(scalar(ex, 0)?) } else { None };
    let elements: Vec<&TensorType> =
        body.outputs().iter().skip(1 + carried).map(|id| element(body, *id)).collect::<Result<_, _>>()?;
    let start = firsts(ex, body, *carried, &elements)?;
    let around = (2 + carried..ex.node.inputs.len()).map(|i| ex.input(i)).collect::<Result<Vec<_>, _>>()?;

    let (inputs, names) = block_inputs(ex, &start);
    let outer = ex.writer.enter(body, &[]);
    let mut go = names[1].clone();
    if let Some(most) = &most {
        let given = vec![("x", Arg::Name(names[0].clone())), ("y", most.into())];
        let less = ex.temp("less", given, &scalar_of(DType::Bool));
        go = ex.temp("logical_and", vec![("x", less.into()), ("y", go.into())], &scalar_of(DType::Bool));
    } else {
        go = ex.temp("identity", vec![("x", go.into())], &scalar_of(DType::Bool));
    }
    let test = proto::Block { inputs, outputs: vec![go], operations: ex.writer.leave_block(outer) };

    let (inputs, names) = block_inputs(ex, &start);
    let own: Vec<String> = names[..2 + carried].iter().chain(&around).cloned().collect();
    let outer = ex.writer.enter(body, &own);
    let made = round(ex, body, *carried, &names, &elements);
    let operations = ex.writer.leave_block(outer);
    let round = proto::Block { inputs, outputs: made?, operations };
    leave(ex, start, *carried, &elements, vec![test, round])
}

/// The type of an element of a scan output; lists ask for known sizes.
fn element(body: &Graph, id: ValueId) -> Result<&TensorType, String> {
    let ty = body.tensor_type(id).filter(|ty| ty.dims().is_some());
    ty.ok_or_else(|| "with a scan output whose elements have open sizes".into())
}

/// Elements of lists have dimensions.
fn listed(ty: &TensorType) -> TensorType {
    let mut ty = ty.clone();
    if ty.shape.is_empty() {
        ty.shape.push(Dim::Fixed(1));
    }
    ty
}

/// What the loop starts with.
fn firsts(
    ex: &mut Ex<'_, '_>,
    body: &Graph,
    carried: usize,
    elements: &[&TensorType],
) -> Result<Vec<Carried>, String> {
    let half = ex.writer.options.half;
    let (count, flag) = (scalar_of(DType::I32), scalar_of(DType::Bool));
    let zero = ex.tensor("start", DType::I32, &[], vec![0; 4].into())?;
    let go = if ex.has(1) { scalar(ex, 1)? } else { ex.tensor("go", DType::Bool, &[], vec![1].into())? };
    let mut start = vec![
        Carried { first: zero, ty: weights::value_type(&count, half) },
        Carried { first: go, ty: weights::value_type(&flag, half) },
    ];
    for i in 2..2 + carried {
        let ty = body.inputs().get(i).and_then(|id| body.tensor_type(*id));
        let ty = ty.ok_or("which carries a value whose shape only the data decides")?;
        start.push(Carried { first: ex.input(i)?, ty: weights::value_type(ty, half) });
    }
    for ty in elements {
        let ty = listed(ty);
        let ty_of = weights::list_type(&ty, half);
        let sizes = ty.dims().unwrap_or_default().into_iter().map(|n| n as i64).collect::<Vec<_>>();
        let mut names = Vec::new();
        for n in sizes {
            names.push(ex.tensor("size", DType::I64, &[], n.to_le_bytes().to_vec().into())?);
        }
        let dtype = match weights::computed(ty.dtype, half)? {
            DType::Bool => "bool",
            DType::I32 => "int32",
            DType::F16 => "fp16",
            _ => "fp32",
        };
        let given = vec![
            ("init_length", Arg::Int(1)),
            ("dynamic_length", Arg::Flag(true)),
            ("elem_shape", Arg::Names(names)),
            ("dtype", Arg::Text(dtype)),
        ];
        let first = ex.temp_of("make_list", given, ty_of.clone());
        start.push(Carried { first, ty: ty_of });
    }
    Ok(start)
}

/// Inputs of a block for what the loop carries, and their names.
fn block_inputs(ex: &mut Ex<'_, '_>, start: &[Carried]) -> (Vec<proto::NamedType>, Vec<String>) {
    let named = start.iter().map(|carried| {
        let name = ex.writer.fresh(&format!("{}_carried", ex.node.name));
        proto::NamedType { name, ty: Some(carried.ty.clone()) }
    });
    let named: Vec<proto::NamedType> = named.collect();
    let names = named.iter().map(|named| named.name.clone()).collect();
    (named, names)
}

/// The operations of a round: what it hands to the next one.
fn round(
    ex: &mut Ex<'_, '_>,
    body: &Graph,
    carried: usize,
    names: &[String],
    elements: &[&TensorType],
) -> Result<Vec<String>, String> {
    let made = results(ex, body, body.outputs())?;
    let next = vec![("x", Arg::Name(names[0].clone())), ("y", Arg::Int(1))];
    let next = ex.temp("add", next, &scalar_of(DType::I32));
    let test = body.tensor_type(body.outputs()[0]).ok_or("with a condition of no known type")?;
    let go = squeezed(ex, made[0].clone(), test);
    let mut left = vec![next, go];
    left.extend(made[1..=carried].iter().cloned());
    for ((list, value), ty) in names[2 + carried..].iter().zip(&made[1 + carried..]).zip(elements) {
        let mut value = value.clone();
        if ty.rank() == 0 {
            let given = vec![("x", value.into()), ("axes", Arg::Ints(vec![0]))];
            value = ex.temp("expand_dims", given, &listed(ty));
        }
        let given =
            vec![("ls", list.into()), ("index", Arg::Name(names[0].clone())), ("value", value.into())];
        let ty = weights::list_type(&listed(ty), ex.writer.options.half);
        left.push(ex.temp_of("list_write", given, ty));
    }
    Ok(left)
}

/// The loop itself, and its lists as tensors of as many elements as there were rounds.
fn leave(
    ex: &mut Ex<'_, '_>,
    start: Vec<Carried>,
    carried: usize,
    elements: &[&TensorType],
    blocks: Vec<proto::Block>,
) -> Done {
    let mut outputs = Vec::new();
    for (i, value) in start.iter().enumerate() {
        let own = i.checked_sub(2).filter(|i| *i < carried && *i < ex.node.outputs.len());
        outputs.push(match own {
            Some(i) => result(ex, i)?,
            None => {
                let name = ex.writer.fresh(&format!("{}_left", ex.node.name));
                proto::NamedType { name, ty: Some(value.ty.clone()) }
            }
        });
    }
    let names: Vec<String> = outputs.iter().map(|named| named.name.clone()).collect();
    let firsts = start.into_iter().map(|value| value.first).collect();
    let inputs = ex.arguments(&names[0], vec![("loop_vars", Arg::Names(firsts))]);
    ex.writer.push_blocks("while_loop", inputs, outputs, blocks);
    for (i, (list, ty)) in names[2 + carried..].iter().zip(elements).enumerate() {
        if carried + i >= ex.node.outputs.len() {
            break;
        }
        let counted = TensorType { dtype: DType::I32, shape: vec![Dim::Unknown] };
        let range = vec![("start", Arg::Int(0)), ("end", Arg::Name(names[0].clone())), ("step", Arg::Int(1))];
        let places = ex.temp("range_1d", range, &counted);
        let given = vec![("ls", Arg::Name(list.clone())), ("indices", places.into())];
        if ty.rank() > 0 {
            ex.emit_at(carried + i, "list_gather", given)?;
            continue;
        }
        let column = TensorType { dtype: ty.dtype, shape: vec![Dim::Unknown, Dim::Fixed(1)] };
        let column = ex.temp("list_gather", given, &column);
        ex.emit_at(carried + i, "squeeze", vec![("x", column.into()), ("axes", Arg::Ints(vec![1]))])?;
    }
    Ok(())
}
