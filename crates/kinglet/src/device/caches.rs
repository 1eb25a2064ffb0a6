//! The processor's caches: from Linux's description of the cores, else from the processor itself (x86), else from
//! `sysctl` (macOS).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::line;

/// A kind of cache, all of its instances together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// 1 is the nearest to a core.
    pub level: u8,
    /// What it holds.
    pub kind: CacheKind,
    /// Bytes of one instance.
    pub bytes: u64,
    /// How many of them this machine has; none when unknown.
    pub instances: Option<usize>,
}

/// What a cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheKind {
    /// Data only.
    Data,
    /// Instructions only.
    Instruction,
    /// Both.
    Unified,
}

/// The caches, nearest first; empty when nothing is known.
pub(super) fn probe() -> Vec<Cache> {
    let sources = [|| described(Path::new("/sys/devices/system/cpu")), by_processor, by_sysctl];
    sources.iter().map(|source| source()).find(|caches| !caches.is_empty()).unwrap_or_default()
}

/// Caches as Linux describes them below `cpus`, each core its own: instances are told apart by the cores that share.
fn described(cpus: &Path) -> Vec<Cache> {
    let mut found: BTreeMap<(u8, CacheKind, u64), Vec<String>> = BTreeMap::new();
    let folders = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    for cache in folders(cpus).flat_map(|cpu| folders(&cpu.join("cache"))) {
        let Some((key, sharers)) = describe(&cache) else { continue };
        let instances = found.entry(key).or_default();
        if !instances.contains(&sharers) {
            instances.push(sharers);
        }
    }
    let cache = |((level, kind, bytes), sharers): (_, Vec<_>)| Cache {
        level,
        kind,
        bytes,
        instances: Some(sharers.len()),
    };
    found.into_iter().map(cache).collect()
}

/// Level, kind and size of one cache folder, and the list of cores that share it.
fn describe(folder: &Path) -> Option<((u8, CacheKind, u64), String)> {
    let level = line(folder.join("level"))?.parse().ok()?;
    let kind = match line(folder.join("type"))?.as_str() {
        "Data" => CacheKind::Data,
        "Instruction" => CacheKind::Instruction,
        _ => CacheKind::Unified,
    };
    let bytes = size(&line(folder.join("size"))?)?;
    Some(((level, kind, bytes), line(folder.join("shared_cpu_list"))?))
}

/// A size such as `48K`, in bytes.
fn size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.strip_suffix(['K', 'M']) {
        Some(digits) if text.ends_with('K') => (digits, 1 << 10),
        Some(digits) => (digits, 1 << 20),
        None => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(target_arch = "x86_64")]
fn by_processor() -> Vec<Cache> {
    use raw_cpuid::{CacheParameter, CacheType, CpuId};

    let cache = |c: CacheParameter| {
        let kind = match c.cache_type() {
            CacheType::Data => CacheKind::Data,
            CacheType::Instruction => CacheKind::Instruction,
            _ => CacheKind::Unified,
        };
        let bytes = [c.associativity(), c.physical_line_partitions(), c.coherency_line_size(), c.sets()];
        Cache { level: c.level(), kind, bytes: bytes.iter().map(|&n| n as u64).product(), instances: None }
    };
    let mut caches: Vec<_> = CpuId::new().get_cache_parameters().into_iter().flatten().map(cache).collect();
    caches.sort_by_key(|c| (c.level, c.kind));
    caches
}

#[cfg(not(target_arch = "x86_64"))]
fn by_processor() -> Vec<Cache> {
    Vec::new()
}

/// The caches of an Apple processor's fast cores; empty where there is no such program.
fn by_sysctl() -> Vec<Cache> {
    let read = |name: &str| -> Option<u64> {
        let output = Command::new("/usr/sbin/sysctl").args(["-n", name]).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    let names = [
        (1, CacheKind::Data, "hw.perflevel0.l1dcachesize"),
        (1, CacheKind::Instruction, "hw.perflevel0.l1icachesize"),
        (2, CacheKind::Unified, "hw.perflevel0.l2cachesize"),
    ];
    let cache = |(level, kind, name)| Some(Cache { level, kind, bytes: read(name)?, instances: None });
    names.into_iter().filter_map(cache).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in
            [("48K", Some(49_152)), ("32M", Some(33_554_432)), ("512", Some(512)), ("x", None)]
        {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    #[test]
    fn instances_are_told_apart_by_who_shares_them() {
        let root = tempfile::tempdir().expect("a folder");
        let rows = [
            ("cpu0/cache/index0", "1", "Data", "48K", "0"),
            ("cpu1/cache/index0", "1", "Data", "48K", "1"),
            ("cpu0/cache/index3", "3", "Unified", "32M", "0-1"),
            ("cpu1/cache/index3", "3", "Unified", "32M", "0-1"),
        ];
        for (folder, level, kind, size, sharers) in rows {
            let folder = root.path().join(folder);
            fs::create_dir_all(&folder).expect("writable");
            for (name, text) in
                [("level", level), ("type", kind), ("size", size), ("shared_cpu_list", sharers)]
            {
                fs::write(folder.join(name), format!("{text}\n")).expect("writable");
            }
        }
        let l1 = Cache { level: 1, kind: CacheKind::Data, bytes: 48 << 10, instances: Some(2) };
        let l3 = Cache { level: 3, kind: CacheKind::Unified, bytes: 32 << 20, instances: Some(1) };
        assert_eq!(described(root.path()), [l1, l3]);
    }

    #[test]
    fn the_system_and_the_processor_agree() {
        let data =
            |caches: Vec<Cache>| caches.into_iter().find(|c| (c.level, c.kind) == (1, CacheKind::Data));
        let system = data(described(Path::new("/sys/devices/system/cpu")));
        if let (Some(system), Some(processor)) = (system, data(by_processor())) {
            assert_eq!(system.bytes, processor.bytes);
        }
    }
}
