//! Block formats against the `gguf` Python package: `tools/golden/quants.py` wrote the expectations.

use kinglet_tensor::DType;
use kinglet_tensor::quant::dequantize;

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
    let decodable =
        DType::all().filter(|&t| t != DType::F32 && kinglet_tensor::quant::row_decoder(t).is_some());
    assert_eq!(types, decodable.count());
}
