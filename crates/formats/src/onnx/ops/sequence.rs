//! Lists and optionals.

use kinglet_graph::ops::Sequence;

use super::Entry;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("", "SequenceEmpty", |cx| cx.emit(Sequence::Empty)),
    ("", "SequenceConstruct", |cx| cx.emit(Sequence::Construct)),
    ("", "SequenceAt", |cx| cx.emit(Sequence::At)),
    ("", "SequenceInsert", |cx| cx.emit(Sequence::Insert)),
    ("", "SequenceErase", |cx| cx.emit(Sequence::Erase)),
    ("", "SequenceLength", |cx| cx.emit(Sequence::Length)),
    ("", "SplitToSequence", |cx| {
        cx.emit(Sequence::Split { axis: cx.int("axis", 0), keep: cx.flag("keepdims", true) })
    }),
    ("", "ConcatFromSequence", |cx| {
        cx.emit(Sequence::Concat { axis: cx.int("axis", 0), new: cx.flag("new_axis", false) })
    }),
    ("", "Optional", |cx| cx.emit(Sequence::Optional)),
    ("", "OptionalHasElement", |cx| {
        let x = cx.input(0);
        cx.emit_with(Sequence::HasElement, &[x])
    }),
    ("", "OptionalGetElement", |cx| cx.emit(Sequence::GetElement)),
];
