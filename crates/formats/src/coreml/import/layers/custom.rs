//! Layers of classes that a user of the library registers.

use std::collections::HashMap;

use kinglet_graph::ValueId;

use super::Entry;
use crate::coreml::import::network::Cx;
use crate::coreml::{CoreMlError, Fields, Weights};
use crate::custom::{CustomNode, CustomOps, Parameters};

pub(super) const LAYERS: &[Entry] = &[("custom", custom)];

/// Inputs of the op are those of the layer, then its weights.
fn custom(cx: &mut Cx<'_>) -> Result<(), CoreMlError> {
    let given = Given::of(cx.params())?;
    let mut inputs = cx.inputs()?;
    let weights = cx.params().messages(20)?;
    for (i, fields) in weights.iter().enumerate() {
        inputs.push(constant(cx, i, fields)?);
    }
    let outputs = cx.layer.outputs.len();
    let node = CustomNode { parameters: &given, opset: 0, inputs: inputs.len(), outputs };
    let class = cx.layer.class();
    let op = cx.custom.make(CustomOps::CORE_ML, &class, &node);
    let op = op.map_err(|why| cx.fail(format!("class `{class}`: {why}")))?;
    cx.emit(op, &inputs)
}

/// Weights `i` as a constant vector.
fn constant(cx: &mut Cx<'_>, i: usize, fields: &Fields) -> Result<ValueId, CoreMlError> {
    let weights = Weights::of(&cx.layer.name, fields)?;
    let values = weights.floats(weights.len()).ok_or_else(|| cx.fail(format!("weights {i} are damaged")))?;
    Ok(cx.making.floats(&format!("{}.weights.{i}", cx.layer.name), &[values.len()], &values)?)
}

/// Parameters of a layer by name.
struct Given(HashMap<String, Value>);

enum Value {
    Float(f32),
    Int(i64),
    Text(String),
}

impl Given {
    fn of(params: &Fields) -> Result<Self, CoreMlError> {
        let mut values = HashMap::new();
        for entry in params.messages(30)? {
            let Some(value) = entry.message(2)? else { continue };
            let value = match value.tags().next() {
                Some(10) => Value::Float(value.double(10) as f32),
                Some(20) => Value::Text(value.texts(20).pop().unwrap_or_default()),
                Some(tag) => Value::Int(value.int(tag)),
                None => continue,
            };
            values.insert(entry.texts(1).pop().unwrap_or_default(), value);
        }
        Ok(Self(values))
    }
}

impl Parameters for Given {
    fn int(&self, name: &str) -> Option<i64> {
        if let Value::Int(n) = self.0.get(name)? { Some(*n) } else { None }
    }

    fn float(&self, name: &str) -> Option<f32> {
        if let Value::Float(x) = self.0.get(name)? { Some(*x) } else { None }
    }

    fn text(&self, name: &str) -> Option<&str> {
        if let Value::Text(text) = self.0.get(name)? { Some(text) } else { None }
    }

    /// Layers have no lists.
    fn ints(&self, _: &str) -> Option<&[i64]> {
        None
    }

    fn floats(&self, _: &str) -> Option<&[f32]> {
        None
    }
}
