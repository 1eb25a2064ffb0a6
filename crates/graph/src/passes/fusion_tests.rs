//! Fusing the decomposition of an op gives the op back, and exporters' spellings are found.

use kinglet_tensor::{Bytes, DType, Tensor};

use super::{decompose, fuse};
use crate::ops::*;
use crate::{Graph, GraphBuilder, TensorType, ValueId};

/// A graph under construction.
struct Write {
    builder: GraphBuilder,
    count: usize,
}

impl Write {
    fn new() -> Self {
        Self { builder: GraphBuilder::new(), count: 0 }
    }

    fn input(&mut self, dtype: DType, shape: &[usize]) -> ValueId {
        self.count += 1;
        self.builder.input(&format!("x{}", self.count), TensorType::fixed(dtype, shape)).expect("new")
    }

    fn floats(&mut self, shape: &[usize], x: f32) -> ValueId {
        self.count += 1;
        let bytes: Vec<u8> = (0..shape.iter().product::<usize>()).flat_map(|_| x.to_le_bytes()).collect();
        let tensor = Tensor::new(format!("w{}", self.count), DType::F32, shape.to_vec(), Bytes::from(bytes));
        self.builder.weight(tensor.expect("sizes agree")).expect("new")
    }

    fn ints(&mut self, values: &[i64]) -> ValueId {
        self.count += 1;
        let tensor = int_tensor(vec![values.len()], values).expect("sizes agree");
        self.builder.weight_as(&format!("w{}", self.count), tensor).expect("new")
    }

    fn put(&mut self, op: impl Op, inputs: &[ValueId]) -> ValueId {
        self.count += 1;
        self.builder.node(&format!("v{}", self.count), op, inputs).expect("typed")
    }

    fn by(&mut self, fun: Fun2, x: ValueId, c: f32) -> ValueId {
        let c = self.floats(&[], c);
        self.put(Binary(fun), &[x, c])
    }

    fn heads(&mut self, x: ValueId, shape: [i64; 4], perm: [usize; 4]) -> ValueId {
        let shape = self.ints(&shape);
        let split = self.put(Reshape { allow_zero: false }, &[x, shape]);
        self.put(Transpose { perm: perm.to_vec() }, &[split])
    }

    fn together(&mut self, x: ValueId) -> ValueId {
        let turned = self.put(Transpose { perm: vec![0, 2, 1, 3] }, &[x]);
        let shape = self.ints(&[0, 0, -1]);
        self.put(Reshape { allow_zero: false }, &[turned, shape])
    }

    fn finish(mut self, out: ValueId) -> Graph {
        self.builder.output(out);
        self.builder.finish()
    }
}

/// Nodes as text: op, attributes, and the names of inputs that are no constants.
fn text(graph: &Graph) -> Vec<String> {
    let node = |node: &crate::Node| {
        let made = |id: &&ValueId| graph.weight(**id).is_none();
        let inputs: Vec<&str> =
            node.inputs.iter().filter(made).map(|v| graph.value(*v).name.as_str()).collect();
        format!("{} {:?}({})", node.op.name(), node.op, inputs.join(", "))
    };
    graph.nodes().iter().map(node).collect()
}

/// The graph is one op, its decomposition is others, and fusing them gives the op back.
fn check_back(graph: Graph) {
    let plain = decompose(&graph).expect("typed");
    assert!(plain.nodes().len() > 1, "{:?}", text(&plain));
    assert!(
        plain
            .nodes()
            .iter()
            .all(|node| node.op.name() != graph.nodes()[0].op.name() || node.op.name() == "Unary")
    );
    assert_eq!(text(&fuse(plain).expect("typed")), text(&graph));
}

const SOFT: Softmax = Softmax { kind: SoftmaxKind::Soft, axis: -1, flat: false };

fn attend(heads: usize, blank: Blank) -> Attend {
    let scale = Some(0.25);
    Attend { heads, kv_heads: heads, scale, blank, ..Attend::default() }
}

