//! What this machine offers to this process: cores and memory.

use kinglet_simd::Level;
use sysinfo::{
    CGroupLimits, MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System,
    get_current_pid,
};

use crate::Error;

/// The instruction set of this name, or the best there is.
pub(crate) fn level(name: Option<&str>) -> Result<Level, Error> {
    let Some(name) = name else { return Ok(Level::detect()) };
    Level::named(name).ok_or_else(|| {
        let names: Vec<&str> = Level::available().into_iter().map(Level::name).collect();
        Error::Isa { name: name.into(), available: names.join(", ") }
    })
}

/// The instruction set that is used when this one is asked for, or none in particular.
pub fn instruction_set(name: Option<&str>) -> Result<&'static str, Error> {
    level(name).map(Level::name)
}

/// Physical cores that this process may use.
pub fn cores() -> usize {
    let allowed = usable_cores();
    System::physical_core_count().map_or(allowed, |physical| physical.clamp(1, allowed))
}

/// Bytes of memory that can be had without swapping, within the limits of this process's control group. All there
/// could be, where the system does not say.
pub fn available_memory() -> u64 {
    let group = group_limits().map_or(u64::MAX, |limits| limits.free_memory);
    memory().map_or(u64::MAX, |system| system.available_memory()).min(group)
}

/// Logical cores that this process may use.
pub(crate) fn usable_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The system's memory, freshly read; none where the system does not say.
pub(crate) fn memory() -> Option<System> {
    let kind = MemoryRefreshKind::nothing().with_ram();
    System::new_with_specifics(RefreshKind::nothing().with_memory(kind)).ok()
}

/// The limits of this process's control group and those around it; none where there are no such groups.
pub(crate) fn group_limits() -> Option<CGroupLimits> {
    let process = get_current_pid().ok()?;
    let mut system = System::new_with_specifics(RefreshKind::nothing()).ok()?;
    let kind = ProcessRefreshKind::nothing().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[process]), false, kind);
    system.process(process)?.cgroup_limits()
}

/// Largest resident memory that this process has had, in bytes, where the system says.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes * 1024)
}
