//! Differentiable binarisation's map to quadrangles (Liao et al. 2019, <https://arxiv.org/abs/1911.08947>).

use super::rectangle::Rectangle;
use crate::image::{Array, Quad, View};
use crate::task::TaskError;
use crate::task::error::whole;

/// What counts as text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FindOptions {
    /// Least probability of a pixel.
    pub pixel: f32,
    /// Least mean probability of a region.
    pub region: f32,
    /// How far regions grow: the detector is trained on shrunken ones.
    pub growth: f32,
    /// Most regions.
    pub count: usize,
}

impl Default for FindOptions {
    fn default() -> Self {
        Self { pixel: 0.3, region: 0.5, growth: 1.6, count: 1000 }
    }
}

/// Shortest side of a region in pixels of the map, before it grows.
const MIN_SIDE: f32 = 3.0;
/// Sides in whole pixels of the source at which a region is no text.
const MIN_SOURCE: f32 = 4.0;

/// Where text is, in pixels of the source picture, with each region's mean probability. `map` is `[1, 1, height, width]`,
/// the size of the picture that was prepared with `view`.
pub fn find_text(map: &Array, view: &View, options: &FindOptions) -> Result<Vec<(Quad, f32)>, TaskError> {
    whole("text detection", map)?;
    let [1, 1, height, width] = map.shape[..] else { return Err(wrong(map)) };
    if width == 0 || height == 0 || width.max(height) > 1 << 15 {
        return Err(wrong(map));
    }
    let bits = dilated(&map.data, width, options.pixel);
    let regions = regions(bits, width, options.count);
    let quads = regions.into_iter().filter_map(|outline| {
        let tight = Rectangle::around(outline).filter(|r| r.short_side() >= MIN_SIDE)?;
        let score = mean_inside(&map.data, width, &tight.corners());
        let grown = tight.grown(options.growth);
        let kept = score >= options.region && grown.short_side() >= MIN_SIDE + 2.0;
        let quad = grown.corners().map(|corner| to_source(corner, [width, height], view));
        (kept && is_large(&quad)).then_some((quad, score))
    });
    Ok(quads.collect())
}

fn wrong(map: &Array) -> TaskError {
    let expected = "a map of probabilities, [1, 1, height, width]";
    TaskError::Shape { task: "text detection", expected, found: map.shape.clone() }
}

/// Pixels above the threshold, or with such a neighbour to the left, above, or above left.
fn dilated(map: &[f32], width: usize, threshold: f32) -> Vec<bool> {
    let above = |at: Option<usize>| at.is_some_and(|at| map[at] > threshold);
    let pixel = |at: usize| {
        let left = (!at.is_multiple_of(width)).then(|| at - 1);
        above(Some(at))
            || above(left)
            || above(at.checked_sub(width))
            || above(left.and_then(|left| left.checked_sub(width)))
    };
    (0..map.len()).map(pixel).collect()
}

/// The first `most` connected regions (eight neighbours), each by its pixels (x, y) that end a row of the region.
fn regions(mut bits: Vec<bool>, width: usize, most: usize) -> Vec<Vec<[i32; 2]>> {
    let mut found = Vec::new();
    let mut open = Vec::new();
    for start in 0..bits.len() {
        if !bits[start] {
            continue;
        }
        if found.len() == most {
            break;
        }
        bits[start] = false;
        open.push(start);
        let mut rows: std::collections::BTreeMap<i32, [i32; 2]> = std::collections::BTreeMap::new();
        while let Some(at) = open.pop() {
            let (x, y) = ((at % width) as i32, (at / width) as i32);
            let ends = rows.entry(y).or_insert([x, x]);
            *ends = [ends[0].min(x), ends[1].max(x)];
            spread(&mut bits, width, at, &mut open);
        }
        found.push(rows.into_iter().flat_map(|(y, ends)| ends.map(|x| [x, y])).collect());
    }
    found
}

