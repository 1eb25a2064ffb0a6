//! Reuse of short-lived buffers whose sizes a plan cannot know.
//!
//! Contract: [`BufferPool::acquire`] lends a buffer of the right size class, reused where one is idle, and dropping the
//! guard gives it back. Idle memory stays under a byte cap and is freed once it has been idle for the time to live.
//! No clock is read here: [`BufferPool::sweep`] is told the time. A buffer's idle time counts from the first sweep
//! that finds it idle.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytemuck::Pod;

use crate::{AlignedBuf, AllocError, DType, Tensor};

/// What a pool may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Milliseconds that a buffer may stay idle.
    pub ttl_ms: u64,
    /// Bytes that may be idle at once; the longest idle make room for the newest.
    pub idle_bytes: usize,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self { ttl_ms: 300_000, idle_bytes: 100_000_000 }
    }
}

/// Contents of a lent buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// All zeroes.
    Zeroed,
    /// Whatever the last user left: for buffers that are written before they are read.
    Stale,
}

/// Counts since the pool was made, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Buffers lent from idle ones: allocations avoided.
    pub hits: u64,
    /// Buffers that had to be allocated.
    pub misses: u64,
    /// Bytes that hits did not have to allocate.
    pub bytes_saved: u64,
    /// Idle buffers freed by age or by the byte cap.
    pub freed: u64,
    /// Bytes lent now, as asked for.
    pub requested: usize,
    /// Bytes lent now, as allocated.
    pub lent: usize,
    /// Bytes idle now.
    pub idle: usize,
    /// The most bytes ever held, lent and idle.
    pub peak: usize,
}

impl PoolStats {
    /// Buffers asked for.
    pub fn requests(&self) -> u64 {
        self.hits + self.misses
    }

    /// Share of requests served without an allocation, 0 to 1.
    pub fn hit_ratio(&self) -> f64 {
        ratio(self.hits as f64, self.requests() as f64)
    }

