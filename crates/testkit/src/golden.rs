//! The tiny golden decoders under `tests/data/tiny`, made by `tools/golden/tiny_models.py`.

use std::path::PathBuf;

use bytes::Bytes;
use kinglet_formats::{Gguf, Limits, Safetensors, hf};
use kinglet_graph::Graph;
use kinglet_models::{DecoderConfig, DecoderOptions, ModelError, build_decoder};
use kinglet_tensor::{DType, KvType, MemoryWeights, Tensor, WeightSource, quant};

/// Folder names of every golden decoder.
pub const DECODERS: [&str; 10] = [
    "llama",
    "llama3-scaled",
    "mistral-window",
    "qwen2",
    "qwen3",
    "phi3",
    "phi3-short",
    "phi3-long",
    "gemma2",
    "gemma3",
];

/// Bytes of a file of a golden decoder.
///
/// # Panics
/// When the file is not there: the data is committed.
pub fn file(decoder: &str, name: &str) -> Bytes {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny").join(decoder).join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).into()
}

/// Options that suit a golden decoder; `phi3-short` is evaluated within its original context.
pub fn options(decoder: &str) -> DecoderOptions {
    let context = if decoder == "phi3-short" { 32 } else { 64 };
    DecoderOptions { context, max_rows: 32, max_outputs: 32, kv_type: KvType::F32, page_tokens: 16 }
}

/// The graph of a golden decoder, from its GGUF file.
pub fn from_gguf(decoder: &str) -> Result<Graph, ModelError> {
    let gguf =
        Gguf::parse(file(decoder, "tiny.gguf"), &Limits::default()).expect("committed files are sound");
    build_decoder(&DecoderConfig::from_gguf(gguf.metadata())?, &gguf, &options(decoder))
}

/// The graph of a golden decoder, from its Hugging Face folder.
pub fn from_hf(decoder: &str) -> Result<Graph, ModelError> {
    let sound = "committed files are sound";
    let config = hf::parse("config.json", &file(decoder, "config.json"), &Limits::default()).expect(sound);
    let weights = Safetensors::parse(file(decoder, "model.safetensors"), &Limits::default()).expect(sound);
    build_decoder(&DecoderConfig::from_hf(&config)?, &weights, &options(decoder))
}

/// The graph of a golden decoder with every matrix that has whole blocks quantised to `dtype`.
pub fn quantized(decoder: &str, dtype: DType) -> Graph {
    let sound = "committed files are sound";
    let gguf = Gguf::parse(file(decoder, "tiny.gguf"), &Limits::default()).expect(sound);
    let weights: MemoryWeights = gguf.tensors().iter().map(|tensor| quantize(tensor, dtype)).collect();
    let config = DecoderConfig::from_gguf(gguf.metadata()).expect(sound);
    build_decoder(&config, &weights, &options(decoder)).expect(sound)
}

fn quantize(tensor: &Tensor, dtype: DType) -> Tensor {
    let whole = tensor.shape().last().is_some_and(|cols| cols.is_multiple_of(dtype.block_len()));
    if tensor.shape().len() != 2 || !whole {
        return tensor.clone();
    }
    let values: Vec<f32> = tensor.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let mut bytes = Vec::new();
    quant::quantize(dtype, &values, &mut bytes).expect("finite weights");
    Tensor::new(tensor.name(), dtype, tensor.shape().to_vec(), bytes.into()).expect("whole blocks")
}

/// What Transformers computed in f64 for a golden decoder.
pub struct Reference(Safetensors);

impl Reference {
    /// Reads `reference.safetensors`.
    pub fn of(decoder: &str) -> Self {
        let file = file(decoder, "reference.safetensors");
        Self(Safetensors::parse(file, &Limits::default()).expect("committed files are sound"))
    }

    /// The token ids.
    pub fn tokens(&self) -> Vec<i32> {
        self.bytes("tokens").as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect()
    }

    /// Logits of every position, row-major.
    pub fn logits(&self) -> Vec<f64> {
        self.values("logits")
    }

    /// The embedded tokens, then the residual after every block but the last.
    pub fn residuals(&self) -> Vec<Vec<f64>> {
        let names = (0..).map(|i| format!("residual.{i}"));
        names.take_while(|name| self.0.contains(name)).map(|name| self.values(&name)).collect()
    }

    fn values(&self, name: &str) -> Vec<f64> {
        self.bytes(name).as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
    }

    fn bytes(&self, name: &str) -> Bytes {
        self.0.tensor(name).expect("the generator writes it").data().clone()
    }
}

/// Asserts that every value is within `bound` of the reference, relative to the reference's root mean square.
///
/// # Panics
/// Naming the worst element.
pub fn assert_close(what: &str, found: &[f64], expected: &[f64], bound: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: number of values");
    let rms = (expected.iter().map(|x| x * x).sum::<f64>() / expected.len().max(1) as f64).sqrt();
    let errors = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / rms);
    let worst = errors
        .enumerate()
        .fold((0, 0.0), |worst, (i, e)| if e > worst.1 || e.is_nan() { (i, e) } else { worst });
    assert!(
        worst.1 <= bound,
        "{what}: element {} differs by {:.3e} of the root mean square",
        worst.0,
        worst.1
    );
}

/// Root mean square of the difference, relative to that of the reference.
pub fn rms_error(found: &[f64], expected: &[f64]) -> f64 {
    let square = |x: f64| x * x;
    let difference: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    (difference / expected.iter().copied().map(square).sum::<f64>()).sqrt()
}
