//! The tokenizer and the chat template of a model, from wherever its files keep them.

use kinglet_tensor::{MetaValue, Metadata};
use kinglet_text::tokenizer::{GgufKeys, SpecialNames, Tokenizer, VocabSpec};

use crate::Error;
use crate::files::{Folder, ModelFiles};

/// GGUF metadata as the tokenizer asks for it.
struct Keys<'a>(&'a Metadata);

impl GgufKeys for Keys<'_> {
    fn str(&self, key: &str) -> Option<&str> {
        self.0.str(key)
    }

    fn uint(&self, key: &str) -> Option<u64> {
        self.0.get(key)?.as_u64()
    }

    fn bool(&self, key: &str) -> Option<bool> {
        self.0.bool(key)
    }

    fn strs(&self, key: &str) -> Option<Vec<&str>> {
        Some(self.0.strs(key)?.iter().collect())
    }

    fn ints(&self, key: &str) -> Option<Vec<i64>> {
        Some(self.0.i64s(key)?.into_owned())
    }

    fn floats(&self, key: &str) -> Option<Vec<f64>> {
        Some(self.0.f64s(key)?.into_owned())
    }
}

/// The model's tokenizer.
pub(crate) fn tokenizer(files: &ModelFiles) -> Result<Tokenizer, Error> {
    match files {
        ModelFiles::Gguf(gguf) => Ok(Tokenizer::new(VocabSpec::from_gguf(&Keys(gguf.metadata()))?)?),
        ModelFiles::HuggingFace(folder) => {
            let ends = ends(folder);
            let names = SpecialNames { ends: &ends, ..special_names(&folder.tokenizer_config) };
            Ok(Tokenizer::from_json(folder.tokenizer()?, &names)?)
        }
    }
}

/// `eos_token_id` of `generation_config.json`, or else of `config.json`: a number or several.
fn ends(folder: &Folder) -> Vec<u32> {
    let key = "eos_token_id";
    let Some(value) = folder.generation.get(key).or(folder.config.get(key)) else { return Vec::new() };
    let list = value.as_i64s().map(|list| list.into_owned());
    let ids = list.or(value.as_i64().map(|id| vec![id])).unwrap_or_default();
    ids.into_iter().filter_map(|id| u32::try_from(id).ok()).collect()
}

/// `bos_token` and the like of `tokenizer_config.json`: each a text, or a table with its text.
fn special_names(config: &Metadata) -> SpecialNames<'_> {
    let name = |key: &str| match config.get(key)? {
        MetaValue::Table(token) => token.str("content"),
        other => other.as_str(),
    };
    SpecialNames {
        bos: name("bos_token"),
        eos: name("eos_token"),
        unk: name("unk_token"),
        sep: name("sep_token"),
        pad: name("pad_token"),
        mask: name("mask_token"),
        ends: &[],
    }
}

/// The source of the model's chat template, when it ships one.
pub(crate) fn template_source(files: &ModelFiles) -> Option<&str> {
    match files {
        ModelFiles::Gguf(gguf) => gguf.metadata().str("tokenizer.chat_template"),
        ModelFiles::HuggingFace(folder) => folder.chat_template.as_deref().or_else(|| configured(folder)),
    }
}

/// `chat_template` of `tokenizer_config.json`: one text, or a list of named ones of which `default` counts.
fn configured(folder: &Folder) -> Option<&str> {
    match folder.tokenizer_config.get("chat_template")? {
        MetaValue::Str(text) => Some(text),
        MetaValue::Mixed(list) => list.iter().find_map(|entry| match entry {
            MetaValue::Table(table) if table.str("name") == Some("default") => table.str("template"),
            _ => None,
        }),
        _ => None,
    }
}
