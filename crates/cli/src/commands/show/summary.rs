//! The overview for people.

use anyhow::Result;
use kinglet::catalog::{Model, known};
use kinglet::models::{DecoderConfig, RopeConfig, RopeScaling, Windows};
use kinglet::tensor::KvType;
use kinglet::{Footprint, Overview};

use crate::ui::{Row, Sections, Table, Ui, brief, bytes, count, large};

/// Contexts that memory is told for, besides the model's own.
const CONTEXTS: [usize; 2] = [1_024, 4_096];

/// Prints everything that matters, section by section.
pub(super) fn print(model: &Model, overview: &Overview, ui: &Ui) -> Result<()> {
    let mut out = Sections::new(ui);
    out.rows(&brief(&model.name, ui.columns()), &origin(model, overview))?;
    out.rows("Architecture", &architecture(overview))?;
    out.table("Weights", &mix(overview))?;
    if let Some(footprint) = &overview.footprint {
        out.table("Memory", &memory(footprint, overview.sizes.context.unwrap_or(0)))?;
        ui.line(weights_line(footprint))?;
    }
    out.rows("Tokenizer", &tokenizer(overview))?;
    for obstacle in &overview.obstacles {
        ui.line("")?;
        ui.line(format_args!("Kinglet cannot run this model: {}", brief(&obstacle.to_string(), 1_000)))?;
        if let Some(hint) = obstacle.hint() {
            ui.line(format_args!("hint: {hint}"))?;
        }
    }
    Ok(())
}

fn origin(model: &Model, overview: &Overview) -> Vec<Row> {
    let files = match model.files.as_slice() {
        [file] => file.name.clone(),
        files => format!("{} files", files.len()),
    };
    let license = overview.license.as_deref().or_else(|| catalogued(&model.name)).unwrap_or("not stated");
    vec![
        ("title", overview.title.as_deref().map(|title| brief(title, 120)).unwrap_or_default()),
        ("source", brief(&model.source, 200)),
        ("files", format!("{}, {}, {}", brief(&files, 120), bytes(model.bytes()), overview.format)),
        ("licence", brief(license, 120)),
    ]
}

/// The licence that the catalogue knows of.
fn catalogued(name: &str) -> Option<&'static str> {
    known::KNOWN.iter().find(|known| known.id() == name).map(|known| known.license)
}

fn architecture(overview: &Overview) -> Vec<Row> {
    let sizes = &overview.sizes;
    let size = |size: Option<usize>| size.map(|n| count(n as u64)).unwrap_or_default();
    let heads = match (sizes.heads, sizes.kv_heads, sizes.head_dim) {
        (Some(heads), Some(kv), Some(dim)) => format!("{heads}, {kv} for keys and values, of {dim} elements"),
        (heads, ..) => size(heads),
    };
    let context = sizes.context.map(|n| format!("{} tokens", count(n as u64))).unwrap_or_default();
    let mut rows = vec![
        ("name", brief(overview.architecture.as_deref().unwrap_or("not stated"), 120)),
        ("parameters", large(overview.parameters())),
        ("layers", size(sizes.layers)),
        ("width", size(sizes.dim)),
        ("heads", heads),
        ("feed-forward", size(sizes.ff)),
        ("vocabulary", size(sizes.vocab)),
        ("context", context),
    ];
    rows.extend(overview.decoder.iter().flat_map(switches));
    rows
}

/// What only the decoder as it would run can tell.
fn switches(decoder: &DecoderConfig) -> Vec<Row> {
    let mut rope = format!("{} elements of a head, {}", decoder.rope.dims, rope(&decoder.rope));
    if decoder.window.is_some() && decoder.local_rope != decoder.rope {
        rope += &format!("; in windowed layers {}", self::rope(&decoder.local_rope));
    }
    let cap = |cap: Option<f32>| cap.map(|cap| cap.to_string()).unwrap_or_default();
    vec![
        ("window", window(decoder)),
        ("rotary", rope),
        ("norm epsilon", format!("{:e}", decoder.norm_eps)),
        ("attention cap", cap(decoder.attn_softcap)),
        ("logit cap", cap(decoder.logit_softcap)),
    ]
}

