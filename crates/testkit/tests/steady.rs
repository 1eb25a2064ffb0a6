//! A decoding step asks for no memory: it does not call the allocator.

use std::alloc::System;

use kinglet_cpu::CpuBackend;
use kinglet_graph::{Backend, Call, CancelToken, Input};
use kinglet_tensor::SeqRows;
use kinglet_testkit::golden;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn a_decoding_step_allocates_nothing() {
    for decoder in golden::DECODERS {
        let graph = golden::from_gguf(decoder).unwrap_or_else(|e| panic!("{decoder}: {e}"));
        let mut executable = CpuBackend::new(2).compile(graph).unwrap_or_else(|e| panic!("{decoder}: {e}"));
        executable.reserve_pages(2).expect("two small pages");
        let (pages, cancel) = ([0, 1], CancelToken::default());
        let mut step = |past: usize| {
            let inputs = [Input::I32(&[1]), Input::I32(&[0])];
            let seqs = [SeqRows { start: 0, len: 1, past, pages: &pages }];
            let region = Region::new(ALLOCATOR);
            let call = Call { inputs: &inputs, seqs: &seqs, cancel: &cancel };
            executable.run(&call).unwrap_or_else(|e| panic!("{decoder}: {e}"));
            assert!(executable.output(0).is_ok(), "{decoder}");
            region.change().allocations + region.change().reallocations
        };
        // The first steps plan; the least of the others, as the system's own threads may start and end meanwhile.
        assert_eq!((0..12).map(&mut step).skip(2).min(), Some(0), "{decoder}");
    }
}
