//! How a kernel reads a constant before it packs it: in which order, and times which factors.

use std::borrow::Cow;

use kinglet_tensor::quant::row_decoder;
use kinglet_tensor::{DType, Tensor, quant};

/// An order and factors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Reading {
    gather: Option<Gather>,
    /// Bits of the factors; none when all are one.
    factors: Vec<u32>,
    /// Value `i` has factor `i / each`, over and over.
    each: usize,
    /// For bytes that stand for numbers.
    codes: Option<Codes>,
}

/// Bytes as integers, less their zero points.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Codes {
    pub(crate) signed: bool,
    /// Byte `i` has zero point `i / each`, over and over.
    pub(crate) zeros: Vec<i32>,
    pub(crate) each: usize,
}

/// Elements in another order: `(i, j, k, l)` is `first + i * strides[0] + …`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Gather {
    pub(crate) first: usize,
    pub(crate) sizes: [usize; 4],
    pub(crate) strides: [isize; 4],
}

impl Reading {
    /// As it lies; value `i` times factor `i / each`, over and over.
    pub(crate) fn times(factors: &[f32], each: usize) -> Self {
        let ones = factors.iter().all(|x| *x == 1.0);
        let factors = if ones { Vec::new() } else { factors.iter().map(|x| x.to_bits()).collect() };
        Self { gather: None, each: if ones { 0 } else { each.max(1) }, factors, codes: None }
    }

    /// Codes as integers.
    pub(crate) fn codes(codes: Codes) -> Self {
        Self { codes: Some(codes), ..Self::default() }
    }

    /// The same in another order.
    pub(crate) fn gathered(self, gather: Gather) -> Self {
        Self { gather: Some(gather), ..self }
    }

    /// Whether it reads constants of this type.
    pub(crate) fn takes(&self, dtype: DType) -> bool {
        match dtype {
            DType::I8 | DType::U8 => self.codes.is_some(),
            _ => self.codes.is_none() && row_decoder(dtype).is_some(),
        }
    }

    /// How many values it reads of so many elements; none when it would read others.
    pub(crate) fn count(&self, elements: usize) -> Option<usize> {
        let Some(Gather { first, sizes, strides }) = self.gather else { return Some(elements) };
        let count = sizes.iter().try_fold(1usize, |n, size| n.checked_mul(*size))?;
        let reach = |up: bool| {
            let axes = sizes.iter().zip(&strides).filter(|(_, stride)| (**stride > 0) == up);
            axes.into_iter().try_fold(first as isize, |at, (size, stride)| {
                at.checked_add(isize::try_from(size.saturating_sub(1)).ok()?.checked_mul(*stride)?)
            })
        };
        let inside = reach(false)? >= 0 && usize::try_from(reach(true)?).is_ok_and(|end| end < elements);
        (inside || count == 0).then_some(count)
    }

    /// The values of a constant of numbers for which [`count`](Self::count) is known.
    pub(crate) fn values<'a>(&self, tensor: &'a Tensor) -> Cow<'a, [f32]> {
        if let Some(codes) = &self.codes {
            return Cow::Owned(codes.integers(tensor.data()));
        }
        let floats = decoded(tensor);
        if self.gather.is_none() && self.factors.is_empty() {
            return floats;
        }
        let float = |at: usize| floats.get(at).copied().unwrap_or(0.0);
        let mut values: Vec<f32> = match &self.gather {
            Some(gather) => gather.places().map(float).collect(),
            None => floats.into_owned(),
        };
        let factors = self.factors.iter().cycle();
        for (values, factor) in values.chunks_mut(self.each.max(1)).zip(factors) {
            values.iter_mut().for_each(|x| *x *= f32::from_bits(*factor));
        }
        Cow::Owned(values)
    }
}

/// The numbers of a constant; zeros when it has none.
fn decoded(tensor: &Tensor) -> Cow<'_, [f32]> {
    if tensor.dtype() == DType::F32
        && let Ok(floats) = bytemuck::try_cast_slice(tensor.data())
    {
        return Cow::Borrowed(floats);
    }
    let mut floats = vec![0.0; tensor.elements()];
    // Fails for what is no numbers only, which no kernel asks for.
    let _zeros = quant::dequantize(tensor.dtype(), tensor.data(), &mut floats);
    Cow::Owned(floats)
}

impl Codes {
    /// The integers that bytes stand for.
    fn integers(&self, bytes: &[u8]) -> Vec<f32> {
        let number = |byte: u8| if self.signed { i32::from(byte as i8) } else { byte.into() };
        let zeros = self.zeros.iter().cycle();
        let runs = bytes.chunks(self.each.max(1)).zip(zeros);
        runs.flat_map(|(run, zero)| run.iter().map(move |byte| (number(*byte) - zero) as f32)).collect()
    }
}

impl Gather {
    fn places(self) -> impl Iterator<Item = usize> {
        let Self { first, sizes: [a, b, c, d], strides } = self;
        let at = move |i: [usize; 4]| {
            let steps = i.iter().zip(&strides).map(|(i, stride)| *i as isize * stride).sum::<isize>();
            first.wrapping_add_signed(steps)
        };
        let inner = move |i, j| (0..c).flat_map(move |k| (0..d).map(move |l| at([i, j, k, l])));
        (0..a).flat_map(move |i| (0..b).flat_map(move |j| inner(i, j)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(reading: &Reading, floats: &[f32]) -> Vec<f32> {
        let bytes = floats.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let tensor = Tensor::new("x", DType::F32, vec![floats.len()], bytes.into()).expect("whole");
        reading.values(&tensor).into_owned()
    }

    #[test]
    fn factors_stand_for_rows_or_columns() {
        let floats = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(values(&Reading::times(&[1.0, 1.0], 3), &floats), floats);
        assert_eq!(values(&Reading::times(&[10.0, 1.0], 3), &floats), [10.0, 20.0, 30.0, 4.0, 5.0, 6.0]);
        assert_eq!(values(&Reading::times(&[10.0, 1.0, 2.0], 1), &floats), [10.0, 2.0, 6.0, 40.0, 5.0, 12.0]);
    }

    #[test]
    fn elements_come_in_any_order_but_from_inside() {
        let floats = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let turned = Gather { first: 2, sizes: [1, 3, 2, 1], strides: [0, -1, 3, 1] };
        let reading = Reading::default().gathered(turned);
        assert_eq!(reading.count(6), Some(6));
        assert_eq!(values(&reading, &floats), [3.0, 6.0, 2.0, 5.0, 1.0, 4.0]);
        assert_eq!(reading.count(5), None);
        let below = Gather { first: 1, ..turned };
        assert_eq!(Reading::default().gathered(below).count(6), None);
        let huge = Gather { first: 0, sizes: [usize::MAX; 4], strides: [1; 4] };
        assert_eq!(Reading::default().gathered(huge).count(6), None);
    }
}
