//! Vision models from their checkpoints: against what timm and transformers computed in f64, and what is refused.

use std::path::{Path, PathBuf};

use kinglet::graphs::{Answer, GraphFiles, GraphModel, PictureEmbedder, floats};
use kinglet::models::image::Picture;
use kinglet::models::task::{DetectionOptions, cosine};
use kinglet::tensor::{Tensor, WeightSource};
use kinglet::{LoadOptions, formats};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/tests/data/vision").join(name)
}

fn reference(name: &str) -> formats::Safetensors {
    let bytes = std::fs::read(folder(name).join("reference.safetensors")).expect("committed");
    formats::Safetensors::parse(bytes.into(), &formats::Limits::default()).expect("sound")
}

fn open(path: &Path) -> Result<GraphModel, kinglet::Error> {
    GraphModel::open(path, &LoadOptions { threads: Some(2), ..LoadOptions::default() })
}

/// Largest difference, as a share of the largest value that is expected.
fn difference(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.shape(), expected.shape(), "{}", found.name());
    let wanted: Vec<f64> = expected.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
    let found = floats(found).expect("numbers").data;
    let most = wanted.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    let worst = found.iter().zip(&wanted).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    worst / most
}

#[test]
fn checkpoints_compute_what_their_libraries_do() {
    let check = |name: &str, outputs: &[&str]| {
        let mut model = open(&folder(name)).expect(name);
        let reference = reference(name);
        let found: Vec<&str> = model.outputs().iter().map(|port| port.name.as_str()).collect();
        assert_eq!(found, outputs, "{name}");
        let made = model.run(&[reference.tensor("pixel_values").expect("committed")]).expect(name);
        for (made, output) in made.iter().zip(outputs) {
            let worst = difference(made, &reference.tensor(output).expect("committed"));
            assert!(worst < 1e-5, "{name}, {output}: {worst:.1e}");
        }
    };
    check("timm-fastvit", &["logits"]);
    check("timm-fastvit-folded", &["logits"]);
    check("timm-mobilenet-v3", &["logits"]);
    check("timm-resnet", &["logits"]);
    check("timm-resnet-d", &["logits"]);
    check("timm-vit", &["logits"]);
    check("hf-vit", &["logits"]);
    check("hf-vit-features", &["last_hidden_state", "pooler_output"]);
    check("hf-resnet", &["logits"]);
    check("hf-detr", &["logits", "pred_boxes"]);
}

#[test]
fn pictures_are_prepared_and_classes_named_as_the_files_say() {
    let picture = Picture::filled(90, 70, [200, 30, 60]);
    let options = DetectionOptions { score: Some(0.0), ..DetectionOptions::default() };
    let look = |name: &str| open(&folder(name)).and_then(|mut m| m.look(&picture, 3, &options)).expect(name);
    match look("hf-resnet") {
        Answer::Classes(classes) => {
            assert_eq!(classes.len(), 3);
            assert!(classes.iter().all(|(ranked, label)| *label == format!("kind {}", ranked.class)));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(look("timm-fastvit"), Answer::Classes(_)));
    assert!(matches!(look("hf-detr"), Answer::Objects(_)));
    assert!(matches!(look("hf-vit-features"), Answer::Tensors(_)));
}

#[test]
fn pictures_become_vectors() {
    let vector = |name: &str, colour: [u8; 3]| {
        let mut embedder = PictureEmbedder::open(&folder(name), &LoadOptions::default()).expect(name);
        embedder.embed(&Picture::filled(90, 70, colour)).expect(name)
    };
    let (red, blue) = ([200, 30, 60], [10, 40, 220]);
    let (branches, folded) = (vector("timm-fastvit", red), vector("timm-fastvit-folded", red));
    assert_eq!(branches.len(), 64, "what the classifier's last product reads");
    assert!(cosine(&branches, &folded) > 0.999_99, "one model in two forms");
    assert!(cosine(&branches, &vector("timm-fastvit", blue)) < 0.999);
    assert_eq!(vector("hf-vit-features", red).len(), 32, "the pooled output");
    assert_eq!(vector("hf-resnet", red).len(), 32);
}

/// A copy of a golden checkpoint with one text of a file changed.
fn changed(name: &str, file: &str, from: &str, to: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(folder(name)).expect("committed").flatten() {
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("copied");
    }
    let path = copy.path().join(file);
    let text = std::fs::read(&path).expect("committed");
    let text = String::from_utf8_lossy(&text).replacen(from, to, 1);
    std::fs::write(path, text).expect("written");
    copy
}

#[test]
fn what_is_not_understood_is_refused() {
    let refused = |name: &str, from: &str, to: &str, expected: &str| {
        let copy = changed(name, "config.json", from, to);
        let error = GraphFiles::open(copy.path()).err().expect(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused("timm-vit", "vit_small_patch14_reg4_dinov2", "vit_relpos_small_patch16_224", "is not supported");
    refused("timm-vit", "\"num_heads\": 2", "\"num_heads\": 3", "attn.proj");
    refused("timm-vit", "\"depth\": 2", "\"act_layer\": \"relu\"", "`act_layer`");
    refused("timm-resnet", "\"stem_width\": 8", "\"output_stride\": 8", "`output_stride`");
    refused("hf-vit", "\"hidden_act\": \"gelu\"", "\"hidden_act\": \"mish\"", "`hidden_act`");
    refused("hf-vit", "\"qkv_bias\"", "\"new_switch\"", "`new_switch`");
    refused("hf-vit", "\"image_size\": 32", "\"image_size\": 99999999", "pixels");
    refused("hf-detr", "\"d_model\": 16", "\"d_model\": 18", "`d_model`");
    refused("hf-detr", "\"sine\"", "\"learned\"", "`position_embedding_type`");
    refused("hf-vit-features", "ViTModel", "ViTForMaskedImageModeling", "is not supported");
}
