//! The intermediate representation: ops, shape inference, passes, memory planner, backend trait.
#![forbid(unsafe_code)]

mod exec;
mod ir;

pub use exec::{Backend, Call, CancelToken, ExecError, Executable, Input, PlanReport, StepReport};
pub use ir::Graph;
