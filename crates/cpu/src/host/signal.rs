//! `Dft` and `Stft` by recursion over the prime factors of the length; `MelWeights`.

use std::f64::consts::PI;

use kinglet_graph::axis;
use kinglet_graph::ops::{Dft, MelWeights, Stft};

use super::numbers::from_f64;
use super::{Call, HostOp, Outcome, Outs, View, around};

/// Real and imaginary part.
type Complex = [f64; 2];

/// Longest transform.
const MOST: usize = 1 << 24;

/// The sum over `j` of `x[j] e^(-2 pi i j k / n)` for each `k`; with the other sign for the inverse, unscaled.
fn transform(x: &[Complex], inverse: bool) -> Vec<Complex> {
    let sign = if inverse { 1.0 } else { -1.0 };
    let n = x.len();
    let root = |k: usize| (sign * 2.0 * PI * k as f64 / n as f64).sin_cos();
    let roots: Vec<Complex> = (0..n).map(root).map(|(sin, cos)| [cos, sin]).collect();
    let mut made = vec![[0.0; 2]; n];
    split(x, 1, &roots, &mut made);
    made
}

/// Transforms every `step`-th element of `x` into `out`; `roots` are those of the whole length.
fn split(x: &[Complex], step: usize, roots: &[Complex], out: &mut [Complex]) {
    let n = out.len();
    if n <= 1 {
        out.copy_from_slice(&x[..n]);
        return;
    }
    let factor = (2..).take_while(|p| p * p <= n).find(|p| n.is_multiple_of(*p)).unwrap_or(n);
    let part = n / factor;
    for (j, out) in out.chunks_exact_mut(part).enumerate() {
        split(&x[j * step..], step * factor, roots, out);
    }
    let parts = out.to_vec();
    let stride = roots.len() / n;
    for (k, slot) in out.iter_mut().enumerate() {
        let mut sum = [0.0; 2];
        for j in 0..factor {
            let ([a, b], [c, d]) = (parts[j * part + k % part], roots[j * k % n * stride]);
            sum = [sum[0] + a * c - b * d, sum[1] + a * d + b * c];
        }
        *slot = sum;
    }
}

/// The frequencies of a real signal whose first half is given: the other half is conjugate.
fn mirrored(half: &[Complex], n: usize) -> Vec<Complex> {
    let at = |k: usize| half.get(k).copied().unwrap_or_default();
    let one = |k: usize| if k <= n / 2 { at(k) } else { [at(n - k)[0], -at(n - k)[1]] };
    (0..n).map(one).collect()
}

/// Elements with real and imaginary parts.
fn complex(x: View<'_>) -> Result<Vec<Complex>, String> {
    let values = x.f64s()?;
    match x.shape.last() {
        Some(1) => Ok(values.iter().map(|x| [*x, 0.0]).collect()),
        Some(2) => Ok(values.as_chunks::<2>().0.to_vec()),
        _ => Err("the last dimension must hold a real part, or a real and an imaginary one".into()),
    }
}

fn length(call: &Call<'_>, i: usize) -> Result<Option<usize>, String> {
    if call.get(i).is_none() {
        return Ok(None);
    }
    let n = call.int(i)?;
    usize::try_from(n).ok().filter(|n| (1..=MOST).contains(n)).map(Some).ok_or(format!("a length of {n}"))
}

impl HostOp for Dft {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let along = if call.get(2).is_some() { call.int(2)? } else { -2 };
        let along = axis(along, x.rank())?;
        let rank = x.rank() - 1;
        if along == rank {
            return Err("the last dimension holds real and imaginary parts".into());
        }
        let (outer, have, inner) = around(&x.shape[..rank], along);
        let given = length(call, 1)?;
        let (size, parts) = self.sizes(have, given);
        let n = given.unwrap_or(if self.inverse && self.onesided { size } else { have });
        let data = complex(x)?;
        let mut shape = x.shape.to_vec();
        (shape[along], shape[rank]) = (size, parts);
        let out = outs.make(0, x.dtype, &shape)?;
        let mut made = vec![[0.0; 2]; outer * size * inner];
        for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
            let take = |k: usize| if k < have { data[(o * have + k) * inner + i] } else { [0.0; 2] };
            let list: Vec<Complex> = (0..n).map(take).collect();
            let list = if self.inverse && self.onesided { mirrored(&list, n) } else { list };
            let scale = if self.inverse { 1.0 / n as f64 } else { 1.0 };
            for (k, [re, im]) in transform(&list, self.inverse).into_iter().take(size).enumerate() {
                made[(o * size + k) * inner + i] = [re * scale, im * scale];
            }
        }
        let flat: Vec<f64> = made.iter().flat_map(|x| x[..parts].iter().copied()).collect();
        from_f64(x.dtype, &flat, out)
    }
}

