//! Aligned storage for packed weights, arenas and pooled buffers.
//!
//! Contract: memory is always initialised, starts on a cache line (or on a 2 MiB boundary once it is that large; Linux is
//! then asked to back it with huge pages), never moves, and a failed allocation is an error. It does not grow: size it
//! first.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use bytemuck::Pod;
use bytes::Bytes;

const CACHE_LINE: usize = 64;
const HUGE_PAGE: usize = 2 << 20;
/// Bytes that [`AlignedBuf::try_copy`] copies at a time.
pub const COPY_PIECE: usize = 16 << 10;

/// Memory that the system would not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot allocate {elements} x {size} bytes: free memory, or ask for less (a smaller context or batch)"
)]
pub struct AllocError {
    /// Elements asked for.
    pub elements: usize,
    /// Bytes of one element.
    pub size: usize,
}

/// A fixed-length slice of plain values, aligned to 64 bytes, or to 2 MiB when it is at least that large.
pub struct AlignedBuf<T: Pod = u8> {
    data: NonNull<T>,
    len: usize,
    owned: PhantomData<T>,
}

impl<T: Pod> AlignedBuf<T> {
    /// `len` zeroes. Fails when the size overflows or the allocator refuses.
    pub fn try_new(len: usize) -> Result<Self, AllocError> {
        const { assert!(align_of::<T>() <= CACHE_LINE && size_of::<T>() > 0) }
        let error = AllocError { elements: len, size: size_of::<T>() };
        let layout = Self::layout(len).ok_or(error)?;
        if layout.size() == 0 {
            return Ok(Self::default());
        }
        let raw = if layout.size() >= HUGE_PAGE { huge(layout) } else { zeroed(layout) };
        let data = raw.ok_or(error)?.cast::<T>();
        Ok(Self { data, len, owned: PhantomData })
    }

    /// A copy of `values`.
    pub fn try_from_slice(values: &[T]) -> Result<Self, AllocError> {
        Self::try_copy(values, |_| ())
    }

    /// A copy of `values`. Each piece of it is shown to `seen` while it still lies in the nearest cache, in order; all of
    /// them but the last are [`COPY_PIECE`] bytes, or one value when that is larger.
    pub fn try_copy(values: &[T], mut seen: impl FnMut(&[T])) -> Result<Self, AllocError> {
        const { assert!(align_of::<T>() <= CACHE_LINE && size_of::<T>() > 0) }
        let len = values.len();
        let error = AllocError { elements: len, size: size_of::<T>() };
        let layout = Self::layout(len).ok_or(error)?;
        if layout.size() == 0 {
            return Ok(Self::default());
        }
        // SAFETY: the layout's size is not zero.
        let raw = NonNull::new(unsafe { alloc(layout) }).ok_or(error)?;
        if layout.size() >= HUGE_PAGE {
            want_huge_pages(raw, layout.size());
        }
        let (data, each) = (raw.cast::<T>(), (COPY_PIECE / size_of::<T>()).max(1));
        for (i, piece) in values.chunks(each).enumerate() {
            // SAFETY: the memory is new and has room for as many values; this piece of it is read once it is written.
            let copy = unsafe {
                let to = data.as_ptr().add(i * each);
                piece.as_ptr().copy_to_nonoverlapping(to, piece.len());
                std::slice::from_raw_parts(to, piece.len())
            };
            seen(copy);
        }
        Ok(Self { data, len, owned: PhantomData })
    }

    /// The same memory as bytes.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }

    /// The same memory as bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(self)
    }

    fn layout(len: usize) -> Option<Layout> {
        let size = len.checked_mul(size_of::<T>())?;
        let align = if size >= HUGE_PAGE { HUGE_PAGE } else { CACHE_LINE };
        Layout::from_size_align(size, align).ok()
    }
}

/// Zeroes.
fn zeroed(layout: Layout) -> Option<NonNull<u8>> {
    // SAFETY: the layout's size is not zero.
    NonNull::new(unsafe { alloc_zeroed(layout) })
}

