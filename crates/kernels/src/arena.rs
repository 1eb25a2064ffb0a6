//! The memory that a program's values live in, and the spans that name its parts.
//!
//! An arena is one aligned block, always initialised. A span is a row-major matrix at a fixed offset whose row count may
//! be a dimension that each run brings; with fewer rows it is shorter, never elsewhere.

use bytemuck::Pod;
use kinglet_tensor::{AlignedBuf, AllocError};

/// Offsets of spans are multiples of this.
pub const ALIGN: usize = 64;

/// Index of a size that each run brings, e.g. the number of tokens in the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DimId(pub usize);

/// Number of rows of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rows {
    /// Known when the program is built.
    Fixed(usize),
    /// Brought by each run.
    Dim(DimId),
}

impl Rows {
    /// The count under these dimensions; none when the dimension is not there.
    pub fn count(self, dims: &[usize]) -> Option<usize> {
        match self {
            Self::Fixed(rows) => Some(rows),
            Self::Dim(DimId(id)) => dims.get(id).copied(),
        }
    }
}

/// Element type of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Elem {
    F32,
    I32,
    U8,
}

impl Elem {
    /// Size of one element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::U8 => 1,
        }
    }
}

/// A Rust type that spans can hold.
pub trait Element: Pod + Send + Sync {
    /// Its tag.
    const ELEM: Elem;
}

impl Element for f32 {
    const ELEM: Elem = Elem::F32;
}
impl Element for i32 {
    const ELEM: Elem = Elem::I32;
}
impl Element for u8 {
    const ELEM: Elem = Elem::U8;
}

/// A row-major matrix in an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte; a multiple of [`ALIGN`].
    pub offset: usize,
    /// Elements a row.
    pub cols: usize,
    /// Number of rows.
    pub rows: Rows,
    /// Element type.
    pub elem: Elem,
}

impl Span {
    /// A matrix of floats.
    pub fn f32(offset: usize, rows: Rows, cols: usize) -> Self {
        Self { offset, cols, rows, elem: Elem::F32 }
    }

    /// One integer a row.
    pub fn indices(offset: usize, rows: Rows) -> Self {
        Self { offset, cols: 1, rows, elem: Elem::I32 }
    }

    /// Rows of plain bytes.
    pub fn bytes(offset: usize, rows: Rows, cols: usize) -> Self {
        Self { offset, cols, rows, elem: Elem::U8 }
    }

    /// Number of elements under `dims`; none when it overflows or a dimension is missing.
    pub fn len(&self, dims: &[usize]) -> Option<usize> {
        self.rows.count(dims)?.checked_mul(self.cols)
    }

    /// The offset behind its last byte under `dims`; none when it overflows or a dimension is missing.
    pub fn end(&self, dims: &[usize]) -> Option<usize> {
        self.len(dims)?.checked_mul(self.elem.bytes())?.checked_add(self.offset)
    }
}

/// A span that does not fit what it is used for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "fields are named by the message")]
pub enum ArenaError {
    /// It ends behind the arena or is not aligned.
    #[error("{span:?} is not within an arena of {bytes} bytes")]
    Outside { span: Span, bytes: usize },
    /// It holds another element type.
    #[error("{span:?} does not hold {elem:?}")]
    Elem { span: Span, elem: Elem },
    /// More values than the span has room for, or no whole number of rows.
    #[error("{found} values for {span:?}")]
    Length { span: Span, found: usize },
}

/// Working memory, shared by all programs that run one after the other.
#[derive(Debug)]
pub struct Arena {
    memory: AlignedBuf<u8>,
}

impl Arena {
    /// `bytes` zeroes.
    pub fn try_new(bytes: usize) -> Result<Self, AllocError> {
        Ok(Self { memory: AlignedBuf::try_new(bytes)? })
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.memory.len()
    }

