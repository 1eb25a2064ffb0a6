//! The smallest rectangle, at any angle, around points.

use crate::image::Quad;

/// A rectangle at an angle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rectangle {
    centre: [f32; 2],
    /// Unit vector along the first side; the second is its left normal.
    axis: [f32; 2],
    /// Lengths of the sides.
    sides: [f32; 2],
}

impl Rectangle {
    /// The rectangle of the least area around the points; none without points.
    pub(super) fn around(points: Vec<[i32; 2]>) -> Option<Self> {
        let hull = convex_hull(points);
        let edges = (0..hull.len()).map(|i| {
            let (a, b) = (hull[i], hull[(i + 1) % hull.len()]);
            [(b[0] - a[0]) as f32, (b[1] - a[1]) as f32]
        });
        let upright = std::iter::once([1.0, 0.0]).filter(|_| hull.len() < 3);
        let boxes = edges.filter(|e| *e != [0.0; 2]).chain(upright).map(|edge| Self::along(&hull, edge));
        let boxes = boxes.filter(|_| !hull.is_empty());
        boxes.min_by(|a, b| a.area().total_cmp(&b.area()))
    }

    /// The rectangle around the hull with a side in direction `edge`.
    fn along(hull: &[[i32; 2]], edge: [f32; 2]) -> Self {
        let length = edge[0].hypot(edge[1]);
        let axis = [edge[0] / length, edge[1] / length];
        let (mut low, mut high) = ([f32::INFINITY; 2], [f32::NEG_INFINITY; 2]);
        for point in hull {
            let (x, y) = (point[0] as f32, point[1] as f32);
            let place = [x * axis[0] + y * axis[1], y * axis[0] - x * axis[1]];
            for i in 0..2 {
                (low[i], high[i]) = (low[i].min(place[i]), high[i].max(place[i]));
            }
        }
        let middle = [(low[0] + high[0]) / 2.0, (low[1] + high[1]) / 2.0];
        let centre = [middle[0] * axis[0] - middle[1] * axis[1], middle[0] * axis[1] + middle[1] * axis[0]];
        Self { centre, axis, sides: [high[0] - low[0], high[1] - low[1]] }
    }

    pub(super) fn area(&self) -> f32 {
        self.sides[0] * self.sides[1]
    }

    pub(super) fn short_side(&self) -> f32 {
        self.sides[0].min(self.sides[1])
    }

    /// The rectangle grown by `ratio * area / perimeter` on each side.
    pub(super) fn grown(&self, ratio: f32) -> Self {
        let perimeter = 2.0 * (self.sides[0] + self.sides[1]);
        let by = if perimeter > 0.0 { self.area() * ratio / perimeter } else { 0.0 };
        Self { sides: self.sides.map(|side| side + 2.0 * by), ..*self }
    }

    /// Its corners: top left, top right, bottom right, bottom left.
    pub(super) fn corners(&self) -> Quad {
        let corner = |a: f32, b: f32| {
            let (a, b) = (a * self.sides[0] / 2.0, b * self.sides[1] / 2.0);
            let [x, y] = self.axis;
            [self.centre[0] + a * x - b * y, self.centre[1] + a * y + b * x]
        };
        let mut by_x = [corner(-1.0, -1.0), corner(1.0, -1.0), corner(1.0, 1.0), corner(-1.0, 1.0)];
        by_x.sort_by(|p, q| p[0].total_cmp(&q[0]));
        let down = |p: [f32; 2], q: [f32; 2]| if p[1] <= q[1] { (p, q) } else { (q, p) };
        let ((top_left, bottom_left), (top_right, bottom_right)) =
            (down(by_x[0], by_x[1]), down(by_x[2], by_x[3]));
        [top_left, top_right, bottom_right, bottom_left]
    }
}

/// The corners of the convex hull, in order (Andrew's monotone chain).
fn convex_hull(mut points: Vec<[i32; 2]>) -> Vec<[i32; 2]> {
    points.sort_unstable();
    points.dedup();
    if points.len() < 3 {
        return points;
    }
    let mut hull = half(points.iter());
    hull.extend(half(points.iter().rev()));
    hull
}

/// One side of the hull without its last point.
fn half<'a>(points: impl Iterator<Item = &'a [i32; 2]>) -> Vec<[i32; 2]> {
    let mut side: Vec<[i32; 2]> = Vec::new();
    for point in points {
        while let [.., a, b] = side[..]
            && turn(a, b, *point) <= 0
        {
            side.pop();
        }
        side.push(*point);
    }
    side.pop();
    side
}

/// Positive where the path `a`, `b`, `c` turns left.
fn turn(a: [i32; 2], b: [i32; 2], c: [i32; 2]) -> i64 {
    let [ax, ay, bx, by, cx, cy] = [a[0], a[1], b[0], b[1], c[0], c[1]].map(i64::from);
    (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(points: &[[i32; 2]], sides: [f32; 2], corners: Quad) {
        let found = Rectangle::around(points.to_vec()).expect("points");
        let mut sorted = found.sides;
        sorted.sort_by(f32::total_cmp);
        let near = |a: f32, b: f32| (a - b).abs() < 1e-3;
        assert!(near(sorted[0], sides[0]) && near(sorted[1], sides[1]), "{points:?}: {found:?}");
        for (found, expected) in found.corners().iter().zip(corners) {
            assert!(near(found[0], expected[0]) && near(found[1], expected[1]), "{points:?}: {found:?}");
        }
    }

    #[test]
    fn the_smallest_rectangle_is_found() {
        let upright = [[0.0, 0.0], [4.0, 0.0], [4.0, 2.0], [0.0, 2.0]];
        check(&[[0, 0], [4, 0], [4, 2], [0, 2], [1, 1]], [2.0, 4.0], upright);
        let r = 2f32.sqrt();
        let tilted = [[1.0, 1.0], [5.0, 5.0], [4.0, 6.0], [0.0, 2.0]];
        check(&[[1, 1], [5, 5], [4, 6], [0, 2]], [r, 4.0 * r], tilted);
        check(&[[3, 3]], [0.0, 0.0], [[3.0, 3.0]; 4]);
        check(&[[0, 0], [3, 0]], [0.0, 3.0], [[0.0, 0.0], [3.0, 0.0], [3.0, 0.0], [0.0, 0.0]]);
        assert_eq!(Rectangle::around(Vec::new()), None);
    }

    #[test]
    fn growth_depends_on_area_and_perimeter() {
        let found = Rectangle::around(vec![[0, 0], [10, 0], [10, 5], [0, 5]]).expect("points");
        let grown = found.grown(1.5); // by 1.5 * 50 / 30 = 2.5 on each side
        assert_eq!(grown.corners(), [[-2.5, -2.5], [12.5, -2.5], [12.5, 7.5], [-2.5, 7.5]]);
    }
}
