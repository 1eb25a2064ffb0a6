//! Which steps of a plan workers run side by side, each for its own part of the batch (a picture, a sequence), and which
//! they take together for the whole batch.
//!
//! Side by side, what a step makes is still in the worker's own cache when the next one reads it, and nobody waits between
//! them; but every worker reads all weights, once for each part. Where a part multiplies each weight often enough, that
//! costs nothing: they are read in order, and asked for ahead. [`gain`] weighs the others.

use std::ops::Range;

use kinglet_graph::{Graph, TensorType, ValueId};
use kinglet_kernels::ALIGN;

use crate::placed::{BufferId, Lowered, LoweredGraph};

/// Parts of a step that treats its elements one by one: any number.
pub(crate) const ANY: usize = usize::MAX;

/// Steps that workers run side by side.
pub(crate) struct Stretch {
    pub(crate) steps: Range<usize>,
    /// Equal parts of the batch, and of each buffer that the steps touch.
    pub(crate) parts: usize,
    /// How many are under way at once.
    pub(crate) lanes: usize,
}

/// Multiply-adds of a part for each byte of weights from which on reading them takes no time of its own.
const BUSY: usize = 8;
/// What another byte of weights costs beside one of the batch.
const WEIGHT: f64 = 0.25;
/// Bytes of the batch that a stretch must move at least.
const SWITCH: f64 = (2 << 20) as f64;

/// Pictures or sequences that the inputs of a graph hold: the outermost size of the first one that has several dimensions.
pub(crate) fn batch(graph: &Graph) -> usize {
    let sizes = |id: &ValueId| graph.value(*id).ty.known().and_then(TensorType::dims);
    let mut inputs = graph.inputs().iter().filter_map(sizes).filter(|sizes| sizes.len() > 1);
    inputs.next().map_or(1, |sizes| sizes[0])
}

/// The stretches of a graph whose inputs hold `parts` pictures or sequences, for so many workers. All shapes are known.
pub(crate) fn stretches(graph: &LoweredGraph, parts: usize, workers: usize) -> Vec<Stretch> {
    if parts < 2 || parts < workers {
        return Vec::new();
    }
    let gains = graph.steps.iter().map(|step| {
        let rows = step.writes.first().and_then(|id| graph.buffers[id.0].rows.count(&[]))?;
        let work = step.work.multiply_adds.saturating_mul(rows) / parts;
        Some(gain(batch_bytes(graph, step, parts)?, (step.work.weight_bytes, work), parts))
    });
    let apart = choose(&gains.collect::<Vec<_>>());
    let mut found: Vec<Stretch> = Vec::new();
    for (index, _) in apart.iter().enumerate().filter(|(_, apart)| **apart) {
        match found.last_mut().filter(|last| last.steps.end == index) {
            Some(last) => last.steps.end += 1,
            None => found.push(Stretch { steps: index..index + 1, parts, lanes: workers }),
        }
    }
    found
}

/// Bytes of the batch that a step moves; none when it cannot be run for one part alone.
fn batch_bytes(graph: &LoweredGraph, step: &Lowered, parts: usize) -> Option<usize> {
    let apart = step.parts > 0 && (step.parts == ANY || step.parts.is_multiple_of(parts));
    let buffers = step.reads.iter().chain(&step.writes);
    let bytes = |sum: usize, id: &BufferId| {
        let bytes = graph.buffers[id.0].bytes(&[])?;
        bytes.is_multiple_of(parts * ALIGN).then(|| sum.checked_add(bytes))?
    };
    buffers.clone().try_fold(0, bytes).filter(|_| apart && step.dynamic.is_none())
}

/// Bytes of the batch that stay near, less those of weights that are read more often, when a step that moves so much of
/// the batch is run part by part; `work` is its bytes of weights, and multiply-adds of a part.
fn gain(moved: usize, (weights, work): (usize, usize), parts: usize) -> f64 {
    let busy = work / BUSY >= weights;
    let again = if busy { 0.0 } else { (parts - 1) as f64 * weights as f64 };
    moved as f64 - WEIGHT * again
}

/// Which steps are run side by side, so that gains less switches are the most; those without a gain are not.
fn choose(gains: &[Option<f64>]) -> Vec<bool> {
    // The best sums that end together and apart, and for each step which way the one before it went.
    let (mut sums, mut before) = ([0.0, f64::NEG_INFINITY], Vec::with_capacity(gains.len()));
    for gain in gains {
        let [together, apart] = sums;
        let from = [apart > together, apart >= together - SWITCH];
        let gain = gain.unwrap_or(f64::NEG_INFINITY);
        sums = [together.max(apart), apart.max(together - SWITCH) + gain];
        before.push(from);
    }
    let (mut way, mut chosen) = (sums[1] > sums[0], Vec::with_capacity(gains.len()));
    for from in before.iter().rev() {
        chosen.push(way);
        way = from[usize::from(way)];
    }
    chosen.reverse();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_where_gains_outweigh_switches() {
        let check = |gains: &[Option<f64>], expected: &str| {
            let gains: Vec<_> = gains.iter().map(|gain| gain.map(|x| x * SWITCH)).collect();
            let found: String = choose(&gains).iter().map(|apart| if *apart { 'a' } else { '-' }).collect();
            assert_eq!(found, expected, "{gains:?}");
        };
        check(&[], "");
        check(&[Some(2.0), Some(1.0)], "aa");
        check(&[Some(0.5), Some(0.4)], "--");
        check(&[Some(0.5), Some(0.6), Some(-0.1)], "aa-");
        check(&[Some(2.0), Some(-0.5), Some(2.0)], "aaa");
        check(&[Some(2.0), Some(-1.5), Some(2.0)], "a-a");
        check(&[Some(2.0), None, Some(2.0), None, Some(0.5)], "a-a--");
        check(&[Some(-0.5), Some(2.0), Some(-3.0)], "-a-");
    }

    #[test]
    fn weights_count_unless_they_are_multiplied_often() {
        let weights = 1 << 20;
        assert!(gain(1 << 16, (weights, 49 * weights), 8) > 0.0);
        assert!(gain(1 << 16, (weights, weights / 4), 8) < 0.0);
        assert!(gain(8 * weights, (weights, weights / 4), 8) > 0.0);
        assert!(gain(1, (0, 0), 8) > 0.0);
    }
}
