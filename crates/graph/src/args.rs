//! What an op sees of its inputs while types are inferred: their types, and the values of constants.

use kinglet_tensor::{DType, Tensor};

use crate::{Dim, TensorType, Type};

/// The inputs of a node.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a>(pub &'a [Arg<'a>]);

/// One input.
#[derive(Clone, Copy, Debug)]
pub struct Arg<'a> {
    /// Its type.
    pub ty: &'a Type,
    /// Its value, when it is a constant.
    pub constant: Option<&'a Tensor>,
}

impl<'a> Args<'a> {
    /// Number of inputs, absent ones included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no inputs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The type of input `i`; absent behind the last one.
    pub fn ty(&self, i: usize) -> &'a Type {
        self.0.get(i).map_or(&Type::Absent, |arg| arg.ty)
    }

    /// The tensor type of input `i`.
    pub fn tensor(&self, i: usize) -> Result<&'a TensorType, String> {
        match self.ty(i) {
            Type::Tensor(ty) => Ok(ty),
            Type::Absent => Err(format!("input {i} is missing")),
            Type::Sequence(_) => Err(format!("input {i} is a sequence, expected a tensor")),
            Type::Optional(_) => Err(format!("input {i} is an optional, expected a tensor")),
            Type::Unknown => Err(format!("the type of input {i} is not known")),
        }
    }

    /// The tensor type of input `i`, when it was given.
    pub fn optional(&self, i: usize) -> Option<&'a TensorType> {
        self.ty(i).tensor()
    }

    /// Whether input `i` was given.
    pub fn has(&self, i: usize) -> bool {
        *self.ty(i) != Type::Absent
    }

    /// The tensor types of exactly `N` inputs.
    pub fn tensors<const N: usize>(&self) -> Result<[&'a TensorType; N], String> {
        if self.len() != N {
            return Err(format!("takes {N} inputs, got {}", self.len()));
        }
        let types: Vec<_> = (0..N).map(|i| self.tensor(i)).collect::<Result<_, _>>()?;
        types.try_into().map_err(|_| "wrong number of inputs".to_owned())
    }

    /// The tensor types of all inputs.
    pub fn all(&self) -> Result<Vec<&'a TensorType>, String> {
        (0..self.len()).map(|i| self.tensor(i)).collect()
    }

    /// The value of input `i`, when it is a constant.
    pub fn constant(&self, i: usize) -> Option<&'a Tensor> {
        self.0.get(i).and_then(|arg| arg.constant)
    }

    /// The elements of input `i`, when it is a constant of integers.
    pub fn ints(&self, i: usize) -> Option<Vec<i64>> {
        ints(self.constant(i)?)
    }

    /// The only element of input `i`, when it is a constant integer.
    pub fn int(&self, i: usize) -> Option<i64> {
        self.ints(i).filter(|values| values.len() == 1).map(|values| values[0])
    }

    /// The elements of input `i`, when it is a constant of f32.
    pub fn floats(&self, i: usize) -> Option<Vec<f32>> {
        let tensor = self.constant(i).filter(|t| t.dtype() == DType::F32)?;
        let value = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Some(tensor.data().chunks_exact(4).map(value).collect())
    }

    /// Number of elements of a vector, when it is known.
    pub fn length(&self, i: usize) -> Option<usize> {
        let ty = self.optional(i)?;
        if ty.rank() <= 1 { ty.elements() } else { None }
    }
}

/// The elements of an integer tensor.
pub fn ints(tensor: &Tensor) -> Option<Vec<i64>> {
    let data = tensor.data();
    Some(match tensor.dtype() {
        DType::I64 => {
            data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap_or_default())).collect()
        }
        DType::I32 => data
            .chunks_exact(4)
            .map(|b| i64::from(i32::from_le_bytes(b.try_into().unwrap_or_default())))
            .collect(),
        DType::U8 | DType::Bool => data.iter().map(|b| i64::from(*b)).collect(),
        _ => return None,
    })
}

/// An axis as an index: negative ones count from the end.
pub fn axis(axis: i64, rank: usize) -> Result<usize, String> {
    let index = if axis < 0 { axis.checked_add(rank as i64).unwrap_or(-1) } else { axis };
    usize::try_from(index)
        .ok()
        .filter(|i| *i < rank)
        .ok_or_else(|| format!("axis {axis} is outside of {rank} dimensions"))
}

/// The axes as sorted, distinct indices.
pub fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, String> {
    let mut found: Vec<usize> = list.iter().map(|a| axis(*a, rank)).collect::<Result<_, _>>()?;
    found.sort_unstable();
    if found.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(format!("axes {list:?} name a dimension twice"));
    }
    Ok(found)
}

/// The shape that both shapes broadcast to, aligned at the innermost dimension.
pub fn broadcast(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, String> {
    let rank = a.len().max(b.len());
    let at =
        |shape: &[Dim], i: usize| (i + shape.len()).checked_sub(rank).map_or(Dim::Fixed(1), |i| shape[i]);
    let one = |i: usize| match (at(a, i), at(b, i)) {
        (x, y) if x == y => Ok(x),
        (Dim::Fixed(1), y) => Ok(y),
        (x, Dim::Fixed(1)) => Ok(x),
        (Dim::Fixed(_), Dim::Fixed(_)) => Err(format!("shapes {a:?} and {b:?} do not broadcast")),
        (x @ Dim::Fixed(_), _) | (_, x @ Dim::Fixed(_)) => Ok(x),
        _ => Ok(Dim::Unknown),
    };
    (0..rank).map(one).collect()
}
