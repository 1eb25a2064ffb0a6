//! A graph under construction, by the names of the model.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kinglet_graph::ops::{Aspect, Coordinates, Resize, ResizeMode, int_tensor};
use kinglet_graph::{BuildError, Graph, GraphBuilder, Op, Type, ValueId};
use kinglet_tensor::{DType, Tensor};

/// What importers add to.
#[derive(Default)]
pub(super) struct Making {
    pub(super) builder: GraphBuilder,
    names: HashMap<String, ValueId>,
    pub(super) notes: Vec<String>,
    /// Names of classes, where an operation tells them.
    pub(super) classes: Option<Vec<String>>,
    /// Outputs that are texts, which no graph makes.
    pub(super) texts: Vec<String>,
    /// What stands before the names of all values: the stage of a pipeline.
    pub(super) prefix: String,
    /// Inputs of the graph by name.
    inputs: HashMap<String, ValueId>,
    /// Names that are kept for what is made last under them.
    pub(super) kept: HashSet<String>,
}

impl Making {
    /// The names of the values so far, which are gone then.
    pub(super) fn take_names(&mut self) -> HashMap<String, ValueId> {
        std::mem::take(&mut self.names)
    }

    /// What a stage reads under this name: what a stage before made, or an input of the graph.
    pub(super) fn input(&mut self, name: &str, ty: impl Into<Type>) -> Result<ValueId, BuildError> {
        if let Some(id) = self.find(name).or_else(|| self.inputs.get(name).copied()) {
            return Ok(id);
        }
        let id = self.builder.input(name, ty)?;
        self.inputs.insert(name.into(), id);
        Ok(id)
    }

    /// A name for a value that no other has.
    fn fresh(&mut self, stem: &str) -> String {
        if self.kept.contains(stem) {
            self.builder.fresh(&format!("{}{stem}.first", self.prefix))
        } else if self.prefix.is_empty() {
            self.builder.fresh(stem)
        } else {
            self.builder.fresh(&format!("{}{stem}", self.prefix))
        }
    }

    /// The value of this name, when something made it.
    pub(super) fn find(&self, name: &str) -> Option<ValueId> {
        self.names.get(name).copied()
    }

    /// Gives a value its name; later layers of the same name hide earlier ones.
    pub(super) fn bind(&mut self, name: &str, id: ValueId) {
        self.names.insert(name.into(), id);
    }

    /// An op with one output under a name like `stem`.
    pub(super) fn op(&mut self, stem: &str, op: impl Op, inputs: &[ValueId]) -> Result<ValueId, BuildError> {
        let name = self.fresh(stem);
        self.builder.node(&name, op, inputs)
    }

    /// An op with several outputs.
    pub(super) fn ops(
        &mut self,
        stems: &[String],
        op: impl Op,
        inputs: &[ValueId],
    ) -> Result<Vec<ValueId>, BuildError> {
        if stems.is_empty() {
            let (node, op) = (String::new(), op.name().into());
            return Err(BuildError::Node { node, op, reason: "it makes nothing".into() });
        }
        let names: Vec<String> = stems.iter().map(|stem| self.fresh(stem)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.builder.push(&names, Arc::new(op), inputs, String::new())
    }

    /// A constant of f32.
    pub(super) fn floats(
        &mut self,
        stem: &str,
        shape: &[usize],
        values: &[f32],
    ) -> Result<ValueId, BuildError> {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let tensor = Tensor::new(stem, DType::F32, shape.to_vec(), bytes.into());
        let wrong = |e: kinglet_tensor::TensorError| BuildError::Node {
            node: stem.into(),
            op: "constant".into(),
            reason: e.to_string(),
        };
        self.weight(stem, tensor.map_err(wrong)?)
    }

    /// A constant vector of I64.
    pub(super) fn ints(&mut self, stem: &str, values: &[i64]) -> Result<ValueId, BuildError> {
        let wrong = || BuildError::Node {
            node: stem.into(),
            op: "constant".into(),
            reason: "impossible integers".into(),
        };
        let tensor = int_tensor(vec![values.len()], values).ok_or_else(wrong)?;
        self.weight(stem, tensor)
    }

    /// A constant.
    pub(super) fn weight(&mut self, stem: &str, tensor: Tensor) -> Result<ValueId, BuildError> {
        let name = self.fresh(stem);
        self.builder.weight_as(&name, tensor)
    }

    /// Number of dimensions of a value, when it is known.
    pub(super) fn rank(&self, id: ValueId) -> Option<usize> {
        match self.builder.ty(id) {
            Type::Tensor(ty) => Some(ty.rank()),
            _ => None,
        }
    }

    /// Sizes of a value, when they are known.
    pub(super) fn dims(&self, id: ValueId) -> Option<Vec<usize>> {
        self.builder.ty(id).tensor()?.dims()
    }

    /// The graph with these outputs.
    pub(super) fn finish(mut self, outputs: &[ValueId]) -> (Graph, Vec<String>) {
        outputs.iter().for_each(|id| self.builder.output(*id));
        (self.builder.finish(), self.notes)
    }
}

/// Resizes rows and columns, the last two dimensions.
pub(super) fn rescale(mode: ResizeMode, coordinates: Coordinates) -> Resize {
    Resize {
        mode,
        coordinates,
        axes: vec![-2, -1],
        aspect: Aspect::Stretch,
        exclude_outside: false,
        outside: 0.0,
        antialias: false,
    }
}
