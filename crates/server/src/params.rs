//! The settings that chat and text requests share.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use kinglet_engine::{GenerateRequest, Priority};
use kinglet_text::sample::SamplerConfig;
use serde_json::Value;

use crate::error::ApiError;
use crate::fields::{Fields, wrong_type, wrong_value};

/// Most choices a request may ask for.
const MAX_CHOICES: usize = 128;
/// Most stop texts.
const MAX_STOPS: usize = 16;

/// Everything about a request but its prompt.
#[derive(Clone, Debug)]
pub(crate) struct Params {
    pub(crate) choices: usize,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) sampler: SamplerConfig,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) stop: Vec<String>,
    pub(crate) logprobs: Option<usize>,
    pub(crate) continues: bool,
    priority: Priority,
    deadline: Option<Duration>,
}

impl Params {
    /// Reads them; `sampler` holds where the request does not say otherwise. What differs by endpoint is set there.
    pub(crate) fn read(fields: &mut Fields, sampler: SamplerConfig) -> Result<Self, ApiError> {
        let stream = fields.bool("stream")?.unwrap_or(false);
        let options = fields.object("stream_options")?.map(Fields::of);
        if options.is_some() && !stream {
            let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
            return Err(ApiError::field("stream_options", "invalid_value", message));
        }
        let include_usage = options.map(|mut options| options.bool("include_usage")).transpose()?.flatten();
        Ok(Params {
            choices: fields.integer("n", 1..=MAX_CHOICES)?.unwrap_or(1),
            stream,
            include_usage: include_usage.unwrap_or(false),
            sampler: read_sampler(fields, sampler)?,
            max_tokens: None,
            stop: read_stop(fields)?,
            logprobs: None,
            continues: false,
            priority: read_priority(fields)?,
            deadline: fields
                .integer("deadline_ms", 1..=usize::MAX)?
                .map(|ms| Duration::from_millis(ms as u64)),
        })
    }

    /// The engine's request for one choice; each has its own seed.
    pub(crate) fn request(&self, prompt: Vec<u32>, choice: usize) -> GenerateRequest {
        let seed = self.sampler.seed.wrapping_add(choice as u64);
        GenerateRequest {
            sampler: SamplerConfig { seed, ..self.sampler.clone() },
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            logprobs: self.logprobs,
            continues: self.continues,
            priority: self.priority,
            deadline: self.deadline,
            ..GenerateRequest::new(prompt)
        }
    }
}

fn read_sampler(fields: &mut Fields, default: SamplerConfig) -> Result<SamplerConfig, ApiError> {
    let mut sampler = default;
    let numbers = [
        ("temperature", 0.0, 2.0, &mut sampler.temperature),
        ("top_p", 0.0, 1.0, &mut sampler.top_p),
        ("min_p", 0.0, 1.0, &mut sampler.min_p),
        ("typical_p", 0.0, 1.0, &mut sampler.typical_p),
        ("repeat_penalty", 0.01, 100.0, &mut sampler.repetition_penalty),
        ("presence_penalty", -2.0, 2.0, &mut sampler.presence_penalty),
        ("frequency_penalty", -2.0, 2.0, &mut sampler.frequency_penalty),
    ];
    for (name, low, high, setting) in numbers {
        if let Some(number) = fields.number(name, low..=high)? {
            *setting = number;
        }
    }
    if let Some(k) = fields.integer("top_k", 0..=usize::MAX)? {
        sampler.top_k = k;
    }
    if let Some(n) = fields.integer("repeat_last_n", 0..=usize::MAX)? {
        sampler.penalty_last_n = n;
    }
    sampler.seed = fields.seed("seed")?.unwrap_or_else(|| RandomState::new().hash_one(()));
    sampler.logit_bias.extend(read_bias(fields)?);
    Ok(sampler)
}

fn read_bias(fields: &mut Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    let bias = fields.object("logit_bias")?.unwrap_or_default();
    let read = |(token, bias): (String, Value)| {
        let id = token.parse().map_err(|_| wrong_value("logit_bias", &token, "token ids as keys"))?;
        let bias = bias.as_f64().ok_or_else(|| wrong_type("logit_bias", "numbers as values", &bias))?;
        if !(-100.0..=100.0).contains(&bias) {
            return Err(wrong_value("logit_bias", &bias.to_string(), "values from -100 to 100"));
        }
        Ok((id, bias as f32))
    };
    bias.into_iter().map(read).collect()
}

fn read_stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let expected = "a string or an array of strings";
    let stops = match fields.take("stop") {
        None => Vec::new(),
        Some(Value::String(stop)) => vec![stop],
        Some(Value::Array(stops)) => {
            let text = |stop: &Value| stop.as_str().map(str::to_owned);
            let texts = stops.iter().map(|stop| text(stop).ok_or_else(|| wrong_type("stop", expected, stop)));
            texts.collect::<Result<_, _>>()?
        }
        Some(other) => return Err(wrong_type("stop", expected, &other)),
    };
    if stops.len() > MAX_STOPS {
        let expected = format!("at most {MAX_STOPS} texts");
        return Err(wrong_value("stop", &format!("{} texts", stops.len()), &expected));
    }
    Ok(stops)
}

fn read_priority(fields: &mut Fields) -> Result<Priority, ApiError> {
    Ok(match fields.string("priority")?.as_deref() {
        None => Priority::default(),
        Some("critical") => Priority::Critical,
        Some("high") => Priority::High,
        Some("normal") => Priority::Normal,
        Some("low") => Priority::Low,
        Some(other) => return Err(wrong_value("priority", other, "'critical', 'high', 'normal' or 'low'")),
    })
}
