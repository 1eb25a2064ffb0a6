//! Keys and values of past tokens, in pages.
//!
//! A page covers the same `page_tokens` positions in every layer and belongs to whichever sequences the scheduler says.
//! Memory comes in chunks of several pages, only when reserved; a chunk is ordered for attention, which visits one layer
//! and one head at a time:
//!
//! ```text
//! chunk:  layer 0                                      layer 1 ..
//!         page 0                      page 1 ..
//!         head 0        head 1 ..
//!         keys | values
//!
//! keys:   group 0 (tokens 0..16)      group 1 ..       token = lane: one vector load brings 16 tokens' element d
//!         d=0: t0 t1 .. t15
//!         d=1: t0 t1 .. t15  ..
//! values: token 0: d0 d1 ..           token 1 ..       rows padded with zeros to a multiple of 16 elements
//!
//! Q8_0    signed bytes with one half-float scale for 32 elements of a token (value = byte * scale):
//! keys:   group: d=0..4: t0(d0 d1 d2 d3) t1(d0 d1 d2 d3) ..; d=4..8: ..; then scales, block 0: t0 .. t15, block 1: ..
//! values: bytes of all tokens, row by row; then scales of all tokens, row by row
//!
//! Q16     signed 16-bit codes, two by two in words, with one float scale for a token (value = code * scale):
//! keys:   group: d=0..2: t0(d0 d1) t1(d0 d1) .. t15(d0 d1); d=2..4: ..; then scales t0 .. t15
//! values: group: t0, t1: d0(t0 t1) d1(t0 t1) ..; t2, t3: ..; then scales t0 .. t15
//! ```
//!
//! Deliberately absent: page tables, sharing, eviction (the scheduler's), and reading by position (attention's).

use kinglet_tensor::{AlignedBuf, KvLayer, KvSpec, KvType, PageId, SeqRows};

use crate::arena::ALIGN;
use crate::kv_codec::Rows;

/// Tokens whose keys are interleaved.
pub const GROUP: usize = 16;
/// Elements that share a scale in Q8_0.
pub(crate) const Q8_BLOCK: usize = 32;
/// Elements of a head stay below this: then sums of products of Q16 codes stay within 32 bits.
const MAX_DIM: usize = 1 << 14;
/// Positions that a chunk of memory holds, at least.
const CHUNK_TOKENS: usize = 512;

/// What a store cannot be or do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "fields are named by the message")]
pub enum KvError {
    /// Pages must hold whole groups of tokens.
    #[error("a page of {0} tokens: must be a positive multiple of {GROUP}")]
    PageTokens(usize),
    /// A layer's heads cannot be stored in this type.
    #[error(
        "layer {layer}: {shape:?} as {kind}: counts must be positive, fill whole blocks and be below 16,384"
    )]
    Layer { layer: usize, shape: KvLayer, kind: KvType },
    /// The sizes overflow.
    #[error("a page of this model is larger than the address space")]
    Overflow,
    /// The system gave no memory.
    #[error(
        "not enough memory for {pages} pages ({bytes} bytes): use a smaller context or a smaller KV type"
    )]
    Memory { pages: usize, bytes: usize },
    /// A page that was not reserved.
    #[error("page {page} is outside the {pages} reserved pages")]
    Page { page: PageId, pages: usize },
    /// A sequence that its pages cannot hold.
    #[error("sequence {seq}: {tokens} tokens do not fit into its {pages} pages")]
    Short { seq: usize, tokens: usize, pages: usize },
    /// Two writers of one page.
    #[error("sequence {seq}: page {page} is written twice in one batch")]
    Shared { seq: usize, page: PageId },
}

/// Paged key/value memory of one model.
#[derive(Debug)]
pub struct KvStore {
    geometry: Geometry,
    chunks: Vec<AlignedBuf<u8>>,
    /// Start of each chunk: all access goes through these.
    bases: Vec<*mut u8>,
    pages: usize,
    /// For each page, the batch that last wrote to it.
    written: Vec<u32>,
    batch: u32,
}

// SAFETY: the pointers are to memory that the store owns; a shared store only reads its own fields.
unsafe impl Send for KvStore {}
// SAFETY: as above.
unsafe impl Sync for KvStore {}

impl KvStore {
    /// A store without pages.
    pub fn new(spec: KvSpec) -> Result<Self, KvError> {
        let geometry = Geometry::new(spec)?;
        Ok(Self { geometry, chunks: vec![], bases: vec![], pages: 0, written: vec![], batch: 0 })
    }

    /// What it stores.
    pub fn spec(&self) -> &KvSpec {
        &self.geometry.spec
    }

