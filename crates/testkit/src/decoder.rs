//! A stand-in for a language model on some hardware: its logits are a function of the history that lies in its pages.
//!
//! It keeps tokens in its pages as a real executable keeps keys and values, and reads them back for every output, so
//! a wrong page table, a lost copy or a page reused too early changes the answer or fails at once.

use kinglet_graph::{Call, ExecError, Executable, Input, PlanReport, Profiler};
use kinglet_tensor::{KvLayer, KvSpec, KvType, PageId};

/// Fills the logits that follow a history, or fails.
pub type Script = Box<dyn FnMut(&[u32], &mut [f32]) -> Result<(), ExecError> + Send>;

/// See the module's head.
pub struct FakeDecoder {
    vocab: usize,
    max_rows: usize,
    kv: KvSpec,
    script: Script,
    pages: Vec<Vec<Option<u32>>>, // [pages, page_tokens]
    logits: Vec<f32>,             // [outputs of the last run, vocab]
}

impl FakeDecoder {
    /// A decoder whose logits come from `script`.
    pub fn new(
        vocab: usize,
        page_tokens: usize,
        max_rows: usize,
        script: impl FnMut(&[u32], &mut [f32]) -> Result<(), ExecError> + Send + 'static,
    ) -> Self {
        let layers = vec![KvLayer { heads: 1, key_dim: 1, value_dim: 1 }];
        let kv = KvSpec { layers, kind: KvType::F32, page_tokens };
        FakeDecoder { vocab, max_rows, kv, script: Box::new(script), pages: Vec::new(), logits: Vec::new() }
    }

    /// A decoder with random-looking logits that depend on every token of the history and its place.
    pub fn hashed(vocab: usize, page_tokens: usize, max_rows: usize) -> Self {
        Self::new(vocab, page_tokens, max_rows, |history, logits| {
            hashed_logits(history, logits);
            Ok(())
        })
    }

    fn history(&self, pages: &[PageId], len: usize) -> Result<Vec<u32>, ExecError> {
        let size = self.kv.page_tokens;
        let at = |p: usize| self.pages.get(pages[p / size] as usize).and_then(|page| page[p % size]);
        (0..len)
            .map(|p| at(p).ok_or_else(|| problem(format!("position {p} is read before it is written"))))
            .collect()
    }

    fn page(&mut self, page: PageId) -> Result<&mut Vec<Option<u32>>, ExecError> {
        let pages = self.pages.len();
        self.pages.get_mut(page as usize).ok_or(ExecError::Page { page, pages })
    }
}

/// Logits in `-4.0..4.0`, one hash each of the whole history.
pub fn hashed_logits(history: &[u32], logits: &mut [f32]) {
    let seed = history.iter().fold(0, |hash, &token| mix(hash ^ u64::from(token)));
    for (index, logit) in logits.iter_mut().enumerate() {
        *logit = (mix(seed ^ index as u64) >> 40) as f32 / (1 << 21) as f32 - 4.0;
    }
}

/// The finaliser of SplitMix64.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn problem(reason: String) -> ExecError {
    ExecError::Node { node: "fake".into(), reason }
}

impl Executable for FakeDecoder {
    fn kv(&self) -> Option<&KvSpec> {
        Some(&self.kv)
    }

    fn max_rows(&self) -> usize {
        self.max_rows
    }

    fn max_outputs(&self) -> usize {
        self.max_rows
    }

    fn reserve_pages(&mut self, pages: usize) -> Result<(), ExecError> {
        let size = self.kv.page_tokens;
        self.pages.resize_with(pages.max(self.pages.len()), || vec![None; size]);
        Ok(())
    }

    fn copy_page(&mut self, from: PageId, to: PageId) -> Result<(), ExecError> {
        let content = self.page(from)?.clone();
        *self.page(to)? = content;
        Ok(())
    }

    fn run(&mut self, call: &Call<'_>) -> Result<(), ExecError> {
        let &[Input::I32(tokens), Input::I32(out_rows)] = call.inputs else {
            return Err(problem("inputs are tokens and output rows".into()));
        };
        if tokens.len() > self.max_rows || call.seqs.iter().map(|s| s.len).sum::<usize>() != tokens.len() {
            return Err(problem(format!("{} rows", tokens.len())));
        }
        self.logits.clear();
        for seq in call.seqs {
            if call.cancel.is_cancelled() {
                return Err(ExecError::Cancelled);
            }
            let size = self.kv.page_tokens;
            for row in 0..seq.len {
                let position = seq.past + row;
                let token = tokens[seq.start + row] as u32;
                self.page(seq.pages[position / size])?[position % size] = Some(token);
            }
            let rows = seq.start..seq.start + seq.len;
            for &row in out_rows.iter().filter(|&&row| rows.contains(&(row as usize))) {
                let history = self.history(seq.pages, seq.past + row as usize - seq.start + 1)?;
                let start = self.logits.len();
                self.logits.resize(start + self.vocab, 0.0);
                (self.script)(&history, &mut self.logits[start..])?;
            }
        }
        Ok(())
    }

    fn profile(&mut self, call: &Call<'_>, profiler: &mut dyn Profiler) -> Result<(), ExecError> {
        profiler.begin(); // Its plan has no steps.
        self.run(call)
    }

    fn output(&self, index: usize) -> Result<&[f32], ExecError> {
        if index == 0 { Ok(&self.logits) } else { Err(ExecError::Output(index)) }
    }

    fn report(&self, _: &[usize]) -> Result<PlanReport, ExecError> {
        Ok(PlanReport::default())
    }
}