/// Takes the set neighbours of `at` out of `bits` and into `open`.
fn spread(bits: &mut [bool], width: usize, at: usize, open: &mut Vec<usize>) {
    let (x, y) = (at % width, at / width);
    let height = bits.len() / width;
    for row in y.saturating_sub(1)..(y + 2).min(height) {
        for column in x.saturating_sub(1)..(x + 2).min(width) {
            let next = row * width + column;
            if std::mem::take(&mut bits[next]) {
                open.push(next);
            }
        }
    }
}

/// Mean over the pixels inside the quadrangle, its edges included.
fn mean_inside(map: &[f32], width: usize, quad: &Quad) -> f32 {
    let height = map.len() / width;
    let corners = quad.map(|p| p.map(f32::trunc));
    let bound = |axis: usize, side: usize| {
        let all = corners.map(|p| p[axis]);
        let (low, high) =
            (all.into_iter().fold(f32::INFINITY, f32::min), all.into_iter().fold(0.0, f32::max));
        (low.max(0.0) as usize).min(side - 1)..(high as usize + 1).min(side)
    };
    let (mut sum, mut count) = (0f64, 0u32);
    for y in bound(1, height) {
        for x in bound(0, width) {
            if is_inside(&corners, [x as f32, y as f32]) {
                (sum, count) = (sum + f64::from(map[y * width + x]), count + 1);
            }
        }
    }
    (sum / f64::from(count.max(1))) as f32
}

/// Whether a point is within half a pixel of the inside of a convex quadrangle.
fn is_inside(quad: &Quad, p: [f32; 2]) -> bool {
    (0..4).all(|i| {
        let (a, b) = (quad[i], quad[(i + 1) % 4]);
        let along = [b[0] - a[0], b[1] - a[1]];
        let side = along[0] * (p[1] - a[1]) - along[1] * (p[0] - a[0]);
        side >= -0.5 * along[0].hypot(along[1])
    })
}

/// A place in the map in whole pixels of the source picture, inside it.
fn to_source(corner: [f32; 2], map: [usize; 2], view: &View) -> [f32; 2] {
    let prepared = |axis: usize| corner[axis] / map[axis] as f32 * view.size[axis] as f32;
    let place = view.to_source(prepared(0), prepared(1));
    [0, 1].map(|axis| place[axis].round().min(view.source[axis] as f32 - 1.0))
}

fn is_large(quad: &Quad) -> bool {
    let side = |a: usize, b: usize| (quad[a][0] - quad[b][0]).hypot(quad[a][1] - quad[b][1]);
    side(0, 1) >= MIN_SOURCE && side(0, 3) >= MIN_SOURCE
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map of 64 x 32 with probability `p` in a rectangle, in a view that enlarges twice.
    fn check(p: f32, [left, top, right, bottom]: [usize; 4], expected: Option<Quad>) {
        let mut data = vec![0.0; 64 * 32];
        for y in top..bottom {
            data[y * 64 + left..y * 64 + right].fill(p);
        }
        let map = Array { shape: vec![1, 1, 32, 64], data };
        let view = View { source: [128, 64], size: [64, 32], offset: [0.0; 2], scale: [2.0; 2] };
        let found = find_text(&map, &view, &FindOptions::default()).expect("a map");
        assert_eq!(found.first().map(|(quad, _)| *quad), expected);
    }

    #[test]
    fn a_region_becomes_a_grown_quadrangle() {
        // 20 x 8 pixels dilate to columns 20..=40, rows 10..=18: sides 20 and 8, grown by 1.6 * 160 / 56 = 4.57.
        check(0.9, [20, 10, 40, 18], Some([[31.0, 11.0], [89.0, 11.0], [89.0, 45.0], [31.0, 45.0]]));
        check(0.9, [20, 10, 22, 11], None);
        check(0.4, [20, 10, 40, 18], None);
        check(0.9, [0, 0, 64, 32], Some([[0.0, 0.0], [127.0, 0.0], [127.0, 63.0], [0.0, 63.0]]));
        check(f32::NAN, [20, 10, 40, 18], None);
    }
}
