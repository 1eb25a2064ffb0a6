//! What runs bring and leave: tensors of any type, lists of values, or nothing.

use std::sync::Arc;

use kinglet_graph::{TensorType, Type};
use kinglet_tensor::{Bytes, DType, PooledBuffer, Tensor};

/// A value outside of a plan.
#[derive(Clone, Debug)]
pub enum Value {
    /// A tensor.
    Tensor(Array),
    /// A list.
    Sequence(Vec<Value>),
    /// An optional without content.
    Nothing,
}

/// A row-major tensor that shares its elements.
#[derive(Clone, Debug)]
pub struct Array {
    dtype: DType,
    shape: Vec<usize>,
    data: Data,
}

#[derive(Clone, Debug)]
enum Data {
    Shared(Bytes),
    Pooled(Arc<PooledBuffer>),
    Texts(Arc<[String]>),
}

impl Array {
    /// A tensor over these bytes; none when they are not as many as type and shape ask for.
    pub fn new(dtype: DType, shape: Vec<usize>, data: Bytes) -> Option<Self> {
        let fits = dtype != DType::Str && Tensor::bytes_of(dtype, &shape) == Some(data.len());
        fits.then_some(Self { dtype, shape, data: Data::Shared(data) })
    }

    /// A tensor of plain numbers; none when they do not fill the shape.
    pub fn from_slice<T: bytemuck::Pod>(dtype: DType, shape: Vec<usize>, values: &[T]) -> Option<Self> {
        Self::new(dtype, shape, Bytes::copy_from_slice(bytemuck::cast_slice(values)))
    }

    /// A tensor of texts; none when they do not fill the shape.
    pub fn texts(shape: Vec<usize>, texts: Vec<String>) -> Option<Self> {
        let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
        (elements == texts.len()).then(|| Self { dtype: DType::Str, shape, data: Data::Texts(texts.into()) })
    }

    /// A tensor in a lent buffer of exactly its size.
    pub(crate) fn pooled(dtype: DType, shape: Vec<usize>, data: PooledBuffer) -> Self {
        Self { dtype, shape, data: Data::Pooled(Arc::new(data)) }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements' bytes; none for texts.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Shared(bytes) => bytes,
            Data::Pooled(buffer) => buffer,
            Data::Texts(_) => &[],
        }
    }

    /// The texts of a tensor of texts.
    pub fn as_texts(&self) -> &[String] {
        if let Data::Texts(texts) = &self.data { texts } else { &[] }
    }

    /// The elements as f32; floats of other sizes are converted, other types give none.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        let mut values = vec![0.0; self.shape.iter().product()];
        kinglet_tensor::quant::dequantize(self.dtype, self.bytes(), &mut values).ok()?;
        Some(values)
    }

    /// As a constant of a graph, with elements of its own; none for texts.
    pub(crate) fn constant(&self) -> Option<Tensor> {
        let bytes = match &self.data {
            Data::Shared(bytes) => bytes.clone(),
            Data::Pooled(buffer) => Bytes::copy_from_slice(buffer),
            Data::Texts(_) => return None,
        };
        Tensor::new("", self.dtype, self.shape.clone(), bytes).ok()
    }

    /// As a named tensor over the same elements; none for texts.
    pub fn into_tensor(self, name: &str) -> Option<Tensor> {
        let bytes = match self.data {
            Data::Shared(bytes) => bytes,
            Data::Pooled(buffer) => Bytes::from_owner(Lent(buffer)),
            Data::Texts(_) => return None,
        };
        Tensor::new(name, self.dtype, self.shape, bytes).ok()
    }
}

/// Goes back to its pool with the last tensor that reads it.
struct Lent(Arc<PooledBuffer>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<&Tensor> for Array {
    fn from(tensor: &Tensor) -> Self {
        Self {
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            data: Data::Shared(tensor.data().clone()),
        }
    }
}

impl Value {
    /// The tensor, when it is one.
    pub fn tensor(&self) -> Option<&Array> {
        if let Self::Tensor(array) = self { Some(array) } else { None }
    }

    /// Its type in a graph.
    pub(crate) fn ty(&self) -> Type {
        match self {
            Self::Tensor(array) => TensorType::fixed(array.dtype, &array.shape).into(),
            Self::Sequence(values) => {
                Type::Sequence(Box::new(values.first().map_or(Type::Unknown, |v| open(v.ty()))))
            }
            Self::Nothing => Type::Optional(Box::new(Type::Unknown)),
        }
    }
}

/// The type of any element of a list, when this is that of the first.
fn open(ty: Type) -> Type {
    match ty {
        Type::Tensor(ty) => TensorType::of_rank(ty.dtype, ty.rank()).into(),
        other => other,
    }
}

impl From<Array> for Value {
    fn from(array: Array) -> Self {
        Self::Tensor(array)
    }
}
