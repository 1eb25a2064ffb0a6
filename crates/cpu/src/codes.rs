//! Codes while a graph is lowered: values of eight bits as kernels read them, unsigned and, when they are images, in channel
//! blocks; conversions where a reader wants them as they are; functions of a code that nobody has computed yet.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kinglet_graph::ops::{Coded, Conv, Pool, Reduce};
use kinglet_graph::{Def, ExecError, Graph, Node, Op, ValueId};
use kinglet_kernels::nd::codes::{Scales, translate};
use kinglet_kernels::nd::{Layout, relayout};
use kinglet_tensor::DType;

use crate::blocked::{Image, rows_of};
use crate::lanes::ANY;
use crate::lower::{BufferId, Lowering, Work};

/// What stands for each code.
pub(crate) type Table = Arc<[u8; 256]>;

/// What is known of codes while lowering.
#[derive(Default)]
pub(crate) struct Codes {
    made: HashMap<ValueId, BufferId>,
    /// Values that are a function of another one's codes.
    tables: HashMap<ValueId, (ValueId, Table)>,
    /// Values that windows slide over, and what is computed of them element by element: these lie in blocks.
    images: Option<HashSet<ValueId>>,
    /// Values of floats as codes that steps made of them.
    rounded: HashMap<(ValueId, Scales), Rounded>,
}

/// The codes of numbers, in blocks, and what they stand for.
#[derive(Clone, Copy)]
pub(crate) struct Rounded {
    pub(crate) codes: BufferId,
    /// Pairs of scale and zero.
    pub(crate) pairs: BufferId,
}

impl Codes {
    /// The codes of a value of floats, when it has been rounded.
    pub(crate) fn rounded(&self, id: ValueId, scales: Scales) -> Option<Rounded> {
        self.rounded.get(&(id, scales)).copied()
    }

    /// Says that a value of floats has been rounded.
    pub(crate) fn set_rounded(&mut self, id: ValueId, scales: Scales, made: Rounded) {
        self.rounded.insert((id, scales), made);
    }
}

