//! Every architecture against Hugging Face Transformers: the graph that is built computes what the reference computes.

use kinglet_graph::Graph;
use kinglet_models::ModelError;
use kinglet_testkit::{golden, reference};

/// Transformers computes rotary angles in f32 even in an f64 model; everything else is exact to f64.
const BOUND: f64 = 1e-5;

fn check(build: fn(&str) -> Result<Graph, ModelError>) {
    for decoder in golden::DECODERS {
        let graph = build(decoder).unwrap_or_else(|e| panic!("{decoder}: {e}"));
        let expected = golden::Reference::of(decoder);
        let tokens = expected.tokens();
        let rows: Vec<i32> = (0..tokens.len() as i32).collect();
        let values = reference::evaluate(&graph, &[&tokens, &rows]);
        for (layer, residual) in expected.residuals().iter().enumerate().skip(1) {
            let found = &values[&format!("blk.{}.ffn_residual", layer - 1)].data;
            golden::assert_close(&format!("{decoder}, block {}", layer - 1), found, residual, BOUND);
        }
        golden::assert_close(
            &format!("{decoder}, logits"),
            &values["logits"].data,
            &expected.logits(),
            BOUND,
        );
    }
}

#[test]
fn gguf_files_give_the_reference_layer_by_layer() {
    check(golden::from_gguf);
}

#[test]
fn hugging_face_folders_give_the_reference_layer_by_layer() {
    check(golden::from_hf);
}