#[test]
fn fusing_the_decomposition_of_attention_gives_it_back() {
    let masks: [Option<(DType, &[usize])>; 4] = [
        None,
        Some((DType::F32, &[2, 1, 1, 7])),
        Some((DType::F32, &[5, 7])),
        Some((DType::Bool, &[2, 3, 5, 7])),
    ];
    let blanks = [Blank::Never, Blank::Hidden, Blank::Always];
    for (mask, blank) in masks.into_iter().flat_map(|mask| blanks.map(|blank| (mask, blank))) {
        for rows in [true, false] {
            let mut w = Write::new();
            let [q, k, v] = [[5, 8], [7, 8], [7, 4]].map(|[s, d]| {
                let shape = if rows { vec![2, s, 3 * d] } else { vec![2, 3, s, d] };
                w.input(DType::F32, &shape)
            });
            let mut inputs = vec![q, k, v];
            inputs.extend(mask.map(|(dtype, shape)| w.input(dtype, shape)));
            let out = w.put(attend(3, blank), &inputs);
            check_back(w.finish(out));
        }
    }
}

#[test]
fn fusing_the_decomposition_of_functions_and_norms_gives_them_back() {
    for fun in [
        Fun::Gelu { tanh: false },
        Fun::Gelu { tanh: true },
        Fun::Swish(1.0),
        Fun::Swish(1.702),
        Fun::HardSwish,
        Fun::Mish,
    ] {
        let mut w = Write::new();
        let x = w.input(DType::F32, &[2, 3]);
        let out = w.put(Unary(fun), &[x]);
        check_back(w.finish(out));
    }
    for (axis, scale, biased, centre) in
        [(2, &[4][..], true, true), (1, &[3, 4], true, true), (2, &[4], false, true), (2, &[4], false, false)]
    {
        let mut w = Write::new();
        let x = w.input(DType::F32, &[2, 3, 4]);
        let mut inputs = vec![x, w.floats(scale, 2.0)];
        if biased {
            inputs.push(w.floats(scale, 1.0));
        }
        let out = w.put(LayerNorm { axis, eps: 1e-5, centre }, &inputs);
        check_back(w.finish(out));
    }
}

/// Queries, keys and values as exporters make them of rows, and everything from scores on.
fn spelled(mask: impl Fn(&mut Write, ValueId) -> ValueId, scales: [Option<f32>; 3]) -> Vec<String> {
    let mut w = Write::new();
    let [q, k, v] = [5, 7, 7].map(|s| w.input(DType::F32, &[2, s, 24]));
    let mut q = w.heads(q, [2, 5, 3, 8], [0, 2, 1, 3]);
    let mut k = w.heads(k, [2, 7, 3, 8], [0, 2, 3, 1]);
    let v = w.heads(v, [0, 0, 3, 8], [0, 2, 1, 3]);
    q = scales[0].map_or(q, |c| w.by(Fun2::Mul, q, c));
    k = scales[1].map_or(k, |c| w.by(Fun2::Mul, k, c));
    let mut scores = w.put(MatMul, &[q, k]);
    scores = scales[2].map_or(scores, |c| w.by(Fun2::Div, scores, c));
    let masked = mask(&mut w, scores);
    let weights = w.put(SOFT, &[masked]);
    let sums = w.put(MatMul, &[weights, v]);
    let out = w.together(sums);
    text(&fuse(w.finish(out)).expect("typed"))
}

