//! Images in channel blocks while a graph is lowered: which values are there in that form, conversions where a reader
//! wants the other one, and nodes that the step of an earlier node computes with it.

use std::collections::{HashMap, HashSet};

use kinglet_graph::{Def, ExecError, Graph, Node, ValueId};
use kinglet_kernels::nd::{Layout, relayout};
use kinglet_kernels::{Rows, Span};
use kinglet_tensor::DType;

use crate::lower::{BufferId, Lowering, Spans, Work};

/// What is known of images while lowering.
#[derive(Default)]
pub(crate) struct Images {
    blocked: HashMap<ValueId, BufferId>,
    /// Those that are there in blocks of bfloat16.
    halves: HashMap<ValueId, BufferId>,
    /// Whether all readers of a value take it in bfloat16, where that was asked.
    takes_halves: HashMap<ValueId, bool>,
    done: HashSet<usize>,
    readers: Vec<Vec<usize>>,
}

impl Images {
    /// Whether a node has been computed by the step of another.
    pub(crate) fn is_done(&self, node: usize) -> bool {
        self.done.contains(&node)
    }
}

/// Images of a value `[N, C, H, W]`; those of `[N, C, L]` have one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) images: usize,
    pub(crate) channels: usize,
    pub(crate) size: [usize; 2],
}

impl Image {
    /// Those of a value of floats with three or four known dimensions, none of them zero.
    pub(crate) fn of(graph: &Graph, id: ValueId) -> Option<Self> {
        Self::of_type(graph, id, &[DType::F32])
    }

    /// Those of a value of codes, of four dimensions.
    pub(crate) fn of_codes(graph: &Graph, id: ValueId) -> Option<Self> {
        let four = graph.tensor_type(id).is_some_and(|ty| ty.rank() == 4);
        four.then(|| Self::of_type(graph, id, &[DType::U8, DType::I8]))?
    }

    fn of_type(graph: &Graph, id: ValueId, types: &[DType]) -> Option<Self> {
        let ty = graph.value(id).ty.known().filter(|ty| types.contains(&ty.dtype))?;
        let [n, c, h, w] = match *ty.dims()? {
            [n, c, h, w] => [n, c, h, w],
            [n, c, length] => [n, c, 1, length],
            _ => return None,
        };
        let all = n > 0 && c > 0 && h > 0 && w > 0;
        all.then_some(Self { images: n, channels: c, size: [h, w] })
    }

    pub(crate) fn pixels(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// Floats of one image in a layout.
    pub(crate) fn floats(&self, layout: Layout) -> usize {
        layout.floats(self.channels, self.pixels()).unwrap_or(usize::MAX)
    }
}

/// A buffer of fixed size as `rows` rows; a part of it has its share of them, and one row stays one.
pub(crate) fn rows_of(spans: &Spans, buffer: BufferId, rows: usize) -> Span {
    let (span, rows) = (spans[buffer], spans.share(rows));
    let len = span.len(&[]).unwrap_or(0);
    Span { rows: Rows::Fixed(rows), cols: len.checked_div(rows).unwrap_or(0), ..span }
}

impl Lowering<'_> {
    /// Whether a value is there in channel blocks, of floats or bfloat16.
    pub(crate) fn is_blocked(&self, id: ValueId) -> bool {
        self.images.blocked.contains_key(&id) || self.is_halves(id)
    }

    /// Whether a value is there in blocks of bfloat16.
    pub(crate) fn is_halves(&self, id: ValueId) -> bool {
        self.images.halves.contains_key(&id)
    }

    /// Whether all readers of a value take it in bfloat16, when that is known.
    pub(crate) fn known_halves(&self, id: ValueId) -> Option<bool> {
        self.images.takes_halves.get(&id).copied()
    }

    /// Remembers the answer.
    pub(crate) fn know_halves(&mut self, id: ValueId, all: bool) {
        self.images.takes_halves.insert(id, all);
    }

    /// Whether a value has been made by now, in any form.
    pub(crate) fn is_made(&self, id: ValueId) -> bool {
        self.is_blocked(id) || self.plain(id).is_some()
    }

    /// The blocked form of a value that has been made; a step carries it over when it has only the plain one.
    pub(crate) fn blocked(&mut self, node: &Node, id: ValueId, image: Image) -> Result<BufferId, ExecError> {
        if let Some(buffer) = self.images.blocked.get(&id) {
            return Ok(*buffer);
        }
        let (from, lies) = match self.images.halves.get(&id) {
            Some(halves) => (*halves, Layout::Halves),
            None => (self.value(id)?, Layout::Planar),
        };
        let blocked = self.make_blocked(id, image);
        self.carry(node, image, [from, blocked], [lies, Layout::Blocked]);
        Ok(blocked)
    }

