//! Core ML models against what coremltools reads from them (`tools/golden/coreml_fixtures.py`), and damaged ones.

use kinglet_formats::coreml::{Blobs, Body, CoreMl, CoreMlError, Literal, NoBlobs, ValueType};
use kinglet_tensor::Bytes;
use serde_json::Value;

use crate::common;

fn data(name: &str) -> Bytes {
    common::data(&format!("coreml/{name}"))
}

/// The model `NAME.mlmodel` with its weight file `NAME.bin`.
fn model(name: &str) -> CoreMl {
    let blobs = |file: &str| {
        assert_eq!(file, "@model_path/weights/weight.bin");
        Ok(data(&format!("{name}.bin")))
    };
    CoreMl::parse(data(&format!("{name}.mlmodel")), &blobs).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The numbers called `name`: a constant of the program, or the weights of a layer.
fn weights(model: &CoreMl, name: &str, count: usize) -> Vec<f32> {
    match &model.body {
        Body::Program(program) => {
            let known = program.chosen().expect("a function").block.constants().expect("constants");
            let value = known.get(name).unwrap_or_else(|| panic!("{name} among {:?}", known.keys()));
            value.floats().expect("numbers")
        }
        Body::Network(network) => {
            let layer = network.layers.iter().find(|layer| layer.name == name).expect("the layer");
            assert_eq!(layer.kind, "innerProduct");
            assert_eq!([layer.params.int(1), layer.params.int(2)], [32, 16]);
            let weights = layer.weights(20).expect("well-formed").expect("weights");
            weights.floats(count).expect("as many")
        }
        Body::Pipeline(_) | Body::Step(_) => panic!("neither pipelines nor steps among the fixtures"),
    }
}

#[test]
fn weights_are_what_coremltools_reads() {
    let rows: Vec<Value> = serde_json::from_slice(&data("golden.json")).expect("rows");
    let values = data("golden.bin");
    for row in &rows {
        let (name, weight) = (row["model"].as_str().expect("model"), row["name"].as_str().expect("name"));
        let shape: Vec<usize> = serde_json::from_value(row["shape"].clone()).expect("shape");
        let (at, count) = (row["at"].as_u64().expect("at") as usize, shape.iter().product::<usize>());
        let expected = values[at..at + 4 * count].as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
        let found = weights(&model(name), weight, count);
        assert_eq!(found.len(), count, "{name}");
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            // Half precision: coremltools multiplies and rounds in another order.
            let bound = 2e-3 * expected.abs().max(1e-3);
            assert!((found - expected).abs() <= bound, "{name} {weight}[{i}]: {found}, expected {expected}");
        }
    }
    assert!(rows.len() > 25, "{}", rows.len());
}

#[test]
fn programs_tell_their_interface_and_their_operations() {
    let model = model("plain18");
    assert_eq!(model.interface.inputs[0].name, "x");
    assert_eq!(model.interface.outputs[0].name, "y");
    let Body::Program(program) = &model.body else { panic!("a program") };
    let block = &program.chosen().expect("main").block;
    let kinds: Vec<&str> = block.ops.iter().map(|op| op.kind.as_str()).filter(|k| *k != "const").collect();
    assert_eq!(kinds, ["cast", "linear", "cast"]);
    assert_eq!(block.outputs, ["y"]);
}

#[test]
fn states_are_inputs_of_their_own_type() {
    let model = CoreMl::parse(data("state.mlmodel"), &NoBlobs).expect("a program");
    assert_eq!(model.interface.states[0].name, "total");
    let Body::Program(program) = &model.body else { panic!("a program") };
    let inputs = &program.chosen().expect("main").inputs;
    assert!(
        matches!(inputs.iter().find(|(name, _)| name == "total"), Some((_, ValueType::State(_)))),
        "{inputs:?}"
    );
    let kinds: Vec<&str> =
        program.chosen().expect("main").block.ops.iter().map(|op| op.kind.as_str()).collect();
    assert!(kinds.contains(&"read_state") && kinds.contains(&"write_state"), "{kinds:?}");
}

