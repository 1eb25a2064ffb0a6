//! Vectors of pictures: the features of a vision model, or what a classifier's last product reads.

use std::path::Path;

use kinglet_graph::ops::{
    Binary, Cast, Conv, Flatten, Fun2, Gemm, Identity, MatMul, Reshape, Softmax, Squeeze,
};
use kinglet_graph::{Def, Graph, Node, ValueId, passes};
use kinglet_models::image::{Array, Picture};
use kinglet_models::task::{labels, normalise};

use super::files::GraphFiles;
use super::model::{GraphModel, floats};
use crate::{Error, LoadOptions};

/// Nodes between the last product of a classifier and its output, at most.
const MOST_BETWEEN: usize = 8;

/// Makes vectors of pictures.
pub struct PictureEmbedder(GraphModel);

impl PictureEmbedder {
    /// Opens a model of pictures. Of a classifier (one output with a score for each of classes that have names), the vector
    /// is what its last product reads; of any other model, its output.
    pub fn open(path: &Path, options: &LoadOptions) -> Result<Self, Error> {
        let mut files = GraphFiles::open(path)?;
        if let Some(features) = classifier_input(&files) {
            let graph = std::mem::take(&mut files.graph).ending_in(features);
            files.graph = passes::prune(&graph).map_err(Error::passes)?;
            files.outputs.truncate(1);
        }
        Ok(Self(GraphModel::new(files, options)?))
    }

    /// The vector of a picture, of length one. Maps of features are averaged over their places, sequences over their tokens.
    pub fn embed(&mut self, picture: &Picture) -> Result<Vec<f32>, Error> {
        let names: Vec<String> = self.0.outputs().iter().map(|port| port.name.clone()).collect();
        let pooled = names.iter().position(|name| name.contains("pool") || name.contains("embed"));
        let (outputs, _) = self.0.see(picture)?;
        let features = outputs.get(pooled.unwrap_or(0)).and_then(floats).ok_or(Error::NoPicture)?;
        let mut vector = pool(&features).ok_or(Error::NoPicture)?;
        normalise(&mut vector);
        Ok(vector)
    }
}

/// One vector of `[1, D]`, `[1, D, H, W]` or `[1, T, D]`.
fn pool(features: &Array) -> Option<Vec<f32>> {
    let mean = |sum: f64, count: usize| (sum / count.max(1) as f64) as f32;
    match features.shape[..] {
        [1, _] => Some(features.data.clone()),
        [1, d, h, w] if d > 0 && h * w > 0 => {
            let planes = features.data.chunks_exact(h * w);
            Some(planes.map(|plane| mean(plane.iter().map(|x| f64::from(*x)).sum(), h * w)).collect())
        }
        [1, t, d] if t > 0 && d > 0 => {
            let column = |i: usize| features.data.iter().skip(i).step_by(d).map(|x| f64::from(*x)).sum();
            Some((0..d).map(|i| mean(column(i), t)).collect())
        }
        _ => None,
    }
}

/// What the last product of a classifier reads; none when the model is something else.
fn classifier_input(files: &GraphFiles) -> Option<ValueId> {
    let graph = &files.graph;
    let [output] = graph.outputs() else { return None };
    let classes = graph.tensor_type(*output)?.shape.iter().filter_map(|dim| dim.fixed()).max()?;
    let named = files.classes.as_ref().is_some_and(|names| names.len() == classes)
        || labels::name(1, classes) != labels::name(1, usize::MAX);
    let name = files.outputs.first().map(|(name, _)| name.to_lowercase()).unwrap_or_default();
    let scores = ["logit", "prob", "class", "softmax"].iter().any(|part| name.contains(part));
    let mut id = *output;
    for _ in 0..MOST_BETWEEN {
        let Def::Node(index, _) = graph.value(id).def else { return None };
        let node = &graph.nodes()[index];
        if is_product(graph, node) {
            return (named || scores).then_some(node.inputs[0]);
        }
        id = passed_on(graph, node)?;
    }
    None
}

/// A product of what the model computed by constant weights.
fn is_product(graph: &Graph, node: &Node) -> bool {
    let kind = node.op.downcast::<MatMul>().is_some()
        || node.op.downcast::<Gemm>().is_some()
        || node.op.downcast::<Conv>().is_some();
    kind && node.inputs.len() > 1 && graph.weight(node.inputs[0]).is_none()
}

/// The value that a node only shapes, shifts by constants or turns into shares.
fn passed_on(graph: &Graph, node: &Node) -> Option<ValueId> {
    let op = &*node.op;
    let shapes = op.downcast::<Identity>().is_some()
        || op.downcast::<Softmax>().is_some()
        || op.downcast::<Reshape>().is_some()
        || op.downcast::<Flatten>().is_some()
        || op.downcast::<Squeeze>().is_some()
        || op.downcast::<Cast>().is_some();
    if shapes {
        return node.inputs.first().copied();
    }
    let adds = op.downcast::<Binary>() == Some(&Binary(Fun2::Add));
    let &[a, b] = node.inputs.as_slice() else { return None };
    match (graph.weight(a), graph.weight(b)) {
        (None, Some(_)) if adds => Some(a),
        (Some(_), None) if adds => Some(b),
        _ => None,
    }
}
