//! Building the next batch: who gets rows, pages and outputs.

use std::ops::Bound;

use super::batch::{Batch, BatchSeq};
use super::order::Rank;
use super::sequence::Sequence;
use super::{Action, Core, Goal};

/// What is left of the limits while a batch is built.
struct Budget {
    prompt_rows: usize,
    score_rows: usize,
}

impl Core {
    /// The copies and the batch that run next; nothing when no sequence can run or a batch is under way.
    ///
    /// One walk in rank order. Only sequences behind the one at hand may lose pages to it, and those have no rows yet.
    pub(super) fn plan(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.in_flight.is_some() {
            return actions;
        }
        let ranks: Vec<Rank> = self.live.keys().copied().take(self.limits.max_running).collect();
        let mut budget = self.budget(&ranks);
        let mut batch = Batch::default();
        for rank in ranks {
            let Some(rows) = self.rows_for(rank, &mut budget, &mut actions) else { continue };
            if let Some(sequence) = self.live.get(&rank) {
                batch.add(rank, sequence, rows);
            }
        }
        if !batch.tokens.is_empty() {
            self.in_flight = Some(batch.seqs.iter().map(|seq| (seq.id, seq.len)).collect());
            actions.push(Action::Run(batch));
        }
        actions
    }

    /// Every decoding sequence has its row for sure, and every generation its output; prompts and scores share the rest.
    fn budget(&self, ranks: &[Rank]) -> Budget {
        let sequences = || ranks.iter().filter_map(|rank| self.live.get(rank));
        let decoding = sequences().filter(|sequence| sequence.pending() == 1).count();
        let generating = sequences().filter(|s| matches!(s.goal, Goal::Generate { .. })).count();
        let free = self.limits.max_rows - decoding;
        Budget {
            prompt_rows: if decoding == 0 { free } else { free.min(self.limits.prompt_rows) },
            score_rows: self.limits.max_outputs - generating,
        }
    }

    /// Prepares the pages of one sequence, takes its rows from the budget and returns them.
    fn rows_for(&mut self, rank: Rank, budget: &mut Budget, actions: &mut Vec<Action>) -> Option<usize> {
        let reserved = self.live.get(&rank)?.pending() == 1;
        if !reserved && (budget.prompt_rows == 0 || !self.use_cache(rank, actions)) {
            return None;
        }
        let sequence = self.live.get(&rank)?;
        let end = sequence.past + budget.rows(sequence, reserved);
        self.make_room(rank, sequence.missing_pages(&self.pool, end));
        let sequence = self.live.get_mut(&rank)?;
        let rows = sequence.grow(&mut self.pool, end).min(end) - sequence.past;
        budget.charge(sequence, rows, reserved);
        (rows > 0).then_some(rows)
    }

    /// Takes what the cache has of the pending tokens. False when a sequence that has nothing yet could not be held
    /// whole: it had better wait than begin what it cannot end.
    fn use_cache(&mut self, rank: Rank, actions: &mut Vec<Action>) -> bool {
        let Some(sequence) = self.live.get_mut(&rank) else { return false };
        let begins = sequence.pages.is_empty();
        let before = sequence.past;
        sequence.adopt(&mut self.pool);
        let missing =
            sequence.missing_pages(&self.pool, (sequence.tokens.len() + 1).min(self.limits.context));
        if begins && !self.make_room(rank, missing) {
            if let Some(sequence) = self.live.get_mut(&rank) {
                sequence.release(&mut self.pool);
            }
            return false;
        }
        let Some(sequence) = self.live.get_mut(&rank) else { return false };
        if let Some(copy) = sequence.adopt_part(&mut self.pool) {
            actions.push(Action::CopyPage { from: copy.from, to: copy.to });
        }
        self.cached_tokens += (sequence.past - before) as u64;
        true
    }

    /// Makes `pages` pages available by taking them from sequences behind `rank`, the last one first.
    fn make_room(&mut self, rank: Rank, pages: usize) -> bool {
        while self.pool.available() < pages {
            let behind = self.live.range_mut((Bound::Excluded(rank), Bound::Unbounded)).rev();
            let Some((_, victim)) = behind.into_iter().find(|(_, s)| !s.pages.is_empty()) else {
                return false;
            };
            victim.release(&mut self.pool);
            self.preemptions += 1;
        }
        true
    }
}

impl Budget {
    /// `reserved`: the sequence decodes, and has its row whatever the prompts take.
    fn rows(&self, sequence: &Sequence, reserved: bool) -> usize {
        let rows = sequence.pending().min(if reserved { 1 } else { self.prompt_rows });
        match sequence.goal {
            Goal::Generate { .. } => rows,
            Goal::Score { from } => rows.min(from.saturating_sub(sequence.past) + self.score_rows),
        }
    }

    fn charge(&mut self, sequence: &Sequence, rows: usize, reserved: bool) {
        if !reserved {
            self.prompt_rows -= rows;
        }
        if matches!(sequence.goal, Goal::Score { .. }) {
            self.score_rows -= outputs(sequence, rows);
        }
    }
}

/// How many of a sequence's next rows have an output.
fn outputs(sequence: &Sequence, rows: usize) -> usize {
    (sequence.past + rows).saturating_sub(sequence.first_output().max(sequence.past))
}

impl Batch {
    fn add(&mut self, rank: Rank, sequence: &Sequence, rows: usize) {
        let (start, past) = (self.tokens.len(), sequence.past);
        let outputs = outputs(sequence, rows);
        self.tokens.extend(sequence.tokens[past..past + rows].iter().map(|&token| token as i32));
        self.out_rows.extend((start + rows - outputs..start + rows).map(|row| row as i32));
        let pages = sequence.pages.clone();
        self.seqs.push(BatchSeq { id: rank.id(), start, len: rows, past, pages, outputs });
    }
}
