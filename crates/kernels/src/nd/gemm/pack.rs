//! Weights of products in the order in which tiles read them: `[panel][k, or pairs of it][output of the panel]`.

use std::ops::Range;

use kinglet_simd::Level;

use super::Order;
use crate::nd::layout::BLOCK;
use crate::nd::pairs::put;
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
            if pairs {
                pack_pairs(weights, order, (k, n), outputs, width, packed);
            } else {
                pack_panel(weights, order, (k, n), outputs, width, packed);
            }
        }
    }
}

/// Floats, or pairs, of `k` values.
pub(super) fn deep(k: usize, pairs: bool) -> usize {
    if pairs { k.div_ceil(2) } else { k }
}

/// Writes `[pairs of k][width]` of the weights of `outputs`.
fn pack_pairs(
    weights: &[f32],
    order: Order,
    (k, n): (usize, usize),
    outputs: Range<usize>,
    width: usize,
    packed: &mut [f32],
) {
    for (lane, output) in outputs.enumerate() {
        for i in 0..k {
            let at = if order == Order::Inputs { i * n + output } else { output * k + i };
            put(&mut packed[i / 2 * width + lane], i, weights[at]);
        }
    }
}

/// Writes `[k][width]` of the weights of `outputs`.
fn pack_panel(
    weights: &[f32],
    order: Order,
    (k, n): (usize, usize),
    outputs: Range<usize>,
    width: usize,
    packed: &mut [f32],
) {
    match order {
        Order::Inputs => {
            for (packed, row) in packed.chunks_exact_mut(width).zip(weights.chunks_exact(n)) {
                packed[..outputs.len()].copy_from_slice(&row[outputs.clone()]);
            }
        }
        Order::Outputs => {
            for (lane, row) in weights.chunks_exact(k).skip(outputs.start).take(outputs.len()).enumerate() {
                packed.iter_mut().skip(lane).step_by(width).zip(row).for_each(|(to, from)| *to = *from);
            }
        }
    }
}
