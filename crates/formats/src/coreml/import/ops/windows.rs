//! Convolutions and pooling.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{Conv, ConvTranspose, Pads, Pool, PoolKind, Window};

use super::Entry;
use crate::coreml::CoreMlError;
use crate::coreml::import::program::Cx;

type Done = Result<(), CoreMlError>;

pub(super) const OPS: &[Entry] = &[
    ("avg_pool", |cx| {
        let count_pad = !cx.flag("exclude_padding_from_average", false);
        pool(cx, PoolKind::Average { count_pad })
    }),
    ("conv", conv),
    ("conv_transpose", conv_transpose),
    ("l2_pool", |cx| pool(cx, PoolKind::Lp(2))),
    ("max_pool", |cx| pool(cx, PoolKind::Max { column_major: false })),
];

/// The window over `x`; `pad` lists begin and end of each spatial dimension in turn.
fn window(cx: &Cx<'_>, x: ValueId) -> Result<Window, CoreMlError> {
    let spatial = cx.rank(x)?.saturating_sub(2);
    let pads = match cx.text("pad_type").as_deref() {
        Some("same") => Pads::SameUpper,
        Some("same_lower") => Pads::SameLower,
        Some("custom") => {
            let given = cx.ints("pad")?.unwrap_or_else(|| vec![0; 2 * spatial]);
            if given.len() != 2 * spatial {
                return Err(cx.fail(format!("{} pads for {spatial} spatial dimensions", given.len())));
            }
            let side = |side: usize| given.iter().skip(side).step_by(2).copied();
            Pads::Given(side(0).chain(side(1)).collect())
        }
        None | Some("valid") => Pads::default(),
        Some(other) => return Err(cx.fail(format!("pad_type `{other}` is not known"))),
    };
    Ok(Window { strides: cx.sizes("strides", &[])?, dilations: cx.sizes("dilations", &[])?, pads })
}

fn groups(cx: &Cx<'_>) -> usize {
    usize::try_from(cx.int("groups", 1)).unwrap_or(0)
}

fn inputs(cx: &mut Cx<'_>) -> Result<Vec<ValueId>, CoreMlError> {
    Ok([cx.input("x")?, cx.input("weight")?].into_iter().chain(cx.maybe("bias")?).collect())
}

fn conv(cx: &mut Cx<'_>) -> Done {
    let inputs = inputs(cx)?;
    let (window, groups) = (window(cx, inputs[0])?, groups(cx));
    cx.emit(Conv { window, groups }, &inputs)
}

fn conv_transpose(cx: &mut Cx<'_>) -> Done {
    let inputs = inputs(cx)?;
    let (window, groups) = (window(cx, inputs[0])?, groups(cx));
    let output = cx.sizes("output_shape", &[])?;
    let output_shape = output.get(2..).map(<[usize]>::to_vec).unwrap_or_default();
    cx.emit(ConvTranspose { window, groups, output_padding: Vec::new(), output_shape }, &inputs)
}

fn pool(cx: &mut Cx<'_>, kind: PoolKind) -> Done {
    let x = cx.input("x")?;
    let kernel = cx.sizes("kernel_sizes", &[])?;
    let ceil = cx.flag("ceil_mode", false);
    let window = window(cx, x)?;
    cx.emit(Pool { kind, kernel, window, ceil }, &[x])
}
