//! Key/value pages: who holds which, and which finished ones can be used again.
//!
//! A page is free, held by one or more sequences, or idle: held by none but still cached. Cached pages form a tree:
//! the path from the root spells the tokens that led to a page, so that equal prefixes share pages and a match is
//! exact (tokens are compared, not hashes). Idle pages are reused least recently used first. A sequence holds its
//! whole path, and gives it back tail first; hence an idle page is always older than its parent, and eviction takes
//! leaves before what they hang on.
//!
//! Deliberately absent: the pages' content, which only the executable sees.

use std::collections::BTreeSet;

use kinglet_tensor::PageId;

/// The pages of one executable.
#[derive(Debug)]
pub(crate) struct PagePool {
    page_tokens: usize,
    capacity: usize,
    pages: Vec<Page>, // grows up to `capacity`
    free: Vec<PageId>,
    roots: Vec<PageId>,            // cached pages that begin a sequence
    idle: BTreeSet<(u64, PageId)>, // cached pages that nobody holds, by time of release
    releases: u64,
}

#[derive(Debug, Default)]
struct Page {
    holders: u32,
    block: Option<Block>,
    released: u64,
}

/// A page's place in the tree of prefixes.
#[derive(Debug)]
struct Block {
    parent: Option<PageId>,
    tokens: Vec<u32>, // shorter than a page only at the end of a sequence
    children: Vec<PageId>,
}

impl PagePool {
    /// A pool of at most `capacity` pages of `page_tokens` positions.
    pub(crate) fn new(page_tokens: usize, capacity: usize) -> Self {
        PagePool {
            page_tokens,
            capacity,
            pages: Vec::new(),
            free: Vec::new(),
            roots: Vec::new(),
            idle: BTreeSet::new(),
            releases: 0,
        }
    }

    /// Positions a page holds.
    pub(crate) fn page_tokens(&self) -> usize {
        self.page_tokens
    }

    /// Pages that can be had now, counting idle ones.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.idle.len() + (self.capacity - self.pages.len())
    }

    /// Pages that sequences hold.
    pub(crate) fn held(&self) -> usize {
        self.capacity - self.available()
    }

    /// Cached pages that nobody holds.
    pub(crate) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// A page for the caller alone; none when sequences hold them all.
    pub(crate) fn allocate(&mut self) -> Option<PageId> {
        if self.free.is_empty() && self.pages.len() == self.capacity {
            self.evict();
        }
        let page = match self.free.pop() {
            Some(page) => page,
            None if self.pages.len() < self.capacity => {
                self.pages.push(Page::default());
                PageId::try_from(self.pages.len() - 1).ok()?
            }
            None => return None,
        };
        self.page(page).holders = 1;
        Some(page)
    }

    /// Adds a holder.
    pub(crate) fn hold(&mut self, page: PageId) {
        let entry = self.page(page);
        entry.holders += 1;
        if entry.holders == 1 {
            let key = (entry.released, page);
            self.idle.remove(&key);
        }
    }

    /// Takes one holder from each page of a sequence.
    pub(crate) fn release(&mut self, pages: &[PageId]) {
        for &page in pages.iter().rev() {
            self.releases += 1;
            let now = self.releases;
            let entry = self.page(page);
            entry.holders -= 1;
            if entry.holders > 0 {
                continue;
            }
            entry.released = now;
            if entry.block.is_some() {
                self.idle.insert((now, page));
            } else {
                self.free.push(page);
            }
        }
    }

    /// The cached page after `parent` that agrees longest with `tokens`, and on how many of them.
    pub(crate) fn find(&self, parent: Option<PageId>, tokens: &[u32]) -> Option<(PageId, usize)> {
        let agreed = |&page: &PageId| {
            let block = self.pages[page as usize].block.as_ref()?;
            let len = block.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
            (len > 0).then_some((page, len))
        };
        self.children(parent).iter().filter_map(agreed).max_by_key(|&(_, len)| len)
    }

    /// Caches a held page that has been computed for `tokens` after `parent`. When the cache has them already the
    /// caller's page is let go, and the cached one is held and returned in its place.
    pub(crate) fn publish(&mut self, parent: Option<PageId>, page: PageId, tokens: &[u32]) -> PageId {
        if let Some((known, len)) = self.find(parent, tokens)
            && len == tokens.len()
        {
            self.hold(known);
            self.release(&[page]);
            return known;
        }
        self.page(page).block = Some(Block { parent, tokens: tokens.to_vec(), children: Vec::new() });
        self.children_mut(parent).push(page);
        page
    }

    /// Frees the idle page that was released first.
    fn evict(&mut self) {
        let Some((_, page)) = self.idle.pop_first() else { return };
        if let Some(block) = self.page(page).block.take() {
            debug_assert!(block.children.is_empty(), "page {page} leaves before what hangs on it");
            self.children_mut(block.parent).retain(|&child| child != page);
        }
        self.free.push(page);
    }

    fn page(&mut self, page: PageId) -> &mut Page {
        &mut self.pages[page as usize]
    }

    fn children(&self, parent: Option<PageId>) -> &[PageId] {
        match parent {
            None => &self.roots,
            Some(page) => self.pages[page as usize].block.as_ref().map_or(&[], |block| &block.children),
        }
    }

    fn children_mut(&mut self, parent: Option<PageId>) -> &mut Vec<PageId> {
        match parent.and_then(|page| self.pages[page as usize].block.as_mut()) {
            Some(block) => &mut block.children,
            None => &mut self.roots,
        }
    }
}

#[cfg(test)]
impl PagePool {
    /// Every page is in exactly one account, holders are as given, and the tree hangs together.
    pub(crate) fn check(&self, holders: &std::collections::HashMap<PageId, u32>) {
        let free: BTreeSet<_> = self.free.iter().collect();
        assert_eq!(free.len(), self.free.len(), "a page is free twice");
        assert!(self.pages.len() <= self.capacity);
        for (page, entry) in (0..).zip(&self.pages) {
            assert_eq!(entry.holders, holders.get(&page).copied().unwrap_or(0), "holders of page {page}");
            let idle = self.idle.contains(&(entry.released, page));
            let accounts = [free.contains(&page), idle, entry.holders > 0];
            assert_eq!(accounts.iter().filter(|&&yes| yes).count(), 1, "page {page}: {accounts:?}");
            let Some(block) = &entry.block else { continue };
            assert!(self.children(block.parent).contains(&page), "page {page} hangs on its parent");
            if let Some(parent) = block.parent {
                let parent = &self.pages[parent as usize];
                assert!(parent.holders >= entry.holders.min(1) && parent.block.is_some());
                assert!(!idle || parent.holders > 0 || parent.released > entry.released);
            }
        }
    }
}
