//! The sampler against straightforward f64 references, distributions by chi-square, and properties.

use std::collections::BTreeMap;

use kinglet_text::sample::{Dry, Mirostat, SampleError, Sampler, SamplerConfig, TokenMask, Xtc, logprobs};
use proptest::prelude::*;

/// Probabilities by token, likeliest first.
type Dist = Vec<(u32, f64)>;

fn normalise(mut dist: Dist) -> Dist {
    let total: f64 = dist.iter().map(|d| d.1).sum();
    dist.iter_mut().for_each(|d| d.1 /= total);
    dist.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    dist
}

fn softmax(logits: &[f32]) -> Dist {
    let max = logits.iter().fold(f64::NEG_INFINITY, |m, &l| m.max(l.into()));
    normalise(logits.iter().enumerate().map(|(i, &l)| (i as u32, (f64::from(l) - max).exp())).collect())
}

/// Each stage read off its published definition, on probabilities instead of logits.
fn reference(config: &SamplerConfig, logits: &[f32]) -> Dist {
    let mut dist = softmax(logits);
    if config.top_k > 0 {
        dist.truncate(config.top_k);
    }
    dist = typical(normalise(dist), config.typical_p.into());
    let mut before = 0.0;
    dist.retain(|d| {
        let kept = before == 0.0 || before < f64::from(config.top_p);
        before += d.1;
        kept
    });
    let best = dist[0].1;
    dist.retain(|d| d.1 >= f64::from(config.min_p) * best);
    dist = normalise(dist);
    if config.xtc.probability == 1.0 {
        let above = dist.iter().filter(|d| d.1 >= f64::from(config.xtc.threshold)).count();
        dist.drain(..above.saturating_sub(1));
    }
    let power = 1.0 / f64::from(config.temperature);
    normalise(dist.iter().map(|d| (d.0, d.1.powf(power))).collect())
}

fn typical(mut dist: Dist, p: f64) -> Dist {
    if p >= 1.0 {
        return dist;
    }
    let entropy: f64 = dist.iter().map(|d| -d.1 * d.1.ln()).sum();
    dist.sort_by(|a, b| (-a.1.ln() - entropy).abs().total_cmp(&(-b.1.ln() - entropy).abs()));
    let mut before = 0.0;
    dist.retain(|d| {
        let kept = before <= p;
        before += d.1;
        kept
    });
    normalise(dist)
}

fn draws(config: &SamplerConfig, logits: &[f32], n: usize) -> BTreeMap<u32, usize> {
    let mut sampler = Sampler::new(config.clone()).unwrap();
    let mut counts = BTreeMap::new();
    for _ in 0..n {
        *counts.entry(sampler.sample(logits, None).unwrap()).or_insert(0) += 1;
    }
    counts
}

/// Draws many times; nothing outside the expected support, and chi-square below its 99.9 % point.
fn check(config: SamplerConfig, logits: &[f32]) {
    const N: usize = 8_000;
    let (expected, seen) = (reference(&config, logits), draws(&config, logits, N));
    assert!(seen.keys().all(|t| expected.iter().any(|e| e.0 == *t)), "{config:?}: {seen:?} of {expected:?}");
    let tested: Vec<_> = expected.iter().filter(|e| e.1 * N as f64 >= 5.0).collect();
    let cell = |e: &(u32, f64)| {
        let (o, e) = (seen.get(&e.0).copied().unwrap_or(0) as f64, e.1 * N as f64);
        (o - e) * (o - e) / e
    };
    let chi2: f64 = tested.iter().map(|e| cell(e)).sum();
    let free = tested.len().saturating_sub(1).max(1) as f64;
    // Wilson-Hilferty approximation of the quantile.
    let limit = free * (1.0 - 2.0 / (9.0 * free) + 3.09 * (2.0 / (9.0 * free)).sqrt()).powi(3);
    assert!(chi2 <= limit, "{config:?}: chi-square {chi2} over {limit}: {seen:?} of {expected:?}");
}

/// Logits in a scrambled order with a long tail.
fn bumpy(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % n) as f32 * -0.37 + ((i * 31) % 17) as f32 * 0.05).collect()
}

fn plain() -> SamplerConfig {
    SamplerConfig { seed: 42, ..SamplerConfig::plain() }
}