#[test]
fn exporters_spellings_of_attention_are_found() {
    let fused = |blank, inputs: &str| vec![format!("Attend {:?}({inputs})", attend(3, blank))];
    let plain = |_: &mut Write, scores| scores;
    assert_eq!(spelled(plain, [None, None, Some(4.0)]), fused(Blank::Never, "x1, x2, x3"));
    assert_eq!(spelled(plain, [Some(0.5), Some(0.5), None]), fused(Blank::Never, "x1, x2, x3"));
    let added = |w: &mut Write, scores| {
        let mask = w.input(DType::F32, &[2, 1, 1, 7]);
        w.put(Binary(Fun2::Add), &[mask, scores])
    };
    let found = spelled(added, [None, None, Some(4.0)]);
    assert!(found.len() == 1 && found[0].starts_with("Attend"), "{found:?}");
    // A mask that hides nothing goes away.
    let nothing = |w: &mut Write, scores| {
        let mask = w.floats(&[5, 7], 0.0);
        w.put(Binary(Fun2::Add), &[scores, mask])
    };
    assert_eq!(spelled(nothing, [None, Some(0.25), None]), fused(Blank::Never, "x1, x2, x3"));
    let filled = |w: &mut Write, scores| {
        let (hidden, fill) = (w.input(DType::Bool, &[2, 1, 5, 7]), w.floats(&[], -1e9));
        w.put(Where, &[hidden, fill, scores])
    };
    let ops: Vec<String> = spelled(filled, [None, None, Some(4.0)]);
    assert!(ops.len() == 2 && ops[0].starts_with("Where") && ops[1].starts_with("Attend"), "{ops:?}");
}

#[test]
fn packed_queries_keys_and_values_are_split_where_they_are() {
    let mut w = Write::new();
    let x = w.input(DType::F32, &[2, 5, 72]);
    let shape = w.ints(&[2, 5, 3, 3, 8]);
    let packed = w.put(Reshape { allow_zero: false }, &[x, shape]);
    let turned = w.put(Transpose { perm: vec![2, 0, 3, 1, 4] }, &[packed]);
    let index = |w: &mut Write, i: i64| {
        let tensor = int_tensor(vec![], &[i]).expect("one");
        let at = w.builder.weight_as(&format!("i{i}"), tensor).expect("new");
        w.put(Gather { axis: 0 }, &[turned, at])
    };
    let [q, k, v] = [0, 1, 2].map(|i| index(&mut w, i));
    let q = w.by(Fun2::Mul, q, 0.25);
    let k = w.put(Transpose { perm: vec![0, 1, 3, 2] }, &[k]);
    let scores = w.put(MatMul, &[q, k]);
    let weights = w.put(SOFT, &[scores]);
    let sums = w.put(MatMul, &[weights, v]);
    let out = w.together(sums);
    let found = text(&fuse(w.finish(out)).expect("typed"));
    let split = format!("Split {:?}(x1)", Split { axis: -1, parts: 3 });
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0] == split && found[1].starts_with("Attend"), "{found:?}");
}

#[test]
fn what_only_looks_like_attention_stays() {
    let left = |found: Vec<String>| found.iter().any(|op| op.starts_with("Softmax"));
    // A factor on the mask too, and a fill that leaves hidden scores in sight.
    let late = |w: &mut Write, scores| {
        let mask = w.input(DType::F32, &[5, 7]);
        let sum = w.put(Binary(Fun2::Add), &[scores, mask]);
        w.by(Fun2::Mul, sum, 0.5)
    };
    assert!(left(spelled(late, [None; 3])));
    let weak = |w: &mut Write, scores| {
        let (shown, fill) = (w.input(DType::Bool, &[5, 7]), w.floats(&[], -10.0));
        w.put(Where, &[shown, scores, fill])
    };
    assert!(left(spelled(weak, [None; 3])));
    assert!(left(spelled(|_, scores| scores, [Some(-1.0), None, None])));
    let mut w = Write::new();
    let x = w.input(DType::F32, &[2, 4]);
    let (mean, axes) = (Reduce { kind: ReduceKind::Mean, keep_dims: true, keep_all: false }, w.ints(&[0]));
    let centre = w.put(mean, &[x, axes]);
    let centred = w.put(Binary(Fun2::Sub), &[x, centre]);
    let square = w.by(Fun2::Pow, centred, 2.0);
    let variance = w.put(mean, &[square, axes]);
    let sum = w.by(Fun2::Add, variance, 1e-5);
    let root = w.put(Unary(Fun::Sqrt), &[sum]);
    let normed = w.put(Binary(Fun2::Div), &[centred, root]);
    let scale = w.floats(&[4], 2.0);
    let out = w.put(Binary(Fun2::Mul), &[normed, scale]);
    assert!(text(&fuse(w.finish(out)).expect("typed")).iter().all(|op| !op.starts_with("LayerNorm")));
}

