//! The intermediate representation: ops, shape inference, passes, memory planner, backend trait.
#![forbid(unsafe_code)]
