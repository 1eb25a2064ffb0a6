//! Packed weights as one file: what a store keeps, so that the next load maps it instead of packing again.
//!
//! ```text
//! file     [head][pad][matrix 0][pad][matrix 1]...   each matrix as the kernels read it, at a multiple of 4096 bytes
//! head     magic | bytes of the head | entries | bytes of the description | description | entry 0 | entry 1 ... | check
//! entry    offset | bytes | check of the matrix          numbers are 64 bits, little-endian
//! ```
//!
//! The description says all that the packed bytes depend on; a file that does not begin with the very one that is
//! expected is as good as none. Checks find accidents (a torn write, a bad disk), not malice: a store belongs to its user.
//! Deliberately absent: files; a [`PackStore`] brings bytes and takes them.

use kinglet_kernels::matmul::{PackPlan, pack_fingerprint};
use kinglet_tensor::{AlignedBuf, AllocError, Bytes, COPY_PIECE, Tensor};

/// Keeps packed weights between runs. Implemented above, where there are files.
pub trait PackStore: std::fmt::Debug + Send + Sync {
    /// The file that was kept under this description. None when there is none; anything else is checked.
    fn load(&self, description: &[u8]) -> Option<Bytes>;

    /// Keeps a file. Called once the weights are packed, before the first run, so it should come back at once; failing
    /// is no error, since packing again is always possible.
    fn keep(&self, description: &[u8], file: PackFile);
}

/// A file to be written.
pub struct PackFile {
    description: Vec<u8>,
    matrices: Vec<Bytes>,
}

impl PackFile {
    pub(crate) fn new(description: Vec<u8>, matrices: Vec<Bytes>) -> Self {
        Self { description, matrices }
    }

    /// Size of the file.
    pub fn bytes(&self) -> u64 {
        let head = head_bytes(&self.description, self.matrices.len());
        self.matrices.iter().fold(head, |end, matrix| end.next_multiple_of(ALIGN) + matrix.len()) as u64
    }

    /// The content: parts in order, shared with the weights in use. Reads all of them once, for their checks.
    pub fn parts(&self) -> Vec<Bytes> {
        let head_bytes = head_bytes(&self.description, self.matrices.len());
        let mut head = MAGIC.to_vec();
        put(&mut head, &[head_bytes as u64, self.matrices.len() as u64, self.description.len() as u64]);
        head.extend_from_slice(&self.description);
        let (mut parts, mut end) = (vec![Bytes::new()], head_bytes);
        for matrix in &self.matrices {
            let offset = end.next_multiple_of(ALIGN);
            put(&mut head, &[offset as u64, matrix.len() as u64, check(matrix)]);
            parts.extend([vec![0; offset - end].into(), matrix.clone()]);
            end = offset + matrix.len();
        }
        let sum = check(&head);
        put(&mut head, &[sum]);
        parts[0] = head.into();
        parts
    }
}

fn head_bytes(description: &[u8], matrices: usize) -> usize {
    32 + description.len() + matrices * ENTRY + 8
}

const MAGIC: [u8; 8] = *b"KNGLPACK";
/// Changes with the layout of the file; what the matrices themselves look like is in the description.
const VERSION: u64 = 1;
/// Matrices begin at multiples of a page.
const ALIGN: usize = 4096;
/// Bytes of an entry.
const ENTRY: usize = 24;
/// Bytes of a tensor that the description quotes at its beginning, middle and end.
const QUOTE: usize = 32;

/// All that the packed form of `matrices` depends on: names, shapes, samples of their content, and the packing itself.
pub(crate) fn describe(matrices: &[(&Tensor, PackPlan)]) -> Vec<u8> {
    let mut text = VERSION.to_le_bytes().to_vec();
    let mut packings: Vec<(&str, u64)> = Vec::new();
    for (tensor, plan) in matrices {
        let name = plan.dtype().name();
        if !packings.iter().any(|(known, _)| *known == name) {
            packings.push((name, pack_fingerprint(plan.level(), plan.dtype())));
        }
        let layout = [plan.rows() as u64, plan.cols() as u64, plan.tile_rows() as u64];
        put_tensor(&mut text, tensor, name, &layout);
    }
    for (name, fingerprint) in packings {
        put_text(&mut text, name);
        put(&mut text, &[fingerprint]);
    }
    text
}

/// The same for floats; each brings a check of all that is done to it, and the fingerprint tells how floats are packed.
pub(crate) fn describe_floats<'a>(
    tensors: impl Iterator<Item = (&'a Tensor, u64)>,
    fingerprint: u64,
) -> Vec<u8> {
    let mut text = VERSION.to_le_bytes().to_vec();
    for (tensor, check) in tensors {
        put_tensor(&mut text, tensor, "floats", &[check]);
    }
    put(&mut text, &[fingerprint]);
    text
}

/// A tensor by name and samples of its content, and how it is packed.
fn put_tensor(text: &mut Vec<u8>, tensor: &Tensor, packing: &str, layout: &[u64]) {
    put_text(text, tensor.name());
    put_text(text, packing);
    put(text, layout);
    let data = tensor.data();
    let last = data.len().saturating_sub(QUOTE);
    for at in [0, last / 2, last] {
        text.extend_from_slice(&data[at..data.len().min(at + QUOTE)]);
    }
}

fn put(out: &mut Vec<u8>, numbers: &[u64]) {
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, &[text.len() as u64]);
    out.extend_from_slice(text.as_bytes());
}

