//! Greedy answers of the default evaluation, with 8-bit activations and f16 state, beside those of an f32 one: the same
//! token wherever the f32 evaluation's two greatest logits are further apart than a bound (`docs/fidelity.md` derives it).
//!
//! Both see the same context at each position, the f32 answer's. Equal choices there are equal answers: the first token
//! that differs comes where the two greatest logits are within the bound. Needs real models below the folder that
//! `KINGLET_MODELS` names, and is skipped without them; all prompts take minutes and are asked for with `--include-ignored`.

mod real;

use kinglet::chat::Message;
use kinglet::engine::{GenerateEvent, GenerateRequest, Generation};
use kinglet::sample::SamplerConfig;
use kinglet::tensor::KvType;
use kinglet::{LoadOptions, Model, Precision};
use real::real;

/// Greatest difference between the two greatest logits at which the choice may differ.
const BOUND: f32 = 2.0;
const SMOLLM2: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const QWEN: &str = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf";
/// Tokens of an answer; it goes on after a token that ends the text.
const TOKENS: usize = 64;

const PROMPTS: [&str; 20] = [
    "Why is the sky blue?",
    "Write a short story about a fox and a crow.",
    "List three primary colours.",
    "What is the capital of France?",
    "Explain photosynthesis to a child.",
    "Write a Python function that reverses a string.",
    "How do I boil an egg?",
    "Translate 'good morning' into Spanish and German.",
    "What is the difference between a virus and a bacterium?",
    "Give me five names for a cat.",
    "Summarise the plot of Romeo and Juliet.",
    "What is 17 + 25? Think step by step.",
    "Write a haiku about autumn rain.",
    "Who was Marie Curie?",
    "Describe the water cycle.",
    "Write a polite e-mail that asks for a day off.",
    "What are the benefits of regular exercise?",
    "Write an SQL query that counts the orders of each customer.",
    "How far away is the Moon? 😊",
    "Erzähle mir etwas über die Stadt Köln.",
];

/// What a comparison of two evaluations found.
#[derive(Default)]
struct Found {
    /// At each position: the f32 evaluation's lead of the first over the second, and whether both choose the same.
    leads: Vec<(f32, bool)>,
    /// At each position: the greatest error of a logit, relative to the mean error of the row.
    errors: Vec<f32>,
}

impl Found {
    fn add(&mut self, exact: &[f32], fast: &[f32]) {
        let (first, second) = leading(exact);
        self.leads.push((exact[first] - exact[second], leading(fast).0 == first));
        let shift = exact.iter().zip(fast).map(|(a, b)| f64::from(b - a)).sum::<f64>() / exact.len() as f64;
        let errors = exact.iter().zip(fast).map(|(a, b)| (b - a - shift as f32).abs());
        self.errors.push(errors.fold(0.0, f32::max));
    }

    fn report(&self, model: &str) {
        let sorted = |mut values: Vec<f32>| {
            values.sort_by(f32::total_cmp);
            values
        };
        let errors = sorted(self.errors.clone());
        let leads = sorted(self.leads.iter().map(|(lead, _)| *lead).collect());
        let differ = sorted(self.leads.iter().filter(|(_, same)| !same).map(|(lead, _)| *lead).collect());
        let at = |values: &[f32], q: f64| values[(q * (values.len() - 1) as f64) as usize];
        println!(
            "{model}: {} positions, {} choices differ, at leads of up to {:.3}",
            leads.len(),
            differ.len(),
            differ.last().unwrap_or(&0.0)
        );
        println!(
            "  lead of the first: 10 % {:.2}, median {:.2}; above the bound {:.1} %",
            at(&leads, 0.1),
            at(&leads, 0.5),
            100.0 * self.above() as f64 / leads.len() as f64
        );
        println!(
            "  greatest error of a row's logits: median {:.3}, 99 % {:.3}, greatest {:.3}",
            at(&errors, 0.5),
            at(&errors, 0.99),
            at(&errors, 1.0)
        );
    }

    fn above(&self) -> usize {
        self.leads.iter().filter(|(lead, _)| *lead > BOUND).count()
    }
}

