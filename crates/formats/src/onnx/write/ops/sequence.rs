//! Lists and optionals.

use kinglet_graph::ops::Sequence;

use super::Entry;
use crate::onnx::write::attribute::{flag, int};
use crate::onnx::write::node::Ex;

pub(in crate::onnx) const OPS: &[Entry] = &[("Sequence", sequence)];

fn sequence(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let (name, attributes) = match *ex.op()? {
        Sequence::Empty => return Err("whose element type only the data decides".into()),
        Sequence::Construct => ("SequenceConstruct", vec![]),
        Sequence::At => ("SequenceAt", vec![]),
        Sequence::Insert => ("SequenceInsert", vec![]),
        Sequence::Erase => ("SequenceErase", vec![]),
        Sequence::Length => ("SequenceLength", vec![]),
        Sequence::Split { axis, keep } => {
            ("SplitToSequence", vec![int("axis", axis), flag("keepdims", keep)])
        }
        Sequence::Concat { axis, new } => {
            ("ConcatFromSequence", vec![int("axis", axis), flag("new_axis", new)])
        }
        Sequence::Optional if !ex.has(0) => return Err("whose type only the data decides".into()),
        Sequence::Optional => ("Optional", vec![]),
        Sequence::HasElement => ("OptionalHasElement", vec![]),
        Sequence::GetElement => ("OptionalGetElement", vec![]),
    };
    ex.emit(name, attributes)
}