#[test]
fn each_stage_draws_from_its_reference_distribution() {
    let logits = bumpy(60);
    check(plain(), &logits);
    check(SamplerConfig { seed: 7, ..SamplerConfig::default() }, &logits);
    check(SamplerConfig { temperature: 2.5, ..plain() }, &logits);
    check(SamplerConfig { temperature: 0.3, ..plain() }, &logits);
    check(SamplerConfig { top_k: 3, ..plain() }, &logits);
    check(SamplerConfig { top_p: 0.7, ..plain() }, &logits);
    check(SamplerConfig { top_p: 0.0, ..plain() }, &logits);
    check(SamplerConfig { min_p: 0.2, ..plain() }, &logits);
    check(SamplerConfig { min_p: 1.0, ..plain() }, &logits);
    check(SamplerConfig { typical_p: 0.6, ..plain() }, &logits);
    check(
        SamplerConfig { top_k: 20, typical_p: 0.9, top_p: 0.9, min_p: 0.1, temperature: 1.3, ..plain() },
        &logits,
    );
    check(SamplerConfig { xtc: Xtc { probability: 1.0, threshold: 0.1 }, ..plain() }, &logits);
    check(SamplerConfig { xtc: Xtc { probability: 1.0, threshold: 0.9 }, ..plain() }, &logits);
}

#[test]
fn a_large_vocabulary_is_cut_as_a_small_one() {
    let logits = bumpy(50_000);
    for config in [
        SamplerConfig { top_k: 40, ..plain() },
        SamplerConfig { top_p: 0.9, ..plain() },
        SamplerConfig { top_k: 1000, top_p: 0.999, ..plain() },
    ] {
        let support = reference(&config, &logits);
        for token in draws(&config, &logits, 60).keys() {
            assert!(support.iter().any(|s| s.0 == *token), "{token} is outside {config:?}");
        }
    }
}

#[test]
fn xtc_acts_as_often_as_it_is_told() {
    let logits = [5.0, 4.9, 0.0];
    let config = SamplerConfig { xtc: Xtc { probability: 0.25, threshold: 0.2 }, ..plain() };
    let first = draws(&config, &logits, 20_000)[&0] as f64 / 20_000.0;
    let expected = 0.75 * softmax(&logits)[0].1;
    assert!((first - expected).abs() < 0.015, "{first} instead of {expected}");
}

#[test]
fn dynamic_temperature_follows_the_entropy() {
    let config = |exponent| SamplerConfig {
        dynamic_temperature_range: 0.5,
        dynamic_temperature_exponent: exponent,
        ..plain()
    };
    let logits = [2.0f32, 1.0, 0.5, -1.0];
    let dist = softmax(&logits);
    let entropy: f64 = dist.iter().map(|d| -d.1 * d.1.ln()).sum();
    for exponent in [1.0f32, 2.0] {
        let temperature = 0.5 + (entropy / 4f64.ln()).powf(exponent.into());
        let expected = reference(&SamplerConfig { temperature: temperature as f32, ..plain() }, &logits);
        let first = draws(&config(exponent), &logits, 20_000)[&0] as f64 / 20_000.0;
        assert!((first - expected[0].1).abs() < 0.015, "{first} instead of {}", expected[0].1);
    }
}

/// What greedy choice picks after `history`, given equal logits but for `logits`.
fn greedy_after(config: SamplerConfig, history: &[u32], logits: &[f32]) -> u32 {
    let mut sampler = Sampler::new(SamplerConfig { temperature: 0.0, ..config }).unwrap();
    history.iter().for_each(|&token| sampler.accept(token));
    sampler.sample(logits, None).unwrap()
}

#[test]
fn penalties_move_logits_as_defined() {
    let repeat = SamplerConfig { repetition_penalty: 2.0, ..plain() };
    assert_eq!(greedy_after(repeat.clone(), &[0], &[4.0, 2.1, 1.9]), 1, "4 / 2 falls below 2.1");
    assert_eq!(greedy_after(repeat.clone(), &[0], &[4.2, 2.05, 1.9]), 0);
    assert_eq!(greedy_after(repeat, &[0], &[-1.0, -1.9, -3.0]), 1, "-1 · 2 falls below -1.9");
    let presence = SamplerConfig { presence_penalty: 1.0, ..plain() };
    assert_eq!(greedy_after(presence.clone(), &[0, 0, 0], &[3.0, 2.1]), 1);
    assert_eq!(greedy_after(presence, &[0, 0, 0], &[3.2, 2.1]), 0, "counts once");
    let frequency = SamplerConfig { frequency_penalty: 0.5, ..plain() };
    assert_eq!(greedy_after(frequency.clone(), &[0, 0, 0], &[3.4, 2.0]), 1, "3.4 - 1.5 falls below 2");
    assert_eq!(greedy_after(frequency.clone(), &[0], &[3.4, 2.0]), 0);
    let window = SamplerConfig { penalty_last_n: 2, ..frequency.clone() };
    assert_eq!(greedy_after(window, &[0, 0, 1, 1], &[1.0, 1.5]), 0, "the zeros have left the window");
    assert_eq!(
        greedy_after(SamplerConfig { penalty_last_n: usize::MAX, ..frequency }, &[9, 0], &[1.0, 0.9]),
        1
    );
}

