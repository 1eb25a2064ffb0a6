//! Pictures against what Pillow and OpenCV make of them (`tools/golden/images.py`), and files that are refused.

use std::path::PathBuf;

use kinglet_models::image::{
    Channels, Filter, Fit, ImageError, ImageLimits, Picture, Quad, Recipe, Resize, Scaling, decode,
    encode_png, straighten,
};
use serde_json::Value;

fn data(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/images").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn picture(name: &str) -> Picture {
    decode(&data(name), &ImageLimits::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The golden rows of one kind, with their expected bytes.
fn golden(kind: &str) -> Vec<(Value, Vec<u8>)> {
    let rows: Vec<Value> = serde_json::from_slice(&data("golden.json")).expect("rows");
    let bytes = data("golden.bin");
    let part = |row: &Value| {
        let at = row["at"].as_u64().expect("at") as usize;
        bytes[at..at + row["len"].as_u64().expect("len") as usize].to_vec()
    };
    let of_kind: Vec<_> =
        rows.iter().filter(|row| row["kind"] == kind).map(|row| (row.clone(), part(row))).collect();
    assert!(!of_kind.is_empty(), "{kind}");
    of_kind
}

/// Fails when a byte differs by more than `most`, or all of them by more than `mean` on average.
fn check(row: &Value, found: &Picture, expected: &[u8], most: u8, mean: f64) {
    let shape = [u64::from(found.height()), u64::from(found.width()), 3];
    assert_eq!(row["shape"], serde_json::json!(shape), "{}", row["name"]);
    let differences: Vec<u8> = found.rgb().iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).collect();
    let worst = differences.iter().copied().max().unwrap_or(0);
    let average = differences.iter().map(|d| f64::from(*d)).sum::<f64>() / differences.len() as f64;
    assert!(worst <= most && average <= mean, "{}: worst {worst}, mean {average:.3}", row["name"]);
}

#[test]
fn every_kind_of_file_gives_the_pixels_that_pillow_reads() {
    for (row, expected) in golden("decode") {
        let name = row["name"].as_str().expect("name");
        let lossy = name.ends_with("jpg") || name.starts_with("lossy");
        let (most, mean) = if lossy { (6, 1.0) } else { (1, 0.1) };
        check(&row, &picture(name), &expected, most, mean);
    }
}

#[test]
fn resizing_agrees_with_pillow_and_opencv() {
    let source = picture("rgb.png");
    for (row, expected) in golden("resize") {
        let way = match (row["by"].as_str(), row["filter"].as_str()) {
            (Some("pillow"), Some("nearest")) => Resize::Pillow(Filter::Nearest),
            (Some("pillow"), Some("bilinear")) => Resize::Pillow(Filter::Bilinear),
            (Some("pillow"), Some("bicubic")) => Resize::Pillow(Filter::Bicubic),
            (Some("opencv"), Some("nearest")) => Resize::OpenCvNearest,
            (Some("opencv"), Some("bilinear")) => Resize::OpenCvBilinear,
            (Some("opencv"), Some("bicubic")) => Resize::OpenCvBicubic,
            other => panic!("{other:?}"),
        };
        let side = |key: &str| row[key].as_u64().expect("side") as u32;
        let found = way.apply(&source, side("width"), side("height")).expect("resizes");
        check(&row, &found, &expected, 1, 0.3);
    }
}

#[test]
fn recipes_make_the_planes_that_training_pipelines_make() {
    let bilinear = Resize::Pillow(Filter::Bilinear);
    let torchvision = Recipe {
        fit: Fit::Crop { short: 20, width: 16, height: 16 },
        resize: bilinear,
        channels: Channels::Rgb,
        scaling: Scaling::standard([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    };
    let caffe = Recipe {
        fit: Fit::Stretch { width: 16, height: 16 },
        resize: bilinear,
        channels: Channels::Bgr,
        scaling: Scaling::linear(1.0, [-104.0, -117.0, -123.0]),
    };
    let grey = Recipe {
        fit: Fit::Stretch { width: 37, height: 29 },
        resize: bilinear,
        channels: Channels::Grey,
        scaling: Scaling::linear(1.0 / 255.0, [0.0; 3]),
    };
    let source = picture("rgb.png");
    for ((row, expected), recipe) in golden("prepare").iter().zip([torchvision, caffe, grey]) {
        let found = recipe.prepare(&source).expect("prepares").array;
        assert_eq!(row["shape"], serde_json::json!(found.shape), "{}", row["name"]);
        let expected: Vec<f32> =
            expected.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let step = recipe.scaling.scale[0].max(recipe.scaling.scale[2]) * 1.05;
        let worst = found.data.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= step, "{}: {worst} is more than a step of {step}", row["name"]);
    }
}

#[test]
fn boxes_find_their_way_back() {
    let check = |fit: Fit, prepared: [f32; 2], expected: [f32; 2]| {
        let recipe = Recipe {
            fit,
            resize: Resize::OpenCvBilinear,
            channels: Channels::Rgb,
            scaling: Scaling::linear(1.0, [0.0; 3]),
        };
        let (frame, view) = recipe.frame(&Picture::filled(200, 100, [9; 3])).expect("frames");
        assert_eq!([frame.width(), frame.height()], view.size, "{fit:?}");
        assert_eq!(view.to_source(prepared[0], prepared[1]), expected, "{fit:?}");
    };
    check(Fit::Stretch { width: 50, height: 50 }, [25.0, 25.0], [100.0, 50.0]);
    check(Fit::Crop { short: 50, width: 40, height: 40 }, [0.0, 0.0], [60.0, 10.0]);
    check(Fit::StretchCrop { whole: [50, 50], width: 40, height: 40 }, [0.0, 0.0], [20.0, 10.0]);
    check(Fit::Letterbox { width: 100, height: 100, fill: 0 }, [50.0, 25.0], [100.0, 0.0]);
    check(Fit::Letterbox { width: 100, height: 100, fill: 0 }, [0.0, 0.0], [0.0, 0.0]);
    check(Fit::Sides { short: 300, long: 400 }, [200.0, 100.0], [100.0, 50.0]);
    check(Fit::Multiples { short: 64, long: 1000, multiple: 32 }, [96.0, 48.0], [100.0, 50.0]);
}

#[test]
fn quadrangles_are_cut_out_as_opencv_does() {
    for (row, expected) in golden("warp") {
        let quad: Quad = serde_json::from_value(row["quad"].clone()).expect("corners");
        // OpenCV rounds places to 1/32 pixel.
        check(&row, &straighten(&picture("rgb.png"), &quad, 100), &expected, 12, 1.0);
    }
}

#[test]
fn what_is_written_reads_back() {
    let source = picture("rgb.jpg");
    let bytes = encode_png(&source).expect("encodes");
    assert_eq!(decode(&bytes, &ImageLimits::default()), Ok(source));
}

#[test]
fn what_is_no_usable_image_is_refused() {
    let limits = ImageLimits::default();
    let check = |bytes: &[u8], limits: &ImageLimits, expected: &str| {
        let error = decode(bytes, limits).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(b"", &limits, "it is empty");
    check(b"hello", &limits, "of an unknown kind");
    check(b"<!DOCTYPE html>", &limits, "a web page");
    check(b"\0\0\0 ftypheic", &limits, "HEIC");
    check(b"II*\0\x08\0\0\0", &limits, "it is a TIFF file; PNG, JPEG, WebP, GIF and BMP are taken");
    check(b"MM\0+\0\x08\0\0", &limits, "it is a TIFF file");
    check(&data("bomb.png"), &limits, "65500 x 65500 pixels, more than the limit");
    check(&data("half.png"), &limits, "the PNG image is damaged");
    check(
        &data("rgb.jpg"),
        &ImageLimits { max_pixels: 100, ..limits },
        "37 x 29 pixels, more than the limit of 100",
    );
    for name in ["rgb.jpg", "progressive.jpg", "cmyk.jpg", "rotated.jpg"] {
        let whole = data(name);
        for end in [40, whole.len() / 2, whole.len() * 9 / 10, whole.len() - 2] {
            check(
                &whole[..end],
                &limits,
                "the JPEG image is damaged or of a kind that cannot be read: the file ends",
            );
        }
        let longer = [whole.as_slice(), &[0; 100]].concat();
        assert!(decode(&longer, &limits).is_ok(), "{name} with something behind it");
    }
    let tight = ImageLimits { max_bytes: 1000, ..limits };
    let error = decode(&data("rgb.png"), &tight).expect_err("more than 1000 bytes");
    assert_eq!(error, ImageError::Memory { format: "PNG", limit: 1000 });
}
