//! What a graph model is: its inputs, its outputs, and the operations in it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use kinglet::graph::{Def, Graph, ValueId};
use kinglet::graphs::GraphFiles;
use serde_json::json;

use crate::ui::{Row, Sections, Table, Ui, brief, bytes, count, large};

pub(super) fn show(path: &Path, function: Option<&str>, ui: &Ui) -> Result<()> {
    let files = match function {
        Some(function) => GraphFiles::open_function(path, function)?,
        None => GraphFiles::open(path)?,
    };
    let (graph, size) = (&files.graph, Sizes::of(&files.graph));
    let ops = ops(graph);
    if ui.json() {
        let port = |id: &ValueId| json!({ "name": graph.value(*id).name, "type": graph.type_text(&graph.value(*id).ty) });
        return ui.value(&json!({
            "format": files.format,
            "parameters": size.parameters,
            "weight_bytes": size.bytes,
            "inputs": graph.inputs().iter().map(port).collect::<Vec<_>>(),
            "outputs": graph.outputs().iter().map(port).collect::<Vec<_>>(),
            "classes": files.classes.as_ref().map(Vec::len),
            "ops": ops.iter().map(|(name, n)| json!({ "op": name, "count": n })).collect::<Vec<_>>(),
            "metadata": files.metadata,
            "notes": files.notes,
        }));
    }
    let mut out = Sections::new(ui);
    out.rows(&brief(&path.display().to_string(), ui.columns()), &about(&files, &size))?;
    out.table("Inputs and outputs", &ports(graph))?;
    let mut table = Table::new(&["OPERATION", ">COUNT"]);
    ops.iter().for_each(|(name, n)| table.row([(*name).to_owned(), count(*n as u64)]));
    out.table("Operations", &table)?;
    for note in &files.notes {
        ui.line("")?;
        ui.line(brief(note, 1_000))?;
    }
    Ok(())
}

/// Numbers in the weights, and their bytes.
struct Sizes {
    parameters: u64,
    bytes: u64,
}

impl Sizes {
    fn of(graph: &Graph) -> Self {
        let weights = graph.values().iter().filter_map(|value| match &value.def {
            Def::Weight(tensor) => Some(tensor),
            _ => None,
        });
        let add = |sum: Self, tensor: &kinglet::tensor::Tensor| Self {
            parameters: sum.parameters + tensor.elements() as u64,
            bytes: sum.bytes + tensor.data().len() as u64,
        };
        weights.fold(Self { parameters: 0, bytes: 0 }, add)
    }
}

fn about(files: &GraphFiles, size: &Sizes) -> Vec<Row> {
    let interface = files.interface.as_ref();
    let text = |of: fn(&kinglet::formats::coreml::Interface) -> &str| {
        interface.map(|interface| brief(of(interface), 120)).unwrap_or_default()
    };
    let classes = files.classes.as_ref().map(|classes| count(classes.len() as u64)).unwrap_or_default();
    vec![
        ("format", files.format.clone()),
        ("about", text(|i| &i.summary)),
        ("author", text(|i| &i.author)),
        ("licence", text(|i| &i.license)),
        ("parameters", large(size.parameters)),
        ("weights", bytes(size.bytes)),
        ("classes", classes),
    ]
}

fn ports(graph: &Graph) -> Table {
    let mut table = Table::new(&["", "NAME", "TYPE"]);
    for (what, ids) in [("in", graph.inputs()), ("out", graph.outputs())] {
        for id in ids {
            let value = graph.value(*id);
            table.row([what.to_owned(), brief(&value.name, 80), graph.type_text(&value.ty)]);
        }
    }
    table
}

/// How often each op occurs, the most frequent first.
fn ops(graph: &Graph) -> Vec<(&'static str, usize)> {
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    graph.nodes().iter().for_each(|node| *counts.entry(node.op.name()).or_default() += 1);
    let mut list: Vec<_> = counts.into_iter().collect();
    list.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    list
}
