//! What this machine offers: cores and memory.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Physical cores that this process may use.
pub fn cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    System::physical_core_count().map_or(allowed, |physical| physical.clamp(1, allowed))
}

/// Bytes of memory that can be had without swapping, within the limits of this process's control group. All there
/// could be, where the system does not say.
pub fn available_memory() -> u64 {
    let kind = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let Ok(system) = System::new_with_specifics(kind) else { return u64::MAX };
    let group = system.cgroup_limits().map_or(u64::MAX, |limits| limits.free_memory);
    system.available_memory().min(group)
}
