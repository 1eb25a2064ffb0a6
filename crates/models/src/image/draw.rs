//! Boxes, outlines, tints and labels on a picture.

use font8x8::UnicodeFonts;

use super::{Picture, Quad};

/// Colours that stay apart from each other; item `i` takes number `i % 10`.
pub const PALETTE: [[u8; 3]; 10] = [
    [230, 57, 70],
    [29, 120, 216],
    [42, 157, 77],
    [244, 140, 6],
    [131, 56, 200],
    [0, 160, 170],
    [214, 40, 140],
    [120, 130, 20],
    [120, 85, 60],
    [70, 80, 110],
];

/// A picture to draw on.
#[derive(Clone, Debug)]
pub struct Canvas {
    picture: Picture,
    /// Line width in pixels, and the size of a font pixel.
    pen: i64,
}

impl Canvas {
    /// Draws on a copy of the picture; lines and letters grow with it.
    pub fn new(picture: &Picture) -> Self {
        let pen = i64::from(picture.width().max(picture.height()) / 400).clamp(1, 12);
        Self { picture: picture.clone(), pen }
    }

    /// What has been drawn.
    pub fn finish(self) -> Picture {
        self.picture
    }

    /// The outline of a box: left, top, right, bottom in pixels.
    pub fn frame(&mut self, corners: [f32; 4], colour: [u8; 3]) {
        let [x0, y0, x1, y1] = corners;
        self.outline(&[[x0, y0], [x1, y0], [x1, y1], [x0, y1]], colour);
    }

    /// The outline of a quadrangle.
    pub fn outline(&mut self, quad: &Quad, colour: [u8; 3]) {
        for side in 0..4 {
            self.line(quad[side], quad[(side + 1) % 4], colour);
        }
    }

    /// Text on a filled plate whose lower left corner is at (x, y), moved into the picture where it would leave it.
    /// Letters that the font lacks become `?`.
    pub fn label(&mut self, x: f32, y: f32, text: &str, colour: [u8; 3]) {
        let dot = (self.pen * 3 / 4).max(1);
        let letters: Vec<char> = text.chars().take(80).collect();
        let (width, height) = (dot * (8 * letters.len() as i64 + 2), dot * 10);
        let left = (whole(x)).min(i64::from(self.picture.width()) - width).max(0);
        let top = (whole(y) - height).clamp(0, (i64::from(self.picture.height()) - height).max(0));
        self.fill(left, top, width, height, colour);
        let ink = if luminance(colour) > 150 { [0; 3] } else { [255; 3] };
        for (i, letter) in letters.into_iter().enumerate() {
            self.letter(left + dot * (8 * i as i64 + 1), top + dot, dot, letter, ink);
        }
    }

    /// Mixes `colour` half and half into the pixels for which `inside(column, row)` holds.
    pub fn tint(&mut self, inside: impl Fn(u32, u32) -> bool, colour: [u8; 3]) {
        for y in 0..self.picture.height() {
            for x in 0..self.picture.width() {
                if inside(x, y) {
                    let old = self.picture.at(i64::from(x), i64::from(y));
                    let mixed = [0, 1, 2].map(|c| u8::midpoint(old[c], colour[c]));
                    self.picture.set(i64::from(x), i64::from(y), mixed);
                }
            }
        }
    }

    fn letter(&mut self, left: i64, top: i64, dot: i64, letter: char, ink: [u8; 3]) {
        let fonts = [&font8x8::BASIC_FONTS as &dyn Glyphs, &font8x8::LATIN_FONTS, &font8x8::GREEK_FONTS];
        let glyph = fonts.iter().find_map(|font| font.glyph(letter)).or_else(|| fonts[0].glyph('?'));
        for (row, bits) in glyph.into_iter().flatten().enumerate() {
            for column in (0..8).filter(|column| bits >> column & 1 == 1) {
                self.fill(left + column * dot, top + row as i64 * dot, dot, dot, ink);
            }
        }
    }

    fn line(&mut self, from: [f32; 2], to: [f32; 2], colour: [u8; 3]) {
        let sides = [self.picture.width() as f32, self.picture.height() as f32];
        let inside = |p: [f32; 2]| [0, 1].map(|axis| p[axis].clamp(0.0, sides[axis]));
        let (from, to) = (inside(from), inside(to));
        let steps = (to[0] - from[0]).abs().max((to[1] - from[1]).abs()).ceil().max(1.0);
        for step in 0..=steps as i64 {
            let t = step as f32 / steps;
            let (x, y) = (from[0] + (to[0] - from[0]) * t, from[1] + (to[1] - from[1]) * t);
            let corner = |at: f32| whole(at) - self.pen / 2;
            self.fill(corner(x), corner(y), self.pen, self.pen, colour);
        }
    }

    fn fill(&mut self, left: i64, top: i64, width: i64, height: i64, colour: [u8; 3]) {
        for y in top..top + height {
            (left..left + width).for_each(|x| self.picture.set(x, y, colour));
        }
    }
}

/// The fonts of `font8x8` behind one type: rows from the top, the lowest bit to the left.
trait Glyphs {
    fn glyph(&self, letter: char) -> Option<[u8; 8]>;
}

impl<F: UnicodeFonts> Glyphs for F {
    fn glyph(&self, letter: char) -> Option<[u8; 8]> {
        self.get(letter)
    }
}

fn whole(at: f32) -> i64 {
    at.round() as i64
}

fn luminance(colour: [u8; 3]) -> u32 {
    (u32::from(colour[0]) * 3 + u32::from(colour[1]) * 6 + u32::from(colour[2])) / 10
}
