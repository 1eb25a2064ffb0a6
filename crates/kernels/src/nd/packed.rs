//! Packed weights: floats in the order in which a kernel reads them, shared by all steps that read the same, and filled
//! once; the first steps of a program may run while those of later ones are still being packed.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use kinglet_simd::Level;
use kinglet_tensor::{AlignedBuf, Bytes};

use super::NdError;
use super::codes::CodePacking;
use super::conv::ConvPacking;
use super::gemm::GemmPacking;

/// Changes when packed floats that look the same change their meaning; see [`fingerprint`].
const VERSION: u64 = 2;

/// How weights are packed: all that the packed floats depend on besides the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// For a convolution, from `[outputs][channels / groups][height][width]`.
    Conv(ConvPacking),
    /// For a product of rows, from a matrix.
    Gemm(GemmPacking),
    /// For a product of codes, from integers that fit signed bytes, in either order.
    Codes(CodePacking),
}

impl Packing {
    /// How many weights it takes.
    pub fn weights(&self) -> usize {
        match self {
            Self::Conv(conv) => conv.weights(),
            Self::Gemm(gemm) => gemm.weights(),
            Self::Codes(codes) => codes.weights(),
        }
    }

    /// How many floats it makes of them.
    pub fn floats(&self) -> usize {
        match self {
            Self::Conv(conv) => conv.floats(),
            Self::Gemm(gemm) => gemm.floats(),
            Self::Codes(codes) => codes.floats(),
        }
    }

    /// The packed form of these weights. Fails when there are more or fewer than it takes, or memory is short.
    pub fn pack(&self, weights: &[f32]) -> Result<Bytes, NdError> {
        if weights.len() != self.weights() {
            let reason = format!("{} weights for {self:?}", weights.len());
            return Err(NdError { what: "packing", reason });
        }
        let too_large = || NdError { what: "packing", reason: format!("the size overflows: {self:?}") };
        let bytes = self.floats().checked_mul(size_of::<f32>()).ok_or_else(too_large)?;
        let mut packed = AlignedBuf::<u8>::try_new(bytes)?;
        let floats = bytemuck::cast_slice_mut(&mut packed);
        match self {
            Self::Conv(conv) => conv.pack(weights, floats),
            Self::Gemm(gemm) => gemm.pack(weights, floats),
            Self::Codes(codes) => codes.pack(weights, floats),
        }
        Ok(packed.into())
    }
}

/// Tells packings for an instruction set apart: what this program makes of made-up weights, so that packed floats kept in
/// a file are not used after the packing has changed.
pub fn fingerprint(level: Level) -> u64 {
    let made = |packing: &Packing| {
        let weights: Vec<f32> = (0..packing.weights()).map(|i| (i * 7 % 251) as f32 - 125.0).collect();
        packing.pack(&weights).unwrap_or_default()
    };
    let packings = ConvPacking::samples(level).map(Packing::Conv);
    let packings = packings.into_iter().chain(GemmPacking::samples(level).map(Packing::Gemm));
    let packings = packings.chain(CodePacking::samples(level).map(Packing::Codes));
    let sum = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    packings.fold(VERSION, |all, packing| made(&packing).iter().fold(all, |all, byte| sum(all, *byte)))
}

/// Shared floats that are filled once. Steps wait for them; reading them sooner is a fault of the program and panics.
#[derive(Clone)]
pub struct Packed(Arc<Cell>);

struct Cell {
    floats: usize,
    filled: OnceLock<Result<Bytes, NdError>>,
    /// The same floats in memory that is read faster.
    moved: OnceLock<Bytes>,
}

impl Packed {
    /// Room for so many floats that are still to come.
    pub fn pending(floats: usize) -> Self {
        Self(Arc::new(Cell { floats, filled: OnceLock::new(), moved: OnceLock::new() }))
    }

    /// How many floats there are, or will be.
    pub fn floats(&self) -> usize {
        self.0.floats
    }

