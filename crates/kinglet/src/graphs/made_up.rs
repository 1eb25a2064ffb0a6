//! Inputs that nobody brings: sizes for open dimensions, and values.
//!
//! Floats are normally distributed, and integers look like tokens: numbers below 1,000, ones for masks, zeros for kinds.
//! The same model and shapes give the same inputs.

use kinglet_graph::{Dim, Graph};
use kinglet_models::image::Array;
use kinglet_tensor::{DType, Tensor};

use super::model::Port;
use crate::Error;
use crate::random::Random;

/// Sizes of open dimensions, and of those of pictures: lines of text and sounds; as small as may be; what needs several lines;
/// what goes through many halvings.
const OPEN: [[usize; 2]; 4] = [[64, 128], [1, 1], [320, 320], [640, 640]];

/// Elements of a value that is made up, at most.
const MOST: usize = 1 << 30;

/// A shape for each input.
type Shapes = Vec<Vec<usize>>;

/// The inputs of a graph, and what is known of their sizes.
pub(super) struct Inputs<'a> {
    pub graph: &'a Graph,
    /// The first inputs of the graph.
    pub ports: &'a [Port],
    /// Shapes of some, by name.
    pub given: &'a [(String, Vec<usize>)],
    /// Size of outermost dimensions.
    pub batch: usize,
}

impl Inputs<'_> {
    /// Shapes of all inputs that a model may run with, likeliest first; there is at least one. Dimensions of one name have one size:
    /// that of a given shape, else the batch where one of them is outermost. Dimensions without a name have sizes as those with one,
    /// or (a choice of its own) the batch in all inputs but the first.
    pub(super) fn choices(&self) -> Vec<Shapes> {
        let sizes = self.sizes();
        let mut choices = Vec::new();
        for open in OPEN {
            for nameless in [open, [self.batch; 2]] {
                let shape = |i: usize| self.shape(i, &sizes, open, if i == 0 { open } else { nameless });
                let shapes = (0..self.ports.len()).map(shape).collect();
                if !choices.contains(&shapes) {
                    choices.push(shapes);
                }
            }
        }
        choices
    }

    /// Values of the first choice that `fits`, and what that says of it; if there is none, the error of the first choice.
    pub(super) fn first<T>(
        &self,
        mut fits: impl FnMut(&[Tensor]) -> Result<T, Error>,
    ) -> Result<(Vec<Tensor>, T), Error> {
        let mut attempt = |shapes: &Shapes| {
            let made = self.ports.iter().zip(shapes).map(|(port, shape)| made_up(port, shape));
            let feeds: Vec<Tensor> = made.collect::<Result<_, _>>()?;
            let found = fits(&feeds)?;
            Ok((feeds, found))
        };
        let choices = self.choices();
        let mut tried = attempt(&choices[0]);
        for shapes in &choices[1..] {
            if tried.is_ok() {
                break;
            }
            tried = attempt(shapes).or(tried);
        }
        tried
    }

    fn given(&self, i: usize) -> Option<&Vec<usize>> {
        self.given.iter().find(|(name, _)| *name == self.ports[i].name).map(|(_, shape)| shape)
    }

    fn dims(&self, i: usize) -> &[Dim] {
        self.graph.tensor_type(self.graph.inputs()[i]).map_or(&[], |ty| &ty.shape)
    }

    /// Sizes of named dimensions, as far as given shapes and the batch tell them.
    fn sizes(&self) -> Vec<Option<usize>> {
        let mut sizes = vec![None; self.graph.dims().len()];
        for (i, shape) in (0..self.ports.len()).filter_map(|i| Some((i, self.given(i)?))) {
            for (dim, n) in self.dims(i).iter().zip(shape) {
                if let Dim::Sym(s) = dim {
                    sizes[*s].get_or_insert(*n);
                }
            }
        }
        for i in 0..self.ports.len() {
            if let Some(Dim::Sym(s)) = self.dims(i).first() {
                sizes[*s].get_or_insert(self.batch);
            }
        }
        sizes
    }

    /// The shape of input `i`: `open` and `nameless` are the sizes of its open dimensions with and without a name, each of them
    /// that of pictures second.
    fn shape(&self, i: usize, sizes: &[Option<usize>], open: [usize; 2], nameless: [usize; 2]) -> Vec<usize> {
        if let Some(shape) = self.given(i) {
            return shape.clone();
        }
        let dims = self.dims(i);
        let picture = usize::from(dims.len() == 4);
        let size = |(axis, dim): (usize, &Dim)| match dim {
            Dim::Fixed(n) => *n,
            Dim::Sym(s) => sizes[*s].unwrap_or(open[picture]),
            Dim::Unknown if axis == 0 => self.batch,
            Dim::Unknown => nameless[picture],
        };
        dims.iter().enumerate().map(size).collect()
    }
}

