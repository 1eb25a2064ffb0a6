//! `Resize`, one dimension after the other: each output element is a weighted sum of neighbours.

use kinglet_graph::ops::{Coordinates, NearestRule, Resize, ResizeMode, Scaled};

use super::{Call, HostOp, Outcome, Outs, around, shape_of, store, store_ints};

/// Neighbours and weights of one output element; none outside of the region.
type Taps = Option<Vec<(usize, f64)>>;

impl HostOp for Resize {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let scaled =
            call.with_args(|args| self.scaled(args, x.shape))?.ok_or("scales or sizes are missing")?;
        let region = match call.get(1) {
            Some(view) if self.coordinates == Coordinates::TfCropAndResize => view.f64s()?,
            _ => Vec::new(),
        };
        let mut shape = x.shape.to_vec();
        let mut values = x.f64s()?;
        let mut outside = Vec::new();
        for (i, s) in scaled.iter().enumerate() {
            let n = shape[s.axis];
            if n == 0 {
                return Err(format!("nothing to resize in {:?}", x.shape));
            }
            if n == s.output && s.scale == 1.0 && region.is_empty() {
                continue;
            }
            let ends =
                region.get(i).copied().zip(region.get(i + scaled.len()).copied()).unwrap_or((0.0, 1.0));
            let taps: Vec<Taps> = (0..s.output).map(|o| self.taps(o, n, s, ends)).collect();
            let (outer, _, inner) = around(&shape, s.axis);
            if taps.iter().any(Option::is_none) || !outside.is_empty() {
                outside.resize(values.len(), false);
                outside = unseen(&outside, [outer, n, inner], &taps);
            }
            values = along(&values, [outer, n, inner], &taps);
            shape[s.axis] = s.output;
        }
        let gone = values.iter_mut().zip(&outside).filter(|(_, gone)| **gone);
        gone.for_each(|(x, _)| *x = f64::from(self.outside));
        if shape != shape_of(outs, 0)? {
            return Err("made another shape than planned".into());
        }
        if x.dtype.is_integer() {
            return store_ints(
                outs,
                0,
                &values.iter().map(|x| x.round_ties_even() as i64).collect::<Vec<_>>(),
            );
        }
        store(outs, 0, &values)
    }
}

/// Values `[outer, n, inner]` with each place of the middle dimension made of its taps; zero where there are none.
fn along(values: &[f64], [outer, n, inner]: [usize; 3], taps: &[Taps]) -> Vec<f64> {
    let mut made = vec![0.0; outer * taps.len() * inner];
    let rows = made.chunks_exact_mut(inner.max(1));
    for (row, (o, tap)) in rows.zip((0..outer).flat_map(|o| taps.iter().map(move |tap| (o, tap)))) {
        let list = tap.as_deref().unwrap_or_default();
        if let [slot] = row {
            *slot = list.iter().map(|(j, w)| values[o * n + j] * w).sum();
            continue;
        }
        for (j, w) in list {
            let from = &values[(o * n + j) * inner..][..inner];
            row.iter_mut().zip(from).for_each(|(slot, x)| *slot += x * w);
        }
    }
    made
}

/// Which of them see nothing: they have no taps, or only ones that see nothing.
fn unseen(outside: &[bool], [outer, n, inner]: [usize; 3], taps: &[Taps]) -> Vec<bool> {
    let mut made = Vec::with_capacity(outer * taps.len() * inner);
    for (o, tap) in (0..outer).flat_map(|o| taps.iter().map(move |tap| (o, tap))) {
        let blind = |k: usize| {
            tap.as_ref().is_none_or(|list| list.iter().all(|(j, _)| outside[(o * n + j) * inner + k]))
        };
        made.extend((0..inner).map(blind));
    }
    made
}

trait Sampling {
    fn taps(&self, o: usize, n: usize, s: &Scaled, region: (f64, f64)) -> Taps;
    fn weights(&self, ratio: f64, scale: f64) -> Vec<f64>;
}

