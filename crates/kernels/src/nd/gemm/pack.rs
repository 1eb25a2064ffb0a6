//! Weights of products in the order in which tiles read them: `[panel][k, or pairs of it][output of the panel]`.

use std::ops::Range;

use kinglet_simd::Level;

use super::Order;
use crate::nd::layout::BLOCK;
use crate::nd::pairs::pair;
use crate::nd::tile::panel_blocks;

/// How a product's weights are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GemmPacking {
    pub(super) level: Level,
    pub(super) k: usize,
    pub(super) n: usize,
    pub(super) order: Order,
    pub(super) pairs: bool,
}

impl GemmPacking {
    /// Packings that are made in different ways.
    pub(in crate::nd) fn samples(level: Level) -> [Self; 4] {
        let orders =
            [(Order::Inputs, false), (Order::Outputs, false), (Order::Inputs, true), (Order::Outputs, true)];
        orders.map(|(order, pairs)| Self { level, k: 5, n: 70, order, pairs })
    }

    pub(super) fn width(&self) -> usize {
        panel_blocks(self.level.lanes()) * BLOCK
    }

    pub(in crate::nd) fn weights(&self) -> usize {
        self.k * self.n
    }

    pub(in crate::nd) fn floats(&self) -> usize {
        self.n.next_multiple_of(self.width()) * deep(self.k, self.pairs)
    }

    /// Packs as many weights into as many floats, all of them zero.
    pub(in crate::nd) fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        let Self { k, n, order, pairs, .. } = *self;
        let width = self.width();
        for (panel, packed) in packed.chunks_exact_mut(deep(k, pairs) * width).enumerate() {
            let outputs = panel * width..n.min((panel + 1) * width);
            match order {
                Order::Inputs => by_inputs(weights, n, outputs, (width, pairs), packed),
                Order::Outputs => {
                    by_outputs(&weights[outputs.start * k..outputs.end * k], k, (width, pairs), packed);
                }
            }
        }
    }
}

/// Floats, or pairs, of `k` values.
pub(super) fn deep(k: usize, pairs: bool) -> usize {
    if pairs { k.div_ceil(2) } else { k }
}

/// Words of a row that are packed before the next row's: as many rows of the panel stay in the cache meanwhile.
const DEEP: usize = 16;

/// Writes `[k, or pairs of it][width]` of weights `[outputs][k]`.
fn by_outputs(weights: &[f32], k: usize, (width, pairs): (usize, bool), packed: &mut [f32]) {
    let numbers = if pairs { 2 } else { 1 };
    for first in (0..deep(k, pairs)).step_by(DEEP) {
        for (lane, row) in weights.chunks_exact(k).enumerate() {
            let part = &row[first * numbers..k.min((first + DEEP) * numbers)];
            let mut words = [0.0; DEEP];
            if pairs {
                rounded(part, &mut words)
            } else {
                words[..part.len()].copy_from_slice(part)
            }
            let count = part.len().div_ceil(numbers);
            for (place, word) in packed[first * width + lane..].iter_mut().step_by(width).zip(&words[..count])
            {
                *place = *word;
            }
        }
    }
}

/// Neighbours as pairs, the last of an odd number beside zero.
fn rounded(numbers: &[f32], words: &mut [f32; DEEP]) {
    let whole = numbers.chunks_exact(2);
    if let [last] = whole.remainder() {
        words[numbers.len() / 2] = pair(*last, 0.0);
    }
    words.iter_mut().zip(whole).for_each(|(word, two)| *word = pair(two[0], two[1]));
}

/// Writes `[k, or pairs of it][width]` of the weights of `outputs` out of `[k][n]`.
fn by_inputs(
    weights: &[f32],
    n: usize,
    outputs: Range<usize>,
    (width, pairs): (usize, bool),
    packed: &mut [f32],
) {
    let rows = weights.chunks(if pairs { 2 * n } else { n });
    for (packed, rows) in packed.chunks_exact_mut(width).zip(rows) {
        let packed = &mut packed[..outputs.len()];
        packed.copy_from_slice(&rows[outputs.clone()]);
        if pairs {
            let odd = rows.get(n..).filter(|row| !row.is_empty()).map(|row| &row[outputs.clone()]);
            for (lane, word) in packed.iter_mut().enumerate() {
                *word = pair(*word, odd.map_or(0.0, |odd| odd[lane]));
            }
        }
    }
}
