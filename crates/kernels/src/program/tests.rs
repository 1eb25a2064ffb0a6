//! Programs of toy steps: what is refused, and that workers keep together.

use super::*;
use crate::DimId;
use crate::arena::Span;
use crate::step::Access;

const T: Rows = Rows::Dim(DimId(0));

/// `out[i] = a[i] + add`, rows shared among the workers or done by one.
pub(super) struct AddConst {
    pub(super) a: Span,
    pub(super) out: Span,
    pub(super) add: f32,
    pub(super) serial: bool,
}

// SAFETY: each worker writes its own share of `out`.
unsafe impl Step for AddConst {
    fn label(&self) -> String {
        "add_const".into()
    }

    fn spans(&self) -> Vec<Access> {
        if self.a == self.out {
            vec![Access::Update(self.a)]
        } else {
            vec![Access::Read(self.a), Access::Write(self.out)]
        }
    }

    fn serial(&self, _: &[usize]) -> bool {
        self.serial
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let (a, out) = (ctx.view::<f32>(&self.a), ctx.view::<f32>(&self.out));
        for i in worker.share(out.len(), 1) {
            // SAFETY: element `i` is this worker's; the value is copied before it is written.
            unsafe { out.part_mut(i..i + 1)[0] = a.part(i..i + 1)[0] + self.add };
        }
    }
}

/// `out[i] = x[index[i]]`, items taken one by one.
pub(super) struct Pick {
    pub(super) x: Span,
    pub(super) index: Span,
    pub(super) out: Span,
}

// SAFETY: each item is taken by one worker.
unsafe impl Step for Pick {
    fn label(&self) -> String {
        "pick".into()
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Read(self.x), Access::Read(self.index), Access::Write(self.out)]
    }

    fn needs(&self) -> Needs {
        Needs { indices: Some((self.index, Bound::Rows(T))), ..Needs::default() }
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let (x, index) = (ctx.view::<f32>(&self.x), ctx.view::<i32>(&self.index));
        let out = ctx.view::<f32>(&self.out);
        while let Some(i) = ctx.take_near(worker, out.len()) {
            // SAFETY: `i` is this worker's; the run checked the indices.
            unsafe { out.part_mut(i..i + 1)[0] = x.part(0..x.len())[index.part(i..i + 1)[0] as usize] };
        }
    }
}

/// Adds 1 to every item, twice over, items taken from both ends.
pub(super) struct Near {
    pub(super) out: Span,
}

// SAFETY: each item is taken by one worker, again behind a barrier.
unsafe impl Step for Near {
    fn label(&self) -> String {
        "near".into()
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Update(self.out)]
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let out = ctx.view::<f32>(&self.out);
        for round in 0..2 {
            while let Some(i) = ctx.take_near(worker, out.len()) {
                // SAFETY: `i` is this worker's.
                unsafe { out.part_mut(i..i + 1)[0] += 1.0 };
            }
            worker.barrier();
            if round == 0 && worker.index() == 0 {
                ctx.again();
            }
            worker.barrier();
        }
    }
}

pub(super) fn f32s(offset: usize) -> Span {
    Span::f32(offset, T, 1)
}

pub(super) fn limits() -> Limits {
    Limits { arena_bytes: 4096, dims: vec![50], workers: 4, level: Level::SCALAR, kv: None }
}

pub(super) fn args<'a>(dims: &'a [usize]) -> RunArgs<'a> {
    RunArgs { dims, seqs: &[], kv: None, cancel: &|| false, profiler: None, lent: [None; LENT] }
}

/// A long chain of serial and shared steps, ending in a pick.
fn chain() -> Program {
    let mut steps: Vec<Box<dyn Step>> = vec![];
    for i in 0..40usize {
        let (a, out) = if i.is_multiple_of(2) { (f32s(0), f32s(256)) } else { (f32s(256), f32s(0)) };
        steps.push(Box::new(AddConst { a, out, add: 1.0, serial: i % 5 < 2 }));
    }
    let index = Span::indices(512, T);
    steps.push(Box::new(Pick { x: f32s(0), index, out: f32s(768) }));
    Program::new(steps, limits()).expect("valid")
}