impl Sampling for Resize {
    /// Neighbours of output `o` among `n` elements. The ratio lies in `(0, 1]`: of two equally near the left one counts.
    fn taps(&self, o: usize, n: usize, s: &Scaled, region: (f64, f64)) -> Taps {
        let x = origin(self.coordinates, o, n, s, region);
        let last = n as f64 - 1.0;
        if self.coordinates == Coordinates::TfCropAndResize && !(0.0..=last).contains(&x) {
            return None;
        }
        let ratio = if x == x.floor() { 1.0 } else { x - x.floor() };
        let weights = self.weights(ratio, s.scale);
        let start = x.ceil() as i64 - weights.len() as i64 / 2;
        let inside = |j: i64| (0..n as i64).contains(&j);
        let mut taps: Vec<(usize, f64)> = Vec::with_capacity(weights.len());
        for (i, w) in weights.iter().enumerate() {
            let j = start + i as i64;
            let w = if self.exclude_outside && !inside(j) { 0.0 } else { *w };
            if w != 0.0 {
                taps.push((j.clamp(0, n as i64 - 1) as usize, w));
            }
        }
        if self.exclude_outside {
            let total: f64 = taps.iter().map(|(_, w)| w).sum();
            taps.iter_mut().for_each(|(_, w)| *w /= total);
        }
        Some(taps)
    }

    /// Weights of an even number of neighbours around the place.
    fn weights(&self, ratio: f64, scale: f64) -> Vec<f64> {
        let shrink = if self.antialias { scale.min(1.0) } else { 1.0 };
        let (reach, kernel): (f64, Box<dyn Fn(f64) -> f64>) = match self.mode {
            ResizeMode::Nearest(rule) => return nearest(rule, ratio),
            ResizeMode::Linear => (1.0, Box::new(|d| (1.0 - d.abs()).max(0.0))),
            ResizeMode::Cubic(a) => (2.0, Box::new(move |d| cubic(d.abs(), a.into()))),
        };
        let first = (-reach / shrink).floor() as i64 + 1;
        let list: Vec<f64> = (first..2 - first).map(|i| kernel((i as f64 - ratio) * shrink)).collect();
        let total: f64 = if shrink < 1.0 { list.iter().sum() } else { 1.0 };
        list.iter().map(|w| w / total).collect()
    }
}

fn nearest(rule: NearestRule, ratio: f64) -> Vec<f64> {
    let left = ratio != 1.0
        && match rule {
            NearestRule::PreferFloor => ratio <= 0.5,
            NearestRule::PreferCeil => ratio < 0.5,
            NearestRule::Floor => true,
            NearestRule::Ceil => false,
        };
    if left { vec![1.0, 0.0] } else { vec![0.0, 1.0] }
}

/// The cubic convolution kernel at a distance (Keys 1981, <https://doi.org/10.1109/TASSP.1981.1163711>).
fn cubic(d: f64, a: f64) -> f64 {
    if d <= 1.0 {
        ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    } else if d < 2.0 {
        ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
    } else {
        0.0
    }
}

/// Where output `o` lies among `n` elements.
fn origin(coordinates: Coordinates, o: usize, n: usize, s: &Scaled, (from, to): (f64, f64)) -> f64 {
    let (o, n, count) = (o as f64, n as f64, s.output as f64);
    let length = s.scale * n;
    match coordinates {
        Coordinates::HalfPixel => (o + 0.5) / s.scale - 0.5,
        Coordinates::HalfPixelSymmetric => {
            let centre = n / 2.0 * (1.0 - count / length);
            centre + (o + 0.5) / s.scale - 0.5
        }
        Coordinates::PytorchHalfPixel => {
            if length > 1.0 {
                (o + 0.5) / s.scale - 0.5
            } else {
                -0.5
            }
        }
        Coordinates::AlignCorners => {
            if length == 1.0 {
                0.0
            } else {
                o * (n - 1.0) / (length - 1.0)
            }
        }
        Coordinates::Asymmetric => o / s.scale,
        Coordinates::TfHalfPixelForNn => (o + 0.5) / s.scale,
        Coordinates::TfCropAndResize => {
            if count == 1.0 {
                (to + from) * (n - 1.0) / 2.0
            } else {
                o * (to - from) * (n - 1.0) / (count - 1.0) + from * (n - 1.0)
            }
        }
    }
}
