//! `GridSample`, `AffineGrid`, `RoiAlign`, `DeformConv`: a value between elements is a weighted sum of taps, which all
//! channels share.

use kinglet_graph::ops::{AffineGrid, DeformConv, GridSample, Pads, RoiAlign, SampleMode, SamplePad};

use super::numbers::from_f64;
use super::window::each;
use super::{Call, HostOp, Outcome, Outs, shape_of, store, strides};

/// A place in an image and its share.
type Tap = (usize, f64);

/// An index along one dimension; none outside.
type At = Option<usize>;

impl HostOp for GridSample {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (x, grid) = (call.view(0)?, call.view(1)?);
        let shape = shape_of(outs, 0)?;
        let (sizes, steps) = (&x.shape[2..], strides(&x.shape[2..]));
        let (values, places) = (x.f64s()?, grid.f64s()?);
        let (area, count) = (sizes.iter().product::<usize>(), shape[2..].iter().product::<usize>());
        if area == 0 && count > 0 {
            return Err("the image has no elements".into());
        }
        if x.shape[0] != shape[0] || places.len() != shape[0] * count * sizes.len() {
            return Err(format!("a grid {:?} for images {:?}", grid.shape, x.shape));
        }
        let mut made = vec![0.0; shape.iter().product()];
        for n in 0..shape[0] {
            for i in 0..count {
                let place = &places[(n * count + i) * sizes.len()..][..sizes.len()];
                let taps = taps_at(self, place, sizes, &steps);
                for c in 0..shape[1] {
                    let plane = n * shape[1] + c;
                    made[plane * count + i] = weighted(&values[plane * area..][..area], &taps);
                }
            }
        }
        store(outs, 0, &made)
    }
}

fn weighted(image: &[f64], taps: &[Tap]) -> f64 {
    taps.iter().map(|(at, share)| image[*at] * share).sum()
}

/// The taps of a place, whose last dimension comes first.
fn taps_at(op: &GridSample, place: &[f64], sizes: &[usize], steps: &[usize]) -> Vec<Tap> {
    let lists: Vec<_> = place.iter().rev().zip(sizes).map(|(at, n)| along(op, *at, *n)).collect();
    combined(&lists, steps)
}

/// The taps along a dimension of `n` elements. Places are in f32, as whoever made them rounded them.
fn along(op: &GridSample, at: f64, n: usize) -> Vec<(At, f64)> {
    let (unit, size) = (at as f32 + 1.0, n as f32);
    let at = if op.align_corners { unit / 2.0 * (size - 1.0) } else { (unit * size - 1.0) / 2.0 };
    let mut at = f64::from(if op.mode == SampleMode::Nearest { at.round_ties_even() } else { at });
    let (low, high) = borders(op, n);
    if at < low || at > high {
        at = match op.pad {
            SamplePad::Zeros => at,
            SamplePad::Border => at.clamp(0.0, n as f64 - 1.0),
            SamplePad::Reflection => reflected(at, low, high),
        };
    }
    let (first, rest) = (at.floor() as i64, at - at.floor());
    let one = |i: i64, share: f64| (element(op, first.saturating_add(i), n), share);
    match op.mode {
        SampleMode::Nearest => vec![one(0, 1.0)],
        SampleMode::Linear => vec![one(0, 1.0 - rest), one(1, rest)],
        SampleMode::Cubic => (-1..3).map(|i| one(i, cubic(rest - i as f64))).collect(),
    }
}

fn element(op: &GridSample, i: i64, n: usize) -> At {
    let last = n as i64 - 1;
    match op.pad {
        SamplePad::Zeros => usize::try_from(i).ok().filter(|i| *i < n),
        SamplePad::Border => Some(i.clamp(0, last) as usize),
        SamplePad::Reflection => {
            let (low, high) = borders(op, n);
            Some((reflected(i as f64, low, high) as i64).clamp(0, last) as usize)
        }
    }
}

fn borders(op: &GridSample, n: usize) -> (f64, f64) {
    if op.align_corners { (0.0, n as f64 - 1.0) } else { (-0.5, n as f64 - 0.5) }
}

/// Products of the taps of all dimensions that lie inside.
fn combined(lists: &[Vec<(At, f64)>], steps: &[usize]) -> Vec<Tap> {
    lists.iter().zip(steps).fold(vec![(0, 1.0)], |taps, (list, step)| {
        let next = |(at, share): &Tap| {
            let one = |(i, part): &(At, f64)| Some((at + (*i)? * step, share * part));
            list.iter().filter_map(one).collect::<Vec<Tap>>()
        };
        taps.iter().flat_map(next).collect()
    })
}

