//! Lifetime-based memory planner: buffers that never live at once share bytes.
//!
//! Greedy by size (Pisarchyk & Lee 2020, <https://arxiv.org/abs/2001.03288>): larger buffers first, each at the lowest
//! offset that is free for its whole life.

/// Offsets are multiples of this, so that vectors never straddle a cache line.
const ALIGN: usize = 64;

/// A buffer: how large, and over which steps it is needed (both ends included).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Size in bytes.
    pub bytes: usize,
    /// Step that writes it.
    pub first: usize,
    /// Last step that reads it.
    pub last: usize,
}

impl Lifetime {
    fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Where each buffer lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Offset of each buffer, in the order given.
    pub offsets: Vec<usize>,
    /// Bytes of the whole arena.
    pub bytes: usize,
}

/// Places every buffer; none when the sum of sizes overflows.
pub fn plan_memory(buffers: &[Lifetime]) -> Option<Layout> {
    buffers.iter().try_fold(0usize, |sum, b| sum.checked_add(b.bytes.checked_next_multiple_of(ALIGN)?))?;
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(buffers[i].bytes), i));
    let mut layout = Layout { offsets: vec![0; buffers.len()], bytes: 0 };
    let mut placed: Vec<usize> = Vec::with_capacity(buffers.len());
    for i in order {
        let offset = lowest_gap(&buffers[i], &placed, buffers, &layout.offsets);
        layout.offsets[i] = offset;
        layout.bytes = layout.bytes.max(offset + buffers[i].bytes.next_multiple_of(ALIGN));
        placed.push(i);
    }
    Some(layout)
}

/// The lowest offset at which `buffer` meets none of the placed ones in both time and space.
fn lowest_gap(buffer: &Lifetime, placed: &[usize], buffers: &[Lifetime], offsets: &[usize]) -> usize {
    let mut taken: Vec<(usize, usize)> = placed
        .iter()
        .filter(|&&p| buffers[p].meets(buffer))
        .map(|&p| (offsets[p], offsets[p] + buffers[p].bytes.next_multiple_of(ALIGN)))
        .collect();
    taken.sort_unstable();
    let mut offset = 0;
    for (start, end) in taken {
        if start >= offset + buffer.bytes {
            break;
        }
        offset = offset.max(end);
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(bytes: usize, first: usize, last: usize) -> Lifetime {
        Lifetime { bytes, first, last }
    }

    #[test]
    fn buffers_share_bytes_only_when_they_never_live_at_once() {
        let check = |buffers: &[Lifetime], bytes: usize| {
            let layout = plan_memory(buffers).expect("sizes fit");
            assert_eq!(layout.bytes, bytes);
            for (i, a) in buffers.iter().enumerate() {
                for (j, b) in buffers.iter().enumerate().skip(i + 1) {
                    let (x, y) = (layout.offsets[i], layout.offsets[j]);
                    assert!(!a.meets(b) || x + a.bytes <= y || y + b.bytes <= x, "{i} and {j} overlap");
                }
            }
        };
        check(&[], 0);
        check(&[life(64, 0, 1), life(64, 2, 3)], 64);
        check(&[life(64, 0, 1), life(64, 1, 2)], 128);
        check(&[life(100, 0, 1), life(64, 1, 2), life(128, 2, 3), life(1, 0, 3)], 256);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert_eq!(plan_memory(&[life(usize::MAX, 0, 0)]), None);
        assert_eq!(
            plan_memory(&[life(usize::MAX / 2, 0, 0), life(usize::MAX / 2, 0, 0), life(64, 0, 0)]),
            None
        );
    }
}