#[test]
fn steps_run_in_order_on_every_team() {
    let program = chain();
    for threads in [1, 2, 4] {
        let (team, mut arena) = (Team::new(threads), Arena::try_new(program.arena_bytes()).expect("memory"));
        for rows in [0usize, 1, 3, 50] {
            let values: Vec<f32> = (0..rows).map(|i| i as f32).collect();
            let index: Vec<i32> = (0..rows as i32).rev().collect();
            arena.write(&f32s(0), &values).expect("fits");
            arena.write(&Span::indices(512, T), &index).expect("fits");
            program.run(&mut arena, &team, args(&[rows])).expect("runs");
            let expected: Vec<f32> = (0..rows).rev().map(|i| i as f32 + 40.0).collect();
            assert_eq!(arena.read::<f32>(&f32s(768), &[rows]).expect("fits"), expected);
        }
    }
}

#[test]
fn items_are_taken_once_from_both_ends() {
    for threads in [1, 2, 3, 4] {
        let steps: Vec<Box<dyn Step>> =
            (0..5).map(|_| Box::new(Near { out: f32s(0) }) as Box<dyn Step>).collect();
        let program = Program::new(steps, limits()).expect("valid");
        let (team, mut arena) = (Team::new(threads), Arena::try_new(program.arena_bytes()).expect("memory"));
        for rows in [0usize, 1, 2, 7, 50] {
            arena.write(&f32s(0), &vec![0.0; rows]).expect("fits");
            program.run(&mut arena, &team, args(&[rows])).expect("runs");
            assert_eq!(arena.read::<f32>(&f32s(0), &[rows]).expect("fits"), vec![10.0; rows]);
        }
    }
}

#[test]
fn unsafe_programs_are_refused() {
    let check = |a: Span, out: Span, reason: &str| {
        let step = AddConst { a, out, add: 0.0, serial: false };
        let error = Program::new(vec![Box::new(step)], limits()).expect_err("refused");
        assert!(error.reason.contains(reason), "{error}");
    };
    check(f32s(4096 - 64), f32s(0), "not within the arena");
    check(f32s(0), f32s(usize::MAX - 63), "not within the arena");
    check(f32s(4), f32s(256), "not within the arena");
    check(Span::f32(0, Rows::Dim(DimId(1)), 1), f32s(256), "not within the arena");
    check(Span::f32(0, T, usize::MAX / 8), f32s(256), "not within the arena");
    check(f32s(64), f32s(0), "overlaps");
    let index = Span::indices(0, T);
    let writer = AddConst { a: f32s(256), out: f32s(0), add: 0.0, serial: false };
    let steps: Vec<Box<dyn Step>> =
        vec![Box::new(writer), Box::new(Pick { x: f32s(512), index, out: f32s(768) })];
    let error = Program::new(steps, limits()).expect_err("refused");
    assert!(error.reason.contains("overwrites the indices"), "{error}");
}

#[test]
fn runs_outside_the_limits_are_refused() {
    let (program, team) = (chain(), Team::new(2));
    let mut arena = Arena::try_new(program.arena_bytes()).expect("memory");
    let check = |arena: &mut Arena, team: &Team, dims: &[usize]| {
        program.run(arena, team, args(dims)).expect_err("refused")
    };
    assert!(matches!(check(&mut arena, &team, &[51]), RunError::Dims { .. }));
    assert!(matches!(check(&mut arena, &team, &[]), RunError::Dims { .. }));
    assert!(matches!(check(&mut arena, &Team::new(5), &[1]), RunError::Team { found: 5, max: 4 }));
    let mut small = Arena::try_new(64).expect("memory");
    assert!(matches!(check(&mut small, &team, &[1]), RunError::Arena { found: 64, .. }));
    for bad in [2, -1, i32::MAX] {
        arena.write(&Span::indices(512, T), &[0, bad]).expect("fits");
        assert_eq!(check(&mut arena, &team, &[2]), RunError::Index { row: 1, found: bad, below: 2 });
    }
}

#[test]
fn all_workers_stop_at_the_same_step() {
    let program = chain();
    for threads in [1, 2, 4] {
        let (team, mut arena) = (Team::new(threads), Arena::try_new(program.arena_bytes()).expect("memory"));
        for asked in 0..20 {
            let left = AtomicUsize::new(asked);
            let cancel = || left.fetch_sub(1, Ordering::Relaxed) == 0;
            let outcome = program.run(&mut arena, &team, RunArgs { cancel: &cancel, ..args(&[8]) });
            assert_eq!(outcome, Err(RunError::Cancelled));
        }
    }
}

