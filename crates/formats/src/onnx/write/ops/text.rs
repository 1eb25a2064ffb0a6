//! Texts.

use kinglet_graph::ops::{Case, Text, TfIdf};

use super::Entry;
use crate::onnx::write::attribute::{flag, floats, size, sizes, text, texts};
use crate::onnx::write::node::Ex;

pub(in crate::onnx) const OPS: &[Entry] = &[("Text", words), ("TfIdf", tf_idf)];

fn words(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    match ex.op()? {
        Text::Join => {
            ex.needs(20)?;
            ex.emit("StringConcat", vec![])
        }
        Text::Normalise { case, exact, stops } => {
            let case = match case {
                Case::Keep => "NONE",
                Case::Lower => "LOWER",
                Case::Upper => "UPPER",
            };
            let mut attributes = vec![text("case_change_action", case), flag("is_case_sensitive", *exact)];
            if !stops.is_empty() {
                attributes.push(texts("stopwords", stops));
            }
            ex.emit("StringNormalizer", attributes)
        }
        Text::Split { delimiter, most } => {
            ex.needs(20)?;
            let delimiter = delimiter.as_ref().map(|d| text("delimiter", d));
            let most = most.map(|n| size("maxsplit", n));
            ex.emit("StringSplit", delimiter.into_iter().chain(most).collect())
        }
    }
}

/// The pool holds the n-grams of each length in turn; the lengths that nobody counts are empty.
fn tf_idf(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let TfIdf { grams, columns, skips, once, weights } = ex.op()?;
    let longest = grams.iter().map(|(gram, _)| gram.len()).max().unwrap_or(1);
    let shortest = grams.iter().map(|(gram, _)| gram.len()).min().unwrap_or(1);
    let last = grams.iter().map(|(_, column)| column + 1).max().unwrap_or(0);
    if last != *columns {
        return Err("whose last column counts nothing".into());
    }
    let (mut starts, mut pool, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for length in 1..=longest {
        starts.push(pool.len());
        for (gram, column) in grams.iter().filter(|(gram, _)| gram.len() == length) {
            pool.extend(gram.iter().map(String::as_str));
            places.push(*column);
        }
    }
    let mode = match (once, weights) {
        (true, _) => "IDF",
        (false, Some(_)) => "TFIDF",
        (false, None) => "TF",
    };
    let mut attributes = vec![
        text("mode", mode),
        size("min_gram_length", shortest),
        size("max_gram_length", longest),
        size("max_skip_count", *skips),
        sizes("ngram_counts", &starts),
        sizes("ngram_indexes", &places),
    ];
    attributes.extend(weights.as_ref().map(|w| floats("weights", w.clone())));
    let numbers: Option<Vec<i64>> = pool.iter().map(|token| token.parse().ok()).collect();
    attributes.push(match (ex.dtype(0), numbers) {
        (kinglet_tensor::DType::Str, _) => texts("pool_strings", &pool),
        (_, Some(numbers)) => crate::onnx::write::attribute::ints("pool_int64s", numbers),
        (_, None) => return Err("which counts texts among numbers".into()),
    });
    ex.emit("TfIdfVectorizer", attributes)
}
