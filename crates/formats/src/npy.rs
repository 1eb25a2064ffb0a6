//! NumPy's `.npy` arrays, versions 1 to 3, read and written over bytes.
//!
//! Deliberately absent: `.npz` (a ZIP of these), texts, records and big-endian numbers.

use bytes::Bytes;
use kinglet_tensor::{DType, Tensor};

use crate::error::printable;
use crate::{FormatError, Place, Problem};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Bytes of a header; NumPy's own have under two hundred.
const MAX_HEADER: usize = 1 << 16;
const MAX_DIMS: usize = 32;

/// Bytes, at most, before the elements of an array.
pub const MAX_START: usize = 12 + MAX_HEADER;

/// NumPy's spelling of the types that can be read and written.
const TYPES: [(&str, DType); 13] = [
    ("<f4", DType::F32),
    ("<f8", DType::F64),
    ("<f2", DType::F16),
    ("<i8", DType::I64),
    ("<i4", DType::I32),
    ("<i2", DType::I16),
    ("|i1", DType::I8),
    ("<u8", DType::U64),
    ("<u4", DType::U32),
    ("<u2", DType::U16),
    ("|u1", DType::U8),
    ("|b1", DType::Bool),
    ("<V2", DType::BF16),
];

/// What stands before the elements of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Element type.
    pub dtype: DType,
    /// Sizes.
    pub shape: Vec<usize>,
    /// Where the elements begin.
    pub start: usize,
    /// Whether the first dimension varies fastest.
    columns: bool,
}

impl Header {
    /// Reads it from the first [`MAX_START`] bytes of a file, or from all of a shorter one; errors speak of `name`.
    pub fn read(name: &str, bytes: &[u8]) -> Result<Self, FormatError> {
        let wrong = |why: &str| Place::named(name).has(Problem::Npy(why.into()));
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| wrong("it does not begin as NumPy arrays do"))?;
        let (len, first) = match rest {
            [1, _, low, high, ..] => (usize::from(u16::from_le_bytes([*low, *high])), 10),
            [2 | 3, _, a, b, c, d, ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, 12),
            _ => return Err(wrong("its version is not 1, 2 or 3")),
        };
        let start = Some(first + len).filter(|start| len <= MAX_HEADER && *start <= bytes.len());
        let start = start.ok_or_else(|| wrong("its header is longer than the file, or than any header"))?;
        let header = std::str::from_utf8(&bytes[first..start]).map_err(|_| wrong("its header is no text"))?;
        let columns = match value(header, "fortran_order") {
            Some("False") => false,
            Some("True") => true,
            _ => return Err(wrong("it does not tell its order")),
        };
        let spelt = value(header, "descr").unwrap_or_default().trim_matches(['\'', '"']);
        let known = TYPES.iter().find(|(numpy, _)| *numpy == spelt);
        let unknown = || wrong(&format!("elements of type {} cannot be read", printable(spelt)));
        let (_, dtype) = *known.ok_or_else(unknown)?;
        let shape = shape(value(header, "shape").unwrap_or_default());
        Ok(Self { dtype, shape: shape.ok_or_else(|| wrong("its shape is impossible"))?, start, columns })
    }

    /// How many elements there are; none where no computer could count them.
    pub fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |count, dim| count.checked_mul(*dim))
    }
}

/// Reads an array; `name` becomes its name. The elements share the file's bytes.
pub fn read(name: &str, bytes: &Bytes) -> Result<Tensor, FormatError> {
    let Header { dtype, shape, start, columns } = Header::read(name, bytes)?;
    let tensor = Tensor::new(name, dtype, shape, bytes.slice(start..))
        .map_err(|e| Place::named(name).has(e.into()))?;
    if columns { by_rows(&tensor).map_err(|e| Place::named(name).has(e.into())) } else { Ok(tensor) }
}

/// An array whose first dimension varies fastest, with the last one varying fastest.
fn by_rows(tensor: &Tensor) -> Result<Tensor, kinglet_tensor::TensorError> {
    let (shape, size) = (tensor.shape(), tensor.dtype().block_bytes());
    let mut strides = vec![size; shape.len()];
    for i in 1..shape.len() {
        strides[i] = strides[i - 1] * shape[i - 1];
    }
    let mut data = Vec::with_capacity(tensor.data().len());
    let mut at = vec![0; shape.len()];
    for _ in 0..tensor.elements() {
        let from: usize = at.iter().zip(&strides).map(|(i, stride)| i * stride).sum();
        data.extend_from_slice(&tensor.data()[from..from + size]);
        for i in (0..shape.len()).rev() {
            at[i] += 1;
            if at[i] < shape[i] {
                break;
            }
            at[i] = 0;
        }
    }
    Tensor::new(tensor.name(), tensor.dtype(), shape.to_vec(), data.into())
}