    /// Share of lent bytes that nobody asked for (size classes are coarser than requests), 0 to 1.
    pub fn fragmentation(&self) -> f64 {
        ratio((self.lent - self.requested) as f64, self.lent as f64)
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// A thread-safe pool; clones share it.
#[derive(Clone, Debug, Default)]
pub struct BufferPool(Arc<Shared>);

/// A pool that others keep alive.
#[derive(Clone, Debug)]
pub struct WeakPool(Weak<Shared>);

impl WeakPool {
    /// The pool, while there is one.
    pub fn upgrade(&self) -> Option<BufferPool> {
        self.0.upgrade().map(BufferPool)
    }
}

#[derive(Debug, Default)]
struct Shared {
    limits: PoolLimits,
    state: Mutex<State>,
}

/// Idle buffers by size, longest idle first.
#[derive(Debug, Default)]
struct State {
    idle: BTreeMap<usize, VecDeque<Idle>>,
    releases: u64,
    stats: PoolStats,
}

#[derive(Debug)]
struct Idle {
    data: AlignedBuf,
    released: u64,
    seen_ms: Option<u64>,
}

impl BufferPool {
    /// An empty pool.
    pub fn new(limits: PoolLimits) -> Self {
        Self(Arc::new(Shared { limits, state: Mutex::default() }))
    }

    /// Lends `bytes` bytes.
    pub fn acquire(&self, bytes: usize, contents: Contents) -> Result<PooledBuffer, AllocError> {
        let class = size_class(bytes).ok_or(AllocError { elements: bytes, size: 1 })?;
        let reused = self.0.state().take(class);
        let hit = reused.is_some();
        let mut data = reused.map_or_else(|| AlignedBuf::try_new(class), Ok)?;
        if hit && contents == Contents::Zeroed {
            data[..bytes].fill(0);
        }
        self.0.state().lend(hit, bytes, class);
        Ok(PooledBuffer { data, bytes, pool: self.0.clone() })
    }

    /// Lends room for a tensor of this shape and type.
    pub fn acquire_shape(
        &self,
        dtype: DType,
        shape: &[usize],
        contents: Contents,
    ) -> Result<PooledBuffer, AllocError> {
        let impossible = AllocError { elements: usize::MAX, size: dtype.block_bytes() };
        self.acquire(Tensor::bytes_of(dtype, shape).ok_or(impossible)?, contents)
    }

    /// Frees what has been idle for the time to live; `now_ms` counts from any fixed moment. Returns the bytes freed.
    pub fn sweep(&self, now_ms: u64) -> usize {
        let expired = self.0.state().expire(now_ms, self.0.limits.ttl_ms);
        expired.iter().map(|idle| idle.data.len()).sum()
    }

    /// Frees everything idle, for when memory is short.
    pub fn clear(&self) {
        let _freed = self.0.state().shrink_to(0);
    }

    /// What it may keep.
    pub fn limits(&self) -> PoolLimits {
        self.0.limits
    }

    /// The pool without keeping it alive, for whoever sweeps it from time to time.
    pub fn weak(&self) -> WeakPool {
        WeakPool(Arc::downgrade(&self.0))
    }

    /// The figures so far.
    pub fn stats(&self) -> PoolStats {
        self.0.state().stats
    }
}

impl Shared {
    /// A panic elsewhere cannot leave the state half-changed: no step of a change can panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The most recently used idle buffer of a class: its memory is the likeliest to be cached.
    fn take(&mut self, class: usize) -> Option<AlignedBuf> {
        let data = self.idle.get_mut(&class)?.pop_back()?.data;
        self.stats.idle -= class;
        Some(data)
    }

    fn lend(&mut self, hit: bool, bytes: usize, class: usize) {
        let stats = &mut self.stats;
        stats.hits += u64::from(hit);
        stats.misses += u64::from(!hit);
        stats.bytes_saved += if hit { class as u64 } else { 0 };
        stats.requested += bytes;
        stats.lent += class;
        stats.peak = stats.peak.max(stats.lent + stats.idle);
    }

    /// Takes a buffer back; returns those that no longer fit under the cap.
    fn give_back(&mut self, data: AlignedBuf, bytes: usize, cap: usize) -> Vec<AlignedBuf> {
        let class = data.len();
        self.stats.requested -= bytes;
        self.stats.lent -= class;
        if class > cap {
            self.stats.freed += 1;
            return vec![data];
        }
        let freed = self.shrink_to(cap - class);
        self.releases += 1;
        self.stats.idle += class;
        let idle = Idle { data, released: self.releases, seen_ms: None };
        self.idle.entry(class).or_default().push_back(idle);
        freed
    }

    /// Removes the longest idle buffers until at most `bytes` are idle.
    fn shrink_to(&mut self, bytes: usize) -> Vec<AlignedBuf> {
        let mut freed = Vec::new();
        while self.stats.idle > bytes {
            let Some(oldest) =
                self.idle.values_mut().min_by_key(|queue| queue.front().map_or(u64::MAX, |i| i.released))
            else {
                break;
            };
            let Some(idle) = oldest.pop_front() else { break };
            self.stats.idle -= idle.data.len();
            self.stats.freed += 1;
            freed.push(idle.data);
        }
        freed
    }

    fn expire(&mut self, now_ms: u64, ttl_ms: u64) -> Vec<Idle> {
        let mut expired = Vec::new();
        for queue in self.idle.values_mut() {
            for idle in queue.iter_mut() {
                idle.seen_ms.get_or_insert(now_ms);
            }
            let old = queue
                .partition_point(|idle| idle.seen_ms.is_some_and(|t| now_ms.saturating_sub(t) >= ttl_ms));
            expired.extend(queue.drain(..old));
        }
        self.idle.retain(|_, queue| !queue.is_empty());
        self.stats.idle -= expired.iter().map(|idle| idle.data.len()).sum::<usize>();
        self.stats.freed += expired.len() as u64;
        expired
    }
}

/// Rounds up to one of four sizes per doubling, at least a cache line: at most a fifth is wasted.
fn size_class(bytes: usize) -> Option<usize> {
    let bytes = bytes.max(64);
    let step = (1usize << bytes.ilog2()) / 4;
    bytes.checked_next_multiple_of(step)
}

/// A lent buffer: aligned as [`AlignedBuf`] is, given back to its pool when dropped.
pub struct PooledBuffer {
    data: AlignedBuf,
    bytes: usize,
    pool: Arc<Shared>,
}

impl PooledBuffer {
    /// The buffer as values; the bytes asked for must be a whole number of them, else none.
    pub fn values<T: Pod>(&self) -> Option<&[T]> {
        bytemuck::try_cast_slice(self).ok()
    }

    /// The buffer as values to write; the bytes asked for must be a whole number of them, else none.
    pub fn values_mut<T: Pod>(&mut self) -> Option<&mut [T]> {
        bytemuck::try_cast_slice_mut(self).ok()
    }
}

impl Deref for PooledBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.data[..self.bytes]
    }
}

impl DerefMut for PooledBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.data[..self.bytes]
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        // Freed after the lock is let go.
        let _freed = self.pool.state().give_back(data, self.bytes, self.pool.limits.idle_bytes);
    }
}

impl fmt::Debug for PooledBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PooledBuffer[{} of {}]", self.bytes, self.data.len())
    }
}