/// A matrix of a file, and what [`check`] must give for it.
pub(crate) type Checked = (Bytes, u64);

/// The matrices of a file with this description and these sizes, whose contents are yet to be checked. None when the file
/// is anything else, or not whole.
pub(crate) fn read(file: &Bytes, description: &[u8], sizes: &[usize]) -> Option<Vec<Checked>> {
    let number = |at: usize| Some(u64::from_le_bytes(file.get(at..at.checked_add(8)?)?.try_into().ok()?));
    let head_bytes = head_bytes(description, sizes.len());
    let expected = [head_bytes, sizes.len(), description.len()].map(|n| n as u64);
    let found = [number(8)?, number(16)?, number(24)?];
    let entries = 32 + description.len();
    let is_ours = file.starts_with(&MAGIC) && found == expected && file.get(32..entries)? == description;
    if !is_ours || number(head_bytes - 8)? != check(file.get(..head_bytes - 8)?) {
        return None;
    }
    let matrix = |(n, size): (usize, &usize)| {
        let at = entries + n * ENTRY;
        let (offset, bytes) = (usize::try_from(number(at)?).ok()?, usize::try_from(number(at + 8)?).ok()?);
        let end = offset.checked_add(bytes).filter(|end| *end <= file.len())?;
        let fits = bytes == *size && offset.is_multiple_of(ALIGN);
        fits.then(|| Some((file.slice(offset..end), number(at + 16)?)))?
    };
    sizes.iter().enumerate().map(matrix).collect()
}

/// A sum over bytes that any accident changes, at the speed of memory: four streams of multiplications.
pub(crate) fn check(bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    let mut sums = START;
    add(&mut sums, blocks);
    total(sums, rest, bytes.len())
}

/// A copy of bytes, and the [`check`] of the copy.
pub(crate) fn copy_checked(from: &[u8]) -> Result<(AlignedBuf<u8>, u64), AllocError> {
    const { assert!(COPY_PIECE.is_multiple_of(BLOCK)) }
    let mut sums = START;
    let copy = AlignedBuf::<u8>::try_copy(from, |piece| add(&mut sums, piece.as_chunks::<BLOCK>().0))?;
    let sum = total(sums, copy.as_chunks::<BLOCK>().1, copy.len());
    Ok((copy, sum))
}

/// Bytes that are added at a time, a number to each stream.
const BLOCK: usize = 32;
const START: [u64; 4] = [1, 2, 3, 4];

fn add(sums: &mut [u64; 4], blocks: &[[u8; BLOCK]]) {
    const PRIME: u64 = 0x9e37_79b1_85eb_ca87;
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = (*sum ^ u64::from_le_bytes(*word)).wrapping_mul(PRIME);
        }
    }
}

/// The check of so many bytes, of which `rest` were not added.
fn total(sums: [u64; 4], rest: &[u8], bytes: usize) -> u64 {
    let end = sums.iter().fold(bytes as u64, |end, sum| mix(end ^ sum));
    rest.iter().fold(end, |end, byte| mix(end ^ u64::from(*byte)))
}

/// Spreads every bit over all others.
fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (x ^ x >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(17)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(description: &[u8], matrices: &[Bytes]) -> Bytes {
        let file = PackFile::new(description.to_vec(), matrices.to_vec());
        let whole = file.parts().concat();
        assert_eq!(file.bytes(), whole.len() as u64);
        whole.into()
    }

    fn matrices() -> Vec<Bytes> {
        [5000, 1, 4096].map(|n| (0..n).map(|i| (i * 7 % 251) as u8).collect::<Vec<u8>>().into()).into()
    }

    #[test]
    fn a_file_comes_back_as_it_was_written() {
        let (matrices, sizes) = (matrices(), [5000, 1, 4096]);
        let whole = file(b"a model", &matrices);
        let found = read(&whole, b"a model", &sizes).expect("the same file");
        for ((matrix, sum), expected) in found.iter().zip(&matrices) {
            assert!(matrix == expected && check(matrix) == *sum);
        }
    }

    #[test]
    fn anything_else_is_as_good_as_none() {
        let matrices = matrices();
        let whole = file(b"a model", &matrices);
        let sizes = [5000, 1, 4096];
        assert!(read(&whole, b"b model", &sizes).is_none());
        assert!(read(&whole, b"a model", &[5000, 2, 4096]).is_none());
        assert!(read(&whole, b"a model", &[5000, 1]).is_none());
        for end in [0, 7, 31, 60, 4095, whole.len() - 1] {
            assert!(read(&whole.slice(..end), b"a model", &sizes).is_none(), "{end} bytes");
        }
        for at in 0..32 + 7 + 3 * ENTRY + 8 {
            let mut bent = whole.to_vec();
            bent[at] ^= 4;
            assert!(read(&bent.into(), b"a model", &sizes).is_none(), "byte {at}");
        }
    }

    #[test]
    fn a_copy_is_checked_as_a_whole() {
        for len in [0, 31, 64, (16 << 10) + 5, (48 << 10) + 32] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
            let (copy, sum) = copy_checked(&bytes).expect("memory");
            assert!(*copy == *bytes && sum == check(&bytes), "{len}");
        }
    }

    #[test]
    fn every_bit_counts() {
        let bytes: Vec<u8> = (0..100).collect();
        let sum = check(&bytes);
        for bit in 0..800 {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(check(&bent), sum, "bit {bit}");
        }
        assert_ne!(check(&bytes[..99]), sum);
        assert_ne!(check(&[0; 64]), check(&[0; 96]));
    }
}