/// Values that nodes with windows read or make, and those that element by element work makes of them or they of it.
fn images(graph: &Graph) -> HashSet<ValueId> {
    let slides = |op: &dyn Op| op.downcast::<Conv>().is_some() || op.downcast::<Pool>().is_some();
    let window = |node: &Node| match node.op.downcast::<Coded>() {
        Some(coded) => {
            coded.links.iter().any(|link| slides(&*link.op) || link.op.downcast::<Reduce>().is_some())
        }
        None => slides(&*node.op),
    };
    let spreads = |node: &Node| {
        let plain = |op: &dyn Op| {
            matches!(op.name(), "Binary" | "Unary" | "Clip" | "Quantize" | "Dequantize" | "Concat")
        };
        match node.op.downcast::<Coded>() {
            Some(coded) => coded.links.iter().all(|link| plain(&*link.op)),
            None => plain(&*node.op),
        }
    };
    let four = |id: &&ValueId| {
        graph.tensor_type(**id).is_some_and(|ty| ty.rank() == 4) && graph.weight(**id).is_none()
    };
    let values = |node: &Node| -> Vec<ValueId> {
        node.inputs.iter().chain(&node.outputs).filter(four).copied().collect()
    };
    let mut found: HashSet<ValueId> =
        graph.nodes().iter().filter(|node| window(node)).flat_map(values).collect();
    loop {
        let before = found.len();
        for node in graph.nodes().iter().filter(|node| spreads(node)) {
            let values = values(node);
            if values.iter().any(|id| found.contains(id)) {
                found.extend(values);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// Signed codes as unsigned ones, and back.
fn flip() -> Table {
    Arc::new(std::array::from_fn(|code| code as u8 ^ 0x80))
}

impl Lowering<'_> {
    /// Dimensions of a value of codes, when they are known and none is zero.
    pub(crate) fn code_sizes(&self, id: ValueId) -> Option<Vec<usize>> {
        let ty = self.graph.value(id).ty.known().filter(|ty| matches!(ty.dtype, DType::U8 | DType::I8))?;
        ty.dims().filter(|dims| dims.iter().all(|&n| n > 0))
    }

    /// The images of a value of codes that lies in blocks.
    pub(crate) fn code_image(&mut self, id: ValueId) -> Option<Image> {
        let image = Image::of_codes(self.graph, id)?;
        let images = self.codes.images.get_or_insert_with(|| images(self.graph));
        images.contains(&id).then_some(image)
    }

    fn is_signed(&self, id: ValueId) -> bool {
        self.graph.tensor_type(id).is_some_and(|ty| ty.dtype == DType::I8)
    }

    /// Whether a value has been made by now, as codes or as a function of some.
    pub(crate) fn is_coded(&self, id: ValueId) -> bool {
        self.codes.made.contains_key(&id) || self.codes.tables.contains_key(&id) || self.plain(id).is_some()
    }

    /// The value of whose codes this one is a function, and which: itself, when it has been made.
    pub(crate) fn root(&self, id: ValueId) -> (ValueId, Option<Table>) {
        match self.codes.tables.get(&id) {
            Some((root, table)) if !self.codes.made.contains_key(&id) => (*root, Some(table.clone())),
            _ => (id, None),
        }
    }

    /// Says that a value is a function of another one's codes; a step computes it when it is read.
    pub(crate) fn make_table(&mut self, id: ValueId, root: ValueId, table: Table) {
        self.codes.tables.insert(id, (root, table));
    }

    /// Says that a value's codes are in a buffer.
    pub(crate) fn set_codes(&mut self, id: ValueId, buffer: BufferId) {
        self.codes.made.insert(id, buffer);
    }

    /// The codes of a value that has been made; steps make them of what there is.
    pub(crate) fn codes(&mut self, node: &Node, id: ValueId) -> Result<BufferId, ExecError> {
        if let Some(buffer) = self.codes.made.get(&id) {
            return Ok(*buffer);
        }
        if let Some((root, table)) = self.codes.tables.get(&id).cloned() {
            let from = self.codes(node, root)?;
            let to = self.make_codes(id)?;
            self.translated(node, [from, to], table);
            return Ok(to);
        }
        let plain = self.value(id)?;
        // What is unsigned and no image needs no other form.
        if let Some(buffer) = self.codes.made.get(&id) {
            return Ok(*buffer);
        }
        let mut codes = plain;
        if let Some(image) = self.code_image(id) {
            codes = self.bytes(image.images, image.floats(Layout::Blocked));
            self.carry_codes(node, image, [plain, codes], [Layout::Planar, Layout::Blocked]);
        }
        if self.is_signed(id) {
            let signed = codes;
            codes = self.code_buffer(id)?;
            self.translated(node, [signed, codes], flip());
        }
        self.set_codes(id, codes);
        Ok(codes)
    }

    /// The codes of a value in the order of its elements.
    pub(crate) fn codes_in_order(&mut self, node: &Node, id: ValueId) -> Result<BufferId, ExecError> {
        if self.code_image(id).is_none() {
            return self.codes(node, id);
        }
        let plain = self.value(id)?;
        if !self.is_signed(id) {
            return Ok(plain);
        }
        let len = self.code_sizes(id).map_or(0, |sizes| sizes.iter().product());
        let codes = self.bytes(1, len);
        self.translated(node, [plain, codes], flip());
        Ok(codes)
    }

    /// Room for the codes of a value that the next step makes.
    pub(crate) fn make_codes(&mut self, id: ValueId) -> Result<BufferId, ExecError> {
        let image = self.code_image(id).is_some();
        // Tables are asked no more once the codes are there.
        self.codes.tables.remove(&id);
        let buffer = if image || self.is_signed(id) { self.code_buffer(id)? } else { self.value(id)? };
        self.set_codes(id, buffer);
        Ok(buffer)
    }

    fn code_buffer(&mut self, id: ValueId) -> Result<BufferId, ExecError> {
        let (rows, cols) = match self.code_image(id) {
            Some(image) => (image.images, image.floats(Layout::Blocked)),
            None => (1, self.code_sizes(id).map_or(0, |sizes| sizes.iter().product())),
        };
        Ok(self.bytes(rows, cols))
    }

    /// Fills the plain form of a value, new, when its codes are there, or those that it is a function of.
    pub(crate) fn plain_numbers(&mut self, id: ValueId, plain: BufferId) -> Result<(), ExecError> {
        let graph = self.graph;
        let Def::Node(node, _) = graph.value(id).def else { return Ok(()) };
        let node = &graph.nodes()[node];
        let (image, signed) = (self.code_image(id), self.is_signed(id));
        if image.is_none() && !signed {
            if let Some((root, table)) = self.codes.tables.remove(&id) {
                let from = self.codes(node, root)?;
                self.translated(node, [from, plain], table);
                self.set_codes(id, plain);
            }
            return Ok(());
        }
        if !self.codes.made.contains_key(&id) && !self.codes.tables.contains_key(&id) {
            return Ok(());
        }
        let mut from = self.codes(node, id)?;
        if signed {
            let buffer = if image.is_some() { self.code_buffer(id)? } else { plain };
            self.translated(node, [from, buffer], flip());
            from = buffer;
        }
        if let Some(image) = image {
            self.carry_codes(node, image, [from, plain], [Layout::Blocked, Layout::Planar]);
        }
        Ok(())
    }

    fn translated(&mut self, node: &Node, [from, to]: [BufferId; 2], table: Table) {
        self.step(node, &[from], &[to], Work::default(), move |s| {
            translate(rows_of(s, from, 1), rows_of(s, to, 1), table.clone())
        })
        .parts = ANY;
    }

    /// Copies images of codes from one layout into another.
    pub(crate) fn carry_codes(
        &mut self,
        node: &Node,
        image: Image,
        [from, to]: [BufferId; 2],
        layouts: [Layout; 2],
    ) {
        let Image { images, channels, .. } = image;
        self.step(node, &[from], &[to], Work::default(), move |s| {
            let (x, out) = (rows_of(s, from, images), rows_of(s, to, images));
            relayout(x, out, channels, image.pixels(), layouts[0], layouts[1])
        })
        .parts = images;
    }
}
