//! How much memory a model takes to run: weights, and keys and values for each token of context.

use std::collections::BTreeSet;

use kinglet_graph::ops::Linear;
use kinglet_graph::{Graph, ValueId};
use kinglet_kernels::matmul::PackPlan;
use kinglet_models::{DecoderConfig, DecoderOptions, build_decoder};
use kinglet_simd::Level;
use kinglet_tensor::{KvSpec, KvType, Tensor};

use crate::{Error, ModelFiles};

/// Positions of a key/value page.
pub(crate) const PAGE_TOKENS: usize = 64;

/// Memory that a model takes to run, besides some tens of megabytes for activations.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Footprint {
    /// Bytes of the matrices that are packed for products with 8-bit activations.
    pub packed: u64,
    /// Bytes of the tensors that are then still used where they lie in the mapped file.
    pub beside: u64,
    /// Bytes of all tensors, which f32 activations use where they lie.
    pub mapped: u64,
    kv: Option<KvSpec>,
}

impl Footprint {
    /// Of a decoder over these files, which is built to see that it can be.
    pub(crate) fn of(files: &ModelFiles, config: &DecoderConfig) -> Result<Self, Error> {
        let options = DecoderOptions {
            context: config.context,
            max_rows: 1,
            max_outputs: 1,
            kv_type: KvType::default(),
            page_tokens: PAGE_TOKENS,
        };
        let graph = build_decoder(config, files.weights(), &options)?;
        let mapped = files.tensors().iter().map(bytes).sum();
        let (mut packed, mut replaced) = (0, 0);
        for id in packable(&graph) {
            if let Some((tensor, plan)) = graph.weight(id).and_then(|tensor| Some((tensor, plan(tensor)?))) {
                packed += plan.bytes() as u64;
                // Of a table whose rows are looked up as well, those rows alone are read in the file after packing.
                replaced += bytes(tensor);
            }
        }
        Ok(Self { packed, beside: u64::saturating_sub(mapped, replaced), mapped, kv: graph.kv().cloned() })
    }

    /// Bytes of the keys and values of `tokens` tokens, which come in whole pages; `None` when the heads do not fill
    /// blocks of this type, or no memory is so large.
    pub fn kv_bytes(&self, kind: KvType, tokens: usize) -> Option<u64> {
        let page = KvSpec { kind, ..self.kv.clone()? }.page_bytes()?;
        (tokens.div_ceil(PAGE_TOKENS) as u64).checked_mul(page as u64)
    }

    /// Bytes in all with this type of keys and values, in the default precision.
    pub fn total(&self, kind: KvType, tokens: usize) -> Option<u64> {
        self.packed.checked_add(self.beside)?.checked_add(self.kv_bytes(kind, tokens)?)
    }
}

fn bytes(tensor: &Tensor) -> u64 {
    tensor.data().len() as u64
}

/// The matrices of products.
fn packable(graph: &Graph) -> BTreeSet<ValueId> {
    let products = graph.nodes().iter().filter_map(|node| Some((node, node.op.downcast::<Linear>()?)));
    products.flat_map(|(node, op)| (0..op.biased.len()).map(|i| node.inputs[op.inputs_of(i).0])).collect()
}

fn plan(tensor: &Tensor) -> Option<PackPlan> {
    let &[rows, cols] = tensor.shape() else { return None };
    PackPlan::new(Level::detect(), tensor.dtype(), rows, cols).ok()
}
