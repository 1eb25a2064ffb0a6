//! Control flow between programs: each body is a session of its own, planned for the shapes it meets.

use std::sync::Arc;

use kinglet_graph::ops::{If, Loop, Scan};
use kinglet_graph::{ExecError, Graph, Node, ValueId, axis};
use kinglet_tensor::{DType, Tensor};

use crate::env::Env;
use crate::host::Arg;
use crate::session::{Feed, Session, TensorView};
use crate::value::{Array, Value};

/// Why control flow failed.
pub(crate) enum Fault {
    /// In the node itself.
    Here(String),
    /// In a body, whose node the error names.
    Within(ExecError),
}

impl Fault {
    /// The error of a node of this name.
    pub(crate) fn at(self, node: &str) -> ExecError {
        match self {
            Self::Here(reason) => ExecError::Node { node: node.into(), reason },
            Self::Within(error) => error,
        }
    }
}

impl From<ExecError> for Fault {
    fn from(error: ExecError) -> Self {
        Self::Within(error)
    }
}

impl From<&str> for Fault {
    fn from(reason: &str) -> Self {
        Self::Here(reason.into())
    }
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Here(reason)
    }
}

/// A node that runs other graphs.
pub(crate) enum Control {
    If { then: Body, otherwise: Body },
    Loop { op: Loop, body: Body },
    Scan { op: Scan, body: Body },
}

/// A graph of its own, and which of the node's inputs it reads.
pub(crate) struct Body {
    session: Session,
    /// For each input of the graph: whether it is a constant.
    constant: Vec<bool>,
}

impl Body {
    /// `args` are the node's inputs for the body's last inputs.
    fn new(graph: &Graph, body: &Arc<Graph>, args: &[ValueId], env: &Arc<Env>) -> Result<Self, ExecError> {
        let skip = body.inputs().len().saturating_sub(args.len());
        let mut constants: Vec<Option<Tensor>> = vec![None; skip];
        constants.extend(args.iter().map(|id| graph.weight(*id).cloned()));
        let constant = constants.iter().map(Option::is_some).collect();
        Ok(Self { session: Session::within(env.clone(), body.clone(), constants)?, constant })
    }

    /// Runs the body on values for all its inputs.
    fn run(&mut self, inputs: &[Feed<'_>]) -> Result<Vec<Value>, ExecError> {
        let open: Vec<Feed<'_>> =
            inputs.iter().zip(&self.constant).filter(|(_, constant)| !**constant).map(|(f, _)| *f).collect();
        self.session.run(&open)?;
        (0..self.session.outputs()).map(|i| self.session.body_value(i)).collect()
    }
}

impl Control {
    /// The control flow of a node, when it has any.
    pub(crate) fn of(graph: &Graph, node: &Node, env: &Arc<Env>) -> Result<Option<Self>, ExecError> {
        if let Some(op) = node.op.downcast::<If>() {
            let body = |taken: bool| {
                let (body, args) = op.branch(taken, &node.inputs);
                Body::new(graph, body, args, env)
            };
            return Ok(Some(Self::If { then: body(true)?, otherwise: body(false)? }));
        }
        if let Some(op) = node.op.downcast::<Loop>() {
            let around = node.inputs.get(2 + op.carried..).unwrap_or(&[]);
            return Ok(Some(Self::Loop { op: op.clone(), body: Body::new(graph, &op.body, around, env)? }));
        }
        if let Some(op) = node.op.downcast::<Scan>() {
            let around = node.inputs.get(op.carried + op.inputs.len()..).unwrap_or(&[]);
            return Ok(Some(Self::Scan { op: op.clone(), body: Body::new(graph, &op.body, around, env)? }));
        }
        Ok(None)
    }