    /// Number of usable pages.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len()).sum()
    }

    /// Makes pages `0..pages` usable; existing ones keep their content. Fails, changing nothing, when memory is short.
    pub fn reserve(&mut self, pages: usize) -> Result<(), KvError> {
        let wanted = pages.div_ceil(self.geometry.chunk_pages);
        let bytes = self.geometry.chunk_bytes;
        let short = KvError::Memory { pages, bytes: bytes.saturating_mul(wanted) };
        let more = wanted.saturating_sub(self.chunks.len());
        let mut fresh = Vec::new();
        fresh.try_reserve_exact(more).map_err(|_| short.clone())?;
        for _ in 0..more {
            fresh.push(AlignedBuf::try_new(bytes).map_err(|_| short.clone())?);
        }
        self.written.try_reserve(pages.saturating_sub(self.written.len())).map_err(|_| short)?;
        self.written.resize(pages.max(self.written.len()), self.batch);
        self.bases.extend(fresh.iter_mut().map(|chunk: &mut AlignedBuf<u8>| chunk.as_mut_ptr()));
        self.chunks.append(&mut fresh);
        self.pages = self.pages.max(pages);
        Ok(())
    }

    /// Copies the content of page `from` to page `to`, over all layers.
    pub fn copy_page(&mut self, from: PageId, to: PageId) -> Result<(), KvError> {
        self.check_page(from)?;
        self.check_page(to)?;
        let view = self.view();
        for layer in &view.geometry.layers {
            let (source, target) = (view.page(from, layer), view.page(to, layer));
            // SAFETY: both pages are reserved, so both ranges are owned memory, the same or disjoint; the store is
            // borrowed exclusively.
            unsafe { std::ptr::copy(source, target, layer.page_bytes()) };
        }
        Ok(())
    }

    /// Checks that every sequence's positions lie in reserved pages, and that no page gets two writers.
    pub(crate) fn admit(&mut self, seqs: &[SeqRows<'_>]) -> Result<(), KvError> {
        self.batch = self.batch.wrapping_add(1);
        if self.batch == 0 {
            self.written.fill(0);
            self.batch = 1;
        }
        seqs.iter().enumerate().try_for_each(|(index, seq)| self.admit_one(index, seq))
    }

    fn admit_one(&mut self, index: usize, seq: &SeqRows<'_>) -> Result<(), KvError> {
        let tokens = seq.past.saturating_add(seq.len);
        let used = tokens.div_ceil(self.geometry.spec.page_tokens);
        let short = KvError::Short { seq: index, tokens, pages: seq.pages.len() };
        let pages = seq.pages.get(..used).ok_or(short)?;
        pages.iter().try_for_each(|&page| self.check_page(page))?;
        if seq.len == 0 {
            return Ok(());
        }
        for &page in &pages[seq.past / self.geometry.spec.page_tokens..] {
            let last = std::mem::replace(&mut self.written[page as usize], self.batch);
            if last == self.batch {
                return Err(KvError::Shared { seq: index, page });
            }
        }
        Ok(())
    }

    fn check_page(&self, page: PageId) -> Result<(), KvError> {
        let known = (page as usize) < self.pages;
        if known { Ok(()) } else { Err(KvError::Page { page, pages: self.pages }) }
    }

    /// For the workers of a run, which holds the store exclusively.
    pub(crate) fn view(&mut self) -> KvView<'_> {
        KvView { geometry: &self.geometry, bases: &self.bases }
    }
}

/// Sizes and offsets that follow from the spec.
#[derive(Debug)]
struct Geometry {
    spec: KvSpec,
    layers: Vec<LayerGeometry>,
    chunk_pages: usize,
    chunk_bytes: usize,
}

/// Where a layer lies in a chunk.
#[derive(Debug)]
struct LayerGeometry {
    offset: usize,
    heads: usize,
    key_bytes: usize,
    value_bytes: usize,
}

impl LayerGeometry {
    fn page_bytes(&self) -> usize {
        self.heads * (self.key_bytes + self.value_bytes)
    }
}

impl Geometry {
    fn new(spec: KvSpec) -> Result<Self, KvError> {
        if spec.page_tokens == 0 || !spec.page_tokens.is_multiple_of(GROUP) {
            return Err(KvError::PageTokens(spec.page_tokens));
        }
        let chunk_pages = (CHUNK_TOKENS / spec.page_tokens).max(1);
        let mut geometry = Self { layers: vec![], chunk_pages, chunk_bytes: 0, spec };
        for (index, shape) in geometry.spec.layers.clone().into_iter().enumerate() {
            geometry.push(index, shape)?;
        }
        Ok(geometry)
    }

    fn push(&mut self, index: usize, shape: KvLayer) -> Result<(), KvError> {
        let KvSpec { kind, page_tokens, .. } = self.spec;
        let dims = [shape.key_dim, shape.value_dim];
        let fits = |dim: usize| (1..MAX_DIM).contains(&dim) && dim.is_multiple_of(kind.block_len());
        if shape.heads == 0 || !dims.into_iter().all(fits) {
            return Err(KvError::Layer { layer: index, shape, kind });
        }
        let [keys, values] = dims.map(|dim| Rows { kind, page_tokens, dim });
        let sizes = || {
            let key = keys.key_bytes()?.checked_next_multiple_of(ALIGN)?;
            let value = values.value_bytes()?.checked_next_multiple_of(ALIGN)?;
            let page = key.checked_add(value)?.checked_mul(shape.heads)?;
            let end = page.checked_mul(self.chunk_pages)?.checked_add(self.chunk_bytes)?;
            Some((key, value, end))
        };
        let (key_bytes, value_bytes, end) = sizes().ok_or(KvError::Overflow)?;
        let offset = std::mem::replace(&mut self.chunk_bytes, end);
        self.layers.push(LayerGeometry { offset, heads: shape.heads, key_bytes, value_bytes });
        Ok(())
    }
}

