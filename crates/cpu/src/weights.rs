//! A graph's constants as kernels read them: matrices packed once, everything else where it lies.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kinglet_graph::ops::Linear;
use kinglet_graph::{ExecError, Graph, Node, ValueId};
use kinglet_kernels::matmul::{Matrix, PackPlan, PackedMatrix};
use kinglet_kernels::ops::Weight;
use kinglet_tensor::{AlignedBuf, Bytes, Tensor, quant};

use crate::CpuBackend;
use crate::bank::Bank;
use crate::pack_file::{self, Checked, PackFile};

/// The matrices of a graph, ready for products.
pub(crate) struct WeightBank {
    products: HashMap<ValueId, Weight>,
    packed_bytes: usize,
    mapped_bytes: usize,
}

impl WeightBank {
    /// Packs every matrix that a product uses and that has a packed form, or takes it from the backend's store. What a
    /// session's bank holds is shared, and what is packed anew goes there. With `bf16`, the others are packed later.
    pub(crate) fn prepare(
        graph: &Graph,
        backend: &CpuBackend,
        bank: Option<&Bank>,
        bf16: bool,
    ) -> Result<Self, ExecError> {
        let weights = product_weights(graph);
        let (mut packable, mut products, mut packed_bytes) = (Vec::new(), HashMap::new(), 0);
        for (id, tensor) in weights {
            let prepared = plan(tensor, backend).map_err(|reason| node(tensor, reason))?;
            match prepared {
                Prepared::Packable(plan) => match bank.and_then(|bank| bank.matrix(tensor, plan)) {
                    Some(matrix) => {
                        packed_bytes += matrix.data().len();
                        products.insert(id, Weight::Packed(matrix));
                    }
                    None => packable.push((id, tensor, plan)),
                },
                Prepared::Plain(matrix) => drop(products.insert(id, Weight::Plain(matrix))),
            }
        }
        packable.sort_by_key(|(id, tensor, _)| (std::cmp::Reverse(tensor.data().len()), *id));
        let plain = products.iter().filter(|(_, weight)| !bf16 && matches!(weight, Weight::Plain(_)));
        let mapped_bytes = plain.filter_map(|(id, _)| graph.weight(*id)).map(|t| t.data().len()).sum();
        let packed = pack_all(&packable, backend)?;
        packed_bytes += packed.iter().map(|matrix| matrix.data().len()).sum::<usize>();
        if let Some(bank) = bank {
            let new = packable.iter().zip(&packed);
            new.for_each(|((_, tensor, _), matrix)| bank.keep(tensor, matrix.clone()));
        }
        products.extend(packable.iter().map(|(id, ..)| *id).zip(packed.into_iter().map(Weight::Packed)));
        Ok(Self { products, packed_bytes, mapped_bytes })
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

/// What becomes of a matrix.
enum Prepared {
    Packable(PackPlan),
    Plain(Matrix),
}

fn plan(tensor: &Tensor, backend: &CpuBackend) -> Result<Prepared, String> {
    let &[rows, cols] = tensor.shape() else {
        return Err(format!("shape {:?} is not a matrix", tensor.shape()));
    };
    let (dtype, data) = (tensor.dtype(), tensor.data());
    if backend.precision.integers() && PackPlan::supports(dtype) {
        let plan = PackPlan::new(backend.level, dtype, rows, cols).map_err(|e| e.to_string())?;
        return Ok(Prepared::Packable(plan));
    }
    Matrix::new(dtype, rows, cols, data.clone()).map(Prepared::Plain).map_err(|e| e.to_string())
}

fn node(tensor: &Tensor, reason: impl std::fmt::Display) -> ExecError {
    ExecError::Node { node: tensor.name().into(), reason: reason.to_string() }
}

type Packable<'a> = (ValueId, &'a Tensor, PackPlan);

/// The packed form of every matrix, in order.
fn pack_all(matrices: &[Packable<'_>], backend: &CpuBackend) -> Result<Vec<PackedMatrix>, ExecError> {
    let Some(store) = backend.packs.as_ref().filter(|_| !matrices.is_empty()) else {
        return in_parallel(matrices, backend.threads, pack);
    };
    let described: Vec<_> = matrices.iter().map(|(_, tensor, plan)| (*tensor, *plan)).collect();
    let description = pack_file::describe(&described);
    if let Some(packed) =
        store.load(&description).and_then(|file| kept(&file, &description, matrices, backend))
    {
        matrices.iter().for_each(|(_, tensor, _)| release(tensor.data()));
        return Ok(packed);
    }
    let packed = in_parallel(matrices, backend.threads, pack)?;
    let data: Vec<_> = packed.iter().map(|matrix| matrix.data().clone()).collect();
    store.keep(&description, PackFile::new(description.clone(), data));
    Ok(packed)
}

/// Packs a matrix bit by bit, so that never much of it is in memory twice.
fn pack((_, tensor, plan): &Packable<'_>) -> Result<PackedMatrix, ExecError> {
    const AT_ONCE: usize = 4 << 20; // bytes
    let row_bytes = plan.dtype().bytes_for(plan.cols()).unwrap_or_default();
    let rows_of = |rows: Range<usize>| tensor.data().slice(rows.start * row_bytes..rows.end * row_bytes);
    let mut packed = AlignedBuf::try_new(plan.bytes()).map_err(|e| node(tensor, e))?;
    let tiles_at_once = (AT_ONCE / plan.tile_bytes().max(1)).max(1);
    let mut first = 0;
    for out in packed.chunks_mut(tiles_at_once * plan.tile_bytes()) {
        let tiles = first..first + out.len() / plan.tile_bytes();
        let rows = tiles.start * plan.tile_rows()..(tiles.end * plan.tile_rows()).min(plan.rows());
        let source = rows_of(rows.clone());
        plan.pack_tiles(tiles.clone(), out, |row| &source[(row - rows.start) * row_bytes..][..row_bytes]);
        release(&source);
        first = tiles.end;
    }
    Ok(PackedMatrix::from_buffer(*plan, packed))
}

/// The matrices of a kept file. None when it is not the file of these, or damaged.
fn kept(
    file: &Bytes,
    description: &[u8],
    matrices: &[Packable<'_>],
    backend: &CpuBackend,
) -> Option<Vec<PackedMatrix>> {
    let sizes: Vec<usize> = matrices.iter().map(|(_, _, plan)| plan.bytes()).collect();
    let found = pack_file::read(file, description, &sizes)?;
    let entries: Vec<_> = found.into_iter().zip(matrices).collect();
    let take = |((data, sum), (_, tensor, plan)): &(Checked, &Packable<'_>)| {
        if pack_file::check(data) != *sum {
            return Err(node(tensor, "damaged"));
        }
        PackedMatrix::from_bytes(*plan, data.clone()).map_err(|e| node(tensor, e))
    };
    in_parallel(&entries, backend.threads, take).ok()
}

/// The file's pages are not needed beside the packed copy.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn release(bytes: &[u8]) {
    kinglet_tensor::release_pages(bytes);
}

#[cfg(target_family = "wasm")]
pub(crate) fn release(_: &[u8]) {}

/// `f` of every item, in their order, on up to `threads` threads; the first error, if any.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    f: impl Fn(&T) -> Result<R, ExecError> + Sync,
) -> Result<Vec<R>, ExecError> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(items.len())));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return };
            let result = f(item);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
        }
    };
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(work)));
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}