    /// The node's outputs.
    pub(crate) fn run(&mut self, env: &Env, args: &[Arg<'_>]) -> Result<Vec<Value>, Fault> {
        let owned: Vec<Value> = args.iter().map(owned).collect::<Option<_>>().ok_or("an input is missing")?;
        match self {
            Self::If { then, otherwise } => {
                let condition = truth(owned.first()).unwrap_or(false);
                let split = 1 + then.constant.len();
                let (body, args) =
                    if condition { (then, &owned[1..split]) } else { (otherwise, &owned[split..]) };
                Ok(body.run(&args.iter().map(Feed::Value).collect::<Vec<_>>())?)
            }
            Self::Loop { op, body } => repeat(op, body, &owned, env),
            Self::Scan { op, body } => scan(op, body, &owned),
        }
    }
}

/// A value of its own; absent ones stand as nothing.
fn owned(arg: &Arg<'_>) -> Option<Value> {
    Some(match arg {
        Arg::Absent => Value::Nothing,
        Arg::Other(value) => (*value).clone(),
        Arg::Tensor(view) if view.dtype == DType::Str => {
            Array::texts(view.shape.to_vec(), view.texts.to_vec())?.into()
        }
        Arg::Tensor(view) => {
            Array::new(view.dtype, view.shape.to_vec(), kinglet_tensor::Bytes::copy_from_slice(view.data))?
                .into()
        }
    })
}

fn truth(value: Option<&Value>) -> Option<bool> {
    Some(*value?.tensor()?.bytes().first()? != 0)
}

/// An error when a loop gathers more than values may be large, or lists than can be handed from round to round.
fn bounded(kept: usize, carried: &[Value], env: &Env) -> Result<(), Fault> {
    env.room.admit(DType::U8, &[kept]).map_err(|_| "a loop gathers more elements than values may have")?;
    let long = |value: &Value| matches!(value, Value::Sequence(list) if list.len() > env.max_list);
    if carried.iter().any(long) {
        Err(format!("a loop makes a list longer than {}", env.max_list).into())
    } else {
        Ok(())
    }
}

fn repeat(op: &Loop, body: &mut Body, args: &[Value], env: &Env) -> Result<Vec<Value>, Fault> {
    let most = match &args[0] {
        Value::Tensor(array) => array
            .bytes()
            .try_into()
            .map(i64::from_le_bytes)
            .map_err(|_| "the number of rounds is no integer")?,
        _ => i64::MAX,
    };
    let mut go = truth(args.get(1)).unwrap_or(true);
    let mut carried: Vec<Value> = args[2..2 + op.carried].to_vec();
    let around = &args[2 + op.carried..];
    let mut scans: Vec<Vec<Value>> = vec![Vec::new(); op.body.outputs().len() - 1 - op.carried];
    let (mut round, mut kept) = (0i64, 0);
    while go && round < most {
        if round as u64 == env.max_rounds {
            return Err(format!("a loop goes on after {} rounds", env.max_rounds).into());
        }
        let (index, condition) = (round.to_le_bytes(), [u8::from(go)]);
        let scalar = |dtype, data| Feed::Tensor(TensorView { dtype, shape: &[], data });
        let mut feeds = vec![scalar(DType::I64, &index), scalar(DType::Bool, &condition)];
        feeds.extend(carried.iter().chain(around).map(Feed::Value));
        let mut made = body.run(&feeds)?.into_iter();
        go = truth(made.next().as_ref()).ok_or("a body makes no condition")?;
        carried = made.by_ref().take(op.carried).collect();
        for (list, value) in scans.iter_mut().zip(made) {
            kept += value.tensor().map_or(1, |array| array.shape().iter().product::<usize>().max(1));
            list.push(value);
        }
        bounded(kept, &carried, env)?;
        round += 1;
    }
    for (i, list) in scans.into_iter().enumerate() {
        carried.push(stack(&list, 0, false, || empty(&op.body, 1 + op.carried + i))?);
    }
    Ok(carried)
}

/// A scan output of no rounds.
fn empty(body: &Graph, output: usize) -> Option<Value> {
    let ty = body.tensor_type(*body.outputs().get(output)?)?;
    let mut shape = vec![0];
    shape.extend(ty.shape.iter().map(|dim| dim.fixed().unwrap_or(0)));
    Some(Array::new(ty.dtype, shape, kinglet_tensor::Bytes::new())?.into())
}

/// The values as slices of one tensor along an axis.
fn stack(
    list: &[Value],
    along: i64,
    backwards: bool,
    none: impl Fn() -> Option<Value>,
) -> Result<Value, Fault> {
    let Some(first) = list.first() else {
        return none().ok_or(Fault::from("the type of a result is not known"));
    };
    let arrays: Option<Vec<&Array>> = list.iter().map(Value::tensor).collect();
    let (Some(mut arrays), Some(first)) = (arrays, first.tensor()) else {
        return Err("only tensors can be scanned".into());
    };
    if arrays.iter().any(|a| a.shape() != first.shape() || a.dtype() != first.dtype()) {
        return Err("the rounds of a scan make different shapes".into());
    }
    if backwards {
        arrays.reverse();
    }
    let at = axis(along, first.shape().len() + 1)?;
    let mut shape = first.shape().to_vec();
    shape.insert(at, arrays.len());
    let outer: usize = first.shape()[..at].iter().product();
    let bytes = first.bytes().len() / outer.max(1);
    let rows = (0..outer).flat_map(|o| arrays.iter().map(move |a| &a.bytes()[o * bytes..][..bytes]));
    let data: Vec<u8> = rows.flatten().copied().collect();
    Array::new(first.dtype(), shape, data.into())
        .map(Value::from)
        .ok_or(Fault::from("a result does not fill its shape"))
}

/// Slice `i` of an array along an axis, without the axis.
fn slice(array: &Array, at: usize, i: usize) -> Option<Value> {
    let mut shape = array.shape().to_vec();
    let n = shape.remove(at);
    let outer: usize = shape[..at].iter().product();
    let bytes = array.bytes().len() / (outer * n).max(1);
    let rows = (0..outer).flat_map(|o| array.bytes()[(o * n + i) * bytes..][..bytes].iter());
    Some(Array::new(array.dtype(), shape, rows.copied().collect::<Vec<u8>>().into())?.into())
}

fn scan(op: &Scan, body: &mut Body, args: &[Value]) -> Result<Vec<Value>, Fault> {
    let mut carried: Vec<Value> = args[..op.carried].to_vec();
    let scanned = &args[op.carried..op.carried + op.inputs.len()];
    let around = &args[op.carried + op.inputs.len()..];
    let arrays: Option<Vec<&Array>> = scanned.iter().map(Value::tensor).collect();
    let arrays = arrays.ok_or("only tensors can be scanned")?;
    let axes: Vec<usize> = arrays
        .iter()
        .zip(&op.inputs)
        .map(|(a, (along, _))| axis(*along, a.shape().len()))
        .collect::<Result<_, _>>()?;
    let rounds = arrays.first().map_or(0, |a| a.shape()[axes[0]]);
    if arrays.iter().zip(&axes).any(|(a, at)| a.shape()[*at] != rounds) {
        return Err("scan inputs differ in length".into());
    }
    let mut outs: Vec<Vec<Value>> = vec![Vec::new(); op.outputs.len()];
    for round in 0..rounds {
        let part = |((array, at), (_, backwards)): ((&&Array, &usize), &(i64, bool))| {
            slice(array, *at, if *backwards { rounds - 1 - round } else { round })
        };
        let slices: Option<Vec<Value>> = arrays.iter().zip(&axes).zip(&op.inputs).map(part).collect();
        let slices = slices.ok_or("texts cannot be scanned")?;
        let feeds: Vec<Feed<'_>> = carried.iter().chain(&slices).chain(around).map(Feed::Value).collect();
        let mut made = body.run(&feeds)?.into_iter();
        carried = made.by_ref().take(op.carried).collect();
        outs.iter_mut().zip(made).for_each(|(list, value)| list.push(value));
    }
    for (i, (list, (along, backwards))) in outs.iter().zip(&op.outputs).enumerate() {
        carried.push(stack(list, *along, *backwards, || empty(&op.body, op.carried + i))?);
    }
    Ok(carried)
}