#[test]
fn logit_bias_lifts_and_forbids() {
    let bias = |bias| SamplerConfig { logit_bias: vec![(1, bias), (99, 5.0)], ..plain() };
    assert_eq!(greedy_after(bias(2.5), &[], &[3.0, 1.0]), 1);
    assert_eq!(greedy_after(bias(f32::NEG_INFINITY), &[], &[3.0, 9.0]), 0);
}

/// DRY by trying every earlier place and every length.
fn dry_reference(dry: &Dry, tokens: &[u32], logits: &[f32]) -> Vec<f64> {
    let mut longest = BTreeMap::new();
    for end in 1..tokens.len() {
        let agrees = |n: &usize| tokens[..end].ends_with(&tokens[tokens.len() - n..]);
        let clean = |n: &usize| !tokens[tokens.len() - n..].iter().any(|t| dry.breakers.contains(t));
        let length = (1..=end).take_while(|n| agrees(n) && clean(n)).last().unwrap_or(0);
        let best = longest.entry(tokens[end]).or_insert(0);
        *best = length.max(*best);
    }
    let penalty = |t: &u32| match longest.get(t) {
        Some(&n) if n >= dry.allowed_length => {
            f64::from(dry.multiplier) * f64::from(dry.base).powf((n - dry.allowed_length) as f64)
        }
        _ => 0.0,
    };
    logits.iter().zip(0..).map(|(&l, t)| f64::from(l) - penalty(&t)).collect()
}

proptest! {
    #[test]
    fn dry_equals_exhaustive_search(
        tokens in prop::collection::vec(0u32..4, 0..24),
        logits in prop::collection::vec(-3f32..3.0, 4),
        allowed_length in 1usize..4,
        breakers in prop::collection::vec(0u32..4, 0..2),
    ) {
        let dry = Dry { multiplier: 0.8, allowed_length, breakers, ..Dry::default() };
        let expected = dry_reference(&dry, &tokens, &logits);
        let chosen = greedy_after(SamplerConfig { dry, ..plain() }, &tokens, &logits);
        let best = expected.iter().fold(f64::NEG_INFINITY, |m, &l| m.max(l));
        prop_assert!(best - expected[chosen as usize] < 1e-5, "{chosen} of {expected:?}");
    }

    #[test]
    fn one_candidate_is_greedy(logits in prop::collection::vec(-9f32..9.0, 1..300), seed: u64) {
        let greedy = greedy_after(plain(), &[], &logits);
        for config in [
            SamplerConfig { seed, top_k: 1, ..plain() },
            SamplerConfig { seed, top_p: 0.0, ..plain() },
            SamplerConfig { seed, min_p: 1.0, ..plain() },
        ] {
            let chosen = Sampler::new(config).unwrap().sample(&logits, None).unwrap();
            prop_assert_eq!(logits[chosen as usize], logits[greedy as usize]);
        }
    }

    #[test]
    fn only_allowed_tokens_are_chosen(
        logits in prop::collection::vec(-9f32..9.0, 1..200),
        allowed in prop::collection::vec(0u32..200, 1..5),
        temperature in 0f32..3.0,
        seed: u64,
    ) {
        let mut mask = TokenMask::none(logits.len());
        allowed.iter().for_each(|&token| mask.allow(token));
        let config = SamplerConfig { seed, temperature, repetition_penalty: 3.0, ..SamplerConfig::default() };
        let mut sampler = Sampler::new(config).unwrap();
        for _ in 0..4 {
            match sampler.sample(&logits, Some(&mask)) {
                Ok(token) => {
                    prop_assert!(mask.allows(token));
                    sampler.accept(token);
                }
                Err(error) => {
                    prop_assert_eq!(mask.count(), 0);
                    prop_assert_eq!(error, SampleError::NothingAllowed { vocabulary: logits.len() });
                }
            }
        }
    }

    #[test]
    fn hostile_logits_never_panic(
        logits in prop::collection::vec(prop::num::f32::ANY, 0..80),
        kind in 0usize..4,
        seed: u64,
    ) {
        let mirostat = [None, Some(Mirostat::V1 { tau: 5.0, eta: 0.1 }), Some(Mirostat::V2 { tau: 0.0, eta: 1.0 })];
        let config = SamplerConfig {
            seed,
            mirostat: mirostat.get(kind).copied().flatten(),
            typical_p: 0.5,
            temperature: 1e-30,
            dynamic_temperature_range: 0.5,
            repetition_penalty: 0.01,
            dry: Dry { multiplier: 100.0, base: 100.0, ..Dry::default() },
            xtc: Xtc { probability: 1.0, threshold: 0.0 },
            ..SamplerConfig::default()
        };
        let mut sampler = Sampler::new(config).unwrap();
        (0..3).for_each(|token| sampler.accept(token % 2));
        match sampler.sample(&logits, None) {
            Ok(token) => prop_assert!(logits[token as usize] > f32::NEG_INFINITY),
            Err(SampleError::BadLogit { token, .. }) => {
                let bad = logits[token as usize];
                prop_assert!(bad.is_nan() || bad == f32::INFINITY);
            }
            Err(_) => prop_assert!(logits.iter().all(|&l| l == f32::NEG_INFINITY)),
        }
    }
}

