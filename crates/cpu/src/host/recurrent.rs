//! `Recurrent` and `LinearAttention`: one position after the other, in f64.

use kinglet_graph::ops::{Cell, Fun, LinearAttention, Recurrent};

use super::elementwise::of_float;
use super::numbers::from_f64;
use super::{Call, HostOp, Outcome, Outs, store};

/// A matrix whose rows are added up: `[from, to]`.
struct Matrix {
    to: usize,
    rows: Vec<f64>, // [from, to]
}

impl Matrix {
    /// The transpose of `[to, from]`.
    fn transposed(values: &[f64], to: usize, from: usize) -> Self {
        let rows = (0..from * to).map(|i| values[i % to * from + i / to]).collect();
        Self { to, rows }
    }

    /// Adds the product of `x` with the columns from `first` to `sum`.
    fn add(&self, x: &[f64], first: usize, sum: &mut [f64]) {
        for (x, row) in x.iter().zip(self.rows.chunks_exact(self.to)) {
            sum.iter_mut().zip(&row[first..]).for_each(|(sum, w)| *sum += x * w);
        }
    }
}

/// One direction of a layer.
struct Direction<'a> {
    op: &'a Recurrent,
    functions: &'a [Fun],
    hidden: usize,
    input: Matrix,        // [in, gates * H]
    state: Matrix,        // [H, gates * H]
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

impl HostOp for Recurrent {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (x, w, r) = (call.view(0)?, call.view(1)?, call.view(2)?);
        let &[a, b, wide] = x.shape else { return Err("takes sequences of 3 dimensions".into()) };
        let (time, batch) = if self.batch_first { (b, a) } else { (a, b) };
        let &[directions, rows, hidden] = r.shape else {
            return Err("takes matrices of 3 dimensions".into());
        };
        if w.shape != [directions, rows, wide] || directions != self.backwards.len() {
            return Err(format!("matrices {:?} and {:?} for an input of {wide}", w.shape, r.shape));
        }
        let (wv, rv) = (w.f64s()?, r.f64s()?);
        let list = |i: usize, n: usize| match call.get(i) {
            Some(view) if view.len() != n => {
                Err(format!("input {i} has {} elements, expected {n}", view.len()))
            }
            Some(view) => view.f64s(),
            None => Ok(vec![0.0; n]),
        };
        let biases = list(3, directions * rows * 2)?;
        let lengths = match call.get(4) {
            Some(_) => list(4, batch)?.iter().map(|n| (*n as usize).min(time)).collect(),
            None => vec![time; batch],
        };
        let states = directions * batch * hidden;
        let (mut h, mut c) = (list(5, states)?, list(6, states)?);
        let peeps = list(7, directions * 3 * hidden)?;
        let values = x.f64s()?;
        let mut all = vec![0.0; time * states];
        for d in 0..directions {
            let per = self.cell.functions();
            let bias = &biases[d * 2 * rows..][..2 * rows];
            let direction = Direction {
                op: self,
                functions: self.functions.get(d * per..(d + 1) * per).ok_or("too few functions")?,
                hidden,
                input: Matrix::transposed(&wv[d * rows * wide..][..rows * wide], rows, wide),
                state: Matrix::transposed(&rv[d * rows * hidden..][..rows * hidden], rows, hidden),
                bias: bias[..rows].to_vec(),
                state_bias: bias[rows..].to_vec(),
                peep: peeps[d * 3 * hidden..][..3 * hidden].to_vec(),
            };
            for (n, length) in lengths.iter().enumerate() {
                let state = if self.batch_first { n * directions + d } else { d * batch + n } * hidden;
                let (h, c) = (&mut h[state..][..hidden], &mut c[state..][..hidden]);
                for i in 0..*length {
                    let t = if self.backwards[d] { length - 1 - i } else { i };
                    let (from, to) = if self.batch_first {
                        (n * time + t, (n * time + t) * directions + d)
                    } else {
                        (t * batch + n, (t * directions + d) * batch + n)
                    };
                    direction.step(&values[from * wide..][..wide], h, c);
                    all[to * hidden..][..hidden].copy_from_slice(h);
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

impl HostOp for LinearAttention {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (q, k, v) = (call.view(0)?, call.view(1)?, call.view(2)?);
        let &[batch, time, wide] = q.shape else { return Err("takes queries of 3 dimensions".into()) };
        let (heads, kv) = (self.heads, self.kv_heads);
        let (keys, width) = (wide / heads, v.shape[2] / kv);
        if k.shape != [batch, time, kv * keys] || v.shape != [batch, time, kv * width] {
            return Err(format!("queries {:?}, keys {:?}, values {:?}", q.shape, k.shape, v.shape));
        }
        let rows = batch * time;
        // Lists of one of these sizes for each row.
        let list = |i: usize, rows: usize, sizes: &[usize]| match call.get(i) {
            Some(v) if sizes.iter().any(|n| v.len() == rows * n) => v.f64s().map(Some),
            Some(v) => Err(format!("input {i} is {:?}, expected {sizes:?} for each of {rows}", v.shape)),
            None => Ok(None),
        };
        let before = list(3, batch, &[kv * keys * width])?;
        let mut states = before.unwrap_or_else(|| vec![0.0; batch * kv * keys * width]);
        let (decay, rate) = (list(4, rows, &[kv * keys, kv])?, list(5, rows, &[kv, 1])?);
        let (qv, kvs, vv) = (q.f64s()?, k.f64s()?, v.f64s()?);
        let scale = self.scale.map_or(1.0 / (keys as f64).sqrt(), f64::from);
        let mut made = vec![0.0; rows * heads * width];
        // An element of a list that has one for each key dimension, for each head, or for all heads.
        let of = |list: &[f64], row: usize, head: usize, i: usize| {
            let each = list.len() / rows;
            list[row * each + if each == kv * keys { head * keys + i } else { head.min(each - 1) }]
        };
        for (row, head) in (0..rows).flat_map(|row| (0..kv).map(move |head| (row, head))) {
            let state = &mut states[(row / time * kv + head) * keys * width..][..keys * width];
            let key = &kvs[(row * kv + head) * keys..][..keys];
            let mut value = vv[(row * kv + head) * width..][..width].to_vec();
            if let Some(decay) = &decay {
                for (i, line) in state.chunks_exact_mut(width).enumerate() {
                    let factor = of(decay, row, head, i).exp();
                    line.iter_mut().for_each(|s| *s *= factor);
                }
            }
            if self.delta {
                for (line, k) in state.chunks_exact(width).zip(key) {
                    value.iter_mut().zip(line).for_each(|(v, s)| *v -= s * k);
                }
            }
            let rate = rate.as_ref().map_or(1.0, |list| of(list, row, head, 0));
            for (line, k) in state.chunks_exact_mut(width).zip(key) {
                line.iter_mut().zip(&value).for_each(|(s, v)| *s += k * rate * v);
            }
            for query in head * heads / kv..(head + 1) * heads / kv {
                let out = &mut made[(row * heads + query) * width..][..width];
                for (line, q) in state.chunks_exact(width).zip(&qv[(row * heads + query) * keys..]) {
                    out.iter_mut().zip(line).for_each(|(y, s)| *y += scale * q * s);
                }
            }
        }
        store(outs, 0, &made)?;
        if outs.wants(1) {
            let dtype = call.get(3).map_or(q.dtype, |s| s.dtype);
            from_f64(dtype, &states, outs.make(1, dtype, &[batch, kv, keys, width])?)?;
        }
        Ok(())
    }
}
