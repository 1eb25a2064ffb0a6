//! Tensors of `--input`: from NumPy files to what a model's inputs take.

use std::path::Path;

use anyhow::Result;
use kinglet::graphs::{Arrays, Port};
use kinglet::tensor::Tensor;

use crate::failure::hinted;
use crate::ui::brief;

/// A tensor for each input, in order, from `NAME=FILE` and `FILE.npz`; `most` elements of an input whose size is open.
pub(super) fn read(given: &[String], inputs: &[Port], most: usize) -> Result<Vec<Tensor>> {
    let mut found: Vec<Option<Tensor>> = vec![None; inputs.len()];
    for pair in given {
        let (name, file) = split(pair);
        let mut arrays = Arrays::open(Path::new(file))?;
        for (index, name) in wanted(&arrays, name, file)? {
            let place = place(&name, inputs)?;
            if found[place].is_some() {
                return Err(hinted(format!("input `{}` is given twice", brief(&name, 100)), "leave one out"));
            }
            let most = inputs[place].elements().unwrap_or(most);
            found[place] = Some(arrays.read(index, &name, most)?);
        }
    }
    let fit = |(port, tensor): (&Port, Option<Tensor>)| {
        let missing = || {
            hinted(
                format!("input `{}` ({}) is not given", brief(&port.name, 100), port.text),
                format!("the model takes: {}", takes(inputs)),
            )
        };
        fitted(port, &tensor.ok_or_else(missing)?)
    };
    inputs.iter().zip(found).map(fit).collect()
}

/// Names and types of the inputs.
pub(super) fn takes(inputs: &[Port]) -> String {
    inputs
        .iter()
        .map(|port| format!("{} {}", brief(&port.name, 100), port.text))
        .collect::<Vec<_>>()
        .join("; ")
}

/// The name of an input and that of a file, which may be all there is.
fn split(pair: &str) -> (Option<&str>, &str) {
    let named = pair.split_once('=').filter(|_| !Path::new(pair).is_file());
    named.map_or((None, pair), |(name, file)| (Some(name), file))
}

/// Which arrays of a file are meant, and the inputs they are for.
fn wanted(arrays: &Arrays, name: Option<&str>, file: &str) -> Result<Vec<(usize, String)>> {
    let names: Option<Vec<&str>> = arrays.names().map(Iterator::collect);
    let Some(name) = name else {
        let all = names.map(|names| names.into_iter().map(str::to_owned).enumerate().collect());
        return all.ok_or_else(|| {
            hinted(
                format!("{} does not say which input it is for", brief(file, 200)),
                "say --input NAME=FILE.npy, for example --input x=photo.npy",
            )
        });
    };
    let index = match &names {
        None => Some(0),
        Some(names) if names.len() == 1 => Some(0),
        Some(names) => names.iter().position(|other| *other == name),
    };
    let absent = || {
        let names = names.iter().flatten().map(|name| brief(name, 60)).collect::<Vec<_>>();
        hinted(
            format!("{} has no array `{}`", brief(file, 200), brief(name, 100)),
            format!("it has: {}", names.join(", ")),
        )
    };
    Ok(vec![(index.ok_or_else(absent)?, name.to_owned())])
}

/// Which of the inputs has this name.
fn place(name: &str, inputs: &[Port]) -> Result<usize> {
    inputs.iter().position(|port| port.name == name).ok_or_else(|| {
        hinted(
            format!("the model has no input `{}`", brief(name, 100)),
            format!("it takes: {}", takes(inputs)),
        )
    })
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
