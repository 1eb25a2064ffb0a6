//! From a request's body to generations under way. Blocks (long prompts take time to tokenise), so it runs beside the
//! tasks that serve connections.

use kinglet_engine::Generation;
use kinglet_text::tokenizer::Tokenizer;

use crate::api::{chat, text};
use crate::app::App;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::model::ChatModel;
use crate::params::Params;
use crate::stream::{Answer, Choices, Format};

/// Starts a chat answer.
pub(crate) fn chat(app: &App, body: &[u8]) -> Result<Answer<chat::ChatFormat>, ApiError> {
    let (mut fields, model) = open(app, body)?;
    let (params, prompt) = chat::read(&mut fields, model)?;
    let choices = start(model, &params, &[prompt], chat::PROMPT)?;
    let format = chat::ChatFormat(model.tokenizer().clone());
    Ok(answer(app, model, &params, choices, format, "chatcmpl"))
}

/// Starts a text answer.
pub(crate) fn text(app: &App, body: &[u8]) -> Result<Answer<text::TextFormat>, ApiError> {
    let (mut fields, model) = open(app, body)?;
    let text::TextRequest { params, prompts, echo } = text::read(&mut fields, model)?;
    let echoes = match echo {
        true => prompts.iter().map(|prompt| spell(model.tokenizer(), prompt)).collect::<Result<_, _>>()?,
        false => vec![String::new(); prompts.len()],
    };
    let echoes = echoes.iter().flat_map(|echo| vec![echo.clone(); params.choices]).collect();
    let choices = start(model, &params, &prompts, text::PROMPT)?;
    let format = text::TextFormat::new(model.tokenizer().clone(), echoes);
    Ok(answer(app, model, &params, choices, format, "cmpl"))
}

fn spell(tokenizer: &Tokenizer, prompt: &[u32]) -> Result<String, ApiError> {
    tokenizer
        .decode(prompt)
        .map_err(|error| ApiError::field(text::PROMPT, "invalid_value", error.to_string()))
}

fn open<'a>(app: &'a App, body: &[u8]) -> Result<(Fields, &'a dyn ChatModel), ApiError> {
    let mut fields = Fields::parse(body)?;
    let name = fields.required("model")?;
    let name = name.as_str().ok_or_else(|| crate::fields::wrong_type("model", "a string", &name))?;
    let model = app.model(name)?;
    Ok((fields, model))
}

/// Submits every choice of every prompt; when one is refused, those before it are cancelled.
fn start(
    model: &dyn ChatModel,
    params: &Params,
    prompts: &[Vec<u32>],
    field: &str,
) -> Result<Choices, ApiError> {
    let submit = |(prompt, choice): (&Vec<u32>, usize)| {
        let request = params.request(prompt.clone(), choice);
        model.engine().generate(request).map_err(|refusal| ApiError::refused(&refusal, field))
    };
    let pairs = prompts.iter().flat_map(|prompt| (0..params.choices).map(move |choice| (prompt, choice)));
    let generations = pairs.map(submit).collect::<Result<Vec<Generation>, _>>()?;
    Ok(Choices::new(generations, params.choices))
}

fn answer<F: Format>(
    app: &App,
    model: &dyn ChatModel,
    params: &Params,
    choices: Choices,
    format: F,
    prefix: &str,
) -> Answer<F> {
    let head = app.head(prefix, model.name());
    Answer { head, format, choices, stream: params.stream, include_usage: params.include_usage }
}
