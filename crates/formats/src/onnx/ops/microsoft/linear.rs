//! Matrix products and convolutions with what follows them, and products with weights in a few bits.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{Binary, Conv, Fun, Fun2, Gather, Gemm, MatMul, Transpose, Unary};
use kinglet_tensor::DType;

use super::packed::{Packed, unpacked};
use super::{Entry, MS, count, refuse, tensor};
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;
use crate::onnx::ops::linear::{groups, window};

pub(in crate::onnx) const OPS: &[Entry] = &[
    (MS, "FusedMatMul", matmul),
    (MS, "FusedMatMulActivation", matmul),
    (MS, "GemmFastGelu", |cx| {
        let (x, weights) = (cx.input(0), cx.input(1));
        let mut made = cx.temp(MatMul, &[x, weights])?;
        if cx.has(2) {
            let bias = cx.input(2);
            made = cx.temp(Binary(Fun2::Add), &[made, bias])?;
        }
        cx.emit_with(Unary(Fun::Gelu { tanh: true }), &[made])
    }),
    (MS, "TransposeMatMul", matmul),
    (MS, "FusedGemm", gemm),
    (MS, "FusedConv", conv),
    (MS, "MatMulNBits", matmul_bits),
    (MS, "GatherBlockQuantized", gather_bits),
];

/// `alpha a b` with matrices transposed as the attributes say.
fn matmul(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    refuse(cx, &[("transBatchA", 0), ("transBatchB", 0)], &[])?;
    let (a, b) = (turned(cx, 0, "transA")?, turned(cx, 1, "transB")?);
    let alpha = cx.float("alpha", 1.0);
    let parameters = ["activation_alpha", "activation_beta", "activation_gamma"];
    let fun = activation(cx, parameters.map(|name| cx.attrs.float(name)))?;
    if alpha == 1.0 {
        return followed(cx, MatMul, &[a, b], fun);
    }
    let product = cx.temp(MatMul, &[a, b])?;
    let dtype = tensor(cx, 0)?.dtype;
    let alpha = cx.scalar(dtype, alpha.into())?;
    followed(cx, Binary(Fun2::Mul), &[product, alpha], fun)
}

/// Input `i`, its last two dimensions exchanged when an attribute asks for it and it has two.
fn turned(cx: &mut Cx<'_, '_>, i: usize, attribute: &str) -> Result<ValueId, OnnxError> {
    let (x, rank) = (cx.input(i), tensor(cx, i)?.rank());
    if !cx.flag(attribute, false) || rank < 2 {
        return Ok(x);
    }
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(rank - 1, rank - 2);
    cx.temp(Transpose { perm }, &[x])
}

/// The function that the attribute `activation` names, with its parameters as the operator spells them.
fn activation(cx: &Cx<'_, '_>, parameters: [Option<f32>; 3]) -> Result<Option<Fun>, OnnxError> {
    let [alpha, beta, gamma] = parameters;
    Ok(Some(match cx.attrs.text("activation").unwrap_or("") {
        "" => return Ok(None),
        "Relu" => Fun::Relu,
        "Tanh" => Fun::Tanh,
        "Sigmoid" => Fun::Sigmoid,
        "Softplus" => Fun::Softplus,
        "Softsign" => Fun::Softsign,
        "HardSwish" => Fun::HardSwish,
        "LeakyRelu" => Fun::LeakyRelu(alpha.unwrap_or(0.01)),
        "Elu" => Fun::Elu(alpha.unwrap_or(1.0)),
        "ThresholdedRelu" => Fun::ThresholdedRelu(alpha.unwrap_or(1.0)),
        "HardSigmoid" => Fun::HardSigmoid { alpha: alpha.unwrap_or(0.2), beta: beta.unwrap_or(0.5) },
        "Selu" => {
            Fun::Selu { alpha: alpha.unwrap_or(1.673_263_2), gamma: gamma.or(beta).unwrap_or(1.050_701) }
        }
        other => return Err(cx.fail(format!("activation `{other}` is not known"))),
    }))
}

/// The node as `op` followed by a function.
fn followed(
    cx: &mut Cx<'_, '_>,
    op: impl kinglet_graph::Op,
    inputs: &[ValueId],
    fun: Option<Fun>,
) -> Result<(), OnnxError> {
    let Some(fun) = fun else { return cx.emit_with(op, inputs) };
    let made = cx.temp(op, inputs)?;
    cx.emit_with(Unary(fun), &[made])
}

