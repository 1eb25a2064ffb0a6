//! Texts.

use kinglet_graph::ops::{Case, Text, TfIdf};

use super::Entry;
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("", "StringConcat", |cx| cx.emit(Text::Join)),
    ("", "StringNormalizer", normalise),
    ("", "StringSplit", |cx| {
        let delimiter = cx.attrs.text("delimiter").filter(|d| !d.is_empty()).map(str::to_owned);
        let most = cx.attrs.int("maxsplit").map(|n| n.max(0) as usize);
        cx.emit(Text::Split { delimiter, most })
    }),
    ("", "TfIdfVectorizer", tf_idf),
];

fn normalise(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let case = match cx.attrs.text("case_change_action").unwrap_or("NONE") {
        "NONE" => Case::Keep,
        "LOWER" => Case::Lower,
        "UPPER" => Case::Upper,
        other => return Err(cx.fail(format!("case_change_action `{other}` is not known"))),
    };
    let stops = cx.attrs.texts("stopwords").unwrap_or_default();
    cx.emit(Text::Normalise { case, exact: cx.flag("is_case_sensitive", false), stops })
}

fn tf_idf(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let once = match cx.attrs.text("mode").unwrap_or("TF") {
        "IDF" => true,
        "TF" | "TFIDF" => false,
        other => return Err(cx.fail(format!("mode `{other}` is not known"))),
    };
    let grams = grams(cx)?;
    let columns = cx.attrs.ints("ngram_indexes").unwrap_or(&[]).iter().max().map_or(0, |n| *n as usize + 1);
    let weighted = cx.attrs.text("mode").is_some_and(|mode| mode != "TF");
    let weights = cx.attrs.floats("weights").filter(|w| weighted && !w.is_empty()).map(<[f32]>::to_vec);
    let skips = cx.int("max_skip_count", 0).max(0) as usize;
    cx.emit(TfIdf { grams, columns, skips, once, weights })
}

/// The n-grams of the wanted lengths: a pool of tokens, where those of each length start, and the column of each n-gram.
fn grams(cx: &Cx<'_, '_>) -> Result<Vec<(Vec<String>, usize)>, OnnxError> {
    const MOST_COLUMNS: usize = 1 << 24;
    let numbers = cx.attrs.ints("pool_int64s").unwrap_or(&[]).iter().map(i64::to_string);
    let pool: Vec<String> = numbers.chain(cx.attrs.texts("pool_strings").unwrap_or_default()).collect();
    let mut starts = cx.sizes("ngram_counts")?;
    starts.push(pool.len());
    let lengths = cx.int("min_gram_length", 1)..=cx.int("max_gram_length", 1);
    let columns = cx.sizes("ngram_indexes")?;
    if columns.iter().any(|n| *n >= MOST_COLUMNS) {
        return Err(cx.fail(format!("more than {MOST_COLUMNS} columns")));
    }
    let (mut found, mut columns) = (Vec::new(), columns.into_iter());
    for (i, range) in starts.windows(2).enumerate() {
        let tokens = pool.get(range[0]..range[1]).ok_or_else(|| cx.fail("ngram_counts exceed the pool"))?;
        for gram in tokens.chunks_exact(i + 1) {
            let column = columns.next().ok_or_else(|| cx.fail("more n-grams than ngram_indexes"))?;
            if lengths.contains(&(i as i64 + 1)) {
                found.push((gram.to_vec(), column));
            }
        }
    }
    Ok(found)
}