/// Zeroes, in huge pages where the system has them.
fn huge(layout: Layout) -> Option<NonNull<u8>> {
    // SAFETY: the layout's size is not zero.
    let raw = NonNull::new(unsafe { alloc(layout) })?;
    want_huge_pages(raw, layout.size());
    // SAFETY: the memory is as large as the layout says.
    unsafe { raw.as_ptr().write_bytes(0, layout.size()) };
    Some(raw)
}

/// Asks for huge pages before the memory is first touched; without them it is merely slower.
#[cfg(target_os = "linux")]
fn want_huge_pages(memory: NonNull<u8>, bytes: usize) {
    let whole = bytes / HUGE_PAGE * HUGE_PAGE;
    // SAFETY: advice does not change the memory's content, and the range lies within one allocation.
    let _refused = unsafe { libc::madvise(memory.as_ptr().cast(), whole, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn want_huge_pages(_: NonNull<u8>, _: usize) {}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<AlignedBuf> for Bytes {
    /// The same memory, shared.
    fn from(buffer: AlignedBuf) -> Self {
        Self::from_owner(buffer)
    }
}

impl<T: Pod> Deref for AlignedBuf<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `data` points to `len` values owned by self, zeroed at birth, and every bit pattern is a `T`; it
        // dangles, aligned, only when the slice takes no bytes.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl<T: Pod> DerefMut for AlignedBuf<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and self is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

impl<T: Pod> Drop for AlignedBuf<T> {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.len).filter(|layout| layout.size() > 0) {
            // SAFETY: `data` came from the global allocator with this very layout, which only depends on `len`.
            unsafe { dealloc(self.data.as_ptr().cast(), layout) }
        }
    }
}

impl<T: Pod> Default for AlignedBuf<T> {
    /// The empty buffer; allocates nothing.
    fn default() -> Self {
        Self { data: NonNull::dangling(), len: 0, owned: PhantomData }
    }
}

impl<T: Pod> fmt::Debug for AlignedBuf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf<{}>[{}]", std::any::type_name::<T>(), self.len)
    }
}

// SAFETY: the buffer owns its memory exclusively, as a `Box<[T]>` would.
unsafe impl<T: Pod + Send> Send for AlignedBuf<T> {}
// SAFETY: shared access only reads, as with `Box<[T]>`.
unsafe impl<T: Pod + Sync> Sync for AlignedBuf<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Pod + PartialEq + fmt::Debug>(len: usize, align: usize) {
        let buf = AlignedBuf::<T>::try_new(len).unwrap();
        assert_eq!(buf.len(), len);
        assert!(buf.as_ptr().cast::<u8>().align_offset(align) == 0 || len == 0);
        assert!(buf.iter().all(|x| *x == T::zeroed()));
    }

    #[test]
    fn memory_is_aligned_and_zeroed() {
        check::<u8>(0, 1);
        check::<u8>(1, CACHE_LINE);
        check::<f32>(1000, CACHE_LINE);
        check::<f32>(HUGE_PAGE / 4 - 1, CACHE_LINE);
        check::<f32>(HUGE_PAGE / 4, HUGE_PAGE);
        check::<[u8; 17]>(200_000, HUGE_PAGE);
    }

    #[test]
    fn impossible_sizes_are_errors() {
        for len in [usize::MAX, usize::MAX / 4, isize::MAX as usize / 8 + 1, isize::MAX as usize / 16] {
            assert!(AlignedBuf::<f64>::try_new(len).is_err(), "{len}");
        }
    }

    #[test]
    fn a_copy_is_seen_in_pieces() {
        for len in [0, 1, COPY_PIECE / 4, COPY_PIECE / 4 + 1, HUGE_PAGE / 4 + 3] {
            let values: Vec<u32> = (0..len as u32).collect();
            let mut seen = Vec::new();
            let copy = AlignedBuf::try_copy(&values, |piece| seen.extend_from_slice(piece)).unwrap();
            assert!(*copy == *values && seen == values, "{len}");
        }
    }

    #[test]
    fn values_and_bytes_are_the_same_memory() {
        let mut buf = AlignedBuf::try_from_slice(&[1.0f32, 2.0]).unwrap();
        buf[1] = 3.0;
        assert_eq!(buf.bytes()[4..], 3.0f32.to_le_bytes());
        buf.bytes_mut().fill(0);
        assert_eq!(*buf, [0.0, 0.0]);
    }
}