/// `x` mirrored at both borders until it lies between them.
fn reflected(x: f64, low: f64, high: f64) -> f64 {
    let range = high - low;
    if range <= 0.0 || !x.is_finite() {
        return low;
    }
    let off = (x - low).rem_euclid(2.0 * range);
    low + if off > range { 2.0 * range - off } else { off }
}

/// The weight of an element at this distance (cubic convolution, a = -3/4).
fn cubic(distance: f64) -> f64 {
    const A: f64 = -0.75;
    let x = distance.abs();
    if x <= 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
    } else {
        0.0
    }
}

impl HostOp for AffineGrid {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (theta, list) = (call.view(0)?, call.view(1)?.i64s()?);
        let (n, rank) = (theta.shape[0], theta.shape[1]);
        let sizes: Option<Vec<usize>> = list.iter().skip(2).map(|n| usize::try_from(*n).ok()).collect();
        let sizes = sizes.filter(|s| s.len() == rank && theta.shape[2] == rank + 1);
        let sizes = sizes.ok_or_else(|| format!("maps {:?} for an image of {list:?}", theta.shape))?;
        let shape: Vec<usize> = [n].into_iter().chain(sizes.iter().copied()).chain([rank]).collect();
        let out = outs.make(0, theta.dtype, &shape)?;
        let maps = theta.f64s()?;
        let mut made = Vec::with_capacity(shape.iter().product());
        for map in maps.chunks_exact(rank * (rank + 1)) {
            each(&sizes, |index| {
                let place: Vec<f64> = (0..rank).rev().map(|d| place(self, index[d], sizes[d])).collect();
                for row in map.chunks_exact(rank + 1) {
                    made.push(row.iter().zip(&place).map(|(a, x)| a * x).sum::<f64>() + row[rank]);
                }
            });
        }
        from_f64(theta.dtype, &made, out)
    }
}

/// The place of element `i` of `n` between -1 and 1.
fn place(op: &AffineGrid, i: usize, n: usize) -> f64 {
    match (op.align_corners, n) {
        (true, 1) => 0.0,
        (true, _) => 2.0 * i as f64 / (n as f64 - 1.0) - 1.0,
        (false, _) => (2.0 * i as f64 + 1.0) / n as f64 - 1.0,
    }
}

/// The four elements around a place, which may lie up to one element outside; none further away.
fn around(at: [f64; 2], size: [usize; 2]) -> Vec<Tap> {
    if (0..2).any(|d| !(-1.0..=size[d] as f64).contains(&at[d])) {
        return Vec::new();
    }
    let one = |d: usize| {
        let last = size[d] - 1;
        let low = (at[d].max(0.0) as usize).min(last);
        let rest = if low == last { 0.0 } else { at[d].max(0.0) - low as f64 };
        vec![(Some(low), 1.0 - rest), (Some((low + 1).min(last)), rest)]
    };
    combined(&[one(0), one(1)], &[size[1], 1])
}

impl HostOp for RoiAlign {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (x, rois, images) = (call.view(0)?, call.view(1)?, call.view(2)?.i64s()?);
        let &[n, channels, h, w] = x.shape else { return Err("takes [N, C, H, W]".into()) };
        let shape = shape_of(outs, 0)?;
        let (values, corners) = (x.f64s()?, rois.f64s()?);
        let (bins, area) = (self.size[0] * self.size[1], h * w);
        let mut made = vec![0.0; shape.iter().product()];
        for (r, corner) in corners.chunks_exact(4).enumerate() {
            let image = images.get(r).and_then(|i| usize::try_from(*i).ok()).filter(|i| *i < n && area > 0);
            let image = image.ok_or_else(|| format!("region {r} lies in no image"))?;
            for bin in 0..bins {
                let samples = samples_of(self, corner, [bin / self.size[1], bin % self.size[1]], [h, w])?;
                for c in 0..channels {
                    let plane = &values[(image * channels + c) * area..][..area];
                    made[(r * channels + c) * bins + bin] = pooled(self, plane, &samples);
                }
            }
        }
        store(outs, 0, &made)
    }
}

