//! Gives memory that pools have kept idle for too long back to the system, whether anything runs or not.

use std::sync::{Mutex, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use kinglet_tensor::{BufferPool, WeakPool};

/// Pools that are swept, and whether a thread does.
static POOLS: Mutex<(Vec<WeakPool>, bool)> = Mutex::new((Vec::new(), false));

/// Sweeps a pool from now on, as long as it lives.
pub(crate) fn watch(pool: &BufferPool) {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    pools.0.push(pool.weak());
    if !pools.1 {
        let thread = Builder::new().name("kinglet-sweep".into()).spawn(sweep);
        pools.1 = thread.is_ok();
    }
}

/// Until no pool is left.
fn sweep() {
    let start = Instant::now();
    loop {
        let living: Vec<BufferPool> = {
            let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
            pools.0.retain(|pool| pool.upgrade().is_some());
            pools.1 = !pools.0.is_empty();
            pools.0.iter().filter_map(WeakPool::upgrade).collect()
        };
        if living.is_empty() {
            return;
        }
        let now = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let _freed: usize = living.iter().map(|pool| pool.sweep(now)).sum();
        let shortest = living.iter().map(|pool| pool.limits().ttl_ms).min().unwrap_or(0);
        drop(living);
        // Buffers are freed at most a quarter of their time too late.
        std::thread::sleep(Duration::from_millis((shortest / 4).clamp(10, 60_000)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinglet_tensor::{Contents, PoolLimits};

    #[test]
    fn what_is_idle_too_long_is_freed_without_a_run() {
        let pool = BufferPool::new(PoolLimits { ttl_ms: 20, ..PoolLimits::default() });
        drop(pool.acquire(5000, Contents::Stale).expect("memory"));
        assert!(pool.stats().idle > 0);
        watch(&pool);
        let patience = Instant::now();
        while pool.stats().idle > 0 {
            assert!(patience.elapsed() < Duration::from_secs(60), "nobody sweeps");
            std::thread::yield_now();
        }
        assert_eq!(pool.stats().freed, 1);
    }
}
