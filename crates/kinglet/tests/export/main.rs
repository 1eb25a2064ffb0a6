//! Graphs that are written and read again compute the same values, in ONNX and in Core ML; passes keep values, too.

mod flow;
mod made;
mod passes;
mod real_models;

use kinglet::formats::coreml::{CoreMl, write as coreml};
use kinglet::formats::{ExportError, onnx};
use kinglet::graph::ops::*;
use kinglet::graph::{Graph, ValueId};
use kinglet::tensor::{Bytes, DType};
use made::{Made, check_near, feeds, run};

fn through_onnx(what: &str, graph: &Graph, opset: Option<i64>) {
    let options = onnx::WriteOptions { opset, ..Default::default() };
    let written = onnx::write(graph, &options).unwrap_or_else(|e| panic!("{what}: {e}"));
    let read = onnx::read(written.model.into(), &onnx::NoExternal).unwrap_or_else(|e| panic!("{what}: {e}"));
    let feeds = feeds(graph);
    check_near(what, &run(&read.graph, &feeds, false), &run(graph, &feeds, false), 2e-6);
}

fn through_core_ml(what: &str, graph: &Graph) {
    let written = coreml::write(graph, &Default::default()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let weights: Bytes = written.weights.concat().into();
    let model = CoreMl::parse(written.model.into(), &|_: &str| Ok(weights.clone()));
    let model = model.unwrap_or_else(|e| panic!("{what}: {e}"));
    let read = model.graph().unwrap_or_else(|e| panic!("{what}: {e}"));
    let feeds = feeds(graph);
    check_near(what, &run(&read.graph, &feeds, false), &run(graph, &feeds, false), 2e-6);
}

/// Writes a graph in all ways.
fn check(what: &str, build: impl Fn(&mut Made) -> ValueId) {
    let mut made = Made::new();
    let y = build(&mut made);
    let graph = made.finish(&[y]);
    through_onnx(what, &graph, None);
    through_core_ml(what, &graph);
}

/// Writes a graph as ONNX only, for the newest and for an old set of operators.
fn check_onnx(what: &str, build: impl Fn(&mut Made) -> ValueId) {
    let mut made = Made::new();
    let y = build(&mut made);
    let graph = made.finish(&[y]);
    through_onnx(what, &graph, None);
    through_onnx(what, &graph, Some(onnx::OLDEST_OPSET));
}

#[test]
fn functions_of_an_element_survive() {
    use Fun::*;
    let all = [
        Abs,
        Neg,
        Sign,
        Ceil,
        Floor,
        Round,
        Exp,
        Sin,
        Cos,
        Tan,
        Asin,
        Acos,
        Atan,
        Sinh,
        Cosh,
        Tanh,
        Atanh,
        Erf,
        Relu,
        Sigmoid,
        Softplus,
        Softsign,
        Mish,
        HardSwish,
        Swish(1.0),
        Swish(1.5),
        LeakyRelu(0.1),
        Elu(0.7),
        Reciprocal,
        HardSigmoid { alpha: 0.3, beta: 0.4 },
        ThresholdedRelu(0.2),
        Gelu { tanh: false },
        Gelu { tanh: true },
    ];
    for fun in all {
        check(&format!("{fun:?}"), |m| {
            let x = m.input(&[2, 3]);
            m.op(Unary(fun), &[x])
        });
        check_onnx(&format!("{fun:?}"), |m| {
            let x = m.input(&[2, 3]);
            m.op(Unary(fun), &[x])
        });
    }
    for fun in [Selu { alpha: 1.6, gamma: 1.05 }, Celu(0.8), Shrink { lambda: 0.3, bias: 0.1 }, Asinh] {
        check_onnx(&format!("{fun:?}"), |m| {
            let x = m.input(&[2, 3]);
            m.op(Unary(fun), &[x])
        });
    }
}

#[test]
fn functions_of_two_elements_survive() {
    for fun in [Fun2::Add, Fun2::Sub, Fun2::Mul, Fun2::Div, Fun2::Min, Fun2::Max, Fun2::PRelu] {
        check(&format!("{fun:?}"), |m| {
            let (x, y) = (m.input(&[2, 3, 4]), m.positive(&[3, 1]));
            m.op(Binary(fun), &[x, y])
        });
    }
    check("Where", |m| {
        let (x, y, zero) = (m.input(&[2, 3]), m.input(&[2, 3]), m.floats(&[], &[0.1]));
        let larger = m.op(Binary(Fun2::Greater), &[x, zero]);
        let least = m.op(Clip, &[y, zero]);
        m.op(Where, &[larger, x, least])
    });
    check("truth values leave as integers", |m| {
        let (x, y) = (m.input(&[2, 3]), m.input(&[2, 3]));
        let less = m.op(Binary(Fun2::LessOrEqual), &[x, y]);
        m.op(Cast::to(DType::F32), &[less])
    });
}

#[test]
fn images_survive() {
    let window = Window { strides: vec![2, 1], dilations: vec![1, 2], pads: Pads::Given(vec![1, 0, 2, 1]) };
    check("Conv", |m| {
        let (x, w, b) = (m.input(&[1, 4, 9, 8]), m.weight(&[6, 2, 3, 3]), m.weight(&[6]));
        m.op(Conv { window: window.clone(), groups: 2 }, &[x, w, b])
    });
    let same = Window { strides: vec![2, 2], pads: Pads::SameUpper, ..Window::default() };
    check("Conv, same", |m| {
        let (x, w) = (m.input(&[1, 2, 7, 8]), m.weight(&[3, 2, 3, 3]));
        m.op(Conv { window: same.clone(), groups: 1 }, &[x, w])
    });
    check("ConvTranspose", |m| {
        let (x, w) = (m.input(&[1, 4, 5, 6]), m.weight(&[4, 3, 3, 3]));
        let window = Window { strides: vec![2, 2], pads: Pads::Given(vec![1, 1, 1, 1]), ..Window::default() };
        let (output_padding, output_shape) = (vec![], vec![]);
        m.op(ConvTranspose { window, groups: 2, output_padding, output_shape }, &[x, w])
    });
    for kind in [
        PoolKind::Max { column_major: false },
        PoolKind::Average { count_pad: false },
        PoolKind::Average { count_pad: true },
    ] {
        for kernel in [vec![3, 2], vec![]] {
            check(&format!("{kind:?} {kernel:?}"), |m| {
                let x = m.input(&[1, 2, 7, 8]);
                let pads = Pads::Given(if kernel.is_empty() { vec![] } else { vec![1, 0, 1, 1] });
                let window = Window { strides: vec![2, 2], pads, ..Window::default() };
                m.op(Pool { kind, kernel: kernel.clone(), window, ceil: false }, &[x])
            });
        }
    }
    for (mode, coordinates) in [
        (ResizeMode::Nearest(NearestRule::Floor), Coordinates::Asymmetric),
        (ResizeMode::Linear, Coordinates::HalfPixel),
        (ResizeMode::Linear, Coordinates::AlignCorners),
    ] {
        check(&format!("{mode:?} {coordinates:?}"), |m| {
            let (x, scales) = (m.input(&[1, 2, 3, 4]), m.floats(&[4], &[1.0, 1.0, 2.0, 3.0]));
            let absent = m.b.absent();
            let axes = Vec::new();
            let plain = Resize {
                mode,
                coordinates,
                axes,
                aspect: Aspect::Stretch,
                exclude_outside: false,
                outside: 0.0,
                antialias: false,
            };
            m.op(plain, &[x, absent, scales])
        });
    }
    check("DepthSpace", |m| {
        let x = m.input(&[1, 8, 2, 3]);
        let y = m.op(DepthSpace { block: 2, to_space: true, channels_first: true }, &[x]);
        let y = m.op(DepthSpace { block: 2, to_space: false, channels_first: false }, &[y]);
        m.op(DepthSpace { block: 2, to_space: true, channels_first: false }, &[y])
    });
}

#[test]
fn norms_and_products_survive() {
    check("BatchNorm", |m| {
        let x = m.input(&[1, 3, 4, 4]);
        let parts = [x, m.weight(&[3]), m.weight(&[3]), m.weight(&[3]), m.positive(&[3])];
        m.op(BatchNorm { eps: 1e-3, momentum: 0.9, training: false }, &parts)
    });
    for groups in [None, Some(2)] {
        check(&format!("GroupNorm {groups:?}"), |m| {
            let (x, scale, bias) = (m.input(&[2, 4, 3, 3]), m.weight(&[4]), m.weight(&[4]));
            m.op(GroupNorm { groups, eps: 1e-4 }, &[x, scale, bias])
        });
    }
    for centre in [true, false] {
        check(&format!("LayerNorm {centre}"), |m| {
            let (x, scale) = (m.input(&[2, 3, 8]), m.weight(&[8]));
            m.op(LayerNorm { axis: -1, eps: 1e-4, centre }, &[x, scale])
        });
    }
    for kind in [SoftmaxKind::Soft, SoftmaxKind::Log] {
        check(&format!("{kind:?}"), |m| {
            let x = m.input(&[2, 3, 4]);
            m.op(Softmax { kind, axis: 1, flat: false }, &[x])
        });
    }
    check_onnx("flat softmax", |m| {
        let x = m.input(&[2, 3, 4]);
        m.op(Softmax { kind: SoftmaxKind::Soft, axis: 1, flat: true }, &[x])
    });
    for kind in [ReduceKind::Sum, ReduceKind::Mean, ReduceKind::Max, ReduceKind::L2, ReduceKind::LogSumExp] {
        check(&format!("{kind:?}"), |m| {
            let (x, axes) = (m.input(&[2, 3, 4]), m.ints(&[0, -1]));
            m.op(Reduce { kind, keep_dims: false, keep_all: false }, &[x, axes])
        });
    }
    for (trans_b, alpha, bias) in [(true, 1.0, vec![5]), (false, 1.0, vec![5]), (true, 0.5, vec![2, 1])] {
        check(&format!("Gemm {trans_b} {alpha}"), |m| {
            let (x, c) = (m.input(&[2, 3]), m.weight(&bias));
            let w = if trans_b { m.weight(&[5, 3]) } else { m.weight(&[3, 5]) };
            m.op(Gemm { alpha, beta: 2.0 - alpha, trans_a: false, trans_b }, &[x, w, c])
        });
    }
    for (a, b) in [(&[2, 3, 4][..], &[4, 5][..]), (&[4], &[4, 5]), (&[4], &[2, 4, 5]), (&[2, 3, 4], &[4])] {
        check(&format!("{a:?} by {b:?}"), |m| {
            let (x, y) = (m.input(a), m.weight(b));
            m.op(MatMul, &[x, y])
        });
    }
}

#[test]
fn places_of_elements_survive() {
    check("moves", |m| {
        let (x, shape, axes) = (m.input(&[2, 3, 4]), m.ints(&[0, -1]), m.ints(&[1]));
        let y = m.op(Transpose { perm: vec![1, 0, 2] }, &[x]);
        let y = m.op(Reshape { allow_zero: false }, &[y, shape]);
        let y = m.op(Unsqueeze, &[y, axes]);
        let both = m.op(Concat { axis: 1 }, &[y, y]);
        let wide = m.ints(&[5, 3, 2, 8]);
        let y = m.op(Expand, &[both, wide]);
        m.op(Flatten { axis: 2 }, &[y])
    });
    for (starts, ends, steps) in [
        (vec![1, -3], vec![i64::MAX, -1], vec![1, 1]),
        (vec![-1, 0], vec![i64::MIN, 4], vec![-1, 2]),
        (vec![0, -100], vec![-1, 100], vec![2, 1]),
        (vec![2, 3], vec![0, 0], vec![-1, -2]),
    ] {
        check(&format!("Slice {starts:?} {ends:?} {steps:?}"), |m| {
            let x = m.input(&[3, 2, 5]);
            let (axes, starts, ends, steps) =
                (m.ints(&[0, 2]), m.ints(&starts), m.ints(&ends), m.ints(&steps));
            m.op(Slice, &[x, starts, ends, axes, steps])
        });
    }
    for mode in [PadMode::Constant, PadMode::Reflect, PadMode::Edge] {
        check(&format!("{mode:?}"), |m| {
            let (x, pads) = (m.input(&[1, 2, 4, 4]), m.ints(&[0, 0, 1, 2, 0, 0, 0, 1]));
            m.op(Pad { mode }, &[x, pads])
        });
    }
    check("Gather", |m| {
        let (x, places) = (m.input(&[3, 4]), m.ints(&[2, 0, -1]));
        m.op(Gather { axis: 1 }, &[x, places])
    });
    check("ArgReduce", |m| {
        let x = m.input(&[3, 4]);
        let place = m.op(ArgReduce { max: true, axis: 1, keep_dims: true, last: false }, &[x]);
        m.op(Cast::to(DType::F32), &[place])
    });
    check("Split", |m| {
        let (x, sizes) = (m.input(&[2, 5]), m.ints(&[2, 3]));
        let parts = m.b.push(
            &["a", "b"],
            std::sync::Arc::new(Split { axis: 1, parts: 2 }),
            &[x, sizes],
            String::new(),
        );
        let parts = parts.expect("two parts");
        m.op(Concat { axis: 1 }, &[parts[1], parts[0]])
    });
}

#[test]
fn fused_ops_are_spelled_out() {
    let attend = Attend { heads: 2, kv_heads: 2, ..Attend::default() };
    for rank in [3, 4] {
        check(&format!("Attend of {rank}"), |m| {
            let (shape, keys): (&[usize], &[usize]) =
                if rank == 3 { (&[1, 3, 8], &[1, 5, 8]) } else { (&[1, 2, 3, 4], &[1, 2, 5, 4]) };
            let (q, k, v, mask) = (m.input(shape), m.input(keys), m.input(keys), m.weight(&[1, 1, 3, 5]));
            m.op(
                Attend { blank: if rank == 3 { Blank::Hidden } else { Blank::Never }, ..attend },
                &[q, k, v, mask],
            )
        });
    }
    check_onnx("Attend with shared keys and a cap", |m| {
        let (q, k, v) = (m.input(&[1, 3, 16]), m.input(&[1, 5, 8]), m.input(&[1, 5, 8]));
        m.op(Attend { heads: 4, softcap: 2.0, ..attend }, &[q, k, v])
    });
    check_onnx("language models' ops", |m| {
        let (x, w, u, norm) = (m.input(&[3, 8]), m.weight(&[8, 8]), m.weight(&[8, 8]), m.weight(&[8]));
        let (gate, up) = (m.op(Linear::one(false), &[x, w]), m.op(Linear::one(false), &[x, u]));
        let y = m.op(Glu { act: Activation::Silu }, &[gate, up]);
        let y = m.op(Scale { factor: 0.5 }, &[y]);
        let y = m.op(Softcap { cap: 3.0 }, &[y]);
        let names = ["sum", "norm"];
        let made =
            m.b.push(&names, std::sync::Arc::new(AddRmsNorm { eps: 1e-5 }), &[x, y, norm], String::new());
        let made = made.expect("two values");
        let y = m.op(RmsNorm { eps: 1e-5 }, &[made[1], norm]);
        m.op(Add, &[made[0], y])
    });
}

#[test]
fn control_flow_reads_what_is_around_it() {
    let body = |fun: Fun2| {
        let mut m = Made::new();
        let (a, b) = (m.input(&[2]), m.input(&[2]));
        let y = m.op(Binary(fun), &[a, b]);
        std::sync::Arc::new(m.finish(&[y]))
    };
    let passes = {
        let mut m = Made::new();
        let a = m.input(&[2]);
        std::sync::Arc::new(m.finish(&[a]))
    };
    check_only_newest("If", |m| {
        let (x, y, zero, axes) = (m.input(&[2]), m.weight(&[2]), m.floats(&[], &[0.0]), m.ints(&[0]));
        let sum = m.op(Reduce { kind: ReduceKind::Sum, keep_dims: false, keep_all: false }, &[x, axes]);
        let positive = m.op(Binary(Fun2::Greater), &[sum, zero]);
        let branch = If { then: body(Fun2::Sub), otherwise: passes.clone() };
        m.op(branch, &[positive, x, y, y])
    });
}

fn check_only_newest(what: &str, build: impl Fn(&mut Made) -> ValueId) {
    let mut made = Made::new();
    let y = build(&mut made);
    through_onnx(what, &made.finish(&[y]), None);
}

#[test]
fn weights_may_lie_in_a_file_of_their_own() {
    struct Beside(Bytes);
    impl onnx::External for Beside {
        fn read(
            &self,
            location: &str,
            offset: u64,
            length: Option<u64>,
        ) -> Result<Bytes, onnx::ExternalError> {
            assert_eq!((location, offset % 4096), ("w.data", 0));
            Ok(self.0.slice(offset as usize..(offset + length.unwrap_or(0)) as usize))
        }
    }
    let mut m = Made::new();
    let (x, a, b) = (m.input(&[2, 64]), m.weight(&[64, 32]), m.weight(&[32, 40]));
    let y = m.op(MatMul, &[x, a]);
    let y = m.op(MatMul, &[y, b]);
    let graph = m.finish(&[y]);
    let options = onnx::WriteOptions { inline: Some(1000), data_name: "w.data".into(), ..Default::default() };
    let written = onnx::write(&graph, &options).expect("written");
    let (mut data, mut heard) = (Vec::new(), Vec::new());
    written.write_data(&mut data, &mut |n| heard.push(n)).expect("in memory");
    assert_eq!((data.len() as u64, heard.len()), (written.data_len(), 2));
    let read = onnx::read(written.model.into(), &Beside(data.into())).expect("read");
    let feeds = feeds(&graph);
    assert_eq!(run(&read.graph, &feeds, false), run(&graph, &feeds, false));
    let whole = onnx::write(&graph, &Default::default()).expect("written");
    assert_eq!(whole.data_len(), 0);
}

#[test]
fn all_that_is_missing_is_told_at_once() {
    let mut m = Made::new();
    let x = m.input(&[2, 3]);
    let a = m.op(Unary(Fun::Asinh), &[x]);
    let b = m.op(Unary(Fun::Asinh), &[a]);
    let c = m.op(Unary(Fun::Celu(1.0)), &[b]);
    let graph = m.finish(&[c]);
    let Err(ExportError::Unsupported { missing, .. }) = coreml::write(&graph, &Default::default()) else {
        panic!("written")
    };
    let found: Vec<(&str, Vec<&str>)> =
        missing.iter().map(|m| (m.op.as_str(), m.nodes.iter().map(String::as_str).collect())).collect();
    assert_eq!(found, [("Unary (Asinh)", vec!["v2", "v3"]), ("Unary (Celu(1.0))", vec!["v4"])]);

    let mut m = Made::new();
    let x = m.input(&[1, 4, 2, 2]);
    let (scale, bias) = (m.weight(&[4]), m.weight(&[4]));
    let y = m.op(GroupNorm { groups: Some(2), eps: 1e-5 }, &[x, scale, bias]);
    let options = onnx::WriteOptions { opset: Some(18), ..Default::default() };
    let error = onnx::write(&m.finish(&[y]), &options).expect_err("needs 21");
    assert!(
        matches!(error, ExportError::Unsupported { missing, .. } if missing[0].reason == "which needs opset 21")
    );
}

#[test]
fn outputs_keep_the_names_that_callers_ask_for() {
    let mut m = Made::new();
    let x = m.input(&[2]);
    let y = m.op(Unary(Fun::Exp), &[x]);
    let graph = m.finish(&[y, y, x]);
    let names = ["first", "second", "third"].map(String::from).to_vec();
    let options = onnx::WriteOptions { outputs: names.clone(), ..Default::default() };
    let written = onnx::write(&graph, &options).expect("written");
    let read = onnx::read(written.model.into(), &onnx::NoExternal).expect("read");
    assert_eq!(read.outputs.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), names);
    let feeds = feeds(&graph);
    assert_eq!(run(&read.graph, &feeds, false), run(&graph, &feeds, false));
    let options = coreml::WriteOptions { outputs: names.clone(), ..Default::default() };
    let written = coreml::write(&graph, &options).expect("written");
    let model = CoreMl::parse(written.model.into(), &kinglet::formats::coreml::NoBlobs).expect("read");
    assert_eq!(model.interface.outputs.iter().map(|f| f.name.clone()).collect::<Vec<_>>(), names);
}
