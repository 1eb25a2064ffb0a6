//! Networks inside layers: what their layers read and leave, and the graphs that they become.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kinglet_graph::{Def, Graph, Type, ValueId};

use super::making::Making;
use crate::coreml::CoreMlError;
use crate::coreml::network::Layer;

/// Names of truth values: the rest of a round is left out; the loop is left. No layer can have them.
pub(super) const LEFT: &str = "\0left";
pub(super) const BROKEN: &str = "\0broken";

/// A graph that layers become.
pub(super) struct Body {
    pub(super) making: Making,
    /// What its inputs behind its own ones are around it.
    pub(super) outer: Vec<ValueId>,
}

impl Body {
    /// A graph for these lists of layers, which leave `results`; its own inputs stand first.
    pub(super) fn new(
        around: &Making,
        results: &[String],
        lists: &[&[Layer]],
        own: &[(&str, Type)],
    ) -> Result<Self, CoreMlError> {
        let mut reads = Reads::default();
        lists.iter().for_each(|list| reads.count(list));
        let mut names: BTreeSet<&str> = reads.0.into_keys().collect();
        names.extend(results.iter().map(String::as_str));
        names.extend([LEFT, BROKEN]);
        let mut body = Self { making: Making::default(), outer: Vec::new() };
        for (name, ty) in own {
            body.input(name, ty.clone())?;
            names.remove(name);
        }
        for name in names {
            let Some(id) = around.find(name) else { continue };
            let value = around.builder.graph().value(id);
            if let Def::Weight(tensor) = &value.def {
                let inner = body.making.weight("constant", tensor.clone())?;
                body.making.bind(name, inner);
            } else {
                body.input(name, value.ty.clone().closed())?;
                body.outer.push(id);
            }
        }
        Ok(body)
    }

    fn input(&mut self, name: &str, ty: Type) -> Result<(), CoreMlError> {
        let fresh = self.making.builder.fresh(name.trim_start_matches('\0'));
        let id = self.making.builder.input(&fresh, ty)?;
        self.making.bind(name, id);
        Ok(())
    }

    /// What the layers left under this name.
    pub(super) fn result(&mut self, name: &str) -> Result<ValueId, CoreMlError> {
        match self.making.find(name) {
            Some(id) => Ok(id),
            None => nothing(&mut self.making),
        }
    }

    pub(super) fn finish(self, results: &[ValueId]) -> Arc<Graph> {
        Arc::new(self.making.finish(results).0)
    }
}

/// How often each name is read.
#[derive(Default)]
pub(super) struct Reads<'a>(HashMap<&'a str, usize>);

impl<'a> Reads<'a> {
    /// Adds those of layers, and of the networks inside them.
    pub(super) fn count(&mut self, list: &'a [Layer]) {
        for layer in list {
            layer.inputs.iter().for_each(|name| self.add(name));
            layer.bodies.iter().for_each(|body| self.count(body));
        }
    }

    /// Adds one.
    pub(super) fn add(&mut self, name: &'a str) {
        *self.0.entry(name).or_default() += 1;
    }

    pub(super) fn of(&self, name: &str) -> usize {
        self.0.get(name).copied().unwrap_or(0)
    }
}

/// Names that layers leave for those after them.
pub(super) fn written<'a>(list: &'a [Layer], names: &mut BTreeSet<&'a str>) {
    for layer in list {
        names.extend(layer.outputs.iter().map(String::as_str));
        match layer.kind {
            "loopBreak" => names.extend([LEFT, BROKEN]),
            "loopContinue" => names.extend([LEFT]),
            "loop" => {
                let mut inner = BTreeSet::new();
                layer.bodies.iter().for_each(|body| written(body, &mut inner));
                names.extend(inner.into_iter().filter(|name| *name != LEFT && *name != BROKEN));
            }
            _ => layer.bodies.iter().for_each(|body| written(body, names)),
        }
    }
}

/// What stands under a name that nothing has made yet.
pub(super) fn nothing(making: &mut Making) -> Result<ValueId, CoreMlError> {
    Ok(making.floats("nothing", &[0], &[])?)
}
