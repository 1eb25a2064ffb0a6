//! Weights in the order the kernels read them, packed once when a model is loaded.
//!
//! Packing may be split: a [`PackPlan`] says how many tiles there are and what they weigh, and any worker may fill any
//! range of them. The bytes depend on the level and on [`pack_fingerprint`], and can be kept in a file.

use std::ops::Range;

use kinglet_simd::Level;
use kinglet_tensor::{AlignedBuf, Bytes, DType};

use super::error::MatmulError;
use super::formats::{Block, Format, Visit, with_format};
use super::stream::{CHUNK, Codes, GROUP, Lane, Scales};

/// Changes when packed bytes that look the same change their meaning; see [`pack_fingerprint`].
const PACK_VERSION: u64 = 1;

/// Tells packings of a type apart: what this program makes of a made-up matrix, so that packed bytes kept in a file are
/// not used after the packing has changed.
pub fn pack_fingerprint(level: Level, dtype: DType) -> u64 {
    let (rows, cols) = (level.lanes() + 1, 9 * dtype.block_len()); // a partial tile and a partial chunk
    let mut state = PACK_VERSION;
    let mut random = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 56) as u8
    };
    let source: Vec<u8> = (0..dtype.bytes_for(cols).unwrap_or(0) * rows).map(|_| random()).collect();
    let packed = PackedMatrix::pack(level, dtype, rows, cols, &source);
    let bytes = packed.as_ref().map_or(&[][..], |packed| &packed.data);
    bytes.iter().fold(PACK_VERSION, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The layout of one packed matrix: `rows` outputs, `cols` inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PackPlan {
    level: Level,
    dtype: DType,
    rows: usize,
    cols: usize,
    tile_bytes: usize,
}

impl PackPlan {
    /// Plans the packing of a matrix; fails for types without a packed format and for impossible sizes.
    pub fn new(level: Level, dtype: DType, rows: usize, cols: usize) -> Result<Self, MatmulError> {
        let shape = MatmulError::Shape { dtype, rows, cols };
        if !Self::supports(dtype) {
            return Err(MatmulError::NotPackable { dtype });
        }
        if rows == 0
            || cols == 0
            || cols > isize::MAX as usize / 1024
            || !cols.is_multiple_of(dtype.block_len())
        {
            return Err(shape);
        }
        let tile_bytes = with_format(dtype, TileBytes { level, cols }).unwrap_or_default();
        let plan = Self { level, dtype, rows, cols, tile_bytes };
        let file = dtype.bytes_for(cols).and_then(|row| row.checked_mul(rows));
        plan.tiles().checked_mul(tile_bytes).zip(file).ok_or(shape)?;
        Ok(plan)
    }

    /// Whether the type has a packed format, and with it an 8-bit kernel.
    pub fn supports(dtype: DType) -> bool {
        struct Known;
        impl Visit for Known {
            type Out = ();
            fn visit<F: Format>(self) {}
        }
        with_format(dtype, Known).is_some()
    }

    /// The level whose kernels read it.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Type of the weights in the file.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Number of rows (outputs).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns (inputs).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Rows of a tile.
    pub fn tile_rows(&self) -> usize {
        self.level.lanes()
    }

    /// Number of tiles; the last one may be partly empty.
    pub fn tiles(&self) -> usize {
        self.rows.div_ceil(self.level.lanes())
    }

    /// Bytes of a tile.
    pub fn tile_bytes(&self) -> usize {
        self.tile_bytes
    }

    /// Bytes of the packed matrix.
    pub fn bytes(&self) -> usize {
        self.tiles() * self.tile_bytes
    }

    /// Packs `tiles` into `out`, their bytes, which must be zero. `row` gives the file's bytes of a row, so that the
    /// rows of several tensors can be stacked or interleaved into one matrix.
    ///
    /// Panics when `out` or a row has the wrong length or a tile is out of range.
    pub fn pack_tiles<'a>(&self, tiles: Range<usize>, out: &mut [u8], row: impl Fn(usize) -> &'a [u8]) {
        assert!(tiles.end <= self.tiles() && out.len() == tiles.len() * self.tile_bytes, "tiles {tiles:?}");
        let row_bytes = self.dtype.bytes_for(self.cols).unwrap_or_default();
        for (tile, out) in tiles.zip(out.chunks_exact_mut(self.tile_bytes)) {
            let first = tile * self.tile_rows();
            for lane in 0..self.tile_rows().min(self.rows - first) {
                let src = row(first + lane);
                assert_eq!(src.len(), row_bytes, "bytes of row {}", first + lane);
                with_format(self.dtype, PackRow { plan: self, src, lane, out: &mut *out });
            }
        }
    }
}

