//! The intermediate representation: ops, shape inference, passes, memory planner, backend trait.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr))]

mod args;
mod builder;
pub mod cost;
mod exec;
mod ir;
mod memory;
pub mod ops;
pub mod passes;
mod specialise;

pub use args::{Arg, Args, axes, axis, broadcast, ints};
pub use builder::{BuildError, GraphBuilder};
pub use exec::{Backend, Call, CancelToken, ExecError, Executable, Input, PlanReport, Profiler, StepReport};
pub use ir::{Def, Dim, Graph, Node, SymDim, TensorType, Type, Value, ValueId};
pub use memory::{Layout, Lifetime, plan_memory};
pub use ops::Op;
pub use specialise::{Binding, Evaluate, specialise, specialise_bodies};
