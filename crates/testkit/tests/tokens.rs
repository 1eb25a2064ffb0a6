//! The same tokens whatever the company: the engine over the CPU backend on golden decoders, with any number of threads
//! and instruction set, alone and with others, prompts beside answers, with a prefix in the cache and without.

use kinglet_cpu::{CpuBackend, Precision};
use kinglet_engine::{Engine, EngineConfig, GenerateEvent, GenerateRequest, Usage};
use kinglet_graph::Backend;
use kinglet_simd::Level;
use kinglet_tensor::DType;
use kinglet_testkit::golden;
use kinglet_testkit::{byte_tokenizer, golden::options};
use kinglet_text::sample::SamplerConfig;

/// Tokens that the golden decoders know.
const VOCAB: usize = 64;
/// Tokens of each answer.
const ANSWER: usize = 12;

fn engine(decoder: &str, level: Level, threads: usize, precision: Precision) -> Engine {
    let backend = CpuBackend { threads, level, precision, packs: None };
    let executable =
        backend.compile(golden::quantized(decoder, DType::Q4_1)).unwrap_or_else(|e| panic!("{e}"));
    let context = options(decoder).context;
    // Few prompt rows a batch, so that prompts are computed beside answers.
    let config = EngineConfig { kv_tokens: 16 * context, prompt_rows: 7, ..EngineConfig::new(context) };
    Engine::spawn(executable, byte_tokenizer(), VOCAB, config).unwrap_or_else(|e| panic!("{e}"))
}

/// Prompts of 1 to 36 tokens; the later ones begin as the earlier ones do.
fn prompts() -> Vec<Vec<u32>> {
    [1, 3, 17, 18, 29, 36].map(|len| (0..len).map(|i| (i * i + 5 * i + 3) % VOCAB as u32).collect()).to_vec()
}

/// The answers to prompts that are all asked at once.
fn answers(engine: &Engine, prompts: &[Vec<u32>]) -> Vec<(Vec<u32>, Usage)> {
    let ask = |prompt: &Vec<u32>| {
        let request = GenerateRequest::new(prompt.clone());
        let request =
            GenerateRequest { sampler: SamplerConfig::greedy(), max_tokens: Some(ANSWER), ..request };
        engine.generate(request).unwrap_or_else(|e| panic!("{e}"))
    };
    let asked: Vec<_> = prompts.iter().map(ask).collect();
    let collect = |generation| {
        let mut tokens = Vec::new();
        for event in generation {
            match event {
                Ok(GenerateEvent::Token(token)) => tokens.push(token.id),
                Ok(GenerateEvent::Done(done)) => return (tokens, done.usage),
                Err(error) => panic!("{error}"),
            }
        }
        panic!("a generation that does not end")
    };
    asked.into_iter().map(collect).collect()
}

fn tokens(answers: Vec<(Vec<u32>, Usage)>) -> Vec<Vec<u32>> {
    answers.into_iter().map(|(tokens, _)| tokens).collect()
}

/// Each prompt answered by an engine that has seen no other.
fn alone(decoder: &str, level: Level, precision: Precision) -> Vec<Vec<u32>> {
    let one = |prompt: Vec<u32>| tokens(answers(&engine(decoder, level, 1, precision), &[prompt])).remove(0);
    let fits = |prompt: &Vec<u32>| prompt.len() + ANSWER <= options(decoder).context;
    prompts().into_iter().filter(fits).map(one).collect()
}

#[test]
fn tokens_do_not_depend_on_threads_or_company_or_cached_prefixes() {
    for (decoder, precision) in [
        ("llama", Precision::F32),
        ("llama", Precision::Int8),
        ("qwen3", Precision::Int8),
        ("gemma3", Precision::Int8),
    ] {
        let expected = alone(decoder, Level::detect(), precision);
        assert!(expected.iter().all(|tokens| tokens.len() == ANSWER), "{decoder}: {expected:?}");
        for threads in [1, 2] {
            let engine = engine(decoder, Level::detect(), threads, precision);
            let what = format!("{decoder} in {precision:?} with {threads} threads");
            assert_eq!(tokens(answers(&engine, &prompts())), expected, "{what}, all at once");
            let again = answers(&engine, &prompts());
            assert!(
                again.iter().any(|(_, usage)| usage.cached_tokens > 0),
                "{what}: nothing was in the cache"
            );
            assert_eq!(tokens(again), expected, "{what}, with cached prefixes");
        }
    }
}

#[test]
fn tokens_do_not_depend_on_the_instruction_set() {
    for decoder in golden::DECODERS {
        let expected = alone(decoder, Level::available()[0], Precision::F32);
        for &level in &Level::available()[1..] {
            assert_eq!(alone(decoder, level, Precision::F32), expected, "{decoder} on {}", level.name());
        }
    }
}