/// Addresses of the pages, for the workers of a run.
#[derive(Clone, Copy, Debug)]
pub struct KvView<'a> {
    geometry: &'a Geometry,
    bases: &'a [*mut u8],
}

/// One head's share of a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadPage {
    pub(crate) keys: *mut u8,
    pub(crate) values: *mut u8,
}

impl KvView<'_> {
    /// What is stored.
    pub fn spec(&self) -> &KvSpec {
        &self.geometry.spec
    }

    /// Keys and values of a head. Panics when there is no such page, layer or head.
    #[inline]
    pub(crate) fn head(&self, page: PageId, layer: usize, head: usize) -> HeadPage {
        let shape = &self.geometry.layers[layer];
        assert!(head < shape.heads, "head {head} of {}", shape.heads);
        let keys = self.page(page, shape).wrapping_add(head * (shape.key_bytes + shape.value_bytes));
        HeadPage { keys, values: keys.wrapping_add(shape.key_bytes) }
    }

    #[inline]
    fn page(&self, page: PageId, layer: &LayerGeometry) -> *mut u8 {
        let (chunk, within) =
            (page as usize / self.geometry.chunk_pages, page as usize % self.geometry.chunk_pages);
        self.bases[chunk].wrapping_add(layer.offset + within * layer.page_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(kind: KvType, page_tokens: usize, layer: KvLayer) -> KvSpec {
        KvSpec { layers: vec![layer; 3], kind, page_tokens }
    }

    const LAYER: KvLayer = KvLayer { heads: 2, key_dim: 64, value_dim: 32 };

    #[test]
    fn impossible_specs_are_refused() {
        let check = |kind, page_tokens, layer| {
            KvStore::new(spec(kind, page_tokens, layer)).expect_err("refused");
        };
        check(KvType::Q16, 64, KvLayer { key_dim: 1 << 14, ..LAYER });
        check(KvType::F16, 0, LAYER);
        check(KvType::F16, 24, LAYER);
        check(KvType::Q8_0, 64, KvLayer { key_dim: 48, ..LAYER });
        check(KvType::F16, 64, KvLayer { heads: 0, ..LAYER });
        check(KvType::F16, 64, KvLayer { heads: usize::MAX / 2, ..LAYER });
        check(KvType::F16, 64, KvLayer { value_dim: usize::MAX - 3, ..LAYER });
    }

    #[test]
    fn pages_do_not_overlap_and_copies_are_whole() {
        for kind in KvType::ALL {
            let mut store = KvStore::new(spec(kind, 64, LAYER)).expect("valid");
            store.reserve(3).expect("memory");
            store.reserve(11).expect("memory");
            let fill = |view: KvView<'_>, page: PageId| {
                for (index, layer) in view.geometry.layers.iter().enumerate() {
                    // SAFETY: reserved memory, borrowed exclusively.
                    let bytes =
                        unsafe { std::slice::from_raw_parts_mut(view.page(page, layer), layer.page_bytes()) };
                    assert!(bytes.iter().all(|&b| b == 0), "page {page} overlaps another");
                    bytes.fill(page as u8 * 3 + index as u8 + 1);
                }
            };
            (0..11).for_each(|page| fill(store.view(), page));
            store.copy_page(2, 9).expect("both exist");
            let first = |store: &mut KvStore, page, layer| {
                // SAFETY: reserved and initialised.
                unsafe { *store.view().head(page, layer, 1).values }
            };
            assert_eq!(first(&mut store, 9, 2), 2 * 3 + 3);
            assert_eq!(first(&mut store, 10, 2), 10 * 3 + 3);
        }
    }

    #[test]
    fn pages_that_are_not_there_are_refused() {
        let mut store = KvStore::new(spec(KvType::F16, 64, LAYER)).expect("valid");
        store.reserve(2).expect("memory");
        assert_eq!(store.copy_page(0, 2), Err(KvError::Page { page: 2, pages: 2 }));
        let seq = |past, len, pages| SeqRows { start: 0, len, past, pages };
        let mut check =
            |seqs: &[SeqRows<'_>], ok: bool| assert_eq!(store.admit(seqs).is_ok(), ok, "{seqs:?}");
        check(&[seq(0, 64, &[1])], true);
        check(&[seq(0, 65, &[1])], false);
        check(&[seq(usize::MAX, 2, &[1])], false);
        check(&[seq(0, 1, &[2])], false);
        check(&[seq(64, 1, &[0, 1]), seq(64, 0, &[0])], true);
        check(&[seq(64, 1, &[0, 1]), seq(0, 1, &[1])], false);
        check(&[seq(63, 2, &[1, 1])], false);
    }
}