/// A value for an input, of this shape.
fn made_up(port: &Port, shape: &[usize]) -> Result<Tensor, Error> {
    let wrong = || Error::Option {
        option: "--shape",
        found: format!("{}={shape:?}", port.name),
        expected: format!("a shape that fits {}", port.text),
    };
    let count = shape.iter().try_fold(1usize, |all, n| all.checked_mul(*n)).ok_or_else(wrong)?;
    Tensor::bytes_of(port.dtype.unwrap_or(DType::F32), shape).filter(|_| count <= MOST).ok_or_else(wrong)?;
    let mut random = Random::default();
    let name = port.name.to_lowercase();
    let integer = match () {
        () if name.contains("mask") => Some(1),
        () if name.contains("type") => Some(0),
        () => None,
    };
    let mut token = |below: u64| integer.unwrap_or_else(|| random.next() % below);
    let bytes: Vec<u8> = match port.dtype {
        Some(DType::I64 | DType::U64) => (0..count).flat_map(|_| token(1000).to_le_bytes()).collect(),
        Some(DType::I32 | DType::U32) => {
            (0..count).flat_map(|_| (token(1000) as u32).to_le_bytes()).collect()
        }
        Some(DType::Bool | DType::I8) => (0..count).map(|_| token(2) as u8).collect(),
        Some(DType::U8) => (0..count).map(|_| token(256) as u8).collect(),
        _ => {
            let data = (0..count).map(|_| random.normal()).collect();
            return port.tensor(&Array::new(shape, data).ok_or_else(wrong)?);
        }
    };
    let dtype = port.dtype.unwrap_or(DType::F32);
    Tensor::new(&port.name, dtype, shape.to_vec(), bytes.into()).map_err(|e| Error::Model(e.into()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use kinglet_graph::{GraphBuilder, TensorType};

    use super::*;
    use crate::graphs::model::ports;

    fn port(name: &str, dtype: DType, shape: &[Option<usize>]) -> Port {
        Port { name: name.into(), dtype: Some(dtype), shape: shape.to_vec(), text: String::new() }
    }

    #[test]
    fn inputs_are_of_the_models_types_and_shapes() {
        let check = |name, dtype, shape: &[usize], expected: &dyn Fn(&Tensor) -> bool| {
            let made = made_up(&port(name, dtype, &[None, Some(3), None]), &[2, 3, 1]).expect("a tensor");
            assert_eq!((made.dtype(), made.shape()), (dtype, shape), "{name}");
            assert!(expected(&made), "{name}: {:?}", made.data());
        };
        let ones = |t: &Tensor| t.data().chunks(8).all(|c| c == 1u64.to_le_bytes());
        let zeros = |t: &Tensor| t.data().iter().all(|b| *b == 0);
        let varied = |t: &Tensor| t.data().chunks(4).any(|c| c != &t.data()[..4]);
        check("attention_mask", DType::I64, &[2, 3, 1], &ones);
        check("token_type_ids", DType::I32, &[2, 3, 1], &zeros);
        check("x", DType::F32, &[2, 3, 1], &varied);
        check("x", DType::F16, &[2, 3, 1], &|_| true);
    }

    /// Choices for inputs of these dims; a letter is a named dimension, `?` one without a name.
    fn choices(inputs: &[&str], given: &[(&str, &[usize])]) -> Vec<Shapes> {
        let (mut graph, mut named) = (GraphBuilder::new(), HashMap::new());
        for (i, dims) in inputs.iter().enumerate() {
            let mut dim = |text: &str| match text.parse() {
                Ok(n) => Dim::Fixed(n),
                Err(_) if text == "?" => Dim::Unknown,
                Err(_) => *named.entry(text.to_owned()).or_insert_with(|| graph.dim(text, 1 << 30)),
            };
            let shape = dims.split(' ').map(&mut dim).collect();
            graph.input(&i.to_string(), TensorType { dtype: DType::F32, shape }).expect("new");
        }
        let graph = graph.finish();
        let given: Vec<_> = given.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
        let ports = ports(&graph, graph.inputs());
        Inputs { graph: &graph, ports: &ports, given: &given, batch: 2 }.choices()
    }

    #[test]
    fn dimensions_of_one_name_have_one_size() {
        let check = |inputs: &[&str], given: &[(&str, &[usize])], expected: &[&[usize]]| {
            assert_eq!(choices(inputs, given)[0], expected, "{inputs:?} {given:?}");
        };
        check(&["b n", "b n"], &[], &[&[2, 64], &[2, 64]]);
        check(&["2 b 8", "b n"], &[], &[&[2, 2, 8], &[2, 64]]);
        check(&["b 3 h w"], &[], &[&[2, 3, 128, 128]]);
        check(&["b n", "b n"], &[("1", &[5, 7])], &[&[5, 7], &[5, 7]]);
        check(&["3 4"], &[], &[&[3, 4]]);
        assert_eq!(choices(&["3 4", "b"], &[]).len(), 1);
    }

    #[test]
    fn sizes_without_a_name_are_the_batch_at_last() {
        let found = choices(&["? ?", "2 ? 8"], &[]);
        let expected = |n: usize, m: usize| vec![vec![2, n], vec![2, m, 8]];
        assert_eq!(found[..3], [expected(64, 64), expected(64, 2), expected(1, 1)]);
        assert_eq!(found.last(), Some(&expected(640, 2)));
    }

    #[test]
    fn shapes_must_be_of_this_world() {
        let of = |shape: &[usize]| made_up(&port("x", DType::F32, &[None]), shape);
        assert_eq!(of(&[5]).expect("a tensor").shape(), [5]);
        assert!(of(&[usize::MAX, 2]).is_err());
        assert!(of(&[usize::MAX / 2]).is_err());
    }

    #[test]
    fn normal_values_have_mean_zero_and_deviation_one() {
        let mut random = Random::default();
        let values: Vec<f64> = (0..10_000).map(|_| f64::from(random.normal())).collect();
        let mean = values.iter().sum::<f64>() / 1e4;
        let deviation = (values.iter().map(|x| x * x).sum::<f64>() / 1e4).sqrt();
        assert!(mean.abs() < 0.05 && (deviation - 1.0).abs() < 0.05, "{mean} {deviation}");
    }
}
