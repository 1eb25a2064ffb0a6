//! `Text` and `TfIdf`.

use std::borrow::Cow;
use std::collections::HashMap;

use kinglet_graph::ops::{Case, Text, TfIdf};
use kinglet_tensor::DType;

use super::numbers::from_i64;
use super::{Call, HostOp, Outcome, Outs, View, broadcast_strides, store, walk};
use crate::value::Array;

fn put(outs: &mut dyn Outs, shape: Vec<usize>, texts: Vec<String>) -> Outcome {
    outs.put(0, Array::texts(shape, texts).ok_or("texts do not fill the shape")?.into())
}

impl HostOp for Text {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        match self {
            Self::Join => join(x, call.view(1)?, outs),
            Self::Normalise { case, exact, stops } => normalise(x, *case, *exact, stops, outs),
            Self::Split { delimiter, most } => split(x, delimiter.as_deref(), *most, outs),
        }
    }
}

fn join(a: View<'_>, b: View<'_>, outs: &mut dyn Outs) -> Outcome {
    let rank = a.rank().max(b.rank());
    let at = |v: View<'_>, d: usize| (d + v.rank()).checked_sub(rank).map_or(1, |d| v.shape[d]);
    let one = |d: usize| if at(a, d) == 1 { at(b, d) } else { at(a, d) };
    let shape: Vec<usize> = (0..rank).map(one).collect();
    let steps = [broadcast_strides(a.shape, &shape)?, broadcast_strides(b.shape, &shape)?];
    let mut texts = Vec::new();
    walk(&shape, [&steps[0], &steps[1]], |[i, j]| texts.push(format!("{}{}", a.texts[i], b.texts[j])));
    put(outs, shape, texts)
}

fn normalise(x: View<'_>, case: Case, exact: bool, stops: &[String], outs: &mut dyn Outs) -> Outcome {
    if x.rank() == 0 || x.shape[..x.rank() - 1].iter().any(|n| *n != 1) {
        return Err(format!("takes texts [C] or [1, C], got {:?}", x.shape));
    }
    let key = |text: &str| if exact { text.to_owned() } else { text.to_lowercase() };
    let stops: Vec<String> = stops.iter().map(|s| key(s)).collect();
    let cased = |text: &String| match case {
        Case::Keep => text.clone(),
        Case::Lower => text.to_lowercase(),
        Case::Upper => text.to_uppercase(),
    };
    let mut left: Vec<String> =
        x.texts.iter().filter(|text| !stops.contains(&key(text))).map(cased).collect();
    if left.is_empty() {
        left.push(String::new());
    }
    let mut shape = x.shape.to_vec();
    shape[x.rank() - 1] = left.len();
    put(outs, shape, left)
}

/// At most `most + 1` parts of a text; none of an empty one.
fn parts<'a>(text: &'a str, delimiter: Option<&str>, most: Option<usize>) -> Vec<&'a str> {
    let count = most.map_or(usize::MAX, |n| n.saturating_add(1));
    let Some(delimiter) = delimiter else {
        let (mut list, mut rest) = (Vec::new(), text.trim_start());
        while !rest.is_empty() {
            let end = rest.find(char::is_whitespace).filter(|_| list.len() + 1 < count).unwrap_or(rest.len());
            list.push(&rest[..end]);
            rest = rest[end..].trim_start();
        }
        return list;
    };
    if text.is_empty() { Vec::new() } else { text.splitn(count, delimiter).collect() }
}

fn split(x: View<'_>, delimiter: Option<&str>, most: Option<usize>, outs: &mut dyn Outs) -> Outcome {
    let lists: Vec<Vec<&str>> = x.texts.iter().map(|text| parts(text, delimiter, most)).collect();
    let wide = lists.iter().map(Vec::len).max().unwrap_or(0);
    let row = |list: &Vec<&str>| {
        let fill = wide - list.len();
        list.iter()
            .map(|s| (*s).to_owned())
            .chain(std::iter::repeat_n(String::new(), fill))
            .collect::<Vec<_>>()
    };
    let texts = lists.iter().flat_map(row).collect();
    put(outs, x.shape.iter().copied().chain([wide]).collect(), texts)?;
    if outs.wants(1) {
        let counts: Vec<i64> = lists.iter().map(|list| list.len() as i64).collect();
        from_i64(DType::I64, &counts, outs.make(1, DType::I64, x.shape)?)?;
    }
    Ok(())
}

impl HostOp for TfIdf {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let tokens: Vec<Cow<'_, str>> = if x.dtype == DType::Str {
            x.texts.iter().map(|text| Cow::Borrowed(text.as_str())).collect()
        } else {
            x.i64s()?.iter().map(|n| Cow::Owned(n.to_string())).collect()
        };
        let columns: HashMap<Vec<&str>, usize> = self
            .grams
            .iter()
            .map(|(gram, column)| (gram.iter().map(String::as_str).collect(), *column))
            .collect();
        let longest = self.grams.iter().map(|(gram, _)| gram.len()).max().unwrap_or(0);
        let rows = if x.rank() == 2 { x.shape[0] } else { 1 };
        let each = tokens.len() / rows.max(1);
        let mut made = vec![0.0; rows * self.columns];
        for (row, counts) in made.chunks_exact_mut(self.columns.max(1)).enumerate() {
            count(self, &tokens[row * each..][..each], &columns, longest, counts);
        }
        store(outs, 0, &made)
    }
}

/// Single tokens count once, whatever is skipped.
fn count(
    op: &TfIdf,
    row: &[Cow<'_, str>],
    columns: &HashMap<Vec<&str>, usize>,
    longest: usize,
    counts: &mut [f64],
) {
    for step in 1..=op.skips.min(row.len()) + 1 {
        for start in 0..row.len() {
            let mut gram = Vec::new();
            for token in row[start..].iter().step_by(step).take(longest) {
                gram.push(token.as_ref());
                if let Some(column) = columns.get(&gram).filter(|_| step == 1 || gram.len() > 1) {
                    counts[*column] += 1.0;
                }
            }
        }
    }
    for (column, count) in counts.iter_mut().enumerate() {
        let seen = if op.once { count.min(1.0) } else { *count };
        let weight = op.weights.as_ref().and_then(|w| w.get(column)).copied().unwrap_or(1.0);
        *count = seen * f64::from(weight);
    }
}
