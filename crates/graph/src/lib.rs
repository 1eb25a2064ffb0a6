//! The intermediate representation: ops, shape inference, passes, memory planner, backend trait.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr))]

mod exec;
mod ir;

pub use exec::{Backend, Call, CancelToken, ExecError, Executable, Input, PlanReport, StepReport};
pub use ir::Graph;