/// Indices of the greatest and the second value.
fn leading(row: &[f32]) -> (usize, usize) {
    let best = |skip: usize| {
        (0..row.len())
            .filter(|i| *i != skip)
            .fold(usize::from(skip == 0), |best, i| if row[i] > row[best] { i } else { best })
    };
    let first = best(usize::MAX);
    (first, best(first))
}

/// Asks both evaluations, and checks every position of the f32 one's answers.
fn check(file: &str, prompts: &[&str]) {
    let Some(path) = real(file) else { return };
    let exact = LoadOptions { precision: Precision::F32, kv_type: KvType::F32, ..options(prompts.len()) };
    let exact = Model::load(&path, &exact).expect("loads");
    let answers = greedy(&exact, prompts);
    let rows: Vec<Rows> = answers.iter().map(|answer| answer.score(&exact)).collect();
    drop(exact);
    let fast = Model::load(&path, &options(1)).expect("loads");
    let mut found = Found::default();
    for (answer, exact) in answers.iter().zip(rows) {
        for ((exact, fast), token) in exact.iter().zip(answer.score(&fast)).zip(answer.chosen()) {
            assert_eq!(leading(exact).0, *token as usize, "scoring and answering are the same evaluation");
            found.add(exact, &fast);
        }
    }
    found.report(file);
    let wrong: Vec<f32> =
        found.leads.iter().filter(|(lead, same)| !same && *lead > BOUND).map(|(lead, _)| *lead).collect();
    assert!(wrong.is_empty(), "{file}: other choices than f32's at leads of {wrong:?}");
    assert!(4 * found.above() > found.leads.len(), "{file}: the bound leaves too little to check");
}

type Rows = Vec<Vec<f32>>;

/// A prompt and the greedy answer to it.
struct Answer {
    tokens: Vec<u32>,
    prompt: usize,
}

impl Answer {
    /// The logits that each token of the answer was chosen from.
    fn score(&self, model: &Model) -> Rows {
        let tokens = self.tokens[..self.tokens.len() - 1].to_vec();
        let take = |rows: &mut Rows, _, logits: &[f32]| rows.push(logits.to_vec());
        model.engine().score(tokens, self.prompt - 1, Rows::new(), take).expect("scores")
    }

    fn chosen(&self) -> &[u32] {
        &self.tokens[self.prompt..]
    }
}

/// Answers all prompts together.
fn greedy(model: &Model, prompts: &[&str]) -> Vec<Answer> {
    let ask = |prompt: &&str| -> (Vec<u32>, Generation) {
        let tokens = model.prompt(&[Message::new("user", *prompt)]).expect("a prompt");
        let request = GenerateRequest {
            sampler: SamplerConfig { temperature: 0.0, ..SamplerConfig::default() },
            max_tokens: Some(TOKENS),
            ignore_end: true,
            ..GenerateRequest::new(tokens.clone())
        };
        (tokens, model.engine().generate(request).expect("accepted"))
    };
    let asked: Vec<_> = prompts.iter().map(ask).collect();
    let answer = |(mut tokens, events): (Vec<u32>, Generation)| {
        let prompt = tokens.len();
        for event in events {
            if let GenerateEvent::Token(token) = event.expect("an event") {
                tokens.push(token.id);
            }
        }
        assert_eq!(tokens.len(), prompt + TOKENS);
        Answer { tokens, prompt }
    };
    asked.into_iter().map(answer).collect()
}

fn options(parallel: usize) -> LoadOptions {
    LoadOptions { context: Some(512), parallel, ..LoadOptions::default() }
}

#[test]
fn smollm2_chooses_as_f32_does() {
    check(SMOLLM2, &PROMPTS[..3]);
}

#[test]
#[ignore = "takes minutes without optimisation"]
fn smollm2_chooses_as_f32_does_on_all_prompts() {
    check(SMOLLM2, &PROMPTS);
}

#[test]
#[ignore = "takes minutes"]
fn qwen_chooses_as_f32_does_on_all_prompts() {
    check(QWEN, &PROMPTS);
}
