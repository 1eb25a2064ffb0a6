//! Routes, and what all requests share: models, key, body limit.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower_http::cors::{Any, CorsLayer};

use crate::error::ApiError;
use crate::model::ChatModel;
use crate::prepare;
use crate::server::{Cors, ServerConfig};
use crate::stream::{Answer, Format, Head, json};
use crate::wire::{ModelEntry, ModelList};

/// What all requests share.
pub(crate) struct App {
    models: Vec<Arc<dyn ChatModel>>,
    config: ServerConfig,
    started: u64,
    ids: RandomState,
    answers: AtomicU64,
}

impl App {
    pub(crate) fn new(models: Vec<Arc<dyn ChatModel>>, config: ServerConfig) -> Self {
        App { models, config, started: seconds(), ids: RandomState::new(), answers: AtomicU64::new(0) }
    }

    /// The model of this name.
    pub(crate) fn model(&self, name: &str) -> Result<&dyn ChatModel, ApiError> {
        let model = self.models.iter().find(|model| model.answers_to(name));
        model.map(|model| &**model).ok_or_else(|| ApiError::model_not_found(name))
    }

    /// Identity of a new answer.
    pub(crate) fn head(&self, prefix: &str, model: &str) -> Head {
        let number = self.answers.fetch_add(1, Ordering::Relaxed);
        let id = format!("{prefix}-{:016x}{number:08x}", self.ids.hash_one(number));
        Head { id, created: seconds(), model: model.to_owned() }
    }

    fn entry(&self, model: &dyn ChatModel) -> ModelEntry {
        let id = model.name().to_owned();
        ModelEntry { id, object: "model", created: self.started, owned_by: "kinglet" }
    }

    /// Compares in constant time.
    fn allows(&self, request: &Request) -> bool {
        let Some(key) = &self.config.api_key else { return true };
        let given = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        let given = given.strip_prefix(b"Bearer ").unwrap_or_default();
        let differ = given.iter().zip(key.as_bytes()).fold(0, |differ, (a, b)| differ | (a ^ b));
        given.len() == key.len() && differ == 0
    }
}

/// The whole service.
pub(crate) fn router(app: Arc<App>) -> Router {
    let cors = cors(&app.config.cors);
    let limit = DefaultBodyLimit::max(app.config.max_body);
    let routes = Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(text))
        .layer(limit)
        .layer(from_fn_with_state(Arc::clone(&app), check_key))
        .route("/health", get(health))
        .fallback(unknown_url)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(app);
    match cors {
        Some(cors) => routes.layer(cors),
        None => routes,
    }
}

fn cors(cors: &Cors) -> Option<CorsLayer> {
    let layer = CorsLayer::new().allow_methods([Method::GET, Method::POST]).allow_headers(Any);
    match cors {
        Cors::Off => None,
        Cors::Any => Some(layer.allow_origin(Any)),
        Cors::Origins(origins) => {
            let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
            Some(layer.allow_origin(origins.collect::<Vec<_>>()))
        }
    }
}

async fn check_key(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if app.allows(&request) { next.run(request).await } else { ApiError::wrong_key().into_response() }
}

async fn chat(
    State(app): State<Arc<App>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    answer(app, body, prepare::chat).await
}

async fn text(
    State(app): State<Arc<App>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    answer(app, body, prepare::text).await
}

async fn answer<F: Format>(
    app: Arc<App>,
    body: Result<Bytes, BytesRejection>,
    prepare: fn(&App, &[u8]) -> Result<Answer<F>, ApiError>,
) -> Result<Response, ApiError> {
    let body = body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::body_too_large(app.config.max_body),
        _ => ApiError::invalid(error.body_text()),
    })?;
    let prepared = tokio::task::spawn_blocking(move || prepare(&app, &body)).await;
    prepared.map_err(|error| ApiError::internal(error.to_string()))??.respond().await
}

async fn models(State(app): State<Arc<App>>) -> Response {
    let data = app.models.iter().map(|model| app.entry(&**model)).collect();
    as_json(json(&ModelList { object: "list", data }))
}

async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, ApiError> {
    Ok(as_json(json(&app.entry(app.model(&name)?))))
}

async fn health() -> Response {
    as_json(r#"{"status":"ok"}"#.to_owned())
}

async fn unknown_url(method: Method, uri: Uri) -> ApiError {
    ApiError::unknown_url(method.as_str(), uri.path())
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::method_not_allowed(method.as_str(), uri.path())
}

fn as_json(body: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
