//! `Recurrent`: one position after the other; products of 32-bit floats in those, the rest in f64.

use std::ops::{AddAssign, Mul};

use kinglet_graph::ops::{Cell, Fun, Recurrent};
use kinglet_tensor::DType;

use super::functions::of_float;
use super::{Call, HostOp, Outcome, Outs, View, store};

/// Elements of an input: as they lie there, or another type's as f64.
enum Elements<'a> {
    Single(&'a [f32]),
    Double(Vec<f64>),
}

impl<'a> Elements<'a> {
    fn of(view: View<'a>) -> Result<Self, String> {
        let floats = bytemuck::try_cast_slice(view.data).ok().filter(|_| view.dtype == DType::F32);
        floats.map_or_else(|| view.f64s().map(Self::Double), |floats| Ok(Self::Single(floats)))
    }

    /// The matrix of `rows` rows that starts at row `first`.
    fn matrix(&self, first: usize, rows: usize, from: usize) -> Matrix<'_> {
        let range = first * from..(first + rows) * from;
        match self {
            Self::Single(all) => Matrix { from, rows: Rows::Single(&all[range]) },
            Self::Double(all) => Matrix { from, rows: Rows::Double(&all[range]) },
        }
    }
}

/// A matrix `[to, from]`, as it stands in the model.
struct Matrix<'a> {
    from: usize,
    rows: Rows<'a>,
}

#[derive(Clone, Copy)]
enum Rows<'a> {
    Single(&'a [f32]),
    Double(&'a [f64]),
}

impl Matrix<'_> {
    /// Adds the product of `x` with the rows from `first` on to `sum`. Over floats of 32 bits, `x` is rounded to such.
    fn add(&self, x: &[f64], first: usize, sum: &mut [f64]) {
        match self.rows {
            Rows::Single(rows) => {
                let x: Vec<f32> = x.iter().map(|x| *x as f32).collect();
                add(rows, self.from, &x, first, sum);
            }
            Rows::Double(rows) => add(rows, self.from, x, first, sum),
        }
    }
}

fn add<T: Number>(rows: &[T], from: usize, x: &[T], first: usize, sum: &mut [f64]) {
    let rows = rows.chunks_exact(from.max(1)).skip(first);
    sum.iter_mut().zip(rows).for_each(|(sum, row)| *sum += dot(x, row));
}

trait Number: Copy + Default + Into<f64> + Mul<Output = Self> + AddAssign {}

impl Number for f32 {}
impl Number for f64 {}

/// Sums of products are made in so many parts.
const PARTS: usize = 16;

/// `x . y`, in parts that do not wait for each other.
fn dot<T: Number>(x: &[T], y: &[T]) -> f64 {
    let ((x, rest), (y, other)) = (x.as_chunks::<PARTS>(), y.as_chunks::<PARTS>());
    let mut parts = [T::default(); PARTS];
    for (x, y) in x.iter().zip(y) {
        for i in 0..PARTS {
            parts[i] += x[i] * y[i];
        }
    }
    let tail = rest.iter().zip(other).map(|(x, y)| (*x * *y).into());
    parts.iter().map(|part| (*part).into()).chain(tail).sum()
}

/// One direction of a layer.
struct Direction<'a> {
    op: &'a Recurrent,
    functions: &'a [Fun],
    hidden: usize,
    input: Matrix<'a>,    // [gates * H, in]
    state: Matrix<'a>,    // [gates * H, H]
    bias: Vec<f64>,       // [gates * H], of the input
    state_bias: Vec<f64>, // [gates * H]
    peep: Vec<f64>,       // [3 * H]: input, output, forget
}

impl Direction<'_> {
    fn function(&self, i: usize, x: f64) -> f64 {
        let x = self.op.clip.map_or(x, |clip| x.clamp(-f64::from(clip), f64::from(clip)));
        of_float(self.functions[i], x)
    }

    /// Moves the states of one sequence on by an input.
    fn step(&self, x: &[f64], h: &mut [f64], c: &mut [f64]) {
        let mut sums = self.bias.clone();
        self.input.add(x, 0, &mut sums);
        match self.op.cell {
            Cell::Gru { reset_after } => return self.gru(reset_after, &mut sums, h),
            _ => {
                sums.iter_mut().zip(&self.state_bias).for_each(|(sum, b)| *sum += b);
                self.state.add(h, 0, &mut sums);
            }
        }
        match self.op.cell {
            Cell::Lstm { coupled } => self.lstm(coupled, &sums, h, c),
            _ => h.iter_mut().zip(&sums).for_each(|(h, x)| *h = self.function(0, *x)),
        }
    }

    fn lstm(&self, coupled: bool, sums: &[f64], h: &mut [f64], c: &mut [f64]) {
        let n = self.hidden;
        for j in 0..n {
            let peep = |gate: usize, c: f64| self.peep[gate * n + j] * c;
            let input = self.function(0, sums[j] + peep(0, c[j]));
            let forget =
                if coupled { 1.0 - input } else { self.function(0, sums[2 * n + j] + peep(2, c[j])) };
            c[j] = forget * c[j] + input * self.function(1, sums[3 * n + j]);
            let output = self.function(0, sums[n + j] + peep(1, c[j]));
            h[j] = output * of_float(self.functions[2], c[j]);
        }
    }

    /// `sums` hold what the input adds to each gate.
    fn gru(&self, reset_after: bool, sums: &mut [f64], h: &mut [f64]) {
        let n = self.hidden;
        let (gates, new) = sums.split_at_mut(2 * n);
        gates.iter_mut().zip(&self.state_bias).for_each(|(sum, b)| *sum += b);
        self.state.add(h, 0, gates);
        gates.iter_mut().for_each(|x| *x = self.function(0, *x));
        let mut old = self.state_bias[2 * n..].to_vec();
        let reset = &gates[n..];
        if reset_after {
            self.state.add(h, 2 * n, &mut old);
            old.iter_mut().zip(reset).for_each(|(x, r)| *x *= r);
        } else {
            let less: Vec<f64> = h.iter().zip(reset).map(|(h, r)| h * r).collect();
            self.state.add(&less, 2 * n, &mut old);
        }
        for j in 0..n {
            let made = self.function(1, new[j] + old[j]);
            h[j] = made + gates[j] * (h[j] - made);
        }
    }
}