fn gemm(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let parameter = |name| cx.attrs.float(name);
    let parameters = ["activation_alpha", "activation_beta", "activation_gamma"].map(parameter);
    let fun = activation(cx, parameters)?;
    let op = Gemm {
        alpha: cx.float("alpha", 1.0),
        beta: cx.float("beta", 1.0),
        trans_a: cx.flag("transA", false),
        trans_b: cx.flag("transB", false),
    };
    let inputs = cx.inputs().to_vec();
    followed(cx, op, &inputs, fun)
}

/// A convolution, plus input 3, then a function. Two parameters of `Clip` are its bounds.
fn conv(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let given = cx.attrs.floats("activation_params").unwrap_or(&[]).to_vec();
    let at = |i: usize| given.get(i).copied();
    let (x, w, bias) = (cx.input(0), cx.input(1), cx.input(2));
    let op = Conv { window: window(cx)?, groups: groups(cx)? };
    let dtype = tensor(cx, 0)?.dtype;
    let clip = cx.attrs.text("activation") == Some("Clip");
    let fun = if clip { None } else { activation(cx, [at(0), at(1), at(2)])? };
    if !clip && !cx.has(3) {
        return followed(cx, op, &[x, w, bias], fun);
    }
    let mut made = cx.temp(op, &[x, w, bias])?;
    if cx.has(3) {
        let other = cx.input(3);
        if !clip && fun.is_none() {
            return cx.emit_with(Binary(Fun2::Add), &[made, other]);
        }
        made = cx.temp(Binary(Fun2::Add), &[made, other])?;
    }
    if let Some(fun) = fun {
        return cx.emit_with(Unary(fun), &[made]);
    }
    let (least, most) = (at(0).unwrap_or(f32::MIN), at(1).unwrap_or(f32::MAX));
    let (least, most) = (cx.scalar(dtype, least.into())?, cx.scalar(dtype, most.into())?);
    cx.emit_with(kinglet_graph::ops::Clip, &[made, least, most])
}

/// `x W^T + bias` with `W` in blocks of a few bits. The weights are unpacked once, here.
fn matmul_bits(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    refuse(cx, &[], &[(4, "g_idx")])?;
    let (k, n) = (count(cx, "K")?, count(cx, "N")?);
    let how = Packed { rows: n, cols: k, bits: cx.int("bits", 4), block: count(cx, "block_size")? };
    let dtype = tensor(cx, 0)?.dtype;
    let weights = unpacked(cx, &how, [1, 2, 3], dtype, true)?;
    let x = cx.input(0);
    if !cx.has(5) {
        return cx.emit_with(MatMul, &[x, weights]);
    }
    let (product, bias) = (cx.temp(MatMul, &[x, weights])?, cx.input(5));
    cx.emit_with(Binary(Fun2::Add), &[product, bias])
}

/// Rows of a matrix in blocks of a few bits. Inputs: codes in bytes, indices, scales, zero points. The matrix is unpacked once, here.
fn gather_bits(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let (codes, scales) = (tensor(cx, 0)?, tensor(cx, 2)?);
    let (bits, axis) = (cx.int("bits", 4), cx.int("quantize_axis", 1));
    let sizes = codes.dims().filter(|sizes| codes.dtype == DType::U8 && sizes.len() == 2);
    let Some([rows, line]) = sizes.as_deref() else {
        return Err(cx.fail("codes in the bytes of a matrix are wanted"));
    };
    if cx.int("gather_axis", 0) != 0 || !matches!(axis, 1 | -1) {
        return Err(cx.fail("rows that are gathered, and blocks along them, are wanted"));
    }
    let per = usize::try_from(8 / bits.clamp(1, 8)).unwrap_or(1);
    let block = usize::try_from(cx.int("block_size", 128)).unwrap_or(0);
    let how = Packed { rows: *rows, cols: line * per, bits, block };
    let matrix = unpacked(cx, &how, [0, 2, 3], scales.dtype, false)?;
    let indices = cx.input(1);
    cx.emit_with(Gather { axis: 0 }, &[matrix, indices])
}
