//! Rows of a packed matrix back to floats, for embeddings that share their matrix with the output projection.

use std::marker::PhantomData;

use kinglet_simd::{Isa, Kernel, dispatch};

use super::formats::{Format, Visit, with_format};
use super::packed::PackedMatrix;
use super::panel::{PanelBuffer, unpack};
use super::stream::{CHUNK, Codes, GROUP, Scales, Stream, chunk_of};

impl PackedMatrix {
    /// Decodes a row into `out`, `cols` floats: the bits that the file's format defines. Panics when there is no such
    /// row or `out` has another length.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.plan().rows(), "row {row} of {}", self.plan().rows());
        assert_eq!(out.len(), self.plan().cols(), "columns of a row");
        with_format(self.plan().dtype(), DecodeRow { matrix: self, row, out });
    }
}

struct DecodeRow<'a> {
    matrix: &'a PackedMatrix,
    row: usize,
    out: &'a mut [f32],
}

impl Visit for DecodeRow<'_> {
    type Out = ();

    fn visit<F: Format>(self) {
        dispatch(self.matrix.plan().level(), Typed::<F>(self, PhantomData));
    }
}

struct Typed<'a, F>(DecodeRow<'a>, PhantomData<F>);

impl<F: Format> Kernel for Typed<'_, F> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.0.decode::<I, F, F::Panel>(isa);
    }
}

impl DecodeRow<'_> {
    /// Unpacks the row's tile chunk by chunk and picks its lane.
    #[inline(always)]
    fn decode<I: Isa, F: Format, P: Stream>(self, isa: I) {
        let plan = self.matrix.plan();
        let (tile, lane) = (self.row / I::LANES, self.row % I::LANES);
        let packed = &self.matrix.data()[tile * plan.tile_bytes()..][..plan.tile_bytes()];
        let mut buffer = PanelBuffer::new();
        let panel = buffer.as_mut_ptr();
        for (packed, out) in packed.chunks(F::bytes::<I>(CHUNK)).zip(self.out.chunks_mut(CHUNK * GROUP)) {
            let count = out.len() / GROUP;
            // SAFETY: the chunk has `count` groups; the buffer holds a panel of more; `unpack` fills all it reads.
            unsafe {
                unpack::<I, F, P>(isa, packed.as_ptr(), count, panel);
                let (scales, codes, _) = chunk_of::<I, P>(panel, count, 0);
                for (column, out) in out.iter_mut().enumerate() {
                    let scale = scales.cast::<f32>().add(scale_at::<I, P>(column) + lane);
                    let at = column / 4 * 4 * I::LANES + 4 * lane + column % 4;
                    let value = scale.read() * code::<I, F>(codes.add(at).read()) as f32;
                    *out = if P::Scales::MIN { value + scale.add(I::LANES).read() } else { value };
                }
            }
        }
    }
}

/// Where the scale of a column stands in the header of a panel's chunk, in floats.
#[inline(always)]
fn scale_at<I: Isa, P: Stream>(column: usize) -> usize {
    let per_group = P::Scales::BYTES / (4 * CHUNK);
    let part = column % GROUP * P::Scales::PARTS / GROUP;
    (column / GROUP * per_group + part) * I::LANES
}

/// The integer that a stored code stands for.
#[inline(always)]
fn code<I: Isa, F: Stream>(stored: u8) -> i32 {
    let signed = F::Codes::SIGNED && I::W_BIAS == 0;
    let code = if signed { i32::from(stored as i8) } else { i32::from(stored) };
    code - F::ZERO.value::<I>()
}