/// Writes an array; none for types that NumPy has no spelling for.
pub fn write(tensor: &Tensor) -> Option<Vec<u8>> {
    let (spelt, _) = TYPES.iter().find(|(_, dtype)| *dtype == tensor.dtype())?;
    let dims: Vec<String> = tensor.shape().iter().map(usize::to_string).collect();
    // Python's tuple of one ends with a comma.
    let comma = if dims.len() == 1 { "," } else { "" };
    let shape = format!("({}{comma})", dims.join(", "));
    let mut header = format!("{{'descr': '{spelt}', 'fortran_order': False, 'shape': {shape}, }}");
    // NumPy pads so that the elements begin at a multiple of 64.
    while !(header.len() + 11).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let len = u16::try_from(header.len()).ok()?;
    let mut out = [MAGIC, &[1, 0], &len.to_le_bytes()[..], header.as_bytes()].concat();
    out.extend_from_slice(tensor.data());
    Some(out)
}

/// The value of a key in the header, a Python dictionary of three plain values.
fn value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let at = header.find(&format!("'{key}'"))? + key.len() + 2;
    let rest = header[at..].trim_start().strip_prefix(':')?.trim_start();
    let end = if rest.starts_with('(') { rest.find(')')? + 1 } else { rest.find([',', '}'])? };
    Some(rest[..end].trim())
}

fn shape(text: &str) -> Option<Vec<usize>> {
    let inner = text.strip_prefix('(')?.strip_suffix(')')?;
    let dims = inner.split(',').map(str::trim).filter(|dim| !dim.is_empty());
    let dims: Vec<usize> = dims.map(|dim| dim.parse().ok()).collect::<Option<_>>()?;
    (dims.len() <= MAX_DIMS).then_some(dims)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numpy.save` of `numpy.arange(6, dtype='<i2').reshape(2, 3)`.
    fn numpy() -> Vec<u8> {
        let header = b"{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }";
        let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        bytes.extend_from_slice(header);
        bytes.resize(127, b' ');
        bytes.push(b'\n');
        (0..6i16).for_each(|i| bytes.extend_from_slice(&i.to_le_bytes()));
        bytes
    }

    #[test]
    fn arrays_are_read_and_written_as_numpy_does() {
        let bytes = numpy();
        let tensor = read("x", &bytes.clone().into()).expect("an array");
        assert_eq!((tensor.dtype(), tensor.shape()), (DType::I16, &[2, 3][..]));
        assert_eq!(write(&tensor).expect("a known type"), bytes);
        for shape in [vec![], vec![3], vec![1, 0, 2]] {
            let count: usize = shape.iter().product();
            let tensor =
                Tensor::new("y", DType::F32, shape.clone(), vec![7; count * 4].into()).expect("fits");
            let again = read("y", &write(&tensor).expect("a known type").into()).expect("an array");
            assert_eq!((again.shape(), again.data()), (&shape[..], tensor.data()));
        }
    }

    #[test]
    fn arrays_by_columns_are_turned() {
        let mut bytes = numpy();
        let at = bytes.windows(5).position(|w| w == b"False").expect("is there");
        bytes.splice(at..at + 5, *b"True ");
        let tensor = read("x", &bytes.into()).expect("an array");
        let rows: Vec<u8> = [0i16, 2, 4, 1, 3, 5].iter().flat_map(|i| i.to_le_bytes()).collect();
        assert_eq!((tensor.shape(), &tensor.data()[..]), (&[2, 3][..], &rows[..]));
    }

    #[test]
    fn damaged_arrays_are_refused() {
        let check = |from: &[u8], to: &[u8], expected: &str| {
            let text = numpy();
            let at = text.windows(from.len()).position(|w| w == from).expect("is there");
            let bytes = [&text[..at], to, &text[at + from.len()..]].concat();
            let error = read("x", &bytes.into()).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(b"\x93NUMPY", b"\x93NUMPX", "does not begin as NumPy arrays do");
        check(b"\x01\x00\x76\x00", b"\x01\x00\xff\xff", "header is longer than the file");
        check(b"\x01\x00\x76", b"\x09\x00\x76", "version is not 1, 2 or 3");
        check(b"'<i2'", b"'|O' ", "elements of type |O cannot be read");
        check(b"False", b"Maybe", "does not tell its order");
        check(b"(2, 3)", b"(2, 4)", "takes 16 bytes, found 12");
        check(b"(2, 3)", b"(-1,3)", "shape is impossible");
        assert!(read("x", &Bytes::new()).is_err());
    }
}
