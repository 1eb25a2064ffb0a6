//! Lanes: lists of steps that workers run side by side, each worker its own list, without meeting between the steps.

use std::ops::Range;

use super::Limits;
use crate::step::{Needs, Step};

/// A part of a program.
pub enum Part {
    /// A step that all workers take together.
    Step(Box<dyn Step>),
    /// Lists of steps, of one length. Each is run by one worker alone, in order; all have ended before the next part begins.
    Lanes(Vec<Vec<Box<dyn Step>>>),
}

/// A part, by the indices of its steps.
pub(super) enum Turn {
    Step(usize),
    Lanes(Vec<Range<usize>>),
}

impl Turn {
    /// How many steps a profiler hears of.
    pub(super) fn told(&self) -> usize {
        match self {
            Self::Step(_) => 1,
            Self::Lanes(lanes) => lanes.first().map_or(0, Range::len),
        }
    }

    /// Its lanes, if it has some.
    pub(super) fn lanes(&self) -> &[Range<usize>] {
        match self {
            Self::Step(_) => &[],
            Self::Lanes(lanes) => lanes,
        }
    }
}

/// A step with what it needs.
pub(super) type Needing = (Box<dyn Step>, Needs);

/// All steps, and the parts that they are in. Lanes without a step are left out.
pub(super) fn flatten(parts: Vec<Part>) -> (Vec<Needing>, Vec<Turn>) {
    let (mut steps, mut turns): (Vec<Needing>, _) = (Vec::new(), Vec::new());
    let mut add = |step: Box<dyn Step>| {
        let needs = step.needs();
        steps.push((step, needs));
        steps.len()
    };
    let mut end = 0;
    for part in parts {
        match part {
            Part::Step(step) => {
                end = add(step);
                turns.push(Turn::Step(end - 1));
            }
            Part::Lanes(lanes) if lanes.iter().all(Vec::is_empty) => {}
            Part::Lanes(lanes) => {
                let mut lane = |list: Vec<_>| {
                    let start = end;
                    list.into_iter().for_each(|step| end = add(step));
                    start..end
                };
                turns.push(Turn::Lanes(lanes.into_iter().map(&mut lane).collect()));
            }
        }
    }
    (steps, turns)
}

/// Lanes are of one length, need nothing that is a whole batch's, and touch nothing that another one of them writes.
pub(super) fn check_lanes(steps: &[Needing], turns: &[Turn], limits: &Limits) -> Result<(), (usize, String)> {
    for lanes in turns.iter().map(Turn::lanes) {
        for lane in lanes {
            if lane.len() != lanes[0].len() {
                return Err((lane.start, "lanes are of different lengths".into()));
            }
            for index in lane.clone() {
                let needs = &steps[index].1;
                if needs.indices.is_some() || needs.ragged.is_some() || needs.layer.is_some() {
                    return Err((index, "needs a whole batch, which a lane is not".into()));
                }
            }
        }
        if let Some((index, other)) = clash(steps, lanes, limits) {
            return Err((index, format!("writes what step {other} of another lane touches")));
        }
    }
    Ok(())
}

/// Bytes that a step touches: where they begin and end, its lane, whether it writes them, and its index.
type Touch = (usize, usize, usize, bool, usize);