#[test]
fn damaged_models_are_refused() {
    let check = |bytes: Bytes, blobs: &dyn Blobs, expected: &str| {
        let error = CoreMl::parse(bytes, blobs).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(Bytes::new(), &NoBlobs, "specification version 0 cannot be read");
    check(Bytes::from_static(b"hello world"), &NoBlobs, "model is not well-formed");
    check(Bytes::from_static(b"\x08\x05"), &NoBlobs, "the model is of a kind without layers or operations");
    check(
        Bytes::from_static(b"\x08\x05\xa2\x19\x00"),
        &NoBlobs,
        "the model is a nearest neighbours classifier",
    );
    check(Bytes::from_static(b"\x08\x63"), &NoBlobs, "specification version 99 cannot be read");
    check(data("plain18.mlmodel"), &NoBlobs, "`@model_path/weights/weight.bin` is missing");
    let short = |_: &str| Ok(data("plain18.bin").slice(..200));
    check(data("plain18.mlmodel"), &short, "lie outside the 200 of the file");
    let empty = |_: &str| Ok(Bytes::new());
    check(data("plain18.mlmodel"), &empty, "its record lies outside the 0 bytes of the file");
    let zeros = |_: &str| Ok(Bytes::from(vec![0; 4096]));
    check(data("plain18.mlmodel"), &zeros, "there is no weight record");
    let refused = |name: &str| Err(CoreMlError::UnsafeName(name.into()));
    check(data("plain18.mlmodel"), &refused, "points outside the package");
}

#[test]
fn numbers_of_the_wrong_kind_are_not_taken() {
    assert_eq!(Literal::Texts(vec!["a".into()]).text(), Some("a"));
    assert_eq!(Literal::Texts(vec!["a".into()]).int(), None);
    assert_eq!(Literal::List(Vec::new()).floats(), None);
}

/// The types of a model's inputs and outputs as a graph.
fn ports(model: &CoreMl) -> [Vec<String>; 2] {
    let graph = model.graph().expect("it can be imported").graph;
    [graph.inputs(), graph.outputs()].map(|ids| {
        let port = |id| format!("{}: {}", graph.value(id).name, graph.type_text(&graph.value(id).ty));
        ids.iter().copied().map(port).collect()
    })
}

#[test]
fn programs_and_networks_become_graphs() {
    let check = |name: &str, inputs: &[&str], outputs: &[&str]| {
        assert_eq!(ports(&model(name)), [inputs, outputs], "{name}");
    };
    check("plain18", &["x: F32[1, 32]"], &["y: F32[1, 16]"]);
    check("lut4-vectors", &["x: F32[1, 32]"], &["y: F32[1, 16]"]);
    check("sparse-int8", &["x: F32[1, 32]"], &["y: F32[1, 16]"]);
    check("nn-lut5", &["x: F32[32]"], &["y: F32[16]"]);
}

#[test]
fn what_cannot_be_imported_is_told_at_once() {
    let mut bytes = data("state.mlmodel").to_vec();
    for kind in [&b"read_state"[..], b"write_state"] {
        let at = bytes.windows(kind.len()).position(|window| window == kind).expect("the program has it");
        bytes[at] = b'X';
    }
    let model = CoreMl::parse(bytes.into(), &NoBlobs).expect("a program");
    let error = model.graph().expect_err("of no known kind").to_string();
    assert!(error.contains("Xead_state (") && error.contains("Xrite_state ("), "{error}");
}

#[test]
fn states_are_the_last_inputs_and_outputs() {
    let model = CoreMl::parse(data("state.mlmodel"), &NoBlobs).expect("a program");
    let imported = model.graph().expect("imports");
    assert_eq!(imported.states, 1);
    let ids = [imported.graph.inputs().last(), imported.graph.outputs().last()];
    let [state, next] = ids.map(|id| imported.graph.value(*id.expect("one")).name.clone());
    assert_eq!(next, format!("{state}.next"));
}

/// Programs, networks and pipelines of all kinds, one byte in eleven damaged.
#[test]
fn damaged_models_are_errors_or_harmless() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/tests/data/coreml");
    let mut tried = 0;
    for entry in std::fs::read_dir(folder).expect("committed").flatten() {
        let path = match entry.path().extension().and_then(|end| end.to_str()) {
            Some("mlpackage") => entry.path().join("Data/com.apple.CoreML/model.mlmodel"),
            Some("mlmodel") => entry.path(),
            _ => continue,
        };
        let whole = Bytes::from(std::fs::read(path).expect("committed"));
        for at in (0..whole.len()).step_by(11) {
            let mut damaged = whole.to_vec();
            damaged[at] ^= [0x01, 0x80, 0xFF][at % 3];
            read_all(damaged.into(), &Bytes::new());
        }
        tried += 1;
    }
    assert!(tried > 30, "{tried} models");
}

/// Reads everything that can be read; what it says does not matter, only that it comes back.
fn read_all(bytes: Bytes, blob: &Bytes) {
    let Ok(model) = CoreMl::parse(bytes, &|_: &str| Ok(blob.clone())) else { return };
    let _ = model.graph();
    if let Body::Network(network) = &model.body {
        for layer in &network.layers {
            let _ = layer.weights(20).map(|weights| weights.map(|w| w.floats(512)));
        }
    }
}

#[test]
fn damage_anywhere_is_an_error_or_harmless() {
    for name in [
        "plain18",
        "lut2",
        "lut4-groups",
        "lut4-vectors",
        "sparse-lut",
        "uint4-blocks",
        "nn-lut5",
        "nn-linear3",
    ] {
        let whole = data(&format!("{name}.mlmodel"));
        let blob = if name.starts_with("nn") { Bytes::new() } else { data(&format!("{name}.bin")) };
        for at in 0..whole.len() {
            read_all(whole.slice(..at), &blob);
            let mut damaged = whole.to_vec();
            damaged[at] ^= [0x01, 0x80, 0xFF][at % 3];
            read_all(damaged.into(), &blob);
        }
        for at in 0..blob.len() {
            let mut damaged = blob.to_vec();
            damaged[at] ^= 0xFF;
            read_all(whole.clone(), &damaged.into());
        }
    }
}
