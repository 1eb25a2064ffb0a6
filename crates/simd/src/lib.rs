//! SIMD instruction sets as proof tokens, with one run-time dispatch table.
