//! Layers on every instruction set against their definition in f64.

use kinglet_simd::Level;

use super::*;
use crate::nd::testing::{Case, random};

fn bytes(values: &[f32]) -> Bytes {
    bytemuck::cast_slice(values).to_vec().into()
}

/// A layer with its inputs.
struct Sample {
    layer: Lstm,
    x: Vec<f32>,
    first: [Vec<f32>; 2],
    weights: [Vec<f32>; 3],
}

impl Sample {
    fn new([time, batch, wide, hidden]: [usize; 4], backwards: &[bool], batch_first: bool) -> Self {
        let d = backwards.len();
        let weights =
            [random(1, d * 4 * hidden * wide), random(2, d * 4 * hidden * hidden), random(3, d * 8 * hidden)];
        let layer = Lstm {
            time,
            batch,
            wide,
            hidden,
            backwards: backwards.to_vec(),
            batch_first,
            input: bytes(&weights[0]),
            state: bytes(&weights[1]),
            bias: Some(bytes(&weights[2])),
        };
        let first = [random(4, d * batch * hidden), random(5, d * batch * hidden)];
        Self { layer, x: random(6, time * batch * wide), first, weights }
    }

    /// All hidden states, the last ones, the last cells, in f64.
    fn expected(&self) -> [Vec<f64>; 3] {
        let of = &self.layer;
        let (d_count, h_count) = (of.backwards.len(), of.hidden);
        let [mut h, mut c] = [0, 1].map(|i| self.first[i].iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
        let mut all = vec![0.0; of.time * h.len()];
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        for (d, n, i) in
            (0..d_count).flat_map(|d| (0..of.batch).flat_map(move |n| (0..of.time).map(move |i| (d, n, i))))
        {
            let t = if of.backwards[d] { of.time - 1 - i } else { i };
            let (state, x, to) = if of.batch_first {
                (n * d_count + d, n * of.time + t, (n * of.time + t) * d_count + d)
            } else {
                (d * of.batch + n, t * of.batch + n, (t * d_count + d) * of.batch + n)
            };
            let before = h[state * h_count..][..h_count].to_vec();
            let sum = |row: usize| {
                let w = &self.weights[0][(d * 4 * h_count + row) * of.wide..][..of.wide];
                let r = &self.weights[1][(d * 4 * h_count + row) * h_count..][..h_count];
                let b = &self.weights[2][d * 8 * h_count..];
                let x = self.x[x * of.wide..].iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                let h = before.iter().zip(r).map(|(h, r)| h * f64::from(*r));
                x.chain(h).sum::<f64>() + f64::from(b[row]) + f64::from(b[4 * h_count + row])
            };
            for j in 0..h_count {
                let at = state * h_count + j;
                c[at] = sigmoid(sum(2 * h_count + j)) * c[at] + sigmoid(sum(j)) * sum(3 * h_count + j).tanh();
                h[at] = sigmoid(sum(h_count + j)) * c[at].tanh();
                all[to * h_count + j] = h[at];
            }
        }
        [all, h, c]
    }
}

#[test]
fn layers_equal_their_definition() {
    for (sizes, backwards, batch_first) in [
        ([1, 1, 128, 128], &[false][..], false),
        ([5, 2, 7, 19], &[false, true], false),
        ([3, 3, 33, 40], &[true, false], true),
        ([20, 1, 1, 1], &[true], false),
    ] {
        let sample = Sample::new(sizes, backwards, batch_first);
        let expected = sample.expected();
        for level in Level::available() {
            let mut case = Case::new(level);
            let x = case.matrix(sizes[2], &sample.x);
            let first = [0, 1].map(|i| Some(case.matrix(sizes[3], &sample.first[i])));
            let spans = expected.each_ref().map(|e| case.span(e.len() / sizes[3], sizes[3]));
            for (i, expected) in expected.iter().enumerate() {
                let mut out = [None; 3];
                out[i] = Some(spans[i]);
                let step = || lstm(sample.layer.clone(), LstmSpans { x, first, out }).expect("binds");
                case.check_matrix(step, spans[i], expected, 2e-6);
            }
        }
    }
}

#[test]
fn weights_of_other_sizes_are_refused() {
    let sample = Sample::new([2, 1, 4, 3], &[false], false);
    let mut case = Case::new(Level::SCALAR);
    let (x, out) = (case.matrix(4, &sample.x), case.span(2, 3));
    let spans = LstmSpans { x, first: [None; 2], out: [Some(out), None, None] };
    assert!(lstm(sample.layer.clone(), spans).is_ok());
    assert!(lstm(Lstm { hidden: 4, ..sample.layer.clone() }, spans).is_err());
    assert!(lstm(Lstm { time: 3, ..sample.layer.clone() }, spans).is_err());
    assert!(lstm(Lstm { bias: Some(Bytes::new()), ..sample.layer.clone() }, spans).is_err());
    assert!(lstm(Lstm { backwards: vec![], ..sample.layer }, spans).is_err());
}
