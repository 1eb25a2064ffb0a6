//! The scheduler under seeded schedules, driven against a fake decoder that keeps its history in its pages.

use std::collections::HashMap;
use std::time::Duration;

use kinglet_graph::{Call, CancelToken, Executable, Input};
use kinglet_tensor::SeqRows;
use kinglet_testkit::{FakeDecoder, hashed_logits};
use proptest::prelude::*;

use super::*;

const VOCAB: usize = 11;
const END: u32 = 0; // ends a text

fn limits() -> Limits {
    Limits {
        context: 40,
        vocab: VOCAB,
        page_tokens: 4,
        pages: 16,
        max_rows: 12,
        prompt_rows: 6,
        max_outputs: 6,
        max_running: 4,
        max_waiting: 5,
    }
}

fn generate(id: RequestId, prompt: &[u32], max_tokens: usize) -> Submission {
    let goal = Goal::Generate { max_tokens };
    Submission { id, priority: Priority::Normal, deadline: None, prompt: prompt.to_vec(), goal }
}

/// What a request is answered when it runs alone.
fn alone(prompt: &[u32], max_tokens: usize, context: usize) -> (Vec<u32>, Finish) {
    let mut tokens = prompt.to_vec();
    loop {
        let token = greedy(&logits(&tokens));
        if token == END {
            return (tokens.split_off(prompt.len()), Finish::Stop);
        }
        tokens.push(token);
        if tokens.len() - prompt.len() >= max_tokens || tokens.len() >= context {
            return (tokens.split_off(prompt.len()), Finish::Length);
        }
    }
}

fn logits(history: &[u32]) -> Vec<f32> {
    let mut logits = vec![0.0; VOCAB];
    hashed_logits(history, &mut logits);
    logits
}

fn greedy(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    best.expect("a vocabulary") as u32
}

