//! Model files, sound and damaged, made from the committed golden models.

use std::fs;
use std::path::{Path, PathBuf};

use kinglet::tensor::{DType, MemoryWeights, MetaValue, Tensor};
use kinglet_formats::gguf::Writer;
use kinglet_formats::{Gguf, Limits, TensorSpec};

/// A file of the golden model of this architecture.
pub(crate) fn golden(architecture: &str, name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../testkit/tests/data/tiny");
    Path::new(folder).join(architecture).join(name)
}

/// A small Llama, with a tokenizer, as it is taken apart and written again.
pub(crate) struct Tiny {
    writer: Writer,
    weights: MemoryWeights,
}

impl Tiny {
    pub(crate) fn new() -> Self {
        let bytes = fs::read(golden("llama", "tiny.gguf")).expect("committed");
        let model = Gguf::parse(bytes.into(), &Limits::default()).expect("sound");
        let writer = Writer::like(&model).expect("storable");
        let tiny = Self { writer, weights: model.tensors().iter().cloned().collect() };
        tiny.set("tokenizer.ggml.model", MetaValue::Str("llama".into()))
            .set("tokenizer.ggml.tokens", MetaValue::Strs(tokens().iter().collect()))
            .set("tokenizer.ggml.scores", MetaValue::F64s(vec![0.0; 64]))
    }

    pub(crate) fn set(mut self, key: &str, value: MetaValue) -> Self {
        self.writer.set(key, &value).expect("storable");
        self
    }

    pub(crate) fn without(mut self, key: &str) -> Self {
        self.writer.remove(key);
        self
    }

    pub(crate) fn without_tensor(mut self, name: &str) -> Self {
        self.weights.0.remove(name).expect("there");
        self
    }

    pub(crate) fn with_tensor(mut self, name: &str, shape: &[usize]) -> Self {
        let data = vec![0; 4 * shape.iter().product::<usize>()];
        let tensor = Tensor::new(name, DType::F32, shape.to_vec(), data.into()).expect("whole");
        self.weights.0.insert(name.into(), tensor);
        self
    }

    pub(crate) fn bytes(mut self) -> Vec<u8> {
        let mut file = Vec::new();
        for tensor in self.weights.0.values() {
            self.writer.declare(TensorSpec::from(tensor));
        }
        self.writer.write(&mut file, &self.weights).expect("written");
        file
    }
}

/// As many tokens as the golden model has: three special ones, then single characters.
pub(crate) fn tokens() -> Vec<String> {
    let characters = ('▁'..='▁').chain('a'..='z').chain('A'..='Z').chain('0'..='7');
    let special = ["<unk>", "<s>", "</s>"].map(str::to_owned);
    special.into_iter().chain(characters.map(String::from)).collect()
}

/// The four bytes behind the first place where `text` stands, replaced by those of `value`, `skip` bytes further on.
pub(crate) fn patched(mut file: Vec<u8>, text: &str, skip: usize, value: &[u8]) -> Vec<u8> {
    let at = file.windows(text.len()).position(|window| window == text.as_bytes()).expect("there");
    let from = at + text.len() + skip;
    file[from..from + value.len()].copy_from_slice(value);
    file
}

/// A copy of the golden folder in the Hugging Face layout, at `folder`, with a `config.json` of `config`'s making.
pub(crate) fn hugging_face(folder: &Path, config: impl Fn(&str) -> String) -> PathBuf {
    fs::create_dir_all(folder).expect("a folder");
    fs::copy(golden("llama", "model.safetensors"), folder.join("model.safetensors")).expect("copied");
    let sound = fs::read_to_string(golden("llama", "config.json")).expect("committed");
    fs::write(folder.join("config.json"), config(&sound)).expect("written");
    folder.to_owned()
}