impl HostOp for Stft {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let &[batch, have, _] = x.shape else { return Err("takes signals [N, length, 1 or 2]".into()) };
        let step = length(call, 1)?.ok_or("needs the step between windows")?;
        let weights = call.get(2).map(|w| w.f64s()).transpose()?;
        let n = length(call, 3)?.or(weights.as_ref().map(Vec::len)).unwrap_or(have);
        if n == 0 || weights.as_ref().is_some_and(|w| w.len() != n) {
            return Err(format!("a window of {n} elements with other weights"));
        }
        let windows = have.checked_sub(n).map_or(0, |rest| rest / step + 1);
        let bins = if self.onesided { n / 2 + 1 } else { n };
        let data = complex(x)?;
        let out = outs.make(0, x.dtype, &[batch, windows, bins, 2])?;
        let mut made = Vec::with_capacity(batch * windows * bins * 2);
        for (b, w) in (0..batch).flat_map(|b| (0..windows).map(move |w| (b, w))) {
            let signal = &data[b * have + w * step..][..n];
            let share = |i: usize| weights.as_ref().map_or(1.0, |w| w[i]);
            let list: Vec<Complex> =
                signal.iter().enumerate().map(|(i, [re, im])| [re * share(i), im * share(i)]).collect();
            made.extend(transform(&list, false).into_iter().take(bins).flatten());
        }
        from_f64(x.dtype, &made, out)
    }
}

impl HostOp for MelWeights {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let one = |i: usize| {
            call.view(i)?.f64s()?.first().copied().ok_or_else(|| format!("input {i} is no scalar"))
        };
        let (bands, length) = (usize::try_from(call.int(0)?), usize::try_from(call.int(1)?));
        let (bands, length) = bands.ok().zip(length.ok()).ok_or("a negative number of bands or samples")?;
        let (rate, bins) = (one(2)?, length / 2 + 1);
        let mel = |hertz: f64| 2595.0 * (1.0 + hertz / 700.0).log10();
        let (low, high) = (mel(one(3)?), mel(one(4)?));
        let step = (high - low) / (bands + 2) as f64;
        let bin = |i: usize| {
            let hertz = 700.0 * (10f64.powf((i as f64 * step + low) / 2595.0) - 1.0);
            (((length + 1) as f64 * hertz) / rate).floor()
        };
        let last = bin(bands + 1);
        if !(last.is_finite() && bin(0) >= 0.0 && last <= bins as f64) {
            return Err(format!("frequencies up to bin {last} of {bins}"));
        }
        let count = bins.checked_mul(bands).filter(|n| *n <= MOST).ok_or("too many weights")?;
        let mut weights = vec![0.0; count];
        for band in 0..bands {
            band_weights([bin(band), bin(band + 1), bin(band + 2)], |at, weight| {
                if let Some(slot) = weights.get_mut(at * bands + band) {
                    *slot = weight;
                }
            });
        }
        from_f64(self.dtype, &weights, outs.make(0, self.dtype, &[bins, bands])?)
    }
}

/// A triangle from its first bin over the middle one to the last, which has no weight itself.
fn band_weights([first, middle, last]: [f64; 3], mut put: impl FnMut(usize, f64)) {
    if first == middle {
        put(middle as usize, 1.0);
    } else {
        (first as usize..=middle as usize).for_each(|at| put(at, (at as f64 - first) / (middle - first)));
    }
    if last > middle {
        (middle as usize..last as usize).for_each(|at| put(at, (last - at as f64) / (last - middle)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transform_is_its_definition() {
        for n in [1, 2, 3, 8, 12, 13, 30] {
            let x: Vec<Complex> = (0..n).map(|i| [(i * i % 7) as f64 - 3.0, (i % 5) as f64]).collect();
            for (k, found) in transform(&x, false).iter().enumerate() {
                let mut sum = [0.0; 2];
                for (j, [re, im]) in x.iter().enumerate() {
                    let (sin, cos) = (-2.0 * PI * (j * k) as f64 / n as f64).sin_cos();
                    sum = [sum[0] + re * cos - im * sin, sum[1] + re * sin + im * cos];
                }
                assert!((0..2).all(|p| (sum[p] - found[p]).abs() < 1e-9), "{n}: {k}: {found:?}, {sum:?}");
            }
        }
    }
}
