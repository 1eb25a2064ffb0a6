//! Values that are parts or repetitions of others while a graph is lowered: steps that can read them in place; for other
//! readers a step copies them, once.

use std::collections::HashMap;

use kinglet_graph::{Def, ExecError, ValueId};
use kinglet_kernels::nd::{self, Axes};
use kinglet_tensor::DType;

use crate::blocked::rows_of;
use crate::lower::{BufferId, Lowering, Work};

/// Where the elements of a value of floats lie in another one's buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// The buffer.
    pub(crate) from: BufferId,
    /// Elements before the first.
    pub(crate) skip: usize,
    /// Elements between neighbours along each dimension of the value; 0 where it is repeated.
    pub(crate) strides: Vec<usize>,
}

/// The views made so far.
pub(crate) type Views = HashMap<ValueId, View>;

/// Row-major strides of these sizes.
pub(crate) fn dense(sizes: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; sizes.len()];
    for i in (1..sizes.len()).rev() {
        strides[i - 1] = strides[i] * sizes[i];
    }
    strides
}

impl Lowering<'_> {
    /// Dimensions of a value of floats, when they are known and none is zero.
    pub(crate) fn sizes(&self, id: ValueId) -> Option<Vec<usize>> {
        let ty = self.graph.value(id).ty.known().filter(|ty| ty.dtype == DType::F32)?;
        ty.dims().filter(|dims| dims.iter().all(|&n| n > 0))
    }

    /// Says that a value lies in another one's buffer.
    pub(crate) fn make_view(&mut self, id: ValueId, view: View) {
        self.views.insert(id, view);
    }

    /// Where the elements of a value lie: in its own buffer, or in the one that it is a view of. None for constants, and
    /// for values that are no floats of known sizes.
    pub(crate) fn place_of(&mut self, id: ValueId) -> Result<Option<View>, ExecError> {
        let Some(sizes) = self.sizes(id).filter(|_| self.graph.weight(id).is_none()) else { return Ok(None) };
        if let Some(view) = self.views.get(&id).filter(|_| self.plain(id).is_none()) {
            return Ok(Some(view.clone()));
        }
        let from = self.value(id)?;
        Ok(Some(View { from, skip: 0, strides: dense(&sizes) }))
    }

    /// Fills the buffer of a value, new, when the value is a view.
    pub(crate) fn unview(&mut self, id: ValueId, plain: BufferId) -> Result<(), ExecError> {
        let graph = self.graph;
        let (Some(view), Some(sizes)) = (self.views.get(&id).cloned(), self.sizes(id)) else { return Ok(()) };
        let Def::Node(node, _) = graph.value(id).def else { return Ok(()) };
        let apart = self.rows_apart(Some(view.from), sizes[0], view.strides[0], view.skip);
        self.step(&graph.nodes()[node], &[view.from], &[plain], Work::default(), move |s| {
            let axes = Axes::new(&s.shared(&sizes), [&view.strides]);
            nd::copy(&axes, view.skip, rows_of(s, view.from, 1), rows_of(s, plain, 1))
        })
        .parts = apart;
        Ok(())
    }
}
