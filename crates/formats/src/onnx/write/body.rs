//! Bodies of control flow: graphs within nodes, which read what is around them by its name.

use std::sync::Arc;

use kinglet_graph::{Graph, Type, ValueId};

use super::node::{Ex, plain};
use super::{Frame, types};
use crate::onnx::proto;

impl Ex<'_, '_> {
    /// A body whose last inputs are the values called `around`; the others stay its inputs. It leaves its first `outputs`
    /// outputs.
    pub(super) fn body(
        &mut self,
        role: &str,
        body: &Arc<Graph>,
        around: &[String],
        outputs: usize,
    ) -> proto::Graph {
        let prefix = format!("{}{}/{role}/", self.frame.prefix, self.node.name);
        let mut frame = Frame { prefix, ..Frame::default() };
        let own = body.inputs().len().saturating_sub(around.len());
        let (own, captured) = body.inputs().split_at(own);
        for (id, name) in captured.iter().zip(around) {
            frame.names.insert(*id, name.clone());
        }
        let mut input = Vec::new();
        for id in own {
            let name = self.writer.fresh(&format!("{}{}", frame.prefix, body.value(*id).name));
            frame.names.insert(*id, name.clone());
            input.push(info(body, *id, name));
        }
        self.writer.body_nodes(body, &mut frame);
        let made: Vec<ValueId> = body.outputs().iter().copied().take(outputs).collect();
        let output = made.into_iter().map(|id| self.leave(body, &mut frame, id)).collect();
        proto::Graph { name: role.into(), node: frame.nodes, input, output, ..Default::default() }
    }

    /// An output of a body: always made in it, under a name of its own.
    fn leave(&mut self, body: &Graph, frame: &mut Frame, id: ValueId) -> proto::ValueInfo {
        let made = self.writer.name_of(body, frame, id);
        let name = self.writer.fresh(&format!("{}out", frame.prefix));
        let node = plain("Identity", &name, &[made], std::slice::from_ref(&name));
        self.writer.push(frame, node);
        // Whoever reads the model works out the shape; that of a branch that is never taken may be impossible.
        let open = |ty: Type| match ty {
            Type::Tensor(ty) => types::element(ty.dtype),
            other => types::message(body, &other),
        };
        proto::ValueInfo { name, r#type: open(body.value(id).ty.clone()) }
    }
}

fn info(body: &Graph, id: ValueId, name: String) -> proto::ValueInfo {
    proto::ValueInfo { name, r#type: types::message(body, &body.value(id).ty) }
}
