//! The CPU backend against the f64 evaluator and against itself: every architecture, instruction set and precision, any
//! number of threads, any company in the batch.

use kinglet_cpu::{CpuBackend, Precision};
use kinglet_graph::{Backend, Executable, Graph};
use kinglet_simd::Level;
use kinglet_tensor::DType;
use kinglet_testkit::golden::{self, Reference};
use kinglet_testkit::reference;
use kinglet_testkit::runner::{Sequence, feed};

/// Relative to the root mean square of the logits: f32 arithmetic over a handful of layers.
const F32_BOUND: f64 = 2e-5;

/// Root mean square error relative to that of the logits: 8-bit activations, in models too small for errors to average.
const INT8_BOUND: f64 = 0.06;

fn backend(level: Level, threads: usize, precision: Precision) -> CpuBackend {
    CpuBackend { threads, level, precision, packs: None }
}

fn compile(graph: Graph, backend: &CpuBackend) -> Box<dyn Executable> {
    let mut executable = backend.compile(graph).unwrap_or_else(|e| panic!("{e}"));
    executable.reserve_pages(8).expect("a few small pages");
    executable
}

fn whole(executable: &mut dyn Executable, tokens: &[i32]) -> Vec<f32> {
    feed(executable, &mut [(&mut Sequence::on(&[0, 1, 2]), tokens)]).unwrap_or_else(|e| panic!("{e}"))
}

fn f64s(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

#[test]
fn every_architecture_gives_the_reference_on_every_instruction_set() {
    for decoder in golden::DECODERS {
        let expected = Reference::of(decoder);
        for level in Level::available() {
            let graph = golden::from_gguf(decoder).unwrap_or_else(|e| panic!("{decoder}: {e}"));
            let logits = whole(&mut *compile(graph, &backend(level, 2, Precision::F32)), &expected.tokens());
            let what = format!("{decoder} on {}", level.name());
            golden::assert_close(&what, &f64s(&logits), &expected.logits(), F32_BOUND);
        }
    }
}

#[test]
fn quantised_weights_are_within_the_error_of_8_bit_activations() {
    for decoder in ["llama", "qwen2", "phi3", "gemma2"] {
        let tokens = Reference::of(decoder).tokens();
        let rows: Vec<i32> = (0..tokens.len() as i32).collect();
        for dtype in
            [DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1, DType::Q8_0, DType::IQ4_NL, DType::MXFP4]
        {
            let graph = || golden::quantized(decoder, dtype);
            let expected = &reference::evaluate(&graph(), &[&tokens, &rows])["logits"].data;
            for level in Level::available() {
                let what = format!("{decoder} {dtype} on {}", level.name());
                let exact = whole(&mut *compile(graph(), &backend(level, 1, Precision::F32)), &tokens);
                golden::assert_close(&what, &f64s(&exact), expected, F32_BOUND);
                let int8 = whole(&mut *compile(graph(), &backend(level, 1, Precision::Int8)), &tokens);
                let error = golden::rms_error(&f64s(&int8), expected);
                println!("{what}: {error:.4}");
                assert!(error < INT8_BOUND, "{what}: relative error {error}");
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_threads_chunks_or_company() {
    for (decoder, precision) in
        [("llama", Precision::F32), ("llama", Precision::Int8), ("gemma2", Precision::Int8)]
    {
        let tokens = Reference::of(decoder).tokens();
        let graph = || golden::quantized(decoder, DType::Q4_1);
        let alone = whole(&mut *compile(graph(), &backend(Level::detect(), 1, precision)), &tokens);
        for threads in [1, 2, 3] {
            let mut executable = compile(graph(), &backend(Level::detect(), threads, precision));
            assert_eq!(whole(&mut *executable, &tokens), alone, "{decoder}, {threads} threads");
            check_chunks(&mut *executable, &tokens, &alone);
            check_company(&mut *executable, &tokens, &alone);
        }
    }
}

/// The tokens one by one, then in uneven chunks, over pages in any order.
fn check_chunks(executable: &mut dyn Executable, tokens: &[i32], alone: &[f32]) {
    for chunk in [1, 3, 7] {
        let mut seq = Sequence::on(&[5, 2, 7]);
        let parts = tokens.chunks(chunk).map(|part| feed(executable, &mut [(&mut seq, part)]).expect("runs"));
        assert_eq!(parts.flatten().collect::<Vec<_>>(), alone, "chunks of {chunk}");
    }
}

/// Prefill of one sequence beside decoding of two others, one of which shares the first one's prefix page.
fn check_company(executable: &mut dyn Executable, tokens: &[i32], alone: &[f32]) {
    let vocab = alone.len() / tokens.len();
    let (mut a, mut b) = (Sequence::on(&[0, 1]), Sequence::on(&[2, 3]));
    feed(executable, &mut [(&mut a, &tokens[..17]), (&mut b, &tokens[..4])]).expect("runs");
    executable.copy_page(1, 4).expect("reserved");
    let mut shared = Sequence { past: 17, pages: vec![0, 4] };
    let mut parts = [(&mut a, &tokens[17..18]), (&mut b, &tokens[4..15]), (&mut shared, &tokens[17..20])];
    let logits = feed(executable, &mut parts).expect("runs");
    let rows = [17].into_iter().chain(4..15).chain(17..20);
    let expected: Vec<f32> = rows.flat_map(|row| alone[row * vocab..][..vocab].to_vec()).collect();
    assert_eq!(logits, expected, "mixed batch");
}