/// Constant bytes.
fn bytes(w: &mut Write, dtype: DType, shape: &[usize], byte: u8) -> ValueId {
    w.count += 1;
    let data = vec![byte; shape.iter().product()];
    let tensor = Tensor::new(format!("w{}", w.count), dtype, shape.to_vec(), Bytes::from(data));
    w.builder.weight(tensor.expect("sizes agree")).expect("new")
}

/// Numbers of codes that are given, or of constant ones.
fn numbers(w: &mut Write, codes: ValueId, scales: &[usize], zero: Option<ValueId>) -> ValueId {
    let scale = w.floats(scales, 0.5);
    let mut inputs = vec![codes, scale];
    inputs.extend(zero);
    w.put(Dequantize { axis: 0, block: 0, to: None }, &inputs)
}

fn quantized(w: &mut Write, x: ValueId, dtype: DType) -> ValueId {
    let (scale, zero) = (w.floats(&[], 0.25), bytes(w, dtype, &[], 3));
    w.put(Quantize { axis: 1, block: 0, to: DType::U8, saturate: true }, &[x, scale, zero])
}

/// The ops of a fused graph; the graph is the same again after taking it apart and fusing it.
fn coded(w: Write, out: ValueId) -> Vec<String> {
    let fused = fuse(w.finish(out)).expect("typed");
    let again = fuse(decompose(&fused).expect("typed")).expect("typed");
    assert_eq!(text(&again), text(&fused));
    let spelled = super::spell_codes(&fused).expect("typed");
    assert!(spelled.nodes().iter().all(|node| node.op.name() != "Coded"));
    fused.nodes().iter().map(|node| format!("{} {}", node.op.name(), node.op.describe())).collect()
}

#[test]
fn pairs_around_products_become_products_over_codes() {
    for (dtype, relu, out) in [(DType::U8, false, true), (DType::I8, true, true), (DType::U8, false, false)] {
        let mut w = Write::new();
        let x = w.input(dtype, &[2, 3, 8, 8]);
        let zero = bytes(&mut w, dtype, &[], 7);
        let x = numbers(&mut w, x, &[], Some(zero));
        let weights = bytes(&mut w, DType::I8, &[5, 3, 3, 3], 2);
        let weights = numbers(&mut w, weights, &[5], None);
        let bias = w.floats(&[5], 1.0);
        let mut y = w.put(Conv { window: Window::default(), groups: 1 }, &[x, weights, bias]);
        if relu {
            y = w.put(Unary(Fun::Relu), &[y]);
        }
        if out {
            y = quantized(&mut w, y, dtype);
        }
        let expected = match (relu, out) {
            (true, _) => "Coded Conv + Relu over codes",
            (_, true) => "Coded Conv over codes",
            _ => "Coded Conv over codes, to numbers",
        };
        assert_eq!(coded(w, y), [expected]);
    }
}

#[test]
fn pairs_around_functions_and_pools_become_functions_over_codes() {
    let mut w = Write::new();
    let x = w.input(DType::U8, &[1, 4, 6, 6]);
    let x = numbers(&mut w, x, &[], None);
    let pool = Pool {
        kind: PoolKind::Average { count_pad: false },
        kernel: vec![2, 2],
        window: Window::default(),
        ceil: false,
    };
    let y = w.put(pool, &[x]);
    let y = quantized(&mut w, y, DType::U8);
    let scale = w.floats(&[], 0.25);
    let y = w.put(Dequantize { axis: 1, block: 0, to: None }, &[y, scale]);
    let bent = w.by(Fun2::Div, y, 1.5);
    let bent = w.put(Unary(Fun::Erf), &[bent]);
    let bent = quantized(&mut w, bent, DType::U8);
    let bent = numbers(&mut w, bent, &[], None);
    let both = w.put(Binary(Fun2::Mul), &[bent, y]);
    let out = quantized(&mut w, both, DType::I8);
    let expected =
        ["Coded Pool over codes", "Coded Div + Erf over codes", "Coded Mul over codes"].map(str::to_owned);
    let found = coded(w, out);
    assert_eq!(found, expected);
}