fn rope(rope: &RopeConfig) -> String {
    let from = |original: usize| format!("trained on {} tokens", count(original as u64));
    let scaling = match &rope.scaling {
        RopeScaling::None => "not scaled".into(),
        RopeScaling::Linear(factor) => format!("linear, factor {factor}"),
        RopeScaling::Llama3 { factor, original, .. } => {
            format!("llama3, factor {factor}, {}", from(*original as usize))
        }
        RopeScaling::Yarn(yarn) => format!("yarn, factor {}, {}", yarn.factor, from(yarn.original)),
        RopeScaling::Factors(factors) => format!("{} factors", factors.len()),
        RopeScaling::Long { .. } => {
            rope.original.map_or("longrope".into(), |original| format!("longrope, {}", from(original)))
        }
    };
    let base = if rope.base.fract() == 0.0 { count(rope.base as u64) } else { rope.base.to_string() };
    format!("base {base}, {scaling}")
}

fn window(decoder: &DecoderConfig) -> String {
    let Some(window) = decoder.window else { return "none".into() };
    let windowed = decoder.windowed.iter().filter(|windowed| **windowed).count();
    let period =
        (2..=decoder.layers).find(|n| Windows::AllButLastOf(*n).layers(decoder.layers) == decoder.windowed);
    let which = match period {
        _ if windowed == decoder.layers => "in every layer".into(),
        Some(n) => format!("in {windowed} of {} layers, all but one in {n}", decoder.layers),
        None => format!("in {windowed} of {} layers", decoder.layers),
    };
    format!("{} tokens {which}", count(window as u64))
}

fn mix(overview: &Overview) -> Table {
    let mut table = Table::new(&["TYPE", ">TENSORS", ">BYTES", ">SHARE", ">BITS/WEIGHT"]);
    let total = overview.weight_bytes().max(1);
    for share in &overview.mix {
        table.row([
            share.dtype.to_string(),
            count(share.tensors as u64),
            bytes(share.bytes),
            format!("{:.1} %", share.bytes as f64 * 100.0 / total as f64),
            format!("{:.2}", share.bits_per_weight()),
        ]);
    }
    let bits = overview.weight_bytes() as f64 * 8.0 / overview.parameters().max(1) as f64;
    let tensors: usize = overview.mix.iter().map(|share| share.tensors).sum();
    table.row([
        "all".into(),
        count(tensors as u64),
        bytes(overview.weight_bytes()),
        String::new(),
        format!("{bits:.2}"),
    ]);
    table
}

fn memory(footprint: &Footprint, context: usize) -> Table {
    let mut table = Table::new(&[">CONTEXT", ">KEYS+VALUES Q16", ">TOTAL", ">KEYS+VALUES Q8_0", ">TOTAL"]);
    let mut contexts: Vec<usize> = CONTEXTS.into_iter().filter(|n| *n < context).collect();
    contexts.push(context);
    for tokens in contexts {
        let shown = |size: Option<u64>| size.map_or("-".into(), bytes);
        table.row([
            count(tokens as u64),
            shown(footprint.kv_bytes(KvType::Q16, tokens)),
            shown(footprint.total(KvType::Q16, tokens)),
            shown(footprint.kv_bytes(KvType::Q8_0, tokens)),
            shown(footprint.total(KvType::Q8_0, tokens)),
        ]);
    }
    table
}

fn weights_line(footprint: &Footprint) -> String {
    let exact = bytes(footprint.mapped);
    if footprint.packed == 0 {
        return format!("  of which weights: {exact}, used where they lie in the file");
    }
    let (packed, beside) = (bytes(footprint.packed), bytes(footprint.beside));
    format!("  of which weights: {packed} packed, {beside} mapped; in f32 precision {exact} mapped")
}

fn tokenizer(overview: &Overview) -> Vec<Row> {
    let vocabulary = &overview.vocabulary;
    let kind = vocabulary.kind.as_deref().map_or("none".into(), |kind| brief(kind, 60));
    // Only byte-level BPE cuts text into words first.
    let pre = vocabulary
        .pre
        .as_deref()
        .filter(|_| kind == "gpt2")
        .map(|pre| format!(", pre-tokenizer {}", brief(pre, 60)));
    let special =
        vocabulary.special.iter().map(|(role, id, text)| format!("{role} {} ({id})", brief(text, 40)));
    let template = match &overview.template {
        Some(text) => format!("{} characters (--template prints it)", count(text.chars().count() as u64)),
        None => "none".into(),
    };
    vec![
        ("kind", kind + &pre.unwrap_or_default()),
        ("tokens", vocabulary.size.map(|n| count(n as u64)).unwrap_or_default()),
        ("special", special.collect::<Vec<_>>().join(", ")),
        ("chat template", template),
    ]
}
