//! Which kernel multiplies which weights on which instruction set.

use kinglet_kernels::matmul::PackPlan;
use kinglet_tensor::DType;
use kinglet_tensor::quant::row_decoder;

/// An instruction set for which Kinglet has kernels, here or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionSet {
    /// Its name.
    pub name: &'static str,
    /// 32-bit lanes of a vector.
    pub lanes: usize,
    /// What multiplies and adds 8-bit integers.
    pub int8: &'static str,
    /// What multiplies and adds 32-bit floats.
    pub f32: &'static str,
}

/// A type that weights may be stored in.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightType {
    /// Its name in model files.
    pub name: &'static str,
    /// Bits of a weight, scales included.
    pub bits: f64,
    /// Whether products are computed in 8-bit integers from packed weights, on every instruction set; else in 32-bit
    /// floats, from weights decoded row by row.
    pub int8: bool,
}

/// All instruction sets that Kinglet knows, best first for each architecture.
pub fn instruction_sets() -> &'static [InstructionSet] {
    const fn set(name: &'static str, lanes: usize, int8: &'static str, f32: &'static str) -> InstructionSet {
        InstructionSet { name, lanes, int8, f32 }
    }
    const ALL: [InstructionSet; 6] = [
        set("avx512", 16, "vpdpbusd (VNNI)", "vfmadd, 512 bits"),
        set("avx2", 8, "vpmaddubsw + vpmaddwd", "vfmadd, 256 bits"),
        set("neon-dot", 4, "sdot", "fmla"),
        set("neon", 4, "smull + sadalp", "fmla"),
        set("wasm128", 4, "i16x8.extmul + extadd", "f32x4.mul + add"),
        set("scalar", 4, "plain Rust", "plain Rust"),
    ];
    &ALL
}

/// All types that weights may be stored in, in the order of the specification.
pub fn weight_types() -> Vec<WeightType> {
    // Wider than any weight, or made for activations only.
    const NOT_WEIGHTS: [DType; 3] = [DType::F64, DType::Q8_1, DType::Q8_K];
    let weights = |t: &DType| row_decoder(*t).is_some() && !NOT_WEIGHTS.contains(t);
    let bits = |t: DType| (t.block_bytes() * 8) as f64 / t.block_len() as f64;
    DType::all()
        .filter(weights)
        .map(|t| WeightType { name: t.name(), bits: bits(t), int8: PackPlan::supports(t) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinglet_simd::Level;

    #[test]
    fn every_level_of_this_machine_is_listed() {
        for level in Level::available() {
            let set = instruction_sets().iter().find(|set| set.name == level.name());
            assert_eq!(set.map(|set| set.lanes), Some(level.lanes()), "{level}");
        }
    }

    #[test]
    fn common_types_have_integer_kernels_and_floats_have_not() {
        let types = weight_types();
        for (name, bits, int8) in
            [("Q4_0", 4.5, true), ("Q4_K", 4.5, true), ("Q8_0", 8.5, true), ("BF16", 16.0, false)]
        {
            assert!(types.contains(&WeightType { name, bits, int8 }), "{name}");
        }
        assert!(types.iter().all(|t| t.name != "Q8_K"));
    }
}