/// A core with its executable, and what came out of them.
struct Bench {
    core: Core,
    exec: FakeDecoder,
    prompts: HashMap<RequestId, Submission>,
    answers: HashMap<RequestId, Vec<u32>>,
    scored: HashMap<RequestId, usize>, // next row whose logits are due
    ends: Vec<(RequestId, Finish)>,
    refused: Vec<(RequestId, Refusal)>,
    batches: Vec<Batch>,
    copies: usize,
    fail: bool,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        Bench {
            exec: FakeDecoder::hashed(VOCAB, limits.page_tokens, limits.max_rows),
            core: Core::new(limits).expect("limits"),
            prompts: HashMap::new(),
            answers: HashMap::new(),
            scored: HashMap::new(),
            ends: Vec::new(),
            refused: Vec::new(),
            batches: Vec::new(),
            copies: 0,
            fail: false,
        }
    }

    fn submit(&mut self, submission: Submission) {
        let id = submission.id;
        if let Goal::Score { from } = submission.goal {
            self.scored.insert(id, from);
        }
        self.prompts.insert(id, submission.clone());
        self.answers.insert(id, Vec::new());
        self.event(Event::Submit(submission));
    }

    fn event(&mut self, event: Event) {
        for action in self.core.step(event) {
            match action {
                Action::Refuse(id, why) => self.refused.push((id, why)),
                Action::Finish(id, how) => self.ends.push((id, how)),
                Action::CopyPage { from, to } => {
                    self.copies += 1;
                    self.exec.reserve_pages(self.core.limits().pages).expect("pages");
                    self.exec.copy_page(from, to).expect("both pages exist");
                }
                Action::Run(batch) => self.run(batch),
            }
        }
        self.check();
    }

    fn run(&mut self, batch: Batch) {
        let limits = *self.core.limits();
        assert!(batch.tokens.len() <= limits.max_rows, "rows: {batch:?}");
        assert!(batch.out_rows.len() <= limits.max_outputs, "outputs: {batch:?}");
        assert_eq!(batch.out_rows.len(), batch.seqs.iter().map(|seq| seq.outputs).sum::<usize>());
        if std::mem::take(&mut self.fail) {
            self.batches.push(batch);
            return self.event(Event::BatchFailed);
        }
        let verdicts = self.compute(&batch);
        self.batches.push(batch);
        self.event(Event::BatchDone(verdicts));
    }

    fn compute(&mut self, batch: &Batch) -> Vec<(RequestId, Verdict)> {
        self.exec.reserve_pages(self.core.limits().pages).expect("pages");
        let rows = |s: &'_ BatchSeq| (s.start, s.len, s.past);
        let seqs: Vec<_> = batch
            .seqs
            .iter()
            .map(|seq| (rows(seq), &seq.pages))
            .map(|((start, len, past), pages)| SeqRows { start, len, past, pages })
            .collect();
        let inputs = [Input::I32(&batch.tokens), Input::I32(&batch.out_rows)];
        let call = Call { inputs: &inputs, seqs: &seqs, cancel: &CancelToken::default() };
        self.exec.run(&call).expect("a batch that can run");
        let output = self.exec.output(0).expect("logits").to_vec();
        let mut outputs = output.chunks_exact(VOCAB);
        let mut verdicts = Vec::new();
        for seq in &batch.seqs {
            for row in 0..seq.outputs {
                let logits = outputs.next().expect("logits of every output");
                match self.prompts[&seq.id].goal {
                    Goal::Score { .. } => self.scored(seq, row, logits),
                    Goal::Generate { .. } => verdicts.push((seq.id, self.sample(seq.id, logits))),
                }
            }
        }
        verdicts
    }

    fn sample(&mut self, id: RequestId, logits: &[f32]) -> Verdict {
        let token = greedy(logits);
        if token == END {
            return Verdict::Stop;
        }
        self.answers.get_mut(&id).expect("submitted").push(token);
        Verdict::Token(token)
    }

    fn scored(&mut self, seq: &BatchSeq, row: usize, got: &[f32]) {
        let position = seq.past + seq.len - seq.outputs + row;
        let due = self.scored.get_mut(&seq.id).expect("submitted");
        assert_eq!(*due, position, "rows come in order, once each");
        *due += 1;
        assert_eq!(got, logits(&self.prompts[&seq.id].prompt[..=position]));
    }

    /// Page accounts agree with what the sequences hold.
    fn check(&self) {
        let mut holders = HashMap::<PageId, u32>::new();
        for sequence in self.core.live.values() {
            sequence.pages.iter().for_each(|&page| *holders.entry(page).or_default() += 1);
            assert!(sequence.past <= sequence.pages.len() * self.core.limits.page_tokens);
        }
        self.core.pool.check(&holders);
        assert_eq!(self.core.live.len(), self.core.ranks.len());
    }

    /// Runs until nobody waits.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            if !self.core.has_work() {
                assert_eq!(self.core.load().pages_held, 0, "pages leak");
                return;
            }
            self.event(Event::Ready);
        }
        panic!("no progress: {:?}", self.core);
    }

    /// Every request ended exactly once, and as it would have alone, unless it was told otherwise.
    fn check_answers(&self) {
        let mut ends: HashMap<RequestId, Finish> = HashMap::new();
        for &(id, how) in &self.ends {
            assert!(ends.insert(id, how).is_none(), "{id} ends twice");
        }
        let refused: HashMap<_, _> = self.refused.iter().cloned().collect();
        for (id, submission) in &self.prompts {
            assert_ne!(ends.contains_key(id), refused.contains_key(id), "{id} ends once");
            let Some(how) = ends.get(id) else { continue };
            self.check_answer(submission, *how);
        }
    }

    fn check_answer(&self, submission: &Submission, how: Finish) {
        let Goal::Generate { max_tokens } = submission.goal else {
            return assert!(how != Finish::Scored || self.scored[&submission.id] == submission.prompt.len());
        };
        let (answer, end) = alone(&submission.prompt, max_tokens, self.core.limits.context);
        let got = &self.answers[&submission.id];
        match how {
            Finish::Stop | Finish::Length => assert_eq!((got, how), (&answer, end), "{submission:?}"),
            _ => assert!(answer.starts_with(got), "{submission:?}"),
        }
    }
}

/// One thing that happens in a random schedule.
#[derive(Clone, Debug)]
enum Happening {
    Submit {
        stem: usize,
        tail: Vec<u32>,
        priority: usize,
        max_tokens: usize,
        patience: Option<u64>,
        score: bool,
    },
    Cancel(u64),
    Wait(u64),
    Run,
    Fail,
}

fn happening() -> impl Strategy<Value = Happening> {
    let tail = prop::collection::vec(0..VOCAB as u32, 0..12);
    let patience = prop::option::weighted(0.2, 1..40_000u64);
    let submit = (0..30usize, tail, 0..4usize, 1..20usize, patience, prop::bool::weighted(0.2)).prop_map(
        |(stem, tail, priority, max_tokens, patience, score)| Happening::Submit {
            stem,
            tail,
            priority,
            max_tokens,
            patience,
            score,
        },
    );
    prop_oneof![
        3 => submit,
        1 => (0..40u64).prop_map(Happening::Cancel),
        1 => (0..10_000u64).prop_map(Happening::Wait),
        6 => Just(Happening::Run),
        1 => prop::bool::weighted(0.1).prop_map(|fail| if fail { Happening::Fail } else { Happening::Run }),
    ]
}

