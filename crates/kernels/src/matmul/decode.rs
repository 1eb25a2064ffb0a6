//! Rows of a packed matrix back to floats, for embeddings that share their matrix with the output projection.

use kinglet_simd::dispatch;

use super::formats::{Format, Visit, with_format};
use super::packed::PackedMatrix;
use super::panel::{PanelBuffer, Unpack};
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

    /// Unpacks the row's tile chunk by chunk and picks its lane.
    fn visit<F: Format>(self) {
        let plan = self.matrix.plan();
        let (level, lanes) = (plan.level(), plan.tile_rows());
        let (tile, lane) = (self.row / lanes, self.row % lanes);
        let packed = &self.matrix.data()[tile * plan.tile_bytes()..][..plan.tile_bytes()];
        let mut buffer = PanelBuffer::new();
        let panel = buffer.as_mut_ptr();
        for (packed, out) in packed.chunks(F::bytes(lanes, CHUNK)).zip(self.out.chunks_mut(CHUNK * GROUP)) {
            let count = out.len() / GROUP;
            // SAFETY: the chunk has `count` groups; the buffer holds a panel of more; unpacking fills all that is read.
            unsafe {
                dispatch(level, Unpack::<F, F::Panel>::new(packed.as_ptr(), count, panel));
                let (scales, codes, _) = chunk_of::<F::Panel>(lanes, panel, count, 0);
                for (column, out) in out.iter_mut().enumerate() {
                    let scale = scales.cast::<f32>().add(scale_at::<F::Panel>(column) * lanes + lane);
                    let stored = codes.add((column / 4 * lanes + lane) * 4 + column % 4).read();
                    let value = scale.read() * code::<F>(stored, level.w_bias()) as f32;
                    *out = if F::Scales::MIN { value + scale.add(lanes).read() } else { value };
                }
            }
        }
    }
}

/// Which vector of scales in the header of a panel's chunk a column has.
fn scale_at<P: Stream>(column: usize) -> usize {
    let part = column % GROUP * P::Scales::PARTS / GROUP;
    column / GROUP * (P::Scales::BYTES / (4 * CHUNK)) + part
}

/// The integer that a stored code stands for, where signed ones have `bias`.
fn code<F: Stream>(stored: u8, bias: u8) -> i32 {
    let signed = F::Codes::SIGNED && bias == 0;
    let code = if signed { i32::from(stored as i8) } else { i32::from(stored) };
    code - F::ZERO.value(bias)
}
