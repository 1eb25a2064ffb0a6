//! The device for programs. Sizes are bytes, rates 10^9 per second (a multiply-add is two operations).

use kinglet::device::{
    Cache, CacheKind, Ceilings, Cpu, Device, Gpu, InstructionSet, MemoryCeiling, Rate, Sensor, WeightType,
    instruction_sets, weight_types,
};
use serde_json::{Value, json};

/// Everything that is known; `ceilings` and `kernels` only if they were asked for.
pub(super) fn everything(
    device: &Device,
    used: &str,
    ceilings: Option<&Ceilings>,
    with_kernels: bool,
) -> Value {
    let memory = &device.memory;
    let mut all = json!({
        "cpu": cpu(&device.cpu, used),
        "memory": {
            "total": memory.total,
            "available": memory.available,
            "limit": memory.limit,
            "huge_pages": memory.huge_pages,
        },
        "gpus": device.gpus.iter().map(gpu).collect::<Vec<_>>(),
        "sensors": device.sensors.iter().map(sensor).collect::<Vec<_>>(),
        "os": { "name": device.os.name, "kernel": device.os.kernel },
    });
    if let Some(found) = ceilings {
        all["ceilings"] = ceilings_json(found);
    }
    if with_kernels {
        all["kernels"] = json!({
            "isas": instruction_sets().iter().map(|set| instruction_set(set, &device.cpu)).collect::<Vec<_>>(),
            "weights": weight_types().iter().map(weight_type).collect::<Vec<_>>(),
        });
    }
    all
}

fn cpu(cpu: &Cpu, used: &str) -> Value {
    json!({
        "brand": cpu.brand,
        "vendor": cpu.vendor,
        "arch": cpu.arch,
        "physical_cores": cpu.physical_cores,
        "logical_cores": cpu.logical_cores,
        "usable_cores": cpu.usable_cores,
        "isas": cpu.levels,
        "isa": used,
        "features": cpu.features,
        "caches": cpu.caches.iter().map(cache).collect::<Vec<_>>(),
    })
}

fn cache(cache: &Cache) -> Value {
    let kind = match cache.kind {
        CacheKind::Data => "data",
        CacheKind::Instruction => "instruction",
        CacheKind::Unified => "unified",
    };
    json!({ "level": cache.level, "kind": kind, "bytes": cache.bytes, "instances": cache.instances })
}

fn gpu(gpu: &Gpu) -> Value {
    json!({ "vendor": gpu.vendor, "model": gpu.model, "driver": gpu.driver, "used": false })
}

fn sensor(sensor: &Sensor) -> Value {
    json!({ "name": sensor.name, "celsius": sensor.celsius })
}

/// The ceilings, as `bench --json` shows them too.
pub(in crate::commands) fn ceilings_json(found: &Ceilings) -> Value {
    json!({
        "isa": found.level,
        "threads": found.threads,
        "f32_gflops": rate(found.f32_fma),
        "bf16_gflops": found.bf16_dot.map(rate),
        "int8_gops": rate(found.int8_dot),
        "int16_gops": rate(found.int16_dot),
        "barriers_m_s": { "median": rounded(1e3 * found.barriers.median), "best": rounded(1e3 * found.barriers.best) },
        "read_gb_s": found.read.iter().map(memory).collect::<Vec<_>>(),
        "write_gb_s": memory(&found.write),
    })
}

fn memory(found: &MemoryCeiling) -> Value {
    let mut all = rate(found.rate);
    all["place"] = json!(found.place);
    all["bytes"] = json!(found.bytes);
    all["streams"] = json!(found.streams);
    all
}

fn rate(rate: Rate) -> Value {
    json!({ "median": rounded(rate.median), "best": rounded(rate.best) })
}

fn rounded(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}

fn instruction_set(set: &InstructionSet, cpu: &Cpu) -> Value {
    json!({
        "name": set.name,
        "lanes": set.lanes,
        "int8": set.int8,
        "f32": set.f32,
        "here": cpu.levels.contains(&set.name),
    })
}

fn weight_type(weights: &WeightType) -> Value {
    json!({ "name": weights.name, "bits": weights.bits, "kernel": if weights.int8 { "int8" } else { "f32" } })
}
