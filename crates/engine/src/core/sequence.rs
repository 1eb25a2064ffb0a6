//! One request's tokens and pages while it is alive.

use kinglet_tensor::PageId;

use super::order::Time;
use super::pages::PagePool;
use super::{Goal, Submission};

/// A live request. Every token whose keys and values lie in `pages` counts as past; the others are pending.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) tokens: Vec<u32>, // prompt, then what was generated
    pub(crate) past: usize,
    pub(crate) pages: Vec<PageId>,
    pub(crate) goal: Goal,
    pub(crate) prompt_len: usize,
    pub(crate) deadline: Option<Time>,
    published: usize, // leading pages that are in the cache's tree
}

/// A copy that must be made before the next run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageCopy {
    pub(crate) from: PageId,
    pub(crate) to: PageId,
}

impl Sequence {
    pub(crate) fn new(submission: Submission) -> Self {
        Sequence {
            past: 0,
            pages: Vec::new(),
            goal: submission.goal,
            prompt_len: submission.prompt.len(),
            deadline: submission.deadline,
            tokens: submission.prompt,
            published: 0,
        }
    }

    /// Tokens that still have to run.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.past
    }

    /// First token whose logits are wanted.
    pub(crate) fn first_output(&self) -> usize {
        match self.goal {
            Goal::Generate { .. } => self.tokens.len().saturating_sub(1),
            Goal::Score { from } => from,
        }
    }

    /// Pages missing to hold `tokens` tokens.
    pub(crate) fn missing_pages(&self, pool: &PagePool, tokens: usize) -> usize {
        tokens.div_ceil(pool.page_tokens()).saturating_sub(self.pages.len())
    }

    /// Takes over whole cached pages that continue what the sequence has, short of the first wanted output.
    pub(crate) fn adopt(&mut self, pool: &mut PagePool) {
        while let Some((page, common)) = self.continuation(pool)
            && common == pool.page_tokens()
        {
            pool.hold(page);
            self.pages.push(page);
            self.published = self.pages.len();
            self.past += common;
        }
    }

    /// Starts a page from a cached one that agrees with it in part.
    pub(crate) fn adopt_part(&mut self, pool: &mut PagePool) -> Option<PageCopy> {
        let (from, common) = self.continuation(pool)?;
        pool.hold(from); // the new page must not be made of the one that is copied
        let to = pool.allocate();
        pool.release(&[from]);
        let to = to?;
        self.pages.push(to);
        self.past += common;
        Some(PageCopy { from, to })
    }

    fn continuation(&self, pool: &PagePool) -> Option<(PageId, usize)> {
        if self.past != self.pages.len() * pool.page_tokens() || self.published != self.pages.len() {
            return None;
        }
        let end = self.first_output().min(self.past.saturating_add(pool.page_tokens()));
        pool.find(self.pages.last().copied(), self.tokens.get(self.past..end)?)
    }

    /// Allocates pages towards `tokens` tokens and returns how many the pages now hold.
    pub(crate) fn grow(&mut self, pool: &mut PagePool, tokens: usize) -> usize {
        for _ in 0..self.missing_pages(pool, tokens) {
            match pool.allocate() {
                Some(page) => self.pages.push(page),
                None => break,
            }
        }
        self.pages.len() * pool.page_tokens()
    }

    /// Records that `rows` more tokens lie in the pages, and caches the pages that became full.
    pub(crate) fn advance(&mut self, pool: &mut PagePool, rows: usize) {
        self.past += rows;
        if let Goal::Score { from } = &mut self.goal {
            *from = self.past.max(*from); // what was delivered is not delivered again
        }
        while (self.published + 1) * pool.page_tokens() <= self.past {
            self.publish(pool);
        }
    }

    /// Gives all pages back; what they hold stays cached while there is room.
    pub(crate) fn release(&mut self, pool: &mut PagePool) {
        if self.published * pool.page_tokens() < self.past {
            self.publish(pool);
        }
        pool.release(&self.pages);
        self.pages.clear();
        self.published = 0;
        self.past = 0;
    }

    /// Puts the first page that is not cached yet into the cache.
    fn publish(&mut self, pool: &mut PagePool) {
        let (index, size) = (self.published, pool.page_tokens());
        let parent = index.checked_sub(1).map(|parent| self.pages[parent]);
        let end = self.past.min((index + 1) * size);
        self.pages[index] = pool.publish(parent, self.pages[index], &self.tokens[index * size..end]);
        self.published += 1;
    }
}