    /// Hands in the floats, or why there are none. What is not as many floats, aligned to a cache line, becomes an error;
    /// only the first call counts.
    pub fn fill(&self, filled: Result<Bytes, NdError>) {
        let filled = filled.and_then(|bytes| {
            let reason = || format!("{} bytes for {} floats", bytes.len(), self.0.floats);
            let wrong = || NdError { what: "packed weights", reason: reason() };
            if self.fits(&bytes) { Ok(bytes) } else { Err(wrong()) }
        });
        let _first_counts = self.0.filled.set(filled);
    }

    /// Hands in the same floats once more, in memory that is read faster: whoever begins to read them from now on reads
    /// these. What does not fit is left.
    pub fn move_to(&self, bytes: Bytes) {
        if self.fits(&bytes) {
            let _first_counts = self.0.moved.set(bytes);
        }
    }

    fn fits(&self, bytes: &Bytes) -> bool {
        let whole = self.0.floats.checked_mul(size_of::<f32>()) == Some(bytes.len());
        let aligned = bytes.as_ptr().cast::<[f32; 16]>().align_offset(64) == 0;
        whole && (aligned || bytes.is_empty())
    }

    /// Waits until they are there; fails when they will never be.
    pub fn wait(&self) -> Result<(), &NdError> {
        self.0.filled.wait().as_ref().map(|_| ())
    }

    /// Whether waiting would take no time.
    pub fn is_settled(&self) -> bool {
        self.0.filled.get().is_some()
    }

    /// The floats as bytes, once they are there.
    pub fn bytes(&self) -> Option<&Bytes> {
        self.0.moved.get().or_else(|| self.0.filled.get()?.as_ref().ok())
    }
}

impl Deref for Packed {
    type Target = [f32];

    #[inline(always)]
    fn deref(&self) -> &[f32] {
        match self.bytes() {
            Some(bytes) => bytemuck::cast_slice(bytes),
            None => panic!("packed weights are read before they are there"),
        }
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packed[{}]", self.0.floats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_come_once_and_whole() {
        let packed = Packed::pending(16);
        assert!(!packed.is_settled() && packed.floats() == 16 && packed.bytes().is_none());
        let shared = packed.clone();
        let mut floats = AlignedBuf::<u8>::try_new(64).expect("memory");
        floats.fill(1);
        shared.fill(Ok(floats.into()));
        shared.fill(Err(NdError { what: "test", reason: "too late".into() }));
        assert!(packed.wait().is_ok() && packed.iter().all(|x| x.to_bits() == 0x0101_0101));
    }

    #[test]
    fn floats_are_read_where_they_were_moved_to() {
        let packed = Packed::pending(16);
        let bytes = |len| Bytes::from(AlignedBuf::<u8>::try_new(len).expect("memory"));
        let (first, second) = (bytes(64), bytes(64));
        packed.fill(Ok(first.clone()));
        let before = packed.as_ptr();
        packed.move_to(bytes(128));
        assert!(before == first.as_ptr().cast() && packed.as_ptr() == before, "other floats are left");
        packed.move_to(second.clone());
        packed.move_to(bytes(64));
        assert!(packed.as_ptr() == second.as_ptr().cast() && packed.len() == 16);
    }

    #[test]
    fn other_floats_are_errors() {
        let aligned = |bytes| Bytes::from(AlignedBuf::<u8>::try_new(bytes).expect("memory"));
        for bytes in [aligned(60), aligned(68), aligned(68).slice(4..)] {
            let packed = Packed::pending(16);
            packed.fill(Ok(bytes));
            assert!(packed.is_settled() && packed.wait().is_err());
        }
    }

    #[test]
    fn packings_tell_instruction_sets_of_other_widths_apart() {
        let levels = Level::available();
        for (a, b) in levels.iter().flat_map(|a| levels.iter().map(move |b| (*a, *b))) {
            assert!(fingerprint(a) == fingerprint(a));
            assert!((fingerprint(a) == fingerprint(b)) == (a.lanes() == b.lanes()), "{a} {b}");
        }
    }
}
