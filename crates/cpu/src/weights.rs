//! A graph's constants as kernels read them: matrices packed once, everything else where it lies.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kinglet_graph::ops::Linear;
use kinglet_graph::{ExecError, Graph, Node, ValueId};
use kinglet_kernels::matmul::{Matrix, PackPlan, PackedMatrix};
use kinglet_kernels::ops::Weight;
use kinglet_simd::Level;
use kinglet_tensor::{Tensor, quant};

use crate::Precision;

/// The matrices of a graph, ready for products.
pub(crate) struct WeightBank {
    products: HashMap<ValueId, Weight>,
    packed_bytes: usize,
    mapped_bytes: usize,
}

impl WeightBank {
    /// Packs every matrix that a product uses and that has a packed form, on `threads` threads.
    pub(crate) fn prepare(
        graph: &Graph,
        level: Level,
        precision: Precision,
        threads: usize,
    ) -> Result<Self, ExecError> {
        let mut matrices: Vec<(ValueId, &Tensor)> = product_weights(graph);
        matrices.sort_by_key(|(id, tensor)| (std::cmp::Reverse(tensor.data().len()), *id));
        let make = |tensor: &Tensor| prepare_one(tensor, level, precision);
        let products = in_parallel(&matrices, threads, |(id, tensor)| {
            let product =
                make(tensor).map_err(|reason| ExecError::Node { node: tensor.name().into(), reason })?;
            Ok((*id, product))
        })?;
        let bytes = |packed: bool| {
            let sizes = products.iter().map(|(id, product)| match product {
                Weight::Packed(matrix) if packed => matrix.data().len(),
                Weight::Plain(_) if !packed => graph.weight(*id).map_or(0, |t| t.data().len()),
                _ => 0,
            });
            sizes.sum()
        };
        let (packed_bytes, mapped_bytes) = (bytes(true), bytes(false));
        Ok(Self { products: products.into_iter().collect(), packed_bytes, mapped_bytes })
    }

    /// The matrix of a product.
    pub(crate) fn product(&self, graph: &Graph, id: ValueId) -> Result<&Weight, ExecError> {
        self.products.get(&id).ok_or_else(|| ExecError::Node {
            node: graph.value(id).name.clone(),
            reason: "the weight of a product must be a constant matrix".into(),
        })
    }

    /// A constant vector as f32: norm factors and biases.
    pub(crate) fn vector(graph: &Graph, node: &Node, id: ValueId) -> Result<Arc<[f32]>, ExecError> {
        let fail = |reason: String| ExecError::Node { node: node.name.clone(), reason };
        let tensor = graph.weight(id).ok_or_else(|| fail("takes a constant vector".into()))?;
        let mut values = vec![0.0; tensor.elements()];
        quant::dequantize(tensor.dtype(), tensor.data(), &mut values).map_err(|e| fail(e.to_string()))?;
        Ok(values.into())
    }

    /// Bytes of packed copies.
    pub(crate) fn packed_bytes(&self) -> usize {
        self.packed_bytes
    }

    /// Bytes of matrices used where they lie.
    pub(crate) fn mapped_bytes(&self) -> usize {
        self.mapped_bytes
    }
}

/// Each matrix that some product uses, once.
fn product_weights(graph: &Graph) -> Vec<(ValueId, &Tensor)> {
    let mut seen = std::collections::HashSet::new();
    let linear = graph.nodes().iter().filter_map(|node| Some((node, node.op.downcast::<Linear>()?)));
    let weights = linear.flat_map(|(node, op)| (0..op.biased.len()).map(|i| node.inputs[op.inputs_of(i).0]));
    weights.filter(|id| seen.insert(*id)).filter_map(|id| Some((id, graph.weight(id)?))).collect()
}

fn prepare_one(tensor: &Tensor, level: Level, precision: Precision) -> Result<Weight, String> {
    let &[rows, cols] = tensor.shape() else {
        return Err(format!("shape {:?} is not a matrix", tensor.shape()));
    };
    let (dtype, data) = (tensor.dtype(), tensor.data());
    if precision == Precision::Int8 && PackPlan::supports(dtype) {
        let packed = PackedMatrix::pack(level, dtype, rows, cols, data).map_err(|e| e.to_string())?;
        release(tensor);
        return Ok(Weight::Packed(packed));
    }
    let matrix = Matrix::new(dtype, rows, cols, data.clone()).map_err(|e| e.to_string())?;
    Ok(Weight::Plain(matrix))
}

/// The file's pages are not needed beside the packed copy.
#[cfg(not(target_family = "wasm"))]
fn release(tensor: &Tensor) {
    kinglet_tensor::release_pages(tensor.data());
}

#[cfg(target_family = "wasm")]
fn release(_: &Tensor) {}

/// `f` of every item, on up to `threads` threads; the first error, if any. Results come in no particular order.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    f: impl Fn(&T) -> Result<R, ExecError> + Sync,
) -> Result<Vec<R>, ExecError> {
    if threads <= 1 {
        return items.iter().map(f).collect();
    }
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(items.len())));
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = f(item);
            done.lock().unwrap_or_else(PoisonError::into_inner).push(result);
        }
    };
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(work)));
        work();
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
}