/// The taps of each sample in a bin.
fn samples_of(
    op: &RoiAlign,
    corner: &[f64],
    bin: [usize; 2],
    size: [usize; 2],
) -> Result<Vec<Vec<Tap>>, String> {
    const MOST: f64 = 1024.0;
    let (scale, offset) = (f64::from(op.scale), if op.half_pixel { 0.5 } else { 0.0 });
    let (mut start, mut step, mut count) = ([0.0; 2], [0.0; 2], [0usize; 2]);
    for d in 0..2 {
        start[d] = corner[1 - d] * scale - offset;
        let length = corner[3 - d] * scale - offset - start[d];
        step[d] = if op.half_pixel { length } else { length.max(1.0) } / op.size[d] as f64;
        let own = if op.samples > 0 { op.samples as f64 } else { step[d].ceil() };
        if own.is_nan() || own > MOST {
            return Err(format!("a region of {own} samples in a bin"));
        }
        count[d] = own.max(0.0) as usize;
    }
    let mut samples = Vec::with_capacity(count[0] * count[1]);
    each(&count, |i| {
        let at = |d: usize| start[d] + step[d] * (bin[d] as f64 + (i[d] as f64 + 0.5) / count[d] as f64);
        samples.push(around([at(0), at(1)], size));
    });
    Ok(samples)
}

fn pooled(op: &RoiAlign, plane: &[f64], samples: &[Vec<Tap>]) -> f64 {
    if op.max {
        let parts = samples.iter().flatten().map(|(at, share)| plane[*at] * share);
        return parts.reduce(f64::max).unwrap_or(0.0);
    }
    samples.iter().map(|taps| weighted(plane, taps)).sum::<f64>() / samples.len().max(1) as f64
}

impl HostOp for DeformConv {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (x, w, offset) = (call.view(0)?, call.view(1)?, call.view(2)?);
        let mask = call.get(4).map(|m| m.f64s()).transpose()?;
        let bias = call.get(3).map(|b| b.f64s()).transpose()?;
        let shape = shape_of(outs, 0)?;
        let (&[_, channels, h, width], &[kernels, per_group, kh, kw]) = (x.shape, w.shape) else {
            return Err("takes images and kernels of 4 dimensions".into());
        };
        let (taps, count, area) = (kh * kw, shape[2] * shape[3], h * width);
        let fits = self.offset_groups <= channels.max(1)
            && channels == per_group.saturating_mul(self.groups)
            && kernels.is_multiple_of(self.groups)
            && channels.is_multiple_of(self.offset_groups)
            && offset.len() == shape[0] * self.offset_groups * taps * 2 * count
            && mask.as_ref().is_none_or(|m| m.len() == shape[0] * self.offset_groups * taps * count)
            && bias.as_ref().is_none_or(|b| b.len() == kernels);
        if !fits {
            return Err(format!(
                "{:?}, kernels {:?} and offsets {:?} do not fit",
                x.shape, w.shape, offset.shape
            ));
        }
        let (values, weights, offsets) = (x.f64s()?, w.f64s()?, offset.f64s()?);
        let Pads::Given(pads) = &self.window.pads else { return Err("takes explicit pads".into()) };
        let pad = |d: usize| pads.get(d).copied().unwrap_or(0) as f64;
        let mut made = Vec::with_capacity(shape.iter().product());
        let mut columns = vec![0.0; channels * taps * count];
        for n in 0..shape[0] {
            for (i, column) in columns.iter_mut().enumerate() {
                let (at, tap, c) = (i % count, i / count % taps, i / (count * taps));
                let group = n * self.offset_groups + c / (channels / self.offset_groups);
                let moved = |d: usize| {
                    let (out, k) = if d == 0 { (at / shape[3], tap / kw) } else { (at % shape[3], tap % kw) };
                    (out * self.window.stride(d) + k * self.window.dilation(d)) as f64 - pad(d)
                        + offsets[((group * taps + tap) * 2 + d) * count + at]
                };
                let share = mask.as_ref().map_or(1.0, |m| m[(group * taps + tap) * count + at]);
                let plane = &values[(n * channels + c) * area..][..area];
                *column = share * weighted(plane, &inside([moved(0), moved(1)], [h, width]));
            }
            for o in 0..kernels {
                let first = o / (kernels / self.groups) * per_group * taps;
                let kernel = &weights[o * per_group * taps..][..per_group * taps];
                let column = |t: usize, at: usize| columns[(first + t) * count + at];
                let start = bias.as_ref().map_or(0.0, |b| b[o]);
                made.extend((0..count).map(|at| {
                    start + kernel.iter().enumerate().map(|(t, k)| k * column(t, at)).sum::<f64>()
                }));
            }
        }
        store(outs, 0, &made)
    }
}

/// The elements around a place; those outside are zero.
fn inside(at: [f64; 2], size: [usize; 2]) -> Vec<Tap> {
    let one = |d: usize| {
        let (low, rest) = (at[d].floor() as i64, at[d] - at[d].floor());
        let place = |i: i64| usize::try_from(i).ok().filter(|i| *i < size[d]);
        vec![(place(low), 1.0 - rest), (place(low.saturating_add(1)), rest)]
    };
    combined(&[one(0), one(1)], &[size[1], 1])
}
