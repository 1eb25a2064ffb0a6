//! Every architecture against Hugging Face Transformers: the graph that is built computes what the reference computes.

use kinglet_testkit::{golden, reference};

#[test]
fn gguf_graphs_evaluate_to_the_reference() {
    for decoder in golden::DECODERS {
        let graph =
            golden::from_gguf(decoder, &golden::options()).unwrap_or_else(|e| panic!("{decoder}: {e}"));
        let expected = golden::Reference::of(decoder);
        let tokens = expected.tokens();
        let rows: Vec<i32> = (0..tokens.len() as i32).collect();
        let values = reference::evaluate(&graph, &[&tokens, &rows]);
        for (layer, residual) in expected.residuals().iter().enumerate().skip(1) {
            golden::assert_close(
                decoder,
                &values[&format!("blk.{}.ffn_residual", layer - 1)].data,
                residual,
                2e-6,
            );
        }
        golden::assert_close(decoder, &values["logits"].data, &expected.logits(), 2e-6);
    }
}
