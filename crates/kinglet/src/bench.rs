//! Speed of a compiled decoder: prompts (`pp`) and tokens one after the other (`tg`), as `llama-bench` defines them.

use std::time::Instant;

use kinglet_graph::cost::Cost;
use kinglet_graph::{Call, CancelToken, ExecError, Executable, Input, PlanReport};
use kinglet_tensor::{PageId, SeqRows};

use crate::Compiled;
use crate::profile::{Run, Stopwatch};
use crate::random::Random;

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
        self.depth.saturating_add(self.tokens)
    }
}

/// A figure of each repetition of a test: tokens per second, or milliseconds.
#[derive(Clone, Debug)]
pub struct Samples {
    sorted: Vec<f64>,
}

impl Samples {
    pub(crate) fn new(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self { sorted: samples }
    }

    /// The figure that a share `q` of repetitions stays below.
    pub fn quantile(&self, q: f64) -> f64 {
        let last = self.sorted.len().saturating_sub(1);
        self.sorted.get((q * last as f64).round() as usize).copied().unwrap_or(0.0)
    }

    /// All of them, from the smallest to the largest.
    pub fn all(&self) -> &[f64] {
        &self.sorted
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// Measures one compiled decoder.
pub struct Bench {
    executable: Box<dyn Executable>,
    vocab: usize,
    page_tokens: usize,
    random: Random,
    /// The runs since profiling began; none when it did not.
    runs: Option<Vec<Run>>,
}

impl Bench {
    /// Takes the decoder over; waits until its packed weights are kept, where they are, so that nothing disturbs.
    pub fn new(compiled: Compiled) -> Self {
        let page_tokens = compiled.executable.kv().map_or(1, |kv| kv.page_tokens);
        let Compiled { executable, vocab, .. } = compiled;
        Self { executable, vocab, page_tokens, random: Random::default(), runs: None }
    }

    /// Tokens per second of `reps` repetitions of a test, all sequences together, after one to warm up; `progress` hears of each.
    pub fn run(
        &mut self,
        test: &Test,
        reps: usize,
        mut progress: impl FnMut(usize, f64),
    ) -> Result<Samples, ExecError> {
        let tables = self.tables(test)?;
        let mut rates = Vec::with_capacity(reps);
        for rep in 0..=reps {
            let started = Instant::now();
            self.repeat(test, &tables)?;
            let rate = (test.tokens * test.batch) as f64 / started.elapsed().as_secs_f64();
            if rep > 0 {
                rates.push(rate);
            }
            progress(rep, rate);
        }
        Ok(Samples::new(rates))
    }

    /// The runs of a test's middle repetition, by time, of `reps` after one to warm up.
    pub fn profile(&mut self, test: &Test, reps: usize) -> Result<Vec<Run>, ExecError> {
        let tables = self.tables(test)?;
        self.repeat(test, &tables)?;
        let mut all = Vec::with_capacity(reps);
        for _ in 0..reps.max(1) {
            self.runs = Some(Vec::new());
            let done = self.repeat(test, &tables);
            all.push(self.runs.take().unwrap_or_default());
            done?;
        }
        let wall = |runs: &Vec<Run>| runs.iter().map(|run| run.wall).sum::<f64>();
        all.sort_by(|a, b| wall(a).total_cmp(&wall(b)));
        Ok(all.swap_remove((all.len() - 1) / 2))
    }

    /// Pages for each sequence of a test, filled to its depth.
    fn tables(&mut self, test: &Test) -> Result<Vec<Vec<PageId>>, ExecError> {
        let pages = test.context().div_ceil(self.page_tokens);
        self.executable.reserve_pages(pages * test.batch)?;
        let table = |seq| (0..pages).map(|p| (seq * pages + p) as PageId).collect();
        let tables: Vec<Vec<PageId>> = (0..test.batch).map(table).collect();
        tables.iter().try_for_each(|table| self.prompt(table, 0, test.depth))?;
        Ok(tables)
    }

    fn repeat(&mut self, test: &Test, tables: &[Vec<PageId>]) -> Result<(), ExecError> {
        match test.kind {
            Kind::Prompt => self.prompt(&tables[0], test.depth, test.tokens),
            Kind::Decode => self.decode(tables, test.depth, test.tokens),
        }
    }

    /// The plan of a run of these sequences: tokens before, and tokens of the run; each wants one row of logits.
    pub fn report(&self, seqs: &[(usize, usize)]) -> Result<PlanReport, ExecError> {
        self.executable.report(&[seqs.iter().map(|(_, len)| len).sum(), seqs.len()])
    }

    /// The sequences of a test's typical run: tokens before, and tokens of the run.
    pub fn typical(&self, test: &Test) -> Vec<(usize, usize)> {
        match test.kind {
            Kind::Prompt => vec![(test.depth, test.tokens.min(self.executable.max_rows()))],
            Kind::Decode => vec![(test.depth + test.tokens / 2, 1); test.batch],
        }
    }

    /// What a typical run of a test costs, over all steps.
    pub fn cost(&self, test: &Test) -> Result<Cost, ExecError> {
        let seqs = self.typical(test);
        let report = self.report(&seqs)?;
        Ok(report.steps.iter().fold(Cost::default(), |sum, step| sum + step.cost(&seqs)))
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
        let call = Call { inputs: &inputs, seqs, cancel: &CancelToken::default() };
        let Some(runs) = &mut self.runs else { return self.executable.run(&call) };
        let mut watch = Stopwatch::start();
        self.executable.profile(&call, &mut watch)?;
        runs.push(watch.stop(seqs.iter().map(|seq| (seq.past, seq.len)).collect()));
        Ok(())
    }

    /// Random tokens: speed does not depend on them, and runs compare.
    fn tokens(&mut self, count: usize) -> Vec<i32> {
        let vocab = self.vocab.max(1) as u64;
        (0..count).map(|_| (self.random.next() % vocab) as i32).collect()
    }
}
