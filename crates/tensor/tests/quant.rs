//! Block formats against the `gguf` Python package: `tools/golden/quants.py` wrote the expectations.

use kinglet_tensor::DType;
use kinglet_tensor::quant::{QuantError, dequantize, quantize, row_decoder};
use proptest::prelude::*;

const BLOCKS: usize = 64;

/// SplitMix64, as the script draws blocks and values.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = self.0;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn named(name: &str) -> DType {
    DType::all().find(|dtype| dtype.name() == name).unwrap()
}

fn random_blocks(dtype: DType, fixups: &str) -> Vec<u8> {
    let mut random = Random(dtype.ggml().unwrap().into());
    let mut bytes: Vec<u8> = (0..BLOCKS * dtype.block_bytes()).map(|_| (random.next() >> 56) as u8).collect();
    for (at, mask) in fixups.split(',').filter_map(|pair| pair.split_once(':')) {
        let (at, mask): (usize, u8) = (at.parse().unwrap(), mask.parse().unwrap());
        bytes.iter_mut().skip(at).step_by(dtype.block_bytes()).for_each(|b| *b &= !mask);
    }
    bytes
}

fn decoded(dtype: DType, bytes: &[u8]) -> Vec<u8> {
    let mut values = vec![f32::NAN; bytes.len() / dtype.block_bytes() * dtype.block_len()];
    dequantize(dtype, bytes, &mut values).unwrap();
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[test]
fn decoding_is_bit_exact() {
    let mut types = 0;
    for line in include_str!("data/decode.txt").lines() {
        let [name, fixups, hash, first] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let dtype = named(name);
        let values = decoded(dtype, &random_blocks(dtype, fixups));
        assert_eq!(hex(&values[..4 * dtype.block_len()]), first, "{name}: first block");
        assert_eq!(format!("{:016x}", fnv(&values)), hash, "{name}: all blocks");
        types += 1;
    }
    let decodable = DType::all().filter(|&t| t != DType::F32 && row_decoder(t).is_some());
    assert_eq!(types, decodable.count());
}

/// Groups of 256: random at many scales; every eighth one zero, small integers (ties), one magnitude.
fn values() -> Vec<f32> {
    let mut random = Random(2024);
    let mut group = |k: usize| {
        let exponent = 2f32.powi((k % 20) as i32 - 35);
        let value = move |draw: i64| match k % 8 {
            5 => 0,
            6 => (draw % 17 - 8) << 20,
            7 => (draw % 2 * 2 - 1) << 20,
            _ => draw - (1 << 23),
        };
        (0..256).map(|_| value((random.next() >> 40) as i64) as f32 * exponent).collect::<Vec<_>>()
    };
    (0..BLOCKS).flat_map(&mut group).collect()
}

fn encoded(dtype: DType, values: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    quantize(dtype, values, &mut bytes).unwrap();
    assert_eq!(Some(bytes.len()), dtype.bytes_for(values.len()));
    bytes
}

#[test]
fn encoding_is_bit_exact() {
    for line in include_str!("data/encode.txt").lines() {
        let [name, hash, first] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let dtype = named(name);
        let bytes = encoded(dtype, &values());
        assert_eq!(hex(&bytes[..dtype.block_bytes()]), first, "{name}: first block");
        assert_eq!(format!("{:016x}", fnv(&bytes)), hash, "{name}: all blocks");
    }
}

/// Nearly normal values with the standard deviation of a trained matrix.
fn bell(random: &mut Random, count: usize) -> Vec<f32> {
    let mut uniform = || (random.next() >> 40) as f32 / (1 << 24) as f32 - 0.5;
    (0..count).map(|_| (0..12).map(|_| uniform()).sum::<f32>() * 0.02).collect()
}

/// Root mean square of the round trip's error over that of the values.
fn relative_error(dtype: DType, values: &[f32]) -> f64 {
    let mut back = vec![0.0; values.len()];
    dequantize(dtype, &encoded(dtype, values), &mut back).unwrap();
    let square = |x: f32| f64::from(x) * f64::from(x);
    let error: f64 = values.iter().zip(&back).map(|(x, y)| square(x - y)).sum();
    (error / values.iter().map(|&x| square(x)).sum::<f64>()).sqrt()
}

#[test]
fn searching_encoders_stay_under_their_error() {
    let values = bell(&mut Random(7), 1 << 14);
    let check = |dtype, bound: f64| {
        let error = relative_error(dtype, &values);
        assert!(error < bound && error > bound / 2.0, "{dtype}: {error}");
    };
    check(DType::Q2_K, 0.272);
    check(DType::Q3_K, 0.155);
    check(DType::IQ4_NL, 0.078);
    check(DType::Q4_K, 0.072);
    check(DType::Q5_K, 0.0355);
    check(DType::Q6_K, 0.0180);
}

#[test]
fn searching_encoders_keep_what_their_format_can_hold() {
    let spike = |i: usize| if i == 77 { -3.0 } else { 0.0 };
    let rows: [(&str, Vec<f32>, f64); 4] = [
        ("constant", vec![0.375; 256], 1e-3),
        ("negative constant", vec![-0.375; 256], 1e-3),
        ("spike", (0..256).map(spike).collect(), 3e-3),
        ("two levels", (0..256).map(|i| [-0.5, 0.25][i % 2]).collect(), 0.25),
    ];
    for dtype in [DType::Q2_K, DType::Q3_K, DType::Q4_K, DType::Q5_K, DType::Q6_K] {
        for (name, values, bound) in &rows {
            let error = relative_error(dtype, values);
            assert!(error <= *bound, "{dtype}, {name}: {error}");
        }
        let mut back = vec![1.0; 256];
        dequantize(dtype, &encoded(dtype, &[0.0; 256]), &mut back).unwrap();
        assert_eq!(back, [0.0; 256], "{dtype}, zero");
    }
}

#[test]
fn impossible_requests_are_errors() {
    let mut out = Vec::new();
    let mut refuse = |dtype, values: &[f32]| quantize(dtype, values, &mut out).unwrap_err();
    assert_eq!(
        refuse(DType::Q4_K, &[0.0; 255]),
        QuantError::PartialBlock { dtype: DType::Q4_K, values: 255 }
    );
    let action = "encoded from f32";
    assert_eq!(refuse(DType::IQ1_S, &[]), QuantError::Unsupported { dtype: DType::IQ1_S, action });
    for bad in [f32::NAN, f32::INFINITY, -65505.0] {
        let mut values = [0.0; 32];
        values[9] = bad;
        assert_eq!(refuse(DType::Q8_0, &values), QuantError::OutOfRange { dtype: DType::Q8_0, index: 9 });
    }
    assert!(dequantize(DType::I32, &[0; 4], &mut [0.0]).is_err());
    let error = dequantize(DType::Q4_0, &[0; 17], &mut [0.0; 32]).unwrap_err();
    assert_eq!(error.to_string(), "32 values of Q4_0 take 18 bytes, found 17");
}

fn any_dtype() -> impl Strategy<Value = DType> {
    proptest::sample::select(DType::all().collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn decoding_takes_any_bytes_of_the_right_length(
        dtype in any_dtype(),
        blocks in 0usize..3,
        bytes in prop::collection::vec(any::<u8>(), 640),
        (off_bytes, off_values) in prop_oneof![Just((0, 0)), (0usize..40, 0usize..40)],
    ) {
        let (bytes_len, values) = (blocks * dtype.block_bytes(), blocks * dtype.block_len());
        let fits = dtype.bytes_for(values + off_values) == Some(bytes_len + off_bytes);
        let mut out = vec![0.0; values + off_values];
        let done = dequantize(dtype, &bytes[..bytes_len + off_bytes], &mut out);
        prop_assert_eq!(done.is_ok(), fits && row_decoder(dtype).is_some());
        if let Some(decode) = row_decoder(dtype) {
            decode(&bytes, &mut out);
        }
    }

    #[test]
    fn encoding_takes_any_values(
        dtype in any_dtype(),
        scale in -40i32..17,
        values in prop::collection::vec(prop_oneof![4 => -1f32..1.0, 1 => Just(0.0), 1 => Just(-1.0)], 256),
    ) {
        let values: Vec<f32> = values.iter().map(|x| x * 2f32.powi(scale).min(65504.0)).collect();
        let mut out = Vec::new();
        if quantize(dtype, &values, &mut out).is_ok() {
            let mut back = vec![f32::NAN; 256];
            dequantize(dtype, &out, &mut back).unwrap();
            let peak = values.iter().fold(0f32, |peak, x| peak.max(x.abs()));
            // No value strays further than the greatest one, or (31 levels of Q5_1) the rounding of least scales.
            let near = |(x, y): (&f32, &f32)| (x - y).abs() <= 1.05 * peak + 1e-6;
            prop_assert!(values.iter().zip(&back).all(near), "{dtype}");
        }
    }
}