#[test]
fn the_profiler_sees_every_step_in_order() {
    struct Log(Vec<usize>);
    impl Profiler for Log {
        fn begin(&mut self) {
            self.0.push(1000);
        }
        fn step(&mut self, index: usize) {
            self.0.push(index);
        }
    }
    let (program, team) = (chain(), Team::new(2));
    let mut arena = Arena::try_new(program.arena_bytes()).expect("memory");
    let mut log = Log(vec![]);
    program.run(&mut arena, &team, RunArgs { profiler: Some(&mut log), ..args(&[3]) }).expect("runs");
    assert_eq!(log.0[0], 1000);
    assert!(log.0[1..].iter().copied().eq(0..41));
}

#[test]
fn sequences_must_cover_the_rows() {
    let seq = |start, len| SeqRows { start, len, past: 0, pages: &[] };
    let check = |seqs: &[SeqRows<'_>], rows, ok: bool| assert_eq!(check_cover(seqs, rows).is_ok(), ok);
    check(&[], 0, true);
    check(&[seq(0, 2), seq(2, 0), seq(2, 3)], 5, true);
    check(&[seq(0, 2)], 3, false);
    check(&[seq(0, 2), seq(3, 1)], 4, false);
    check(&[seq(0, 3), seq(2, 2)], 4, false);
    check(&[seq(0, usize::MAX), seq(usize::MAX, 2)], 1, false);
}

/// Stands for a step whose weights never come.
pub(super) struct Without(pub(super) AddConst);

// SAFETY: it is not run.
unsafe impl Step for Without {
    fn label(&self) -> String {
        "without".into()
    }

    fn spans(&self) -> Vec<Access> {
        self.0.spans()
    }

    fn ready(&self) -> Result<(), String> {
        Err("memory is short".into())
    }

    unsafe fn run(&self, _: &StepCtx<'_>, _: Worker<'_>) {
        unreachable!("it is never ready");
    }
}

#[test]
fn a_step_without_its_weights_ends_the_run() {
    let add = |serial| AddConst { a: f32s(0), out: f32s(256), add: 1.0, serial };
    let back = AddConst { a: f32s(256), out: f32s(0), add: 1.0, serial: false };
    let steps: Vec<Box<dyn Step>> = vec![Box::new(add(true)), Box::new(Without(add(false))), Box::new(back)];
    let program = Program::new(steps, limits()).expect("valid");
    for threads in [1, 4] {
        let (team, mut arena) = (Team::new(threads), Arena::try_new(program.arena_bytes()).expect("memory"));
        arena.write(&f32s(0), &[5.0f32]).expect("fits");
        let error = program.run(&mut arena, &team, args(&[1])).expect_err("no weights");
        let (label, reason) = ("without".into(), "memory is short".into());
        assert_eq!(error, RunError::Weights { step: 1, label, reason });
        assert_eq!(arena.read::<f32>(&f32s(0), &[1]).expect("there"), [5.0], "the step after it was run");
    }
}

/// Tells when it runs.
struct Tells(AddConst, std::sync::Arc<std::sync::atomic::AtomicBool>);

// SAFETY: as the step that it is.
unsafe impl Step for Tells {
    fn label(&self) -> String {
        "tells".into()
    }

    fn spans(&self) -> Vec<Access> {
        self.0.spans()
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        // SAFETY: the same promise.
        unsafe { self.0.run(ctx, worker) };
        self.1.store(true, Ordering::Release);
    }
}

/// Waits for weights.
struct Waits(AddConst, crate::nd::Packed);

// SAFETY: as the step that it is.
unsafe impl Step for Waits {
    fn label(&self) -> String {
        "waits".into()
    }

    fn spans(&self) -> Vec<Access> {
        self.0.spans()
    }

    fn ready(&self) -> Result<(), String> {
        self.1.wait().map_err(ToString::to_string)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        assert_eq!(self.1.len(), 16);
        // SAFETY: the same promise.
        unsafe { self.0.run(ctx, worker) };
    }
}

#[test]
fn steps_run_while_the_weights_of_later_ones_are_on_their_way() {
    let add = |a, out| AddConst { a: f32s(a), out: f32s(out), add: 1.0, serial: false };
    for threads in [1, 2, 4] {
        let (told, weights) = (std::sync::Arc::default(), crate::nd::Packed::pending(16));
        let first = Tells(add(0, 256), std::sync::Arc::clone(&told));
        let steps: Vec<Box<dyn Step>> =
            vec![Box::new(first), Box::new(Waits(add(256, 512), weights.clone()))];
        let program = Program::new(steps, limits()).expect("valid");
        let (team, mut arena) = (Team::new(threads), Arena::try_new(program.arena_bytes()).expect("memory"));
        arena.write(&f32s(0), &[5.0f32]).expect("fits");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Nothing is handed in before the first step has run; when it never does, the run fails.
                let patience = std::time::Instant::now();
                while !told.load(Ordering::Acquire) && patience.elapsed().as_secs() < 30 {
                    std::thread::yield_now();
                }
                let late = crate::nd::NdError { what: "test", reason: "the first step did not run".into() };
                let floats = kinglet_tensor::AlignedBuf::<u8>::try_new(64).expect("memory");
                weights.fill(if told.load(Ordering::Acquire) { Ok(floats.into()) } else { Err(late) });
            });
            program.run(&mut arena, &team, args(&[1])).expect("runs");
        });
        assert_eq!(arena.read::<f32>(&f32s(512), &[1]).expect("there"), [7.0]);
    }
}

