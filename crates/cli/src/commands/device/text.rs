//! The device for people.

use anyhow::Result;
use kinglet::device::{
    Cache, CacheKind, Ceilings, Cpu, Device, Gpu, Memory, MemoryCeiling, Rate, instruction_sets, weight_types,
};

use crate::ui::{HELD, Row, Sections, Table, Ui, bytes};

/// Prints everything that is known, or only the kernels; and the ceilings, if they were measured.
pub(super) fn print(
    device: &Device,
    used: &str,
    ceilings: Option<&Ceilings>,
    kernels: bool,
    ui: &Ui,
) -> Result<()> {
    let mut out = Sections::new(ui);
    if kernels {
        print_kernels(&device.cpu, used, &mut out)?;
    } else {
        out.rows("Processor", &processor(&device.cpu, used))?;
        out.rows("Memory", &memory(&device.memory))?;
        out.rows("Machine", &machine(device))?;
    }
    ceilings.map_or(Ok(()), |found| print_ceilings(found, &mut out))
}

fn processor(cpu: &Cpu, used: &str) -> Vec<Row> {
    let level = |name: &&str| if *name == used { format!("{name} (used)") } else { (*name).to_owned() };
    let levels: Vec<_> = cpu.levels.iter().map(level).collect();
    vec![
        ("name", cpu.brand.clone()),
        ("maker", cpu.vendor.clone()),
        ("architecture", cpu.arch.into()),
        ("cores", cores(cpu)),
        ("kernels for", levels.join(", ")),
        ("features", cpu.features.join(" ")),
        ("caches", cpu.caches.iter().map(cache).collect::<Vec<_>>().join(", ")),
    ]
}

fn cores(cpu: &Cpu) -> String {
    let mut text = cpu.physical_cores.to_string();
    if cpu.logical_cores != cpu.physical_cores {
        text += &format!(", {} hardware threads", cpu.logical_cores);
    }
    if cpu.usable_cores < cpu.logical_cores {
        text += &format!("; this process may use {}", cpu.usable_cores);
    }
    text
}

/// `L1 data 2 × 48 KiB`, without breaks where lines are wrapped.
fn cache(cache: &Cache) -> String {
    let kind = match cache.kind {
        CacheKind::Data => " data",
        CacheKind::Instruction => " code",
        CacheKind::Unified => "",
    };
    let count = cache.instances.filter(|&n| n > 1).map(|n| format!("{n} × ")).unwrap_or_default();
    format!("L{}{kind} {count}{}", cache.level, binary(cache.bytes)).replace(' ', HELD)
}

/// A size in binary units, as makers of processors tell it.
fn binary(bytes: u64) -> String {
    let (unit, name) = if bytes < 1 << 20 { (1 << 10, "KiB") } else { (1 << 20, "MiB") };
    let value = bytes as f64 / f64::from(unit);
    if value.fract() == 0.0 { format!("{value} {name}") } else { format!("{value:.1} {name}") }
}

fn memory(memory: &Memory) -> Vec<Row> {
    let known = |size: u64| if size == 0 { "unknown".into() } else { bytes(size) };
    vec![
        ("installed", known(memory.total)),
        ("limit", memory.limit.map(|limit| format!("{} for this process", bytes(limit))).unwrap_or_default()),
        ("available", known(memory.available)),
        ("huge pages", memory.huge_pages.clone().unwrap_or_default()),
    ]
}

fn machine(device: &Device) -> Vec<Row> {
    let gpus = match device.gpus.as_slice() {
        [] => "none found".into(),
        gpus => {
            let list: Vec<_> = gpus.iter().map(gpu).collect();
            format!("{}; Kinglet does not use them yet", list.join(", "))
        }
    };
    let sensor = |s: &kinglet::device::Sensor| format!("{} {:.0} °C", s.name, s.celsius).replace(' ', HELD);
    let sensors = match device.sensors.as_slice() {
        [] => "no sensors found".into(),
        sensors => sensors.iter().map(sensor).collect::<Vec<_>>().join(", "),
    };
    let kernel =
        if device.os.kernel.is_empty() { String::new() } else { format!(", kernel {}", device.os.kernel) };
    vec![("system", format!("{}{kernel}", device.os.name)), ("graphics", gpus), ("temperatures", sensors)]
}

