//! Speed of a compiled decoder: prompts (`pp`) and tokens one after the other (`tg`), as `llama-bench` defines them.

use std::time::Instant;

use kinglet_graph::{Call, CancelToken, ExecError, Executable, Input, PlanReport};
use kinglet_tensor::{PageId, SeqRows};

use crate::Compiled;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Test {
    /// Prompt or decoding.
    pub kind: Kind,
    /// Tokens of a repetition, for each sequence.
    pub tokens: usize,
    /// Sequences that are decoded together; 1 for prompts.
    pub batch: usize,
    /// Tokens that each sequence holds before.
    pub depth: usize,
}

/// Prompt or decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Tokens that are known at once.
    Prompt,
    /// Tokens that come one after the other.
    Decode,
}

impl Test {
    /// `pp512`, `tg128`.
    pub fn name(&self) -> String {
        let kind = if self.kind == Kind::Prompt { "pp" } else { "tg" };
        format!("{kind}{}", self.tokens)
    }

    /// Positions that each sequence needs.
    pub fn context(&self) -> usize {
        self.depth + self.tokens
    }
}

/// Rates of all repetitions of a test.
#[derive(Clone, Debug)]
pub struct Rates {
    /// Tokens per second, all sequences together, sorted.
    sorted: Vec<f64>,
}

impl Rates {
    /// The rate that a share `q` of repetitions stays below.
    pub fn quantile(&self, q: f64) -> f64 {
        let last = self.sorted.len().saturating_sub(1);
        self.sorted.get((q * last as f64).round() as usize).copied().unwrap_or(0.0)
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// What one token of a test costs at least.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Bytes of weights, keys and values read.
    pub bytes: f64,
    /// Multiply-adds of matrix products.
    pub multiply_adds: f64,
}

/// Measures one compiled decoder.
pub struct Bench {
    executable: Box<dyn Executable>,
    vocab: usize,
    page_tokens: usize,
    page_bytes: usize,
    random: u64,
}

impl Bench {
    /// Takes the decoder over.
    pub fn new(compiled: Compiled) -> Self {
        let kv = compiled.executable.kv();
        let page_tokens = kv.map_or(1, |kv| kv.page_tokens);
        let page_bytes = kv.and_then(|kv| kv.page_bytes()).unwrap_or(0);
        let random = 0x9E37_79B9_7F4A_7C15;
        Self { executable: compiled.executable, vocab: compiled.vocab, page_tokens, page_bytes, random }
    }

    /// Runs a test `reps` times after one repetition to warm up; `progress` hears of each.
    pub fn run(
        &mut self,
        test: &Test,
        reps: usize,
        mut progress: impl FnMut(usize, f64),
    ) -> Result<Rates, ExecError> {
        let pages = test.context().div_ceil(self.page_tokens);
        self.executable.reserve_pages(pages * test.batch)?;
        let tables: Vec<Vec<PageId>> =
            (0..test.batch).map(|seq| (0..pages).map(|p| (seq * pages + p) as PageId).collect()).collect();
        for table in &tables {
            self.prompt(table, 0, test.depth)?;
        }
        let mut rates = Vec::with_capacity(reps);
        for rep in 0..=reps {
            let started = Instant::now();
            match test.kind {
                Kind::Prompt => self.prompt(&tables[0], test.depth, test.tokens)?,
                Kind::Decode => self.decode(&tables, test.depth, test.tokens)?,
            }
            let rate = (test.tokens * test.batch) as f64 / started.elapsed().as_secs_f64();
            if rep > 0 {
                rates.push(rate);
            }
            progress(rep, rate);
        }
        rates.sort_by(f64::total_cmp);
        Ok(Rates { sorted: rates })
    }

    /// The plan of one run of a test.
    pub fn report(&self, test: &Test) -> Result<PlanReport, ExecError> {
        let (rows, outputs) = match test.kind {
            Kind::Prompt => (test.tokens.min(self.executable.max_rows()), 1),
            Kind::Decode => (test.batch, test.batch),
        };
        self.executable.report(&[rows, outputs])
    }

    /// What a token of a test costs, by the plan.
    pub fn cost(&self, test: &Test) -> Result<Cost, ExecError> {
        let report = self.report(test)?;
        let rows =
            if test.kind == Kind::Prompt { test.tokens.min(self.executable.max_rows()) } else { test.batch };
        let weights: usize = report.steps.iter().map(|step| step.weight_bytes).sum();
        let products: usize = report.steps.iter().map(|step| step.multiply_adds).sum();
        let past = test.depth as f64 + test.tokens as f64 / 2.0;
        let state = past * self.page_bytes as f64 / self.page_tokens as f64;
        Ok(Cost { bytes: weights as f64 / rows as f64 + state, multiply_adds: products as f64 / rows as f64 })
    }

    /// Appends `count` random tokens at `past`, in runs as long as may be.
    fn prompt(&mut self, pages: &[PageId], past: usize, count: usize) -> Result<(), ExecError> {
        let most = self.executable.max_rows();
        let mut done = 0;
        while done < count {
            let rows = most.min(count - done);
            let tokens = self.tokens(rows);
            let seqs = [SeqRows { start: 0, len: rows, past: past + done, pages }];
            self.call(&tokens, &[rows as i32 - 1], &seqs)?;
            done += rows;
        }
        Ok(())
    }

    /// Appends a token to each sequence, `count` times.
    fn decode(&mut self, tables: &[Vec<PageId>], depth: usize, count: usize) -> Result<(), ExecError> {
        let outputs: Vec<i32> = (0..tables.len() as i32).collect();
        for step in 0..count {
            let tokens = self.tokens(tables.len());
            let row = |(start, pages)| SeqRows { start, len: 1, past: depth + step, pages };
            let seqs: Vec<SeqRows<'_>> = tables.iter().map(Vec::as_slice).enumerate().map(row).collect();
            self.call(&tokens, &outputs, &seqs)?;
        }
        Ok(())
    }

    fn call(&mut self, tokens: &[i32], rows: &[i32], seqs: &[SeqRows<'_>]) -> Result<(), ExecError> {
        let inputs = [Input::I32(tokens), Input::I32(rows)];
        self.executable.run(&Call { inputs: &inputs, seqs, cancel: &CancelToken::default() })
    }

    /// Random tokens (xorshift64*: speed does not depend on them, and runs compare).
    fn tokens(&mut self, count: usize) -> Vec<i32> {
        let vocab = self.vocab.max(1) as u64;
        let mut next = || {
            self.random ^= self.random >> 12;
            self.random ^= self.random << 25;
            self.random ^= self.random >> 27;
            (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % vocab
        };
        (0..count).map(|_| next() as i32).collect()
    }
}
