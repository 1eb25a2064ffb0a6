//! Memory of ONNX and Core ML models besides their weights: what it may be, and where it came from.

use kinglet::Buffers;
use kinglet::graphs::BufferStats;
use kinglet::packs::PackFolder;
use kinglet::tensor::PoolLimits;
use serde_json::{Value, json};

use crate::commands::options::size;

/// What runs may keep and make.
#[derive(clap::Args)]
#[command(next_help_heading = "Memory of ONNX and Core ML models")]
pub(crate) struct BufferArgs {
    /// Idle buffers that are kept for the next run
    #[arg(long, value_name = "SIZE", default_value = "100MB", value_parser = size)]
    pool: u64,
    /// How long a buffer may be idle
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pool_ttl: u64,
    /// Outputs from this size on lie in files that other processes can map; 0 for none
    #[arg(long, value_name = "SIZE", default_value = "10MB", value_parser = size)]
    large_outputs: u64,
    /// Elements, at most, of a value whose size only the data decides
    #[arg(long, value_name = "N", default_value_t = Buffers::default().max_elements)]
    max_elements: usize,
    /// Rounds, at most, of a loop within a model
    #[arg(long, value_name = "N", default_value_t = Buffers::default().max_rounds)]
    max_rounds: u64,
    /// Elements, at most, of a list that a loop carries
    #[arg(long, value_name = "N", default_value_t = Buffers::default().max_list)]
    max_list: usize,
}

impl BufferArgs {
    /// With packed weights kept in this folder.
    pub(crate) fn buffers(&self, packs: Option<PackFolder>) -> Buffers {
        let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Buffers {
            pool: PoolLimits { ttl_ms: self.pool_ttl.saturating_mul(1000), idle_bytes: bytes(self.pool) },
            max_elements: self.max_elements,
            max_rounds: self.max_rounds,
            max_list: self.max_list,
            large_outputs: (self.large_outputs > 0).then(|| bytes(self.large_outputs)),
            packs,
        }
    }
}

/// Where buffers came from, in one line.
pub(crate) fn line(stats: &BufferStats) -> String {
    let pool = &stats.pool;
    format!(
        "{:.1} % of {} buffers without an allocation; {:.1} MB planned; pool: {:.1} % of {} served, {:.1} MB saved, \
         {:.1} MB at most, {:.1} MB idle, {:.1} % unused in what is lent",
        100.0 * stats.avoided(),
        stats.planned + pool.requests(),
        stats.arena_bytes as f64 / 1e6,
        100.0 * pool.hit_ratio(),
        pool.requests(),
        pool.bytes_saved as f64 / 1e6,
        pool.peak as f64 / 1e6,
        pool.idle as f64 / 1e6,
        100.0 * pool.fragmentation(),
    )
}

/// The same for programs.
pub(crate) fn as_json(stats: &BufferStats) -> Value {
    let pool = &stats.pool;
    json!({
        "planned": stats.planned,
        "planned_bytes": stats.arena_bytes,
        "allocations_avoided": stats.avoided(),
        "pool": {
            "hits": pool.hits,
            "misses": pool.misses,
            "hit_ratio": pool.hit_ratio(),
            "bytes_saved": pool.bytes_saved,
            "fragmentation": pool.fragmentation(),
            "idle_bytes": pool.idle,
            "lent_bytes": pool.lent,
            "peak_bytes": pool.peak,
            "freed": pool.freed,
        },
    })
}