fn play(bench: &mut Bench, happenings: &[Happening]) {
    let stem: Vec<u32> = (0..30).map(|i| 1 + i * 7 % 10).collect(); // prompts share beginnings of this
    let mut now = Duration::ZERO;
    for (id, happening) in happenings.iter().enumerate() {
        match happening {
            Happening::Submit { stem: len, tail, priority, max_tokens, patience, score } => {
                let prompt = [&stem[..*len], tail].concat();
                let goal = match score {
                    true => Goal::Score { from: *max_tokens % (prompt.len() + 1) },
                    false => Goal::Generate { max_tokens: *max_tokens },
                };
                let deadline = patience.map(|ms| now + Duration::from_millis(ms));
                let priority = Priority::ALL[*priority];
                bench.submit(Submission { id: id as u64, priority, deadline, prompt, goal });
            }
            Happening::Cancel(id) => bench.event(Event::Cancel(*id)),
            Happening::Wait(ms) => {
                now += Duration::from_millis(*ms);
                bench.event(Event::Tick(now));
            }
            Happening::Run => bench.event(Event::Ready),
            Happening::Fail => {
                bench.fail = true;
                bench.event(Event::Ready);
                bench.fail = false;
            }
        }
    }
    bench.drain();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_schedule_answers_as_alone_and_leaks_nothing(
        happenings in prop::collection::vec(happening(), 1..80),
        pages in 10..24usize,
        page_tokens in 1..6usize,
        prompt_rows in 1..12usize,
        max_outputs in 4..8usize,
    ) {
        let pages = pages.max(40usize.div_ceil(page_tokens));
        let mut bench = Bench::new(Limits { pages, page_tokens, prompt_rows, max_outputs, ..limits() });
        play(&mut bench, &happenings);
        bench.check_answers();
    }
}

#[test]
fn pressure_on_pages_preempts_and_changes_no_answer() {
    let mut bench = Bench::new(Limits { pages: 10, ..limits() });
    for id in 0..6 {
        bench.submit(generate(id, &[1 + id as u32, 2, 3, 5, 7, 9, 1, 2], 25));
    }
    bench.drain();
    bench.check_answers();
    assert!(bench.core.load().preemptions > 0, "the case must preempt");
}

#[test]
fn an_urgent_request_goes_first_and_a_patient_one_is_not_starved() {
    let mut bench = Bench::new(Limits { max_running: 1, max_outputs: 1, max_waiting: 200, ..limits() });
    let submit = |bench: &mut Bench, id, priority| {
        bench.submit(Submission { priority, ..generate(id, &[3, 1, 2], 2) });
    };
    for (id, priority) in Priority::ALL.into_iter().rev().enumerate() {
        submit(&mut bench, id as u64, priority);
    }
    bench.drain();
    assert_eq!(bench.ends.iter().map(|end| end.0).collect::<Vec<_>>(), [3, 2, 1, 0]);

    bench.ends.clear();
    submit(&mut bench, 10, Priority::Low);
    for second in 0..90 {
        bench.event(Event::Tick(Duration::from_secs(second)));
        submit(&mut bench, 100 + 2 * second, Priority::Critical);
        submit(&mut bench, 101 + 2 * second, Priority::Critical);
        bench.event(Event::Ready);
        bench.event(Event::Ready);
    }
    bench.drain();
    let ended = bench.ends.iter().position(|end| end.0 == 10).expect("it ended");
    let ahead = bench.ends[..ended].iter().all(|end| end.0 < 100 + 2 * 61);
    assert!(ahead, "nothing that came after its patience went first: {:?}", bench.ends);
}

#[test]
fn a_long_prompt_does_not_stop_those_who_decode() {
    let mut bench = Bench::new(Limits { prompt_rows: 2, ..limits() });
    bench.submit(generate(1, &[1, 2], 30));
    bench.event(Event::Ready);
    bench.submit(generate(2, &[4; 30], 3));
    bench.drain();
    let mixed = bench.batches.iter().filter(|batch| batch.seqs.len() == 2).collect::<Vec<_>>();
    assert!(!mixed.is_empty());
    assert!(mixed.iter().all(|batch| batch.tokens.len() <= 3), "one row decodes, two fill");
    bench.check_answers();
}

