//! CPU kernels over views, weight packing, the thread team.
//!
//! A [`Program`] is a list of [`Step`]s over one [`Arena`], run by a [`Team`]: building it proves every step's memory, so
//! running it is safe and allocates nothing. Each operation under `ops/` is one file: kernel, step, tests.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr))]

mod arena;
mod barrier;
pub mod ceilings;
mod kv;
mod kv_codec;
pub mod matmul;
pub mod nd;
pub mod ops;
mod program;
mod seats;
mod shared;
mod step;
mod team;

pub use arena::{ALIGN, Arena, ArenaError, DimId, Elem, Element, Rows, Span};
pub use kv::{GROUP, KvError, KvStore, KvView};
pub use program::{LENT, Lent, Limits, Part, Profiler, Program, ProgramError, RunArgs, RunError};
pub use shared::SharedMut;
pub use step::{Access, Bound, Needs, Step, StepCtx, StepError};
pub use team::{Team, Worker};