    /// Copies whole rows to the start of `span`.
    pub fn write<T: Element>(&mut self, span: &Span, values: &[T]) -> Result<(), ArenaError> {
        let rows = values.len().checked_div(span.cols).unwrap_or(0);
        let most = if let Rows::Fixed(rows) = span.rows { rows } else { usize::MAX };
        if rows * span.cols != values.len() || rows > most {
            return Err(ArenaError::Length { span: *span, found: values.len() });
        }
        let start = self.check::<T>(span, size_of_val(values))?;
        bytemuck::cast_slice_mut(&mut self.memory[start..start + size_of_val(values)])
            .copy_from_slice(values);
        Ok(())
    }

    /// The rows that `span` has under `dims`.
    pub fn read<T: Element>(&self, span: &Span, dims: &[usize]) -> Result<&[T], ArenaError> {
        let outside = ArenaError::Outside { span: *span, bytes: self.bytes() };
        let bytes = span.end(dims).ok_or(outside)? - span.offset;
        let start = self.check::<T>(span, bytes)?;
        Ok(bytemuck::cast_slice(&self.memory[start..start + bytes]))
    }

    /// The bytes of `span` under `dims`, whatever it holds.
    pub fn bytes_of(&self, span: &Span, dims: &[usize]) -> Result<&[u8], ArenaError> {
        Ok(&self.memory[self.range(span, dims)?])
    }

    /// The same, to write.
    pub fn bytes_of_mut(&mut self, span: &Span, dims: &[usize]) -> Result<&mut [u8], ArenaError> {
        let range = self.range(span, dims)?;
        Ok(&mut self.memory[range])
    }

    fn range(&self, span: &Span, dims: &[usize]) -> Result<std::ops::Range<usize>, ArenaError> {
        let end = span.end(dims).filter(|end| *end <= self.bytes());
        end.map(|end| span.offset..end).ok_or(ArenaError::Outside { span: *span, bytes: self.bytes() })
    }

    /// The offset of `span`, if `bytes` from there are in bounds, aligned, and of type `T`.
    fn check<T: Element>(&self, span: &Span, bytes: usize) -> Result<usize, ArenaError> {
        if span.elem != T::ELEM {
            return Err(ArenaError::Elem { span: *span, elem: T::ELEM });
        }
        let fits = span.offset.checked_add(bytes).is_some_and(|end| end <= self.bytes());
        if !fits || !span.offset.is_multiple_of(ALIGN) {
            return Err(ArenaError::Outside { span: *span, bytes: self.bytes() });
        }
        Ok(span.offset)
    }

    /// Where the memory starts.
    pub(crate) fn base(&mut self) -> *mut u8 {
        self.memory.as_mut_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Rows = Rows::Dim(DimId(0));

    #[test]
    fn what_is_written_is_read_back() {
        let mut arena = Arena::try_new(256).expect("memory");
        let span = Span::f32(64, T, 3);
        arena.write(&span, &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).expect("fits");
        assert_eq!(arena.read::<f32>(&span, &[1]).expect("fits"), [1.0, 2.0, 3.0]);
        assert_eq!(arena.read::<f32>(&span, &[2]).expect("fits")[3..], [4.0, 5.0, 6.0]);
        assert_eq!(arena.read::<f32>(&span, &[0]).expect("fits").len(), 0);
    }

    #[test]
    fn spans_that_do_not_fit_are_refused() {
        let mut arena = Arena::try_new(256).expect("memory");
        let mut check = |span: Span, values: &[f32]| assert!(arena.write(&span, values).is_err(), "{span:?}");
        check(Span::f32(64, T, 3), &[0.0; 4]);
        check(Span::f32(64, Rows::Fixed(1), 3), &[0.0; 6]);
        check(Span::f32(256, T, 1), &[0.0; 1]);
        check(Span::f32(8, T, 1), &[0.0; 1]);
        check(Span::f32(usize::MAX - 63, T, 16), &[0.0; 16]);
        check(Span::f32(0, T, 0), &[0.0; 1]);
        check(Span::indices(0, T), &[0.0; 1]);
        assert!(arena.read::<f32>(&Span::f32(0, T, 1), &[]).is_err());
        assert!(arena.read::<f32>(&Span::f32(0, T, usize::MAX / 2), &[3]).is_err());
        assert!(arena.read::<f32>(&Span::f32(0, T, 32), &[3]).is_err());
    }
}
