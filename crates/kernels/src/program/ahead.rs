//! What a worker that waits for others does meanwhile: it asks for the weights that it will read next, so that memory is
//! not idle during steps that do not read any.

use kinglet_simd::{Isa, Kernel, Level, dispatch};

use super::lanes::Needing;
use crate::Worker;

/// Bytes to ask for at most: they share a second-level cache with what the steps before use.
const MOST: usize = 256 << 10;
/// Bytes to ask for between two looks at the barrier: about what memory gives in the time of a look.
const AT_ONCE: usize = 512;
/// How far to look for a step that reads weights.
const STEPS: usize = 8;

/// Weights of a step to come, from those on that were not asked for.
#[derive(Default)]
pub(super) struct Ahead<'a> {
    /// The step, zero for none yet.
    step: usize,
    weights: &'a [u8],
}

impl<'a> Ahead<'a> {
    /// Notes that step `index` is done, and looks for the next one that reads weights.
    pub(super) fn turn(&mut self, index: usize, steps: &'a [Needing], dims: &[usize], worker: Worker<'_>) {
        if worker.count() < 2 || self.step > index {
            return;
        }
        self.step = steps.len().min(index + 1 + STEPS);
        self.weights = &[];
        for (at, (step, _)) in steps.iter().enumerate().take(self.step).skip(index + 1) {
            let weights = step.first_weights(dims, worker);
            if !weights.is_empty() {
                (self.step, self.weights) = (at, &weights[..weights.len().min(MOST)]);
                break;
            }
        }
    }

    /// Asks for a few more of them.
    pub(super) fn ask(&mut self, level: Level) {
        if !self.weights.is_empty() {
            let (now, later) = self.weights.split_at(self.weights.len().min(AT_ONCE));
            dispatch(level, Ask(now));
            self.weights = later;
        }
    }
}

struct Ask<'a>(&'a [u8]);

impl Kernel for Ask<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for line in self.0.chunks(64) {
            isa.prefetch_far(line.as_ptr());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Team;
    use crate::step::{Access, Needs, Step, StepCtx};

    /// A step with so many bytes of weights.
    struct Weights(Vec<u8>);

    // SAFETY: it does nothing.
    unsafe impl Step for Weights {
        fn label(&self) -> String {
            String::new()
        }
        fn spans(&self) -> Vec<Access> {
            vec![]
        }
        fn first_weights(&self, _: &[usize], _: Worker<'_>) -> &[u8] {
            &self.0
        }
        unsafe fn run(&self, _: &StepCtx<'_>, _: Worker<'_>) {}
    }

    #[test]
    fn the_next_weights_are_asked_for_once() {
        let sizes = [0, 0, 5 * AT_ONCE + 1, 0, MOST + 1];
        let steps: Vec<Needing> =
            sizes.map(|bytes| (Box::new(Weights(vec![0; bytes])) as Box<dyn Step>, Needs::default())).into();
        Team::new(2).run(|worker| {
            let mut ahead = Ahead::default();
            let mut left = vec![];
            for index in 0..steps.len() {
                ahead.turn(index, &steps, &[], worker);
                ahead.ask(Level::detect());
                left.push(ahead.weights.len());
            }
            assert_eq!(left, [4 * AT_ONCE + 1, 3 * AT_ONCE + 1, MOST - AT_ONCE, MOST - 2 * AT_ONCE, 0]);
        });
        let mut alone = Ahead::default();
        alone.turn(0, &steps, &[], Worker::ALONE);
        assert!(alone.weights.is_empty(), "nobody to wait for");
    }
}
