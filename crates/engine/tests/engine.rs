//! The engine from outside, over a fake decoder: streams, ends, errors, cancellation.
#![forbid(unsafe_code)]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use kinglet_engine::{
    Engine, EngineConfig, FinishReason, GenerateError, GenerateEvent, GenerateRequest, Generation, Refusal,
    ScoreError, Token,
};
use kinglet_graph::ExecError;
use kinglet_testkit::{BYTE_VOCAB, END, FakeDecoder, byte_tokenizer, hashed_logits, say, speaking_decoder};
use kinglet_text::sample::SamplerConfig;

const ANSWER: &str = "a dove 🕊 and a wren";

fn engine(decoder: FakeDecoder, config: EngineConfig) -> Engine {
    Engine::spawn(Box::new(decoder), byte_tokenizer(), BYTE_VOCAB, config).expect("an engine")
}

fn speaking() -> Engine {
    engine(speaking_decoder(ANSWER), EngineConfig::new(256))
}

fn request(prompt: &str) -> GenerateRequest {
    let prompt = prompt.bytes().map(u32::from).collect();
    GenerateRequest { sampler: SamplerConfig::greedy(), ..GenerateRequest::new(prompt) }
}

/// A decoder that says one more byte for each unit sent, and tells when it waits for the next.
fn stepping() -> (FakeDecoder, Sender<()>, Receiver<()>) {
    let (step, wait) = channel();
    let (tell, waits) = channel();
    let decoder = FakeDecoder::new(BYTE_VOCAB, 16, 64, move |history, logits| {
        let _gone = tell.send(());
        let _gone = wait.recv();
        say(ANSWER.as_bytes(), history, logits);
        Ok(())
    });
    (decoder, step, waits)
}

/// Tokens and end of a whole generation.
fn collect(generation: Generation) -> (Vec<Token>, Result<kinglet_engine::Done, GenerateError>) {
    let mut tokens = Vec::new();
    for event in generation {
        match event {
            Ok(GenerateEvent::Token(token)) => tokens.push(token),
            Ok(GenerateEvent::Done(done)) => return (tokens, Ok(done)),
            Err(error) => return (tokens, Err(error)),
        }
    }
    panic!("a generation that does not end")
}