#[test]
fn what_only_moves_codes_moves_them() {
    let moved = |scale: f32| {
        let mut w = Write::new();
        let x = w.input(DType::U8, &[2, 3]);
        let (a, b) = (w.floats(&[], 0.5), w.floats(&[], scale));
        let x = w.put(Dequantize { axis: 1, block: 0, to: None }, &[x, a]);
        let x = w.put(Transpose { perm: vec![1, 0] }, &[x]);
        let y = w.put(Quantize { axis: 1, block: 0, to: DType::U8, saturate: true }, &[x, b]);
        fuse(w.finish(y)).expect("typed").nodes().iter().map(|n| n.op.name()).collect::<Vec<_>>()
    };
    assert_eq!(moved(0.5), ["Transpose"]);
    assert_eq!(moved(0.25), ["Dequantize", "Transpose", "Quantize"]);
}

#[test]
fn only_the_picked_rows_of_a_table_of_codes_become_numbers() {
    let picked = |scales: &[usize]| {
        let mut w = Write::new();
        let ids = w.input(DType::I64, &[2]);
        let table = bytes(&mut w, DType::I8, &[5, 3], 7);
        let table = numbers(&mut w, table, scales, None);
        let y = w.put(Gather { axis: 0 }, &[table, ids]);
        fuse(w.finish(y)).expect("typed").nodes().iter().map(|n| n.op.name()).collect::<Vec<_>>()
    };
    assert_eq!(picked(&[]), ["Gather", "Dequantize"]);
    assert_eq!(picked(&[3]), ["Dequantize", "Gather"]);
}

#[test]
fn pairs_that_integer_kernels_cannot_serve_stay_with_a_reason() {
    let product = |weight: u8, zero: u8, dtype: DType, scales: &[usize]| {
        let mut w = Write::new();
        let x = w.input(DType::U8, &[4, 3]);
        let x = numbers(&mut w, x, &[], None);
        let weights = bytes(&mut w, dtype, &[3, 2], weight);
        let zero = bytes(&mut w, dtype, scales, zero);
        let weights = numbers(&mut w, weights, scales, Some(zero));
        let y = w.put(MatMul, &[x, weights]);
        let y = quantized(&mut w, y, DType::U8);
        let graph = fuse(w.finish(y)).expect("typed");
        let coded = graph.nodes().iter().any(|node| node.op.name() == "Coded");
        let reasons = super::codes::left(&graph);
        assert_eq!(coded, reasons.is_empty());
        reasons.into_iter().map(|(_, reason)| reason).next()
    };
    assert_eq!(product(200, 100, DType::U8, &[]), None);
    let wide = product(255, 0, DType::U8, &[]);
    assert_eq!(wide.as_deref(), Some("weights less their zero point are no signed bytes"));
    // Scales along the inputs are none of the outputs'.
    let rows = product(1, 0, DType::I8, &[3]);
    assert_eq!(rows.as_deref(), Some("scales of the weights are not one for each output"));
    let mut w = Write::new();
    let x = w.input(DType::U8, &[4, 3]);
    let x = numbers(&mut w, x, &[], None);
    let y = w.put(SOFT, &[x]);
    let y = quantized(&mut w, y, DType::U8);
    let graph = fuse(w.finish(y)).expect("typed");
    let reasons = super::codes::left(&graph);
    assert_eq!(reasons[0].1, "Softmax has no integer kernel");
}
