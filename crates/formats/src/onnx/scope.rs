//! Names to values while nested graphs are imported: a body that reads a value from around it gets it as an input.

use std::collections::HashMap;

use kinglet_graph::{BuildError, Def, GraphBuilder, ValueId};

/// One graph under construction.
#[derive(Default)]
pub(crate) struct Frame {
    pub(crate) builder: GraphBuilder,
    pub(crate) names: HashMap<String, ValueId>,
    /// What the body reads from around it, as values of the frame below, in the order of its additional inputs.
    pub(crate) captures: Vec<ValueId>,
}

/// The graphs from the outermost to the one being read.
#[derive(Default)]
pub(crate) struct Scopes(pub(crate) Vec<Frame>);

impl Scopes {
    pub(crate) fn top(&mut self) -> &mut Frame {
        if self.0.is_empty() {
            self.0.push(Frame::default());
        }
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    /// The value of this name in the innermost graph; none when nothing makes it.
    pub(crate) fn resolve(&mut self, name: &str) -> Result<Option<ValueId>, BuildError> {
        self.resolve_at(self.0.len().saturating_sub(1), name)
    }

    fn resolve_at(&mut self, depth: usize, name: &str) -> Result<Option<ValueId>, BuildError> {
        if let Some(id) = self.0[depth].names.get(name) {
            return Ok(Some(*id));
        }
        if depth == 0 {
            return Ok(None);
        }
        let Some(outer) = self.resolve_at(depth - 1, name)? else { return Ok(None) };
        let value = self.0[depth - 1].builder.graph().value(outer).clone();
        let frame = &mut self.0[depth];
        let local = frame.builder.fresh(name);
        let inner = match value.def {
            Def::Weight(tensor) => frame.builder.weight_as(&local, tensor)?,
            Def::Absent => frame.builder.absent(),
            _ => {
                frame.captures.push(outer);
                frame.builder.input(&local, value.ty.closed())?
            }
        };
        frame.names.insert(name.into(), inner);
        Ok(Some(inner))
    }
}
