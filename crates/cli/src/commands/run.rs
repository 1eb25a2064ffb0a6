//! `kinglet run`: one answer, or a conversation.

mod answer;
mod chat;
mod feeds;
mod graph;
mod values;

use std::io::{BufRead, IsTerminal};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kinglet::Model;
use kinglet::chat::Message;
use serde_json::json;

use self::answer::{Answer, Asking};
use crate::commands::given;
use crate::commands::options::LoadArgs;
use crate::commands::sampling::SamplerArgs;
use crate::failure::hinted;
use crate::ui::Ui;

/// How long a prompt waits for the beginning of standard input.
const PATIENCE: Duration = Duration::from_secs(3);

/// Ask a language model, chat with it, or run a model on pictures
///
/// With a prompt, or with text on standard input, the model answers once. Without, a conversation begins; `/help`
/// there lists what it can do. A model that is not here is fetched first.
///
/// ONNX files, Core ML files and packages, checkpoints of vision models, and folders of OCR models take pictures instead of a prompt, or tensors.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  kinglet run smollm2 \"Why is the sky blue?\"
  kinglet run smollm2                                chat
  git diff | kinglet run qwen2.5-coder:0.5b \"Write a commit message for this:\"
  kinglet run ./model.gguf --temperature 0 --max-tokens 64 \"Once upon a time\" --raw
  kinglet run ./mobilenet_v2.onnx photo.jpg            what is in the picture
  kinglet run ./FastestDet.onnx street.jpg             objects, drawn into street.found.png
  kinglet run ppocr receipt.jpg                        the text, in reading order
  kinglet run ./model.mlpackage --input x=x.npy --output y.npz
  kinglet run ./model.onnx --input inputs.npz          arrays under the names of inputs
  kinglet --json run smollm2 \"Name three birds\"      the answer and its figures as JSON")]
pub(crate) struct Args {
    /// A model's name, path or address
    model: String,
    /// What to ask (standard input is added to it when it is no terminal and begins within 3 s), or pictures
    #[arg(value_name = "PROMPT")]
    prompt: Vec<String>,
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Tokens of each answer at most
    #[arg(long, short = 'n', value_name = "N")]
    max_tokens: Option<usize>,
    /// End an answer before this text (may be given several times)
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Continue the prompt as it stands, without the model's chat template
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    sampler: SamplerArgs,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    graph: graph::GraphArgs,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<()> {
    if let Some(subject) = graph::Subject::find(&args.model, ui)? {
        return graph::run(args, &subject, ui);
    }
    let prompt = prompt(args, ui)?;
    let started = Instant::now();
    let model = args.load.load(&args.model, 1, ui)?;
    let load_ms = started.elapsed().as_secs_f64() * 1e3;
    let asking = Asking {
        sampler: args.sampler.apply(model.sampler()),
        max_tokens: args.max_tokens,
        stop: args.stop.clone(),
    };
    match prompt {
        Some(prompt) => once(args, &prompt, &model, &asking, load_ms, ui),
        None => chat::converse(&model, args.system.as_deref(), asking, ui),
    }
}

/// The prompt from the command line and from standard input; none when a person is to be asked.
fn prompt(args: &Args, ui: &Ui) -> Result<Option<String>> {
    let mut prompt = args.prompt.join(" ");
    if !std::io::stdin().is_terminal() {
        let bytes = piped((!prompt.is_empty()).then_some(PATIENCE), ui)?;
        let text = String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            hinted(
                format!("standard input is not UTF-8 text: byte {at} is invalid"),
                "convert it first, with iconv for example",
            )
        })?;
        if !text.trim().is_empty() {
            prompt = if prompt.is_empty() { text } else { format!("{prompt}\n\n{text}") };
        }
    } else if args.prompt.is_empty() {
        return Ok(None);
    }
    if prompt.trim().is_empty() {
        return Err(hinted(
            "the prompt is empty",
            "give a prompt: kinglet run MODEL \"Why is the sky blue?\"",
        ));
    }
    Ok(Some(prompt))
}

/// All of standard input; nothing when none of it, nor its end, came within `patience`: a pipe that whoever started the
/// command left open.
fn piped(patience: Option<Duration>, ui: &Ui) -> Result<Vec<u8>> {
    let (began, begun) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let first = stdin.fill_buf().map(|_| ());
        // Nobody listens any more when this came too late.
        let _ = began.send(());
        first.map_err(Into::into).and_then(|()| given::stream(&mut stdin))
    });
    if patience.is_some_and(|patience| begun.recv_timeout(patience) == Err(RecvTimeoutError::Timeout)) {
        ui.note(format_args!("standard input is open but silent: answering the prompt alone"));
        return Ok(Vec::new());
    }
    reader.join().expect("reading does not panic").context("standard input")
}

fn once(args: &Args, prompt: &str, model: &Model, asking: &Asking, load_ms: f64, ui: &Ui) -> Result<()> {
    let tokens = if args.raw || model.template_source().is_none() {
        model.encode(prompt)?
    } else {
        let system = args.system.iter().map(|text| Message::new("system", text));
        model.prompt(&system.chain([Message::new("user", prompt)]).collect::<Vec<_>>())?
    };
    let answer = if ui.json() {
        answer::ask(model, tokens, asking, |_| Ok(()))?
    } else {
        let answer = answer::ask(model, tokens, asking, answer::print)?;
        ui.line("")?;
        answer
    };
    if ui.json() {
        ui.value(&report(args, model, &answer, load_ms))?;
    } else if ui.verbose() > 0 {
        ui.note(format_args!("loaded in {load_ms:.0} ms · {}", answer.figures()));
    }
    answer.outcome()
}

fn report(args: &Args, model: &Model, answer: &Answer, load_ms: f64) -> serde_json::Value {
    let (usage, timings) = (&answer.done.usage, &answer.done.timings);
    json!({
        "model": args.model,
        "text": answer.text,
        "finish_reason": format!("{:?}", answer.done.reason).to_lowercase(),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "context": model.context(),
        "load_ms": load_ms,
        "ttft_ms": timings.time_to_first_token().as_secs_f64() * 1e3,
        "prefill_tok_s": timings.prefill_rate(usage),
        "decode_tok_s": timings.decode_rate(usage),
        "peak_rss_mb": kinglet::hardware::peak_memory().map(|bytes| bytes as f64 / 1e6),
    })
}