fn text(tokens: &[Token]) -> String {
    tokens.iter().map(|token| token.text.as_str()).collect()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn answers_end_where_they_should() {
    let check = |edit: fn(&mut GenerateRequest), text: &str, reason, tokens: usize| {
        let mut request = request("say\n");
        edit(&mut request);
        let (got, done) = collect(speaking().generate(request).expect("accepted"));
        let done = done.expect("an answer");
        assert_eq!((self::text(&got).as_str(), done.reason), (text, reason));
        assert_eq!((got.len(), done.usage.completion_tokens), (tokens, tokens));
        assert_eq!(done.usage.prompt_tokens, 4);
    };
    check(|_| {}, ANSWER, FinishReason::Stop, ANSWER.len() + 1);
    check(|r| r.max_tokens = Some(6), "a dove", FinishReason::Length, 6);
    check(|r| r.max_tokens = Some(9), "a dove \u{fffd}", FinishReason::Length, 9);
    check(|r| r.stop = vec!["xyz".into(), " and".into()], "a dove 🕊", FinishReason::Stop, 15);
    check(|r| (r.stop, r.max_tokens) = (vec!["dover".into()], Some(6)), "a dove", FinishReason::Length, 6);
}

#[test]
fn a_character_is_never_split_and_a_stop_text_never_begun() {
    let request = GenerateRequest { stop: vec!["and a ham".into()], ..request("say\n") };
    let (tokens, _) = collect(speaking().generate(request).expect("accepted"));
    let pieces: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
    assert_eq!(pieces[7..12], ["", "", "", "🕊", " "]);
    assert!(pieces.contains(&"and a w"), "{pieces:?}");
    assert!(tokens.last().is_some_and(|token| token.id == END && token.end));
}

#[test]
fn a_context_that_is_full_ends_the_answer() {
    let engine = engine(speaking_decoder(ANSWER), EngineConfig::new(10));
    let (tokens, done) = collect(engine.generate(request("say\n")).expect("accepted"));
    assert_eq!((text(&tokens).as_str(), done.expect("an answer").reason), ("a dove", FinishReason::Length));
    let refusal = engine.generate(request("too long a\n")).expect_err("it does not fit");
    assert_eq!(refusal, Refusal::PromptTooLong { tokens: 11, context: 10 });
}

#[test]
fn logprobs_are_those_of_the_model() {
    let request = GenerateRequest { logprobs: Some(2), max_tokens: Some(1), ..request("say\n") };
    let (tokens, _) = collect(speaking().generate(request).expect("accepted"));
    let logprobs = tokens[0].logprobs.as_ref().expect("asked for");
    let total = (4f64.exp() + 2f64.exp() + 256.0).ln();
    let check = |got: f32, logit: f64| assert!((f64::from(got) - (logit - total)).abs() < 1e-5);
    check(logprobs.chosen, 4.0);
    assert_eq!(logprobs.top.iter().map(|top| top.0).collect::<Vec<_>>(), [97, 98]);
    check(logprobs.top[1].1, 2.0);
}

#[test]
fn the_next_turn_finds_the_last_one_in_the_cache() {
    let engine = speaking();
    assert_eq!(text(&collect(engine.generate(request("say\n")).expect("accepted")).0), ANSWER);
    let (_, done) = collect(engine.generate(request(&format!("say\n{ANSWER}\nagain\n"))).expect("accepted"));
    let usage = done.expect("an answer").usage;
    assert_eq!((usage.prompt_tokens, usage.cached_tokens), (11 + ANSWER.len(), 4 + ANSWER.len()));
}

#[test]
fn many_at_once_are_answered_as_one_alone() {
    let engine = speaking();
    let prompts: Vec<String> = (0..40).map(|n| format!("{n} times, and\nsay\n")).collect();
    let asked: Vec<_> =
        prompts.iter().map(|prompt| engine.generate(request(prompt)).expect("accepted")).collect();
    for generation in asked {
        assert_eq!(text(&collect(generation).0), ANSWER);
    }
    eventually("all pages are given back", || engine.load().pages_held == 0);
}

#[test]
fn a_panic_fails_the_request_and_not_the_engine() {
    let decoder = FakeDecoder::new(BYTE_VOCAB, 16, 64, |history, logits| {
        assert_ne!(history[0], u32::from(b'!'), "boom");
        say(ANSWER.as_bytes(), history, logits);
        Ok(())
    });
    let engine = engine(decoder, EngineConfig::new(256));
    let (tokens, done) = collect(engine.generate(request("!\n")).expect("accepted"));
    assert!(tokens.is_empty());
    assert!(matches!(done, Err(GenerateError::Panicked(message)) if message.contains("boom")));
    assert_eq!(text(&collect(engine.generate(request("?\n")).expect("accepted")).0), ANSWER);
}

#[test]
fn a_failed_run_and_broken_logits_are_told() {
    let failing = FakeDecoder::new(BYTE_VOCAB, 16, 64, |_, _| Err(ExecError::Output(7)));
    let (_, done) = collect(engine(failing, EngineConfig::new(64)).generate(request("a")).expect("accepted"));
    assert!(matches!(done, Err(GenerateError::Exec(ExecError::Output(7)))));
    let broken = FakeDecoder::new(BYTE_VOCAB, 16, 64, |_, logits| {
        logits.fill(f32::NAN);
        Ok(())
    });
    let (_, done) = collect(engine(broken, EngineConfig::new(64)).generate(request("a")).expect("accepted"));
    assert!(matches!(done, Err(GenerateError::Sampling(_))));
}

#[test]
fn who_goes_away_cancels() {
    let (decoder, step, _waits) = stepping();
    let engine = engine(decoder, EngineConfig::new(256));
    let mut generation = engine.generate(request("say\n")).expect("accepted");
    step.send(()).expect("the decoder waits");
    assert!(matches!(generation.next(), Some(Ok(GenerateEvent::Token(_)))));
    assert_eq!(engine.load().running, 1);
    drop(generation);
    assert_eq!(engine.load().running, 0);
    drop(step); // a second token may be under way in vain
    let (_, done) = collect(engine.generate(request("say\n")).expect("accepted"));
    assert_eq!(done.expect("an answer").reason, FinishReason::Stop);
}

#[test]
fn a_canceller_ends_an_answer_from_elsewhere() {
    let (decoder, step, waits) = stepping();
    let engine = engine(decoder, EngineConfig::new(256));
    let mut generation = engine.generate(request("say\n")).expect("accepted");
    let canceller = generation.canceller();
    step.send(()).expect("the decoder waits");
    assert!(matches!(generation.next(), Some(Ok(GenerateEvent::Token(_)))));
    waits.iter().take(2).for_each(drop);
    std::thread::spawn(move || canceller.cancel()).join().expect("no panic");
    drop(step);
    let done = collect(generation).1.expect("what there is");
    assert_eq!((done.reason, done.usage.completion_tokens <= 2), (FinishReason::Cancelled, true));
}

#[test]
fn a_deadline_and_a_full_queue() {
    let (decoder, step, waits) = stepping();
    let config = EngineConfig { max_running: 1, max_waiting: 1, ..EngineConfig::new(256) };
    let engine = engine(decoder, config);
    let running = engine.generate(request("say\n")).expect("accepted");
    waits.recv().expect("it runs");
    let deadline = Some(Duration::from_millis(1));
    let late = engine.generate(GenerateRequest { deadline, ..request("a\n") }).expect("it may wait");
    std::thread::sleep(Duration::from_millis(2));
    let waiting = engine.generate(request("b\n")).expect("the late one has left");
    let refusal = engine.generate(request("c\n")).expect_err("one waits already");
    assert!(matches!(refusal, Refusal::QueueFull { waiting: 1, retry_after } if !retry_after.is_zero()));
    drop(step);
    assert!(matches!(collect(late).1, Err(GenerateError::DeadlineExceeded)));
    assert_eq!(text(&collect(running).0), ANSWER);
    assert_eq!(text(&collect(waiting).0), ANSWER);
}

#[test]
fn scores_are_the_logits_of_every_row() {
    let engine = engine(FakeDecoder::hashed(BYTE_VOCAB, 16, 24), EngineConfig::new(128));
    let tokens: Vec<u32> = (0..128).collect();
    let take =
        |rows: &mut Vec<(usize, Vec<f32>)>, index: usize, logits: &[f32]| rows.push((index, logits.to_vec()));
    let rows = engine.score(tokens.clone(), 5, Vec::new(), take).expect("scores");
    assert_eq!(rows.len(), 123);
    for (row, (index, logits)) in rows.into_iter().enumerate() {
        let mut expected = vec![0.0; BYTE_VOCAB];
        hashed_logits(&tokens[..=index], &mut expected);
        assert_eq!((index, logits), (row + 5, expected));
    }
    let refused = engine.score(Vec::new(), 0, (), |(), _, _| {});
    assert!(matches!(refused, Err(ScoreError::Refused(Refusal::EmptyPrompt))));
    let panicked = engine.score(vec![1], 0, (), |(), _, _| panic!("in the callback"));
    assert!(matches!(panicked, Err(ScoreError::Failed(GenerateError::Panicked(_)))));
}

#[test]
fn tasks_can_wait_too() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let engine = speaking();
    let mut generation = engine.generate(request("say\n")).expect("accepted");
    let ended = runtime.block_on(async {
        while let Some(Ok(event)) = generation.recv().await {
            if let GenerateEvent::Done(done) = event {
                return Some(done.reason);
            }
        }
        None
    });
    assert_eq!(ended, Some(FinishReason::Stop));
    assert!(runtime.block_on(generation.recv()).is_none());
}