#[cfg(test)]
mod tests {
    use super::Contents::{Stale, Zeroed};
    use super::*;

    fn pool(ttl_ms: u64, idle_bytes: usize) -> BufferPool {
        BufferPool::new(PoolLimits { ttl_ms, idle_bytes })
    }

    #[test]
    fn a_returned_buffer_serves_its_whole_class() {
        let pool = BufferPool::default();
        let mut first = pool.acquire_shape(DType::F32, &[10, 99], Stale).unwrap();
        first.values_mut::<f32>().unwrap().fill(1.0);
        drop(first);
        let stale = pool.acquire(4000, Stale).unwrap();
        assert_eq!(stale.values::<f32>().unwrap()[989], 1.0);
        assert!(pool.acquire(3, Stale).unwrap().values::<f32>().is_none());
        drop(stale);
        assert!(pool.acquire(4000, Zeroed).unwrap().iter().all(|&b| b == 0));
        let stats = pool.stats();
        assert_eq!((stats.hits, stats.misses, stats.bytes_saved), (2, 2, 8192));
        assert_eq!((stats.lent, stats.idle, stats.peak), (0, 4160, 4160));
        assert_eq!(stats.hit_ratio(), 0.5);
    }

    #[test]
    fn classes_waste_at_most_a_fifth() {
        for bytes in [1, 64, 65, 80, 81, 1000, 4097, 1 << 20, (1 << 20) + 1, 123_456_789] {
            let class = size_class(bytes).unwrap();
            assert!(class >= bytes && (bytes < 64 || class - bytes <= class / 5), "{bytes}: {class}");
        }
        assert_eq!(size_class(usize::MAX), None);
        let pool = BufferPool::default();
        let buffer = pool.acquire(1025, Stale).unwrap();
        assert_eq!(pool.stats().fragmentation(), 255.0 / 1280.0);
        drop(buffer);
        assert_eq!(pool.stats().fragmentation(), 0.0);
    }

    #[test]
    fn idle_buffers_expire() {
        let pool = pool(100, 1 << 20);
        drop(pool.acquire(1024, Stale).unwrap());
        assert_eq!(pool.sweep(1000), 0);
        let (a, b) = (pool.acquire(1024, Stale).unwrap(), pool.acquire(1024, Stale).unwrap());
        drop(a);
        assert_eq!(pool.sweep(1050), 0);
        drop(b);
        assert_eq!(pool.sweep(1149), 0);
        assert_eq!(pool.sweep(1150), 1024);
        assert_eq!(pool.sweep(5000), 1024);
        assert_eq!((pool.stats().idle, pool.stats().freed), (0, 2));
    }

    #[test]
    fn the_cap_drops_the_longest_idle() {
        let pool = pool(100, 4096);
        let lent: Vec<_> = [1024, 2048, 1280, 8192].map(|n| pool.acquire(n, Stale).unwrap()).into();
        lent.into_iter().for_each(drop);
        assert_eq!((pool.stats().idle, pool.stats().freed), (3328, 2));
        drop(pool.acquire(2048, Stale).unwrap());
        assert_eq!(pool.stats().hits, 1);
        pool.clear();
        assert_eq!((pool.stats().idle, pool.stats().lent), (0, 0));
    }

    #[test]
    fn impossible_requests_are_errors_and_leave_the_pool_usable() {
        let pool = BufferPool::default();
        assert!(pool.acquire(usize::MAX / 2, Stale).is_err());
        assert!(pool.acquire_shape(DType::Q4_K, &[usize::MAX, 256], Stale).is_err());
        assert!(pool.acquire_shape(DType::Q4_K, &[100], Stale).is_err());
        assert_eq!(pool.acquire(0, Zeroed).unwrap().len(), 0);
        assert_eq!((pool.stats().misses, pool.stats().lent), (1, 0));
    }

    #[test]
    fn threads_never_share_a_buffer() {
        let pool = pool(0, 1 << 14);
        std::thread::scope(|scope| {
            for id in 0..4u8 {
                let pool = &pool;
                scope.spawn(move || {
                    for round in 0..500 {
                        let mut buffer = pool.acquire(256 << (round % 4), Stale).unwrap();
                        buffer.fill(id);
                        std::thread::yield_now();
                        assert!(buffer.iter().all(|&b| b == id));
                        drop(buffer);
                        if round % 50 == 0 {
                            pool.sweep(round);
                        }
                    }
                });
            }
        });
        let stats = pool.stats();
        assert_eq!((stats.hits + stats.misses, stats.requested, stats.lent), (2000, 0, 0));
        assert!(stats.idle <= 1 << 14);
    }
}
