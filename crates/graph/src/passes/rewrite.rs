//! Rebuilding a graph node by node, so that every rewritten graph is type-checked like a fresh one.

use kinglet_tensor::Tensor;

use crate::{BuildError, Def, Graph, GraphBuilder, Node, ValueId};

/// A new graph under construction, and where the old graph's values went.
pub(crate) struct Rewrite<'a> {
    old: &'a Graph,
    new: GraphBuilder,
    map: Vec<Option<ValueId>>,
    temporaries: Vec<String>,
}

impl<'a> Rewrite<'a> {
    /// Starts with the old graph's dims, state and inputs; weights follow when they are first read.
    pub(crate) fn of(old: &'a Graph) -> Result<Self, BuildError> {
        let mut new = GraphBuilder::new();
        for dim in old.dims() {
            new.dim(&dim.name, dim.max);
        }
        if let Some(kv) = old.kv() {
            new.kv(kv.clone());
        }
        let mut map = vec![None; old.values().len()];
        for &id in old.inputs() {
            map[id.index()] = Some(new.input(&old.value(id).name, old.value(id).ty.clone())?);
        }
        Ok(Self { old, new, map, temporaries: Vec::new() })
    }

    /// Copies a node as it is.
    pub(crate) fn keep(&mut self, node: &Node) -> Result<(), BuildError> {
        self.put(node.op.clone(), &node.inputs, &node.outputs, node.note.clone())
    }

    /// A value that the old graph does not have, for [`put`](Self::put) to make.
    pub(crate) fn temporary(&mut self, name: &str) -> ValueId {
        self.map.push(None);
        let name = self.free(name);
        self.temporaries.push(name);
        ValueId(self.map.len() as u32 - 1)
    }

    /// A constant that the old graph does not have; an error when there is no tensor.
    pub(crate) fn constant(&mut self, name: &str, tensor: Option<Tensor>) -> Result<ValueId, BuildError> {
        let tensor = tensor.ok_or_else(|| BuildError::Node {
            node: name.into(),
            op: "constant".into(),
            reason: "shape and values differ in size".into(),
        })?;
        let name = self.free(name);
        let new = self.new.weight_as(&name, tensor)?;
        self.map.push(Some(new));
        self.temporaries.push(name);
        Ok(ValueId(self.map.len() as u32 - 1))
    }

    /// A value that stands for an argument that is not given.
    pub(crate) fn absent(&mut self) -> ValueId {
        self.map.push(Some(self.new.absent()));
        self.temporaries.push(String::new());
        ValueId(self.map.len() as u32 - 1)
    }

    /// Whoever reads `id` gets the value that `other` became, when it became one.
    pub(crate) fn alias(&mut self, id: ValueId, other: ValueId) {
        if id != other
            && let Ok(new) = self.mapped(other)
        {
            self.map[id.index()] = Some(new);
        }
    }

    /// A name that no value of either graph has: `stem`, or `stem` with a number.
    fn free(&self, stem: &str) -> String {
        let taken = |name: &str| {
            let values = self.old.values();
            self.temporaries.iter().any(|t| t == name) || values.iter().any(|v| v.name == name)
        };
        let numbered = (1..).map(|n| format!("{stem}.{n}"));
        std::iter::once(stem.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
    }

    /// Adds a node that reads and makes values of the old graph.
    pub(crate) fn put(
        &mut self,
        op: std::sync::Arc<dyn crate::Op>,
        inputs: &[ValueId],
        outputs: &[ValueId],
        note: String,
    ) -> Result<(), BuildError> {
        let inputs: Vec<ValueId> = inputs.iter().map(|v| self.mapped(*v)).collect::<Result<_, _>>()?;
        let names: Vec<String> = outputs.iter().map(|v| self.name(*v).to_owned()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let made = self.new.push(&names, op, &inputs, note)?;
        outputs.iter().zip(made).for_each(|(old, new)| self.map[old.index()] = Some(new));
        Ok(())
    }

    /// The new graph, with the old one's outputs.
    pub(crate) fn finish(mut self) -> Result<Graph, BuildError> {
        for &id in self.old.outputs() {
            let id = self.mapped(id)?;
            self.new.output(id);
        }
        Ok(self.new.finish())
    }

    fn name(&self, id: ValueId) -> &str {
        let old = self.old.values();
        old.get(id.index()).map_or_else(|| &self.temporaries[id.index() - old.len()], |value| &value.name)
    }

    fn mapped(&mut self, id: ValueId) -> Result<ValueId, BuildError> {
        if let Some(new) = self.map[id.index()] {
            return Ok(new);
        }
        let value = self.old.values().get(id.index()).ok_or(BuildError::UnknownValue(id.0))?;
        let new = match &value.def {
            Def::Weight(tensor) => self.new.weight_as(&value.name, tensor.clone())?,
            Def::Absent => self.new.absent(),
            Def::Input | Def::Node(..) => return Err(BuildError::UnknownValue(id.0)),
        };
        self.map[id.index()] = Some(new);
        Ok(new)
    }
}
