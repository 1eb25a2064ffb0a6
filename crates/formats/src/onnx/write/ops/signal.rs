//! Fourier transforms.

use kinglet_graph::ops::{Dft, Stft};

use super::Entry;
use crate::onnx::write::attribute::flag;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("Dft", |ex| {
        ex.needs(20)?;
        let Dft { inverse, onesided } = *ex.op()?;
        ex.emit("DFT", vec![flag("inverse", inverse), flag("onesided", onesided)])
    }),
    ("Stft", |ex| {
        let onesided = ex.op::<Stft>()?.onesided;
        ex.emit("STFT", vec![flag("onesided", onesided)])
    }),
];
