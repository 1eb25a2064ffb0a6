//! Cutting a quadrangle out of a picture, upright.

use super::Picture;

/// Four corners (x, y) in pixels: top left, top right, bottom right, bottom left.
pub type Quad = [[f32; 2]; 4];

/// The content of `quad` as a rectangle as wide and high as its longer sides (cut to whole pixels), at least one pixel and
/// at most `most` pixels each. Bicubic; the picture's edge continues outside it.
pub fn straighten(picture: &Picture, quad: &Quad, most: u32) -> Picture {
    let longer = |a: [usize; 2], b: [usize; 2]| {
        let side = distance(quad[a[0]], quad[a[1]]).max(distance(quad[b[0]], quad[b[1]]));
        (side as u32).clamp(1, most.max(1))
    };
    let (width, height) = (longer([0, 1], [2, 3]), longer([0, 3], [1, 2]));
    let map = Projection::to(quad);
    let mut rgb = Vec::with_capacity(width as usize * height as usize * 3);
    for y in 0..height {
        let v = f64::from(y) / f64::from(height);
        rgb.extend((0..width).flat_map(|x| sample(picture, map.at(f64::from(x) / f64::from(width), v))));
    }
    Picture { width, height, rgb }
}

/// A quarter turn to the left: the right edge becomes the top.
pub fn rotate_left(picture: &Picture) -> Picture {
    let (width, height) = (picture.height, picture.width);
    let pixel = |y: u32, x: u32| picture.at(i64::from(picture.width - 1 - y), i64::from(x));
    let rgb = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(y, x))).collect();
    Picture { width, height, rgb }
}

/// A half turn.
pub fn rotate_half(picture: &Picture) -> Picture {
    let rgb = picture.rgb.chunks_exact(3).rev().flatten().copied().collect();
    Picture { rgb, ..*picture }
}

fn distance(a: [f32; 2], b: [f32; 2]) -> f32 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// The projective map of the unit square onto a quadrangle (Heckbert 1989, section 2.2.3).
struct Projection {
    x: [f64; 3],
    y: [f64; 3],
    w: [f64; 2],
}

impl Projection {
    fn to(quad: &Quad) -> Self {
        let [p0, p1, p2, p3] = quad.map(|p| p.map(f64::from));
        let far = |axis: usize| p0[axis] - p1[axis] + p2[axis] - p3[axis];
        let (d1, d2) = ([p1[0] - p2[0], p1[1] - p2[1]], [p3[0] - p2[0], p3[1] - p2[1]]);
        let det = d1[0] * d2[1] - d2[0] * d1[1];
        let w = if det.abs() < 1e-9 {
            [0.0; 2]
        } else {
            [(far(0) * d2[1] - d2[0] * far(1)) / det, (d1[0] * far(1) - far(0) * d1[1]) / det]
        };
        let row = |axis: usize| {
            [p1[axis] - p0[axis] + w[0] * p1[axis], p3[axis] - p0[axis] + w[1] * p3[axis], p0[axis]]
        };
        Self { x: row(0), y: row(1), w }
    }

    fn at(&self, u: f64, v: f64) -> [f64; 2] {
        let depth = self.w[0] * u + self.w[1] * v + 1.0;
        let depth = if depth.abs() < 1e-9 { 1e-9 } else { depth };
        [self.x, self.y].map(|r| (r[0] * u + r[1] * v + r[2]) / depth)
    }
}

/// The colour at a fractional place: a cubic with `a = -0.75` over 4 x 4 pixels.
pub(super) fn sample(picture: &Picture, [x, y]: [f64; 2]) -> [u8; 3] {
    let (x, y) = (x.clamp(-1e6, 1e6), y.clamp(-1e6, 1e6));
    let (column, row) = (x.floor(), y.floor());
    let (across, down) = (cubic((x - column) as f32), cubic((y - row) as f32));
    let mut sum = [0f32; 3];
    for (j, wy) in down.iter().enumerate() {
        for (i, wx) in across.iter().enumerate() {
            let pixel = picture.at(column as i64 + i as i64 - 1, row as i64 + j as i64 - 1);
            for (s, p) in sum.iter_mut().zip(pixel) {
                *s += wx * wy * f32::from(p);
            }
        }
    }
    sum.map(|s| s.round().clamp(0.0, 255.0) as u8)
}

/// Weights of the pixels at -1, 0, 1 and 2 for a place `t` in 0..1.
fn cubic(t: f32) -> [f32; 4] {
    const A: f32 = -0.75;
    let outer = |x: f32| A * (((x - 5.0) * x + 8.0) * x - 4.0);
    let inner = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    [outer(t + 1.0), inner(t), inner(1.0 - t), outer(2.0 - t)]
}
