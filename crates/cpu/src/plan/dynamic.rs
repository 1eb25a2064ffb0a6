//! Ops that run between the programs of a plan: what only the data decides, and control flow.

use kinglet_graph::{ExecError, Node, TensorType, Type};
use kinglet_kernels::Arena;

use super::Place;
use crate::control::Control;
use crate::env::Env;
use crate::host::{Arg, Call, Host, View};
use crate::outputs::Outputs;
use crate::value::Value;

/// One op between programs.
pub(super) struct Dynamic {
    pub(super) node: Node,
    pub(super) inputs: Vec<Place>,
    pub(super) outputs: Vec<(Place, Type)>,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    Host(Host),
    Control(Box<Control>),
}

/// The value at a place, borrowed.
fn look<'a>(place: &'a Place, arena: &'a Arena, values: &'a [Option<Value>]) -> Result<Arg<'a>, String> {
    Ok(match place {
        Place::Absent => Arg::Absent,
        Place::Constant(c) => {
            Arg::Tensor(View { dtype: c.0.dtype(), shape: &c.1, data: c.0.data(), texts: &[] })
        }
        Place::Arena(span, dtype, shape) => {
            let data = arena.bytes_of(span, &[]).map_err(|e| e.to_string())?;
            Arg::Tensor(View { dtype: *dtype, shape, data, texts: &[] })
        }
        Place::Table(index) => match values[*index].as_ref() {
            Some(Value::Tensor(array)) => Arg::Tensor(View::of(array)),
            Some(other) => Arg::Other(other),
            None => return Err("an input was not made".into()),
        },
    })
}

impl Dynamic {
    pub(super) fn run(
        &mut self,
        env: &Env,
        arena: &mut Arena,
        values: &mut [Option<Value>],
    ) -> Result<(), ExecError> {
        let name = self.node.name.clone();
        let fail = |reason: String| ExecError::Node { node: name.clone(), reason };
        let made = {
            let args: Vec<Arg<'_>> =
                self.inputs.iter().map(|p| look(p, arena, values)).collect::<Result<_, _>>().map_err(fail)?;
            match &mut self.kind {
                Kind::Host(kernel) => compute(env, &self.node, *kernel, &args)
                    .map_err(|reason| fail(format!("{}: {reason}", self.node.op.name())))?,
                Kind::Control(control) => {
                    control.run(env, &args).map_err(|fault| fault.at(&self.node.name))?
                }
            }
        };
        for ((place, ty), value) in self.outputs.iter().zip(made) {
            match place {
                Place::Table(index) => values[*index] = Some(value),
                Place::Arena(span, dtype, shape) => {
                    let array = value.tensor().filter(|a| a.dtype() == *dtype && a.shape() == &**shape);
                    let array = array.ok_or_else(|| fail(format!("made another type than {ty:?}")))?;
                    let room = arena.bytes_of_mut(span, &[]).map_err(|e| fail(e.to_string()))?;
                    room.copy_from_slice(array.bytes());
                }
                Place::Absent | Place::Constant(_) => {}
            }
        }
        Ok(())
    }
}

/// The outputs of an op by its host kernel.
fn compute(env: &Env, node: &Node, kernel: Host, args: &[Arg<'_>]) -> Result<Vec<Value>, String> {
    let call = Call { args };
    let count = node.outputs.len();
    let types = call.with_args(|args| node.op.infer(args))?;
    let mut planned: Vec<Option<TensorType>> = types.iter().map(|ty| ty.known().cloned()).collect();
    planned.truncate(count);
    planned.resize(count, None);
    for ty in planned.iter().flatten() {
        env.room.admit(ty.dtype, &ty.dims().unwrap_or_default())?;
    }
    let mut outs = Outputs::new(&env.room, planned);
    kernel(&*node.op, &call, &mut outs)?;
    outs.finish().into_iter().map(|v| v.ok_or_else(|| "an output was not made".to_owned())).collect()
}