    /// The form of a value that has been made in which images lie as `layout` says, carried over like [`blocked`](Self::blocked).
    pub(crate) fn lying(
        &mut self,
        node: &Node,
        id: ValueId,
        image: Image,
        layout: Layout,
    ) -> Result<BufferId, ExecError> {
        match (layout, self.images.halves.get(&id)) {
            (Layout::Blocked, _) => self.blocked(node, id, image),
            (Layout::Halves, Some(halves)) => Ok(*halves),
            (Layout::Halves, None) => {
                let blocked = self.blocked(node, id, image)?;
                let halves = self.make_lying(id, image, Layout::Halves);
                self.carry(node, image, [blocked, halves], [Layout::Blocked, Layout::Halves]);
                Ok(halves)
            }
            _ => self.value(id),
        }
    }

    /// Room for the blocked form of a value that the next step makes.
    pub(crate) fn make_blocked(&mut self, id: ValueId, image: Image) -> BufferId {
        self.make_lying(id, image, Layout::Blocked)
    }

    /// The same in blocks of floats or of bfloat16.
    pub(crate) fn make_lying(&mut self, id: ValueId, image: Image, layout: Layout) -> BufferId {
        let buffer = self.floats(image.images, image.floats(layout));
        let forms = match layout {
            Layout::Halves => &mut self.images.halves,
            _ => &mut self.images.blocked,
        };
        forms.insert(id, buffer);
        buffer
    }

    /// Fills the plain form of a value, new, when it is there in blocks.
    pub(crate) fn unblock(&mut self, id: ValueId, plain: BufferId) -> Result<(), ExecError> {
        let graph = self.graph;
        let (true, Some(image)) = (self.is_blocked(id), Image::of(graph, id)) else { return Ok(()) };
        if let Def::Node(node, _) = graph.value(id).def {
            let node = &graph.nodes()[node];
            let blocked = self.blocked(node, id, image)?;
            self.carry(node, image, [blocked, plain], [Layout::Blocked, Layout::Planar]);
        }
        Ok(())
    }

    fn carry(&mut self, node: &Node, image: Image, [from, to]: [BufferId; 2], layouts: [Layout; 2]) {
        let Image { images, channels, .. } = image;
        self.step(node, &[from], &[to], Work::default(), move |s| {
            let (x, out) = (rows_of(s, from, images), rows_of(s, to, images));
            relayout(x, out, channels, image.pixels(), layouts[0], layouts[1])
        })
        .parts = images;
    }

    /// The only node that reads a value, with its index; none when there are several, or the value is a result.
    pub(crate) fn only_reader(&mut self, id: ValueId) -> Option<usize> {
        if self.images.readers.is_empty() {
            self.images.readers = self.graph.readers();
        }
        match self.images.readers.get(id.index())?.as_slice() {
            [reader] if !self.graph.outputs().contains(&id) => Some(*reader),
            _ => None,
        }
    }

    /// The nodes that read a value, each once.
    pub(crate) fn readers_of(&mut self, id: ValueId) -> Vec<usize> {
        if self.images.readers.is_empty() {
            self.images.readers = self.graph.readers();
        }
        let mut readers = self.images.readers.get(id.index()).cloned().unwrap_or_default();
        readers.dedup();
        readers
    }

    /// Whether nobody reads a value.
    pub(crate) fn unread(&mut self, id: ValueId) -> bool {
        if self.images.readers.is_empty() {
            self.images.readers = self.graph.readers();
        }
        let read = self.images.readers.get(id.index()).is_some_and(|readers| !readers.is_empty());
        !read && !self.graph.outputs().contains(&id)
    }

    /// Says that the step of another node computes this one.
    pub(crate) fn done(&mut self, node: usize) {
        self.images.done.insert(node);
    }
}

/// The values of a constant of floats.
pub(crate) fn constant(graph: &Graph, id: ValueId) -> Option<Vec<f32>> {
    let tensor = graph.weight(id).filter(|tensor| tensor.dtype() == DType::F32)?;
    Some(tensor.data().chunks_exact(4).map(bytemuck::pod_read_unaligned).collect())
}

/// The only value of a constant.
pub(crate) fn scalar(graph: &Graph, id: ValueId) -> Option<f32> {
    constant(graph, id).filter(|values| values.len() == 1).map(|values| values[0])
}
