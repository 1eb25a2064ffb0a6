//! How well a model predicts a text, alone and against another evaluation of it.

use std::io::{self, Read, Write};

use kinglet_engine::ScoreError;

use crate::Model;
use crate::logits_file::{LogitsHeader, read_row, write_row};

/// Why an evaluation ended early.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "fields are named by the message")]
pub enum EvaluateError {
    #[error("the text has {found} tokens, one chunk takes {chunk}: give a longer text or a smaller chunk")]
    TooShort { found: usize, chunk: usize },
    #[error("a chunk of {chunk} tokens is not possible: 4 to {context} are, the model's context")]
    Chunk { chunk: usize, context: usize },
    #[error("the saved logits are over a vocabulary of {saved}, the model's has {model}")]
    Vocabulary { saved: usize, model: usize },
    #[error("saved logits: {0}")]
    File(#[from] io::Error),
    #[error(transparent)]
    Score(#[from] ScoreError),
}

/// Sums over scored positions.
#[derive(Clone, Debug, Default)]
pub struct Score {
    /// Positions.
    pub rows: usize,
    /// Sum of negative log-likelihoods of the tokens that came.
    pub nll: f64,
    /// Sum of their squares.
    pub nll_squared: f64,
    /// Sum of the saved evaluation's negative log-likelihoods.
    pub saved_nll: f64,
    /// Kullback-Leibler divergence from the saved to this evaluation, per position.
    pub divergences: Vec<f64>,
    /// Positions at which both find the same token likeliest.
    pub same_top: usize,
}

impl Score {
    /// `exp` of the mean negative log-likelihood.
    pub fn perplexity(&self) -> f64 {
        (self.nll / self.rows.max(1) as f64).exp()
    }

    /// Standard error of the perplexity.
    pub fn perplexity_error(&self) -> f64 {
        let n = self.rows.max(2) as f64;
        let variance = (self.nll_squared / n - (self.nll / n).powi(2)).max(0.0);
        self.perplexity() * (variance / (n - 1.0)).sqrt()
    }

    /// Perplexity of the saved evaluation.
    pub fn saved_perplexity(&self) -> f64 {
        (self.saved_nll / self.rows.max(1) as f64).exp()
    }

    /// Mean divergence.
    pub fn mean_divergence(&self) -> f64 {
        self.divergences.iter().sum::<f64>() / self.divergences.len().max(1) as f64
    }

    /// The divergence that a share `q` of positions stays below.
    pub fn divergence_quantile(&self, q: f64) -> f64 {
        let mut sorted = self.divergences.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get((q * sorted.len() as f64) as usize).or(sorted.last()).copied().unwrap_or(0.0)
    }

    fn add(&mut self, logits: &[f32], next: u32, saved: Option<&[f32]>) {
        let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|x| f64::from(x - greatest).exp()).sum();
        let log_sum = f64::from(greatest) + sum.ln();
        let nll = log_sum - f64::from(logits[next as usize]);
        self.rows += 1;
        self.nll += nll;
        self.nll_squared += nll * nll;
        let Some(saved) = saved else { return };
        self.saved_nll -= f64::from(saved[next as usize]);
        self.same_top += usize::from(top(saved) == top(logits));
        // Saved values at the floor of the format stand for anything below it.
        let terms = saved.iter().zip(logits).filter(|(base, _)| **base > -16.0);
        let divergence =
            terms.map(|(base, x)| f64::from(*base).exp() * (f64::from(*base) - f64::from(*x) + log_sum));
        self.divergences.push(divergence.sum());
    }
}

fn top(values: &[f32]) -> usize {
    values.iter().enumerate().fold(0, |best, (i, x)| if *x > values[best] { i } else { best })
}

/// Scores a text in chunks of `chunk` tokens, the second half of each, as llama.cpp does; `save` receives the
/// log-probabilities. `progress` hears of each chunk.
pub fn perplexity(
    model: &Model,
    tokens: &[u32],
    chunk: usize,
    save: Option<Box<dyn Write + Send>>,
    mut progress: impl FnMut(usize, usize, &Score),
) -> Result<Score, EvaluateError> {
    let context = model.context();
    if !(4..=context).contains(&chunk) {
        return Err(EvaluateError::Chunk { chunk, context });
    }
    if tokens.len() < chunk {
        return Err(EvaluateError::TooShort { found: tokens.len(), chunk });
    }
    let tokens = &tokens[..tokens.len() / chunk * chunk];
    let header = LogitsHeader { context: chunk, vocab: model.vocab(), tokens: tokens.to_vec() };
    let mut state = State { score: Score::default(), row: Vec::new(), saved: None, save, failed: None };
    if let Some(save) = &mut state.save {
        header.write(save)?;
    }
    evaluate(model, &header, state, &mut progress)
}

/// Scores the text of a file of saved log-probabilities, and compares with them.
pub fn divergence(
    model: &Model,
    mut saved: Box<dyn Read + Send>,
    mut progress: impl FnMut(usize, usize, &Score),
) -> Result<Score, EvaluateError> {
    let header = LogitsHeader::read(&mut saved)?;
    if header.vocab != model.vocab() {
        return Err(EvaluateError::Vocabulary { saved: header.vocab, model: model.vocab() });
    }
    let state =
        State { score: Score::default(), row: Vec::new(), saved: Some(saved), save: None, failed: None };
    evaluate(model, &header, state, &mut progress)
}

/// What the scoring thread works on.
struct State {
    score: Score,
    row: Vec<f32>,
    saved: Option<Box<dyn Read + Send>>,
    save: Option<Box<dyn Write + Send>>,
    failed: Option<io::Error>,
}

impl State {
    fn row(&mut self, logits: &[f32], next: u32) -> io::Result<()> {
        if let Some(save) = &mut self.save {
            write_row(save, logits)?;
        }
        if let Some(saved) = &mut self.saved {
            read_row(saved, logits.len(), &mut self.row)?;
            self.score.add(logits, next, Some(&self.row));
        } else {
            self.score.add(logits, next, None);
        }
        Ok(())
    }
}

fn evaluate(
    model: &Model,
    header: &LogitsHeader,
    mut state: State,
    progress: &mut impl FnMut(usize, usize, &Score),
) -> Result<Score, EvaluateError> {
    let (first, bos) = (header.first_scored(), model.bos());
    let chunks: Vec<&[u32]> = header.tokens.chunks(header.context).collect();
    for (index, chunk) in chunks.iter().enumerate() {
        let mut tokens = chunk.to_vec();
        // Each chunk begins as a text does.
        if let Some(bos) = bos {
            tokens[0] = bos;
        }
        let next: Vec<u32> = tokens[1..].to_vec();
        state = model.engine().score(tokens, first, state, move |state, at, logits| {
            if let (None, Some(next)) = (&state.failed, next.get(at)) {
                state.failed = state.row(logits, *next).err();
            }
        })?;
        if let Some(error) = state.failed.take() {
            return Err(error.into());
        }
        progress(index + 1, chunks.len(), &state.score);
    }
    if let Some(save) = &mut state.save {
        save.flush()?;
    }
    Ok(state.score)
}
