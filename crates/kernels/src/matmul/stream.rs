//! How the kernels see weights: tiles of `LANES` rows, read 32 columns (a *group*) at a time.
//!
//! ```text
//! matrix   [tile 0][tile 1]...            a tile: LANES rows, all columns
//! tile     [chunk 0][chunk 1]...          a chunk: 8 groups = 256 columns (the last one may be shorter)
//! chunk    [header: scales of its groups][codes of group 0][codes of group 1]...
//! codes    step 0..8 of a group: 4 columns of every row, one byte each
//!          row 0: c0 c1 c2 c3 | row 1: c0 c1 c2 c3 | ... | row LANES-1: c0 c1 c2 c3
//! ```
//!
//! One vector thus feeds all rows of the tile with four columns, which is what a four-way 8-bit dot product takes.
//! Codes of fewer than eight bits share bytes as [`Codes`] says; scales are interleaved by row as [`Scales`] says.
//! [`Stream`] joins the two: a packed format is one, and so is the panel that a matrix product unpacks it to.

use kinglet_simd::Isa;

/// Columns of a group: what one activation scale covers.
pub(super) const GROUP: usize = 32;
/// Groups of a chunk.
pub(super) const CHUNK: usize = 8;
/// Vectors that a group takes when each code has a byte.
pub(super) const STEPS: usize = 8;

/// The integer that is subtracted from each code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zero {
    /// None: codes are what they say.
    None,
    /// `1 << shift`.
    Shift(u32),
    /// The instruction set's [`Isa::W_BIAS`].
    Bias,
}

impl Zero {
    /// The shift that multiplies by it, if it is not zero, where signed weights have `bias`.
    #[inline(always)]
    pub(super) const fn shift(self, bias: u8) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Shift(shift) => Some(shift),
            Self::Bias if bias == 0 => None,
            Self::Bias => Some(bias.trailing_zeros()),
        }
    }

    /// Its value.
    pub(super) fn value(self, bias: u8) -> i32 {
        self.shift(bias).map_or(0, |shift| 1 << shift)
    }
}

/// One row of a tile, when it is packed.
#[derive(Clone, Copy)]
pub(super) struct Lane {
    /// Which row.
    pub(super) lane: usize,
    /// Of how many.
    pub(super) lanes: usize,
    /// What signed codes have added: the instruction set's [`Isa::W_BIAS`].
    pub(super) bias: u8,
}

/// How the codes of a group share bytes.
pub(super) trait Codes: 'static {
    /// Bytes of a group per row.
    const BYTES: usize;
    /// Whether codes are signed (stored with [`Isa::W_BIAS`]) rather than within 0..=127.
    const SIGNED: bool;
    /// Steps whose products of pairs sum up within 16 bits: 4 for codes up to 31, 2 up to 63, else 1.
    const RUN: usize;

    /// The codes of step `step`.
    ///
    /// # Safety
    /// `group` is valid for reading `BYTES * LANES` bytes.
    unsafe fn step<I: Isa>(isa: I, group: *const u8, step: usize) -> I::Bytes;

    /// Puts the codes of one row, four columns to a word, into its group, which is zero there.
    fn put(group: &mut [u8], at: Lane, words: &[u32; STEPS]);
}

/// How the scales of a chunk lie in its header.
pub(super) trait Scales: 'static {
    /// Bytes of the header per row of a full chunk.
    const BYTES: usize;
    /// Columns that one scale covers: 32, or 16 (two parts of a group).
    const PARTS: usize;
    /// Whether there are minima beside the scales.
    const MIN: bool;

    /// Scale and (where there is one) minimum of part `part` of group `group`, as floats.
    ///
    /// # Safety
    /// `header` is valid for reading the header of a chunk that has this group.
    unsafe fn at<I: Isa>(isa: I, header: *const u8, group: usize, part: usize) -> (I::F32, I::F32);
}

/// Weights as the kernels read them: value = `scale * (code - zero) + min`.
pub(super) trait Stream: 'static {
    type Codes: Codes;
    type Scales: Scales;
    const ZERO: Zero;
    /// Whether it is read from memory, once, rather than from the cache.
    const FROM_MEMORY: bool;

    /// Bytes of `groups` groups of a tile of `lanes` rows: whole chunks and at most one shorter one.
    #[inline(always)]
    fn bytes(lanes: usize, groups: usize) -> usize {
        lanes * (Self::Scales::BYTES * groups / CHUNK + Self::Codes::BYTES * groups)
    }
}

/// The header and codes of chunk `chunk` of a tile of `lanes` rows and `groups` groups, and how many groups it has.
///
/// # Safety
/// `tile` points to a tile of `groups` groups, and the chunk is one of its.
#[inline(always)]
pub(super) unsafe fn chunk_of<S: Stream>(
    lanes: usize,
    tile: *const u8,
    groups: usize,
    chunk: usize,
) -> (*const u8, *const u8, usize) {
    let count = (groups - chunk * CHUNK).min(CHUNK);
    // SAFETY: the offsets are those of the layout.
    unsafe {
        let header = tile.add(S::bytes(lanes, CHUNK) * chunk);
        (header, header.add(lanes * (S::Scales::BYTES * count / CHUNK)), count)
    }
}