#[test]
fn a_closed_engine_refuses_and_a_dropped_one_ends_what_runs() {
    let (decoder, step, waits) = stepping();
    let engine = engine(decoder, EngineConfig::new(256));
    let generation = engine.generate(request("say\n")).expect("accepted");
    waits.recv().expect("it runs");
    engine.close();
    assert_eq!(engine.generate(request("say\n")).expect_err("closed"), Refusal::ShuttingDown);
    drop(step);
    drop(engine);
    let (_, done) = collect(generation);
    assert!(matches!(done, Err(GenerateError::ShutDown) | Ok(_)));
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let short = EngineConfig { kv_tokens: 100, ..EngineConfig::new(256) };
    let engine = Engine::spawn(Box::new(speaking_decoder(ANSWER)), byte_tokenizer(), BYTE_VOCAB, short);
    assert!(engine.is_err_and(|error| error.to_string().contains("256 tokens")));
    let sampler = SamplerConfig { temperature: -1.0, ..SamplerConfig::greedy() };
    let refused = speaking().generate(GenerateRequest { sampler, ..request("a") });
    assert!(matches!(refused, Err(Refusal::Sampling(_))));
}

#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    let config = EngineConfig { max_running: 3, max_waiting: 100, ..EngineConfig::new(64) };
    let engine = engine(speaking_decoder(ANSWER), config);
    let client = |seed: usize| {
        for round in 0..20 {
            let prompt = format!("{}\n", "x".repeat((seed * 7 + round * 5) % 30));
            let mut generation = engine.generate(request(&prompt)).expect("accepted");
            let wanted = (seed + round) % 30; // some leave at once, some in between, some at the end
            let told: String = generation.by_ref().take(wanted).filter_map(said).collect();
            assert!(ANSWER.starts_with(&told), "{told}");
        }
    };
    let client = &client;
    std::thread::scope(|scope| (0..6).for_each(|seed| drop(scope.spawn(move || client(seed)))));
    eventually("all have left", || engine.load().running == 0 && engine.load().pages_held == 0);
}

fn said(event: Result<GenerateEvent, GenerateError>) -> Option<String> {
    match event.expect("nothing fails") {
        GenerateEvent::Token(token) => Some(token.text),
        GenerateEvent::Done(_) => None,
    }
}