/// A step, and one of another lane that touches what it writes.
fn clash(steps: &[Needing], lanes: &[Range<usize>], limits: &Limits) -> Option<(usize, usize)> {
    let mut touched: Vec<Touch> = Vec::new();
    for (lane, range) in lanes.iter().enumerate() {
        for index in range.clone() {
            for access in steps[index].0.spans() {
                let (start, end) =
                    (access.span().offset, access.span().end(&limits.dims).unwrap_or(usize::MAX));
                touched.push((start, end, lane, access.writes(), index));
            }
        }
    }
    touched.sort_unstable();
    touched.dedup_by(|a, b| (a.0, a.1, a.2, a.3) == (b.0, b.1, b.2, b.3));
    // Those that may still reach what begins further on.
    let mut open: Vec<Touch> = Vec::new();
    for touch in touched {
        open.retain(|before| before.1 > touch.0);
        let clash = |before: &&Touch| before.2 != touch.2 && (before.3 || touch.3);
        if let Some(before) = open.iter().find(clash).filter(|_| touch.1 > touch.0) {
            return Some(if touch.3 { (touch.4, before.4) } else { (before.4, touch.4) });
        }
        open.push(touch);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::tests::{AddConst, Near, Pick, Without, args, f32s, limits};
    use super::super::{Profiler, Program, RunArgs, RunError};
    use super::*;
    use crate::arena::Span;
    use crate::step::{Access, StepCtx};
    use crate::{Arena, Rows, Team, Worker};

    const ROWS: usize = 3;

    fn add(a: usize, out: usize, add: f32) -> Box<dyn Step> {
        let span = |at| Span::f32(at, Rows::Fixed(ROWS), 1);
        Box::new(AddConst { a: span(a), out: span(out), add, serial: false })
    }

    /// Adds what it finds in both kinds of scratch, after it has put 1 and 2 there.
    struct Scratch(Span);

    // SAFETY: it is run alone, or by one worker.
    unsafe impl Step for Scratch {
        fn label(&self) -> String {
            "scratch".into()
        }

        fn spans(&self) -> Vec<Access> {
            vec![Access::Update(self.0)]
        }

        fn needs(&self) -> Needs {
            Needs { scratch: 4, worker_scratch: 4, ..Needs::default() }
        }

        fn serial(&self, _: &[usize]) -> bool {
            true
        }

        unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
            let (shared, own) = (ctx.scratch::<f32>(), ctx.worker_scratch::<f32>(worker));
            let out = ctx.view::<f32>(&self.0);
            for _ in 0..1000 {
                // SAFETY: both are this worker's own, and so is `out`.
                let (shared, own) = unsafe { (shared.part_mut(0..1), own.part_mut(0..1)) };
                (shared[0], own[0]) = (1.0, 2.0);
                std::hint::black_box((&shared, &own));
                // SAFETY: as above.
                unsafe { out.part_mut(0..1)[0] += shared[0] + own[0] };
            }
        }
    }

    /// Lanes `0..count`: from `64 * lane` to `1024 + 64 * lane`, then in place, item by item and by scratch.
    fn lanes(count: usize) -> Part {
        let lane = |lane: usize| -> Vec<Box<dyn Step>> {
            let out = 1024 + 64 * lane;
            let span = Span::f32(out, Rows::Fixed(ROWS), 1);
            vec![add(64 * lane, out, 10.0), Box::new(Near { out: span }), Box::new(Scratch(span))]
        };
        Part::Lanes((0..count).map(lane).collect())
    }

    /// A step before the lanes, and one behind them.
    fn program(count: usize) -> Program {
        let parts = vec![Part::Step(add(2048, 0, 1.0)), lanes(count), Part::Step(add(1024, 2048, 1.0))];
        Program::of_parts(parts, limits()).expect("valid")
    }

    #[test]
    fn every_lane_is_run_once_by_one_worker() {
        for count in 1..6 {
            let program = program(count);
            for threads in [1, 2, 3, 4] {
                let team = Team::new(threads);
                let mut arena = Arena::try_new(program.arena_bytes()).expect("memory");
                let span = |at| Span::f32(at, Rows::Fixed(ROWS), 1);
                arena.write(&span(2048), &[1.0f32, 2.0, 3.0]).expect("fits");
                for lane in 1..count {
                    arena.write(&span(64 * lane), &[lane as f32; ROWS]).expect("fits");
                }
                program.run(&mut arena, &team, args(&[1])).expect("runs");
                let read = |at| arena.read::<f32>(&span(at), &[]).expect("there");
                assert_eq!(read(1024), [3014.0, 15.0, 16.0]);
                assert_eq!(read(2048), [3015.0, 16.0, 17.0], "the step behind the lanes");
                for lane in 1..count {
                    let at = lane as f32 + 12.0;
                    assert_eq!(read(1024 + 64 * lane), [at + 3000.0, at, at], "lane {lane} of {count}");
                }
            }
        }
    }

    #[test]
    fn the_profiler_hears_of_the_first_lane() {
        struct Log(Vec<usize>);
        impl Profiler for Log {
            fn begin(&mut self) {}
            fn step(&mut self, index: usize) {
                self.0.push(index);
            }
        }
        let program = program(4);
        assert_eq!(program.steps(), 5);
        for threads in [1, 2] {
            let mut arena = Arena::try_new(program.arena_bytes()).expect("memory");
            let mut log = Log(vec![]);
            let told = RunArgs { profiler: Some(&mut log), ..args(&[1]) };
            program.run(&mut arena, &Team::new(threads), told).expect("runs");
            assert_eq!(log.0, [0, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn a_lane_without_its_weights_ends_the_run() {
        let span = |at| Span::f32(at, Rows::Fixed(ROWS), 1);
        let without = AddConst { a: span(0), out: span(64), add: 1.0, serial: false };
        let lanes = vec![vec![add(128, 192, 1.0)], vec![Box::new(Without(without)) as Box<dyn Step>]];
        let parts = vec![Part::Lanes(lanes), Part::Step(add(0, 256, 1.0))];
        let program = Program::of_parts(parts, limits()).expect("valid");
        for threads in [1, 2] {
            let mut arena = Arena::try_new(program.arena_bytes()).expect("memory");
            let error = program.run(&mut arena, &Team::new(threads), args(&[1])).expect_err("no weights");
            assert!(matches!(error, RunError::Weights { step: 1, .. }), "{error}");
        }
    }

    #[test]
    fn lanes_that_meet_are_refused() {
        let check = |lanes: Vec<Vec<Box<dyn Step>>>, reason: &str| {
            let error = Program::of_parts(vec![Part::Lanes(lanes)], limits()).expect_err("refused");
            assert!(error.reason.contains(reason), "{error}");
        };
        check(vec![vec![add(0, 64, 1.0)], vec![]], "different lengths");
        check(vec![vec![add(0, 64, 1.0)], vec![add(128, 64, 1.0)]], "another lane");
        check(vec![vec![add(0, 64, 1.0)], vec![add(64, 128, 1.0)]], "another lane");
        check(vec![vec![add(64, 128, 1.0)], vec![add(256, 320, 1.0)], vec![add(0, 64, 1.0)]], "another lane");
        let wide = Span::f32(0, Rows::Fixed(64), 1);
        let wide = AddConst { a: wide, out: wide, add: 1.0, serial: false };
        check(vec![vec![Box::new(wide)], vec![add(128, 320, 1.0)]], "another lane");
        let index = Span::indices(512, Rows::Dim(crate::DimId(0)));
        let pick = Pick { x: f32s(0), index, out: f32s(768) };
        check(vec![vec![Box::new(pick)]], "whole batch");
        let both = vec![vec![add(0, 64, 1.0)], vec![add(0, 128, 1.0)]];
        assert!(Program::of_parts(vec![Part::Lanes(both)], limits()).is_ok(), "both read the same");
        let none = Program::of_parts(vec![Part::Lanes(vec![vec![], vec![]])], limits()).expect("valid");
        assert_eq!(none.steps(), 0);
    }
}