#[test]
fn mirostat_holds_the_surprise_near_its_target() {
    let logits: Vec<f32> = (1..=2000).map(|rank| -1.1 * (rank as f32).ln()).collect();
    let probability: BTreeMap<u32, f64> = softmax(&logits).into_iter().collect();
    for mirostat in [Mirostat::V1 { tau: 3.0, eta: 0.1 }, Mirostat::V2 { tau: 3.0, eta: 0.1 }] {
        let mut sampler = Sampler::new(SamplerConfig { mirostat: Some(mirostat), ..plain() }).unwrap();
        let tokens: Vec<u32> = (0..2000).map(|_| sampler.sample(&logits, None).unwrap()).collect();
        let surprise = tokens.iter().map(|t| -probability[t].log2()).sum::<f64>() / tokens.len() as f64;
        // The controller sees probabilities after truncation, which are larger than the model's own.
        assert!((3.0..5.5).contains(&surprise), "{mirostat:?}: {surprise} bits");
    }
}

#[test]
fn the_seed_decides_everything() {
    let logits = bumpy(100);
    let run = |seed| {
        let config = SamplerConfig { seed, temperature: 3.0, top_k: 0, ..SamplerConfig::default() };
        let mut sampler = Sampler::new(config).unwrap();
        let mut twice = || (0..20).map(|_| sampler.sample(&logits, None).unwrap()).collect::<Vec<_>>();
        let first = twice();
        sampler.reset();
        let mut again = || (0..20).map(|_| sampler.sample(&logits, None).unwrap()).collect::<Vec<_>>();
        assert_eq!(first, again());
        first
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn settings_out_of_range_are_named() {
    for (config, message) in [
        (
            SamplerConfig { temperature: -1.0, ..plain() },
            "sampler setting `temperature` is -1, it must lie between 0 and 100",
        ),
        (
            SamplerConfig { top_p: f32::NAN, ..plain() },
            "sampler setting `top_p` is NaN, it must lie between 0 and 1",
        ),
        (
            SamplerConfig { dry: Dry { allowed_length: 0, ..Dry::default() }, ..plain() },
            "sampler setting `dry.allowed_length` is 0, it must lie between 1 and inf",
        ),
        (
            SamplerConfig { logit_bias: vec![(0, f32::NAN)], ..plain() },
            "sampler setting `logit_bias` is NaN, it must lie between -inf and 1000",
        ),
    ] {
        assert_eq!(Sampler::new(config).unwrap_err().to_string(), message);
    }
}

#[test]
fn logprobs_are_the_logarithm_of_the_softmax() {
    let logits = bumpy(300);
    let expected = softmax(&logits);
    let found = logprobs(&logits, 5, 7).unwrap();
    for (found, expected) in found.top.iter().zip(&expected) {
        assert_eq!(found.0, expected.0);
        assert!((f64::from(found.1) - expected.1.ln()).abs() < 1e-5);
    }
    let chosen = expected.iter().find(|e| e.0 == 5).unwrap().1.ln();
    assert!((f64::from(found.chosen) - chosen).abs() < 1e-5 * chosen.abs());
    assert_eq!(found.top.len(), 7);
    assert!(logprobs(&logits, 5, 0).unwrap().top.is_empty());
    assert!(matches!(logprobs(&[1.0, f32::NAN], 0, 1), Err(SampleError::BadLogit { token: 1, .. })));
}

#[test]
fn a_mask_reads_back_what_was_allowed() {
    let mut mask = TokenMask::all(130);
    assert_eq!((mask.len(), mask.count(), mask.is_empty()), (130, 130, false));
    mask.forbid(129);
    mask.allow(500);
    assert!(mask.allows(128) && !mask.allows(129) && !mask.allows(500));
    mask.clear();
    assert_eq!(mask.count(), 0);
}