fn gpu(gpu: &Gpu) -> String {
    let name = if gpu.model.starts_with(&gpu.vendor) {
        gpu.model.clone()
    } else {
        format!("{} {}", gpu.vendor, gpu.model)
    };
    gpu.driver.as_ref().map(|driver| format!("{name} (driver {driver})")).unwrap_or(name)
}

fn print_ceilings(found: &Ceilings, out: &mut Sections<'_>) -> Result<()> {
    let mut table = Table::new(&["CEILING", ">WORKING SET", ">MEDIAN", ">BEST", "UNIT", ">STREAMS"]);
    let mut row = |name: String, set: String, rate: Rate, unit: &str, streams: String| {
        table.row([name, set, figure(rate.median), figure(rate.best), unit.into(), streams]);
    };
    row("f32 multiply-add".into(), String::new(), found.f32_fma, "GFLOP/s", String::new());
    if let Some(rate) = found.bf16_dot {
        row("bf16 multiply-add".into(), String::new(), rate, "GFLOP/s", String::new());
    }
    row("int8 multiply-add".into(), String::new(), found.int8_dot, "GOP/s", String::new());
    row("int16 multiply-add".into(), String::new(), found.int16_dot, "GOP/s", String::new());
    let millions = |rate: f64| 1e3 * rate;
    let barriers = Rate { median: millions(found.barriers.median), best: millions(found.barriers.best) };
    row("barriers".into(), String::new(), barriers, "million/s", String::new());
    let mut memory = |verb: &str, m: &MemoryCeiling| {
        row(format!("{verb} {}", m.place), bytes(m.bytes), m.rate, "GB/s", m.streams.to_string());
    };
    found.read.iter().for_each(|m| memory("read", m));
    memory("write", &found.write);
    out.table(&format!("Ceilings: {}, {}", super::threads(found.threads), found.level), &table)
}

/// A rate with three digits or more.
fn figure(rate: f64) -> String {
    let digits = if rate < 10.0 {
        2
    } else if rate < 100.0 {
        1
    } else {
        0
    };
    format!("{rate:.digits$}")
}

fn print_kernels(cpu: &Cpu, used: &str, out: &mut Sections<'_>) -> Result<()> {
    let mut sets = Table::new(&["NAME", ">LANES", "8-BIT PRODUCTS", "32-BIT PRODUCTS", "HERE"]);
    for set in instruction_sets() {
        let here = match cpu.levels.contains(&set.name) {
            true if set.name == used => "used",
            true => "yes",
            false => "no",
        };
        sets.row([set.name.into(), set.lanes.to_string(), set.int8.into(), set.f32.into(), here.into()]);
    }
    out.table("Instruction sets", &sets)?;
    let columns: Vec<_> =
        ["WEIGHTS", ">BITS"].into_iter().chain(instruction_sets().iter().map(|s| s.name)).collect();
    let mut types = Table::new(&columns);
    for weights in weight_types() {
        let kernel = if weights.int8 { "int8" } else { "f32" };
        let cells = instruction_sets().iter().map(|_| kernel.to_owned());
        types.row(
            [weights.name.to_owned(), format!("{:.2}", weights.bits)]
                .into_iter()
                .chain(cells)
                .collect::<Vec<_>>(),
        );
    }
    out.table("Kernels of matrix products", &types)?;
    out.remark("int8: weights are packed when a model is loaded, activations are rounded to 8 bits, large ones to 16; fast.")?;
    out.remark("f32: weights are decoded row by row; exact, and slower.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_told_as_people_do() {
        for (bytes, text) in
            [(49_152, "48 KiB"), (1 << 20, "1 MiB"), (33 << 20, "33 MiB"), (1_310_720, "1.2 MiB")]
        {
            assert_eq!(binary(bytes), text);
        }
        for (rate, text) in [(1934.6, "1935"), (48.26, "48.3"), (7.0, "7.00")] {
            assert_eq!(figure(rate), text);
        }
    }

    #[test]
    fn a_gpu_is_named_once() {
        let named = |vendor: &str, model: &str, driver: Option<&str>| {
            gpu(&Gpu { vendor: vendor.into(), model: model.into(), driver: driver.map(str::to_owned) })
        };
        assert_eq!(named("NVIDIA", "NVIDIA H200", Some("nvidia")), "NVIDIA H200 (driver nvidia)");
        assert_eq!(named("AMD", "0x744c", None), "AMD 0x744c");
    }
}
