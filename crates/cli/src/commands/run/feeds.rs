//! Tensors of `--input`: from NumPy files to what a model's inputs take.

use std::path::Path;

use anyhow::{Context, Result};
use kinglet::graphs::{Port, read_arrays};
use kinglet::tensor::Tensor;

use crate::failure::hinted;
use crate::ui::brief;

/// A tensor for each input, in order, from `NAME=FILE` and `FILE.npz`.
pub(super) fn read(given: &[String], inputs: &[Port]) -> Result<Vec<Tensor>> {
    let mut found: Vec<Tensor> = Vec::new();
    for pair in given {
        for tensor in arrays(pair)? {
            if found.iter().any(|other| other.name() == tensor.name()) {
                return Err(hinted(
                    format!("input `{}` is given twice", brief(tensor.name(), 100)),
                    "leave one out",
                ));
            }
            found.push(tensor);
        }
    }
    if let Some(other) = found.iter().find(|t| inputs.iter().all(|port| port.name != t.name())) {
        return Err(hinted(
            format!("the model has no input `{}`", brief(other.name(), 100)),
            format!("it takes: {}", takes(inputs)),
        ));
    }
    let find = |port: &Port| {
        let missing = || {
            hinted(
                format!("input `{}` ({}) is not given", brief(&port.name, 100), port.text),
                format!("the model takes: {}", takes(inputs)),
            )
        };
        fitted(port, found.iter().find(|tensor| tensor.name() == port.name).ok_or_else(missing)?)
    };
    inputs.iter().map(find).collect()
}

/// Names and types of the inputs.
pub(super) fn takes(inputs: &[Port]) -> String {
    inputs
        .iter()
        .map(|port| format!("{} {}", brief(&port.name, 100), port.text))
        .collect::<Vec<_>>()
        .join("; ")
}

/// The arrays that one `--input` names, under the names of inputs.
fn arrays(pair: &str) -> Result<Vec<Tensor>> {
    let named = pair.split_once('=').filter(|_| !Path::new(pair).is_file());
    let (name, file) = named.map_or((None, pair), |(name, file)| (Some(name), file));
    let found = read_arrays(Path::new(file))?;
    let Some(name) = name else {
        if found.iter().any(|tensor| tensor.name().is_empty()) {
            return Err(hinted(
                format!("{} does not say which input it is for", brief(pair, 200)),
                "say --input NAME=FILE.npy, for example --input x=photo.npy",
            ));
        }
        return Ok(found);
    };
    let one = match found.as_slice() {
        [only] => Some(only),
        several => several.iter().find(|tensor| tensor.name() == name),
    };
    let names = || found.iter().map(|t| brief(t.name(), 60)).collect::<Vec<_>>().join(", ");
    let one = one.ok_or_else(|| {
        hinted(
            format!("{} has no array `{}`", brief(file, 200), brief(name, 100)),
            format!("it has: {}", names()),
        )
    })?;
    let (dtype, shape) = (one.dtype(), one.shape().to_vec());
    Ok(vec![Tensor::new(name, dtype, shape, one.data().clone()).with_context(|| brief(file, 200))?])
}

/// The tensor in the type of the input.
fn fitted(port: &Port, tensor: &Tensor) -> Result<Tensor> {
    let fitted = port.fitted(tensor)?;
    match port.dtype {
        Some(dtype) if dtype != fitted.dtype() => Err(hinted(
            format!(
                "input `{}` takes {}, and the array of {} cannot be converted",
                brief(&port.name, 100),
                port.text,
                fitted.dtype()
            ),
            "floats become floats, and integers of 32 and 64 bits each other, where the numbers fit",
        )),
        _ => Ok(fitted),
    }
}