struct TileBytes {
    level: Level,
    cols: usize,
}

impl Visit for TileBytes {
    type Out = usize;

    fn visit<F: Format>(self) -> usize {
        F::bytes(self.level.lanes(), self.cols / GROUP)
    }
}

/// Packs one row of a file into its lane of a tile.
struct PackRow<'a> {
    plan: &'a PackPlan,
    src: &'a [u8],
    lane: usize,
    out: &'a mut [u8],
}

impl Visit for PackRow<'_> {
    type Out = ();

    fn visit<F: Format>(self) {
        let PackPlan { level, dtype, cols, .. } = *self.plan;
        let at = Lane { lane: self.lane, lanes: level.lanes(), bias: level.w_bias() };
        let groups = cols / GROUP;
        let per_block = dtype.block_len() / GROUP;
        let mut block = Block::default();
        let chunks = self.out.chunks_mut(F::bytes(at.lanes, CHUNK));
        let sources = self.src.chunks(dtype.block_bytes() * (CHUNK / per_block));
        for (index, (chunk, source)) in chunks.zip(sources).enumerate() {
            let count = (groups - index * CHUNK).min(CHUNK);
            let (header, codes) = chunk.split_at_mut(at.lanes * (F::Scales::BYTES * count / CHUNK));
            let mut codes = codes.chunks_exact_mut(at.lanes * F::Codes::BYTES);
            for (n, bytes) in source.chunks_exact(dtype.block_bytes()).enumerate() {
                F::unpack(bytes, &mut block);
                put_header::<F>(header, at, n, count / per_block, &block);
                for (words, group) in block.words[..per_block].iter().zip(&mut codes) {
                    F::Codes::put(group, at, words);
                }
            }
        }
    }
}

/// Puts the scales of block `n` of a chunk of `blocks` blocks into its header: all 16-bit values, then all bytes.
fn put_header<F: Format>(header: &mut [u8], at: Lane, n: usize, blocks: usize, block: &Block) {
    for i in 0..F::HALVES {
        let at = 2 * ((n * F::HALVES + i) * at.lanes + at.lane);
        header[at..at + 2].copy_from_slice(&block.halves[i].to_le_bytes());
    }
    let bytes = &mut header[2 * blocks * F::HALVES * at.lanes..];
    for i in 0..F::BYTES {
        bytes[(n * F::BYTES + i) * at.lanes + at.lane] = block.bytes[i];
    }
}

/// A packed weight matrix, `[rows, cols]`.
#[derive(Clone, Debug)]
pub struct PackedMatrix {
    plan: PackPlan,
    data: Bytes,
}

impl PackedMatrix {
    /// Packs the file's bytes of a whole matrix.
    pub fn pack(
        level: Level,
        dtype: DType,
        rows: usize,
        cols: usize,
        src: &[u8],
    ) -> Result<Self, MatmulError> {
        let plan = PackPlan::new(level, dtype, rows, cols)?;
        let row_bytes = dtype.bytes_for(cols).unwrap_or_default();
        let expected = row_bytes * rows;
        if src.len() != expected {
            return Err(MatmulError::Length { dtype, rows, cols, expected, found: src.len() });
        }
        let mut data = AlignedBuf::try_new(plan.bytes())?;
        plan.pack_tiles(0..plan.tiles(), &mut data, |row| &src[row * row_bytes..][..row_bytes]);
        Ok(Self::from_buffer(plan, data))
    }

    /// The matrix whose tiles a caller has packed. Panics when the buffer is not `plan.bytes()` long.
    pub fn from_buffer(plan: PackPlan, data: AlignedBuf) -> Self {
        assert_eq!(data.len(), plan.bytes(), "packed bytes");
        Self { plan, data: data.into() }
    }

    /// The matrix out of bytes that [`data`](Self::data) gave for an equal plan and [`pack_fingerprint`]. Bytes that are
    /// not so give wrong numbers, nothing worse.
    pub fn from_bytes(plan: PackPlan, data: Bytes) -> Result<Self, MatmulError> {
        let PackPlan { dtype, rows, cols, .. } = plan;
        if data.len() != plan.bytes() {
            return Err(MatmulError::Length { dtype, rows, cols, expected: plan.bytes(), found: data.len() });
        }
        Ok(Self { plan, data })
    }

    /// Its layout.
    pub fn plan(&self) -> &PackPlan {
        &self.plan
    }

    /// The packed bytes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }
}