#[test]
fn the_next_turn_of_a_chat_runs_new_tokens_only() {
    let mut bench = Bench::new(limits());
    let first = [1, 2, 3, 4, 5, 6, 7, 8, 9];
    bench.submit(generate(1, &first, 6));
    bench.drain();
    let mut turn = first.to_vec();
    turn.extend(&bench.answers[&1]);
    let known = turn.len() - 1; // the last token was sampled, not run
    turn.extend([9, 9]);
    bench.submit(generate(2, &turn, 3));
    bench.batches.clear();
    bench.event(Event::Ready);
    assert_eq!(bench.batches[0].seqs[0].past, known);
    assert_eq!(bench.copies, usize::from(known % 4 != 0), "a page that is filled in part is copied");
    bench.drain();
    bench.check_answers();
}

#[test]
fn requests_with_one_prompt_compute_it_once() {
    let mut bench = Bench::new(limits());
    for id in 0..4 {
        bench.submit(generate(id, &[5; 21], 4));
    }
    bench.drain();
    bench.check_answers();
    let rows: usize = bench.batches.iter().map(|batch| batch.tokens.len()).sum();
    assert!(rows < 21 + 3 + 4 * 6, "{rows} rows");
}

#[test]
fn refusals_name_what_is_wrong() {
    let check = |submission: Submission, why: Refusal| {
        let mut bench = Bench::new(limits());
        bench.event(Event::Tick(Duration::from_secs(9)));
        bench.submit(submission);
        assert_eq!(bench.refused.first().map(|refused| refused.1.clone()), Some(why));
        bench.drain();
    };
    check(generate(1, &[], 3), Refusal::EmptyPrompt);
    check(generate(1, &[1], 0), Refusal::NothingAsked);
    check(generate(1, &[1; 40], 1), Refusal::PromptTooLong { tokens: 40, context: 40 });
    check(generate(1, &[1, 11], 1), Refusal::UnknownToken { token: 11, vocab: VOCAB });
    let goal = Goal::Score { from: 2 };
    check(Submission { goal, ..generate(1, &[1, 1], 1) }, Refusal::NothingAsked);
    let deadline = Some(Duration::from_secs(9));
    check(Submission { deadline, ..generate(1, &[1, 1], 1) }, Refusal::DeadlineExceeded);
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let mut bench = Bench::new(limits());
    for id in 0..10 {
        bench.submit(generate(id, &[1, 2, 3], 2));
    }
    let retry_after = Duration::from_secs(1);
    assert_eq!(bench.refused, [(9, Refusal::QueueFull { waiting: 5, retry_after })]);
    bench.drain();
    bench.submit(generate(10, &[1, 2, 3], 2));
    assert_eq!(bench.refused.len(), 1);
    bench.drain();
    bench.check_answers();
}

#[test]
fn a_deadline_ends_a_request_wherever_it_is() {
    let mut bench = Bench::new(limits());
    let deadline = Some(Duration::from_secs(1));
    bench.submit(Submission { deadline, ..generate(1, &[1, 2, 3], 30) });
    bench.event(Event::Ready);
    assert_eq!(bench.core.next_deadline(), deadline);
    bench.event(Event::Tick(Duration::from_secs(2)));
    assert_eq!(bench.ends, [(1, Finish::Deadline)]);
    assert_eq!(bench.core.next_deadline(), None);
}

#[test]
fn a_whole_context_can_be_scored() {
    let mut bench = Bench::new(Limits { pages: 10, ..limits() });
    let prompt = (0..40).map(|i| i % 7).collect();
    bench.submit(Submission { prompt, goal: Goal::Score { from: 0 }, ..generate(1, &[], 1) });
    bench.drain();
    assert_eq!(bench.ends, [(1, Finish::Scored)]);
    bench.check_answers();
}

#[test]
fn limits_that_cannot_work_are_refused() {
    let check = |limits: Limits, ok: bool| assert_eq!(Core::new(limits).is_ok(), ok, "{limits:?}");
    check(limits(), true);
    check(Limits { pages: 9, ..limits() }, false);
    check(Limits { max_running: 13, max_outputs: 20, ..limits() }, false);
    check(Limits { max_outputs: 3, ..limits() }, false);
    check(Limits { page_tokens: 0, ..limits() }, false);
    check(Limits { prompt_rows: 0, ..limits() }, false);
}