/// The sizes of a layer.
struct Sizes {
    time: usize,
    batch: usize,
    wide: usize, // elements of an input
    directions: usize,
    rows: usize, // gates * H
    hidden: usize,
}

impl Sizes {
    fn of(op: &Recurrent, [x, w, r]: [&[usize]; 3]) -> Result<Self, String> {
        let &[a, b, wide] = x else { return Err("takes sequences of 3 dimensions".into()) };
        let (time, batch) = if op.batch_first { (b, a) } else { (a, b) };
        let &[directions, rows, hidden] = r else { return Err("takes matrices of 3 dimensions".into()) };
        if w != [directions, rows, wide]
            || directions != op.backwards.len()
            || rows != op.cell.gates() * hidden
        {
            return Err(format!("matrices {w:?} and {r:?} for an input of {wide}"));
        }
        Ok(Self { time, batch, wide, directions, rows, hidden })
    }

    /// Elements of the states of all sequences.
    fn states(&self) -> usize {
        self.directions * self.batch * self.hidden
    }

    /// Where the state of sequence `n` starts.
    fn state(&self, op: &Recurrent, d: usize, n: usize) -> usize {
        (if op.batch_first { n * self.directions + d } else { d * self.batch + n }) * self.hidden
    }

    /// Where the input and the hidden state of sequence `n` at position `t` start.
    fn position(&self, op: &Recurrent, d: usize, n: usize, t: usize) -> (usize, usize) {
        let (from, to) = if op.batch_first {
            (n * self.time + t, (n * self.time + t) * self.directions + d)
        } else {
            (t * self.batch + n, (t * self.directions + d) * self.batch + n)
        };
        (from * self.wide, to * self.hidden)
    }
}

/// The optional input `i` of `n` elements; zeros when it is absent.
fn list(call: &Call<'_>, i: usize, n: usize) -> Result<Vec<f64>, String> {
    match call.get(i) {
        Some(view) if view.len() != n => Err(format!("input {i} has {} elements, expected {n}", view.len())),
        Some(view) => view.f64s(),
        None => Ok(vec![0.0; n]),
    }
}

/// The weights and functions of every direction.
fn directions<'a>(
    op: &'a Recurrent,
    call: &Call<'_>,
    [w, r]: [&'a Elements<'a>; 2],
    of: &Sizes,
) -> Result<Vec<Direction<'a>>, String> {
    let biases = list(call, 3, of.directions * of.rows * 2)?;
    let peeps = list(call, 7, of.directions * 3 * of.hidden)?;
    let (rows, hidden, per) = (of.rows, of.hidden, op.cell.functions());
    let direction = |d: usize| {
        let (bias, state_bias) = biases[d * 2 * rows..][..2 * rows].split_at(rows);
        Ok(Direction {
            op,
            functions: op.functions.get(d * per..(d + 1) * per).ok_or("too few functions")?,
            hidden,
            input: w.matrix(d * rows, rows, of.wide),
            state: r.matrix(d * rows, rows, hidden),
            bias: bias.to_vec(),
            state_bias: state_bias.to_vec(),
            peep: peeps[d * 3 * hidden..][..3 * hidden].to_vec(),
        })
    };
    (0..of.directions).map(direction).collect()
}

impl HostOp for Recurrent {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let of = Sizes::of(self, [x.shape, call.view(1)?.shape, call.view(2)?.shape])?;
        let lengths: Vec<usize> = match call.get(4) {
            Some(_) => list(call, 4, of.batch)?.iter().map(|n| (*n as usize).min(of.time)).collect(),
            None => vec![of.time; of.batch],
        };
        let (mut h, mut c) = (list(call, 5, of.states())?, list(call, 6, of.states())?);
        let values = x.f64s()?;
        let mut all = vec![0.0; of.time * of.states()];
        // Without hidden elements there is nothing to compute.
        let (w, r) = (Elements::of(call.view(1)?)?, Elements::of(call.view(2)?)?);
        let layers = if of.hidden == 0 { Vec::new() } else { directions(self, call, [&w, &r], &of)? };
        for (d, direction) in layers.iter().enumerate() {
            for (n, length) in lengths.iter().enumerate() {
                let state = of.state(self, d, n);
                let (h, c) = (&mut h[state..][..of.hidden], &mut c[state..][..of.hidden]);
                for i in 0..*length {
                    let t = if self.backwards[d] { length - 1 - i } else { i };
                    let (from, to) = of.position(self, d, n, t);
                    direction.step(&values[from..][..of.wide], h, c);
                    all[to..][..of.hidden].copy_from_slice(h);
                }
            }
        }
        for (i, values) in [all, h, c].iter().enumerate() {
            if outs.wants(i) {
                store(outs, i, values)?;
            }
        }
        Ok(())
    }
}
