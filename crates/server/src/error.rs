//! Errors as clients see them: OpenAI's error object with its status.

use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use kinglet_engine::{GenerateError, Refusal};

use crate::stream::json;
use crate::wire::{ErrorBody, ErrorObject};

/// What went wrong, for the client.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) kind: &'static str,
    pub(crate) param: Option<String>,
    pub(crate) code: Option<&'static str>,
    pub(crate) retry_after: Option<Duration>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        ApiError { status, message: message.into(), kind, param: None, code: None, retry_after: None }
    }

    /// The request is wrong.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// The request is wrong at one field.
    pub(crate) fn field(param: &str, code: &'static str, message: impl Into<String>) -> Self {
        ApiError { param: Some(param.to_owned()), code: Some(code), ..Self::invalid(message) }
    }

    /// The field asks for what this server cannot do.
    pub(crate) fn unsupported(param: &str) -> Self {
        Self::field(param, "unsupported_parameter", format!("'{param}' is not supported by this server."))
    }

    pub(crate) fn model_not_found(model: &str) -> Self {
        let message = format!(
            "The model '{model}' does not exist or is not loaded. GET /v1/models lists those that are."
        );
        let code = Some("model_not_found");
        ApiError { status: StatusCode::NOT_FOUND, code, ..Self::invalid(message) }
    }

    pub(crate) fn unknown_url(method: &str, path: &str) -> Self {
        let code = Some("unknown_url");
        let message = format!("Unknown request URL: {method} {path}.");
        ApiError { status: StatusCode::NOT_FOUND, code, ..Self::invalid(message) }
    }

    pub(crate) fn method_not_allowed(method: &str, path: &str) -> Self {
        let message = format!("Not allowed to {method} on {path}.");
        let code = Some("method_not_allowed");
        ApiError { status: StatusCode::METHOD_NOT_ALLOWED, code, ..Self::invalid(message) }
    }

    pub(crate) fn wrong_key() -> Self {
        let message = "Incorrect API key provided. Send the server's key as 'Authorization: Bearer KEY'.";
        let code = Some("invalid_api_key");
        ApiError { status: StatusCode::UNAUTHORIZED, code, ..Self::invalid(message) }
    }

    pub(crate) fn body_too_large(limit: usize) -> Self {
        let message = format!("The request body is larger than the limit of {limit} bytes.");
        let code = Some("request_too_large");
        ApiError { status: StatusCode::PAYLOAD_TOO_LARGE, code, ..Self::invalid(message) }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// A refusal of the engine; `prompt` is the field that the prompt came from.
    pub(crate) fn refused(refusal: &Refusal, prompt: &str) -> Self {
        let message = refusal.to_string();
        match *refusal {
            Refusal::PromptTooLong { tokens, context } => {
                Self::field(prompt, "context_length_exceeded", too_long(tokens, context, prompt))
            }
            Refusal::EmptyPrompt | Refusal::UnknownToken { .. } => {
                Self::field(prompt, "invalid_value", message)
            }
            Refusal::Sampling(_) | Refusal::NothingAsked => Self::invalid(message),
            Refusal::DeadlineExceeded => Self::timed_out(message),
            Refusal::QueueFull { retry_after, .. } => ApiError {
                code: Some("queue_full"),
                retry_after: Some(retry_after),
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message)
            },
            Refusal::ShuttingDown => ApiError {
                code: Some("shutting_down"),
                retry_after: Some(Duration::from_secs(10)),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message)
            },
        }
    }

    fn timed_out(message: String) -> Self {
        let code = Some("deadline_exceeded");
        ApiError { code, ..Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout_error", message) }
    }

    /// The error object, as it stands in a body or in a stream.
    pub(crate) fn body(&self) -> String {
        let ApiError { message, kind, param, code, .. } = self;
        json(&ErrorBody { error: ErrorObject { message, kind, param: param.as_deref(), code: *code } })
    }
}

fn too_long(tokens: usize, context: usize, prompt: &str) -> String {
    format!(
        "This model's maximum context length is {context} tokens. However, your {prompt} resulted in {tokens} tokens, \
         which leave no room for an answer. Please reduce the length of the {prompt}."
    )
}

impl From<GenerateError> for ApiError {
    fn from(error: GenerateError) -> Self {
        match error {
            GenerateError::DeadlineExceeded => Self::timed_out(error.to_string()),
            GenerateError::ShutDown => Self::refused(&Refusal::ShuttingDown, "prompt"),
            GenerateError::Exec(_) | GenerateError::Panicked(_) | GenerateError::Sampling(_) => {
                Self::internal(error.to_string())
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let json = HeaderValue::from_static("application/json");
        let mut response = (self.status, [(CONTENT_TYPE, json)], self.body()).into_response();
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}