/// `out = a + 1` over the inputs at 0 and 256, run with what is lent.
fn lent_run(program: &Program, lent: Lent<'_>) -> Result<Vec<f32>, RunError> {
    let (mut arena, team) = (Arena::try_new(program.arena_bytes()).expect("memory"), Team::new(2));
    arena.write(&f32s(0), &[5.0f32; 4]).expect("fits");
    program.run(&mut arena, &team, RunArgs { lent, ..args(&[4]) })?;
    Ok(arena.read::<f32>(&f32s(512), &[4]).expect("fits").to_vec())
}

#[test]
fn what_is_lent_is_read_where_it_lies() {
    let add = |a, out| Box::new(AddConst { a, out, add: 1.0, serial: false }) as Box<dyn Step>;
    let mut program = Program::new(vec![add(f32s(0), f32s(512))], limits()).expect("legal");
    assert_eq!(program.lend(&f32s(0)), Some(0));
    assert_eq!(program.lend(&f32s(0)), None, "twice");
    assert_eq!(program.lend(&f32s(512)), None, "written");
    assert_eq!(program.lend(&Span::f32(0, Rows::Fixed(1), 1)), None, "read beyond its end");
    assert_eq!(lent_run(&program, [None; LENT]).expect("runs"), [6.0; 4]);

    let mut buffer = kinglet_tensor::AlignedBuf::<u8>::try_new(32).expect("memory");
    buffer[..16].copy_from_slice(bytemuck::cast_slice(&[1.0f32, 2.0, 3.0, 4.0]));
    let lend = |bytes| [Some(bytes), None, None, None];
    assert_eq!(lent_run(&program, lend(&buffer[..16])).expect("runs"), [2.0, 3.0, 4.0, 5.0]);
    for wrong in [&buffer[..12], &buffer[..20], &buffer[4..20]] {
        assert!(matches!(lent_run(&program, lend(wrong)), Err(RunError::Lent { input: 0, .. })));
    }
    let nothing = [None, Some(&buffer[..16]), None, None];
    assert!(matches!(lent_run(&program, nothing), Err(RunError::Lent { input: 1, .. })));
}

#[test]
fn spans_with_indices_or_middles_that_are_read_are_not_lent() {
    let pick = Pick { x: f32s(0), index: Span::indices(256, T), out: f32s(512) };
    let mut program = Program::new(vec![Box::new(pick)], limits()).expect("legal");
    assert_eq!(program.lend(&Span::indices(256, T)), None);
    let middle = AddConst { a: f32s(64), out: f32s(512), add: 1.0, serial: true };
    let mut program = Program::new(vec![Box::new(middle)], limits()).expect("legal");
    assert_eq!(program.lend(&Span::f32(0, Rows::Fixed(64), 1)), None);
}
