//! The merge loop that byte pair encoding and SentencePiece's scores share.
//!
//! Contract: at each step the pair of neighbours with the smallest rank merges, the leftmost of equals first, until no
//! pair has a rank. n symbols take O(n log n) steps. What has a rank, and what a merge gives, is the caller's.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No symbol: the end of the chain, or a symbol without an id.
pub(crate) const NONE: u32 = u32::MAX;

/// A stretch of a word that is one token, or that no token spells (`id` is [`NONE`]).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Symbol {
    /// The token's id.
    pub(crate) id: u32,
    /// Where it begins in the word, in bytes.
    pub(crate) start: u32,
    /// Where it ends.
    pub(crate) end: u32,
    prev: u32,
    next: u32,
}

/// The merge loop with its buffers, kept between words.
#[derive(Debug, Default)]
pub(crate) struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<(u32, u32, u32, u32)>>,
}

impl Merger {
    /// Forgets the last word.
    pub(crate) fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Adds a symbol behind the others.
    pub(crate) fn push(&mut self, id: u32, start: usize, end: usize) {
        let at = self.symbols.len() as u32;
        if let Some(last) = self.symbols.last_mut() {
            last.next = at;
        }
        let prev = at.checked_sub(1).unwrap_or(NONE);
        self.symbols.push(Symbol { id, start: start as u32, end: end as u32, prev, next: NONE });
    }

    /// Merges until nothing is left to merge. `rank` gives a pair's rank and the merged token's id.
    pub(crate) fn run(&mut self, rank: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        for at in 1..self.symbols.len() as u32 {
            self.consider(at - 1, at, &rank);
        }
        while let Some(Reverse((_, at, end, id))) = self.queue.pop() {
            let left = self.symbols[at as usize];
            let Some(right) = self.symbols.get(left.next as usize).copied() else { continue };
            if left.start == left.end || right.end != end {
                continue;
            }
            self.symbols[left.next as usize].end = right.start;
            if let Some(after) = self.symbols.get_mut(right.next as usize) {
                after.prev = at;
            }
            self.symbols[at as usize] = Symbol { id, end, next: right.next, ..left };
            self.consider(left.prev, at, &rank);
            self.consider(at, right.next, &rank);
        }
    }

    /// The symbols that are left, in order.
    pub(crate) fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.start < symbol.end)
    }

    fn consider(&mut self, left: u32, right: u32, rank: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        let pair = (self.symbols.get(left as usize), self.symbols.get(right as usize));
        if let (Some(a), Some(b)) = pair
            && let Some((rank, id)) = rank(a, b)
        {
            self.queue.push(Reverse((rank, left, b.end, id)));
        }
    }
}
