//! Layers that pass a state from each position to the next.

use kinglet_graph::ops::{Cell, Fun, Recurrent};

use super::Entry;
use crate::onnx::write::attribute::{flag, float, floats, size, text, texts};
use crate::onnx::write::node::Ex;

pub(in crate::onnx) const OPS: &[Entry] = &[("Recurrent", recurrent)];

fn recurrent(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let op = ex.op::<Recurrent>()?;
    let direction = match op.backwards.as_slice() {
        [false] => "forward",
        [true] => "reverse",
        [false, true] => "bidirectional",
        other => return Err(format!("with directions {other:?}")),
    };
    let hidden = ex.ty(2).and_then(|ty| ty.shape.get(2)?.fixed()).ok_or("whose state has no known size")?;
    let mut attributes = functions(&op.functions)?;
    attributes.extend([
        text("direction", direction),
        size("hidden_size", hidden),
        flag("layout", op.batch_first),
    ]);
    attributes.extend(op.clip.map(|clip| float("clip", clip)));
    let name = match op.cell {
        Cell::Plain => "RNN",
        Cell::Gru { reset_after } => {
            attributes.push(flag("linear_before_reset", reset_after));
            "GRU"
        }
        Cell::Lstm { coupled } => {
            attributes.push(flag("input_forget", coupled));
            "LSTM"
        }
    };
    ex.emit(name, attributes)
}

/// The names of all functions, and the parameters of those that have any, in order.
fn functions(list: &[Fun]) -> Result<Vec<crate::onnx::proto::Attribute>, String> {
    let (mut names, mut alphas, mut betas) = (Vec::new(), Vec::new(), Vec::new());
    for fun in list {
        names.push(match *fun {
            Fun::Tanh => "Tanh",
            Fun::Relu => "Relu",
            Fun::Sigmoid => "Sigmoid",
            Fun::Softsign => "Softsign",
            Fun::Softplus => "Softplus",
            Fun::LeakyRelu(alpha) => with(&mut alphas, alpha, "LeakyRelu"),
            Fun::ThresholdedRelu(alpha) => with(&mut alphas, alpha, "ThresholdedRelu"),
            Fun::Elu(alpha) => with(&mut alphas, alpha, "Elu"),
            Fun::HardSigmoid { alpha, beta } => {
                betas.push(beta);
                with(&mut alphas, alpha, "HardSigmoid")
            }
            other => return Err(format!("with the function {other:?}")),
        });
    }
    let mut attributes = vec![texts("activations", &names)];
    let lists = [("activation_alpha", alphas), ("activation_beta", betas)];
    attributes.extend(lists.into_iter().filter(|(_, l)| !l.is_empty()).map(|(name, l)| floats(name, l)));
    Ok(attributes)
}

fn with(alphas: &mut Vec<f32>, alpha: f32, name: &'static str) -> &'static str {
    alphas.push(alpha);
    name
}
