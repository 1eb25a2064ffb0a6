//! `kinglet serve`: a model over HTTP.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use kinglet_server::{ChatModel, Cors, Server, ServerConfig, Stopper};
use serde_json::json;

use crate::commands::options::LoadArgs;
use crate::interrupt;
use crate::ui::Ui;

/// How often Ctrl-C is looked for.
const POLL: Duration = Duration::from_millis(50);

/// Serve a model with OpenAI's HTTP API
///
/// Answers /v1/chat/completions, /v1/completions and /v1/models as OpenAI's API does, so that its clients work with
/// another base URL, and /health. Ctrl-C lets the answers under way end; a second one does not wait for them.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  kinglet serve smollm2
  kinglet serve smollm2 --port 9000 --parallel 8
  curl http://127.0.0.1:8080/v1/chat/completions -d '{\"model\": \"smollm2\",
    \"messages\": [{\"role\": \"user\", \"content\": \"Why is the sky blue?\"}]}'")]
pub(crate) struct Args {
    /// A model's name, path or address
    model: String,
    /// Address to listen on; 0.0.0.0 for the whole network
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 for any that is free
    #[arg(long, short, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// Answers that memory is set aside for
    #[arg(long, value_name = "N", default_value_t = 4)]
    parallel: usize,
    /// Key that clients must send
    #[arg(long, value_name = "KEY", env = "KINGLET_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Web pages that may use the server, by origin (scheme and host); '*' for all (may be repeated)
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<String>,
    /// Seconds that answers may go on after Ctrl-C
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain: u64,
    #[command(flatten)]
    load: LoadArgs,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<()> {
    let address = SocketAddr::new(args.host, args.port);
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr()?;
    let model = args.load.load(&args.model, args.parallel, ui)?;
    let (name, context) = (model.name().to_owned(), model.context());
    let server = Server::new(vec![Arc::new(model) as Arc<dyn ChatModel>], config(args));
    if args.api_key.is_none() && !address.ip().is_loopback() {
        ui.note("everyone who can reach this address may use the model: --api-key asks for a key");
    }
    if ui.json() {
        ui.value(&json!({ "model": name, "address": address, "context": context }))?;
    } else {
        ui.line(format_args!("Serving {name} ({context} tokens of context) at http://{address}/v1"))?;
        ui.note("Ctrl-C stops");
    }
    let ended = AtomicBool::new(false);
    let stopper = server.stopper();
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| stop_on_interrupt(&stopper, &ended));
        let result = server.run(listener);
        ended.store(true, Ordering::Release);
        watcher.thread().unpark();
        result
    })?;
    Ok(())
}

fn config(args: &Args) -> ServerConfig {
    let cors = match args.cors.as_slice() {
        [] => Cors::Off,
        origins if origins.iter().any(|origin| origin == "*") => Cors::Any,
        origins => Cors::Origins(origins.to_vec()),
    };
    let drain = Duration::from_secs(args.drain);
    ServerConfig { api_key: args.api_key.clone(), cors, drain, ..ServerConfig::default() }
}

fn stop_on_interrupt(stopper: &Stopper, ended: &AtomicBool) {
    let ctrl_c = interrupt::listen();
    while !ended.load(Ordering::Acquire) {
        if ctrl_c.pressed() {
            stopper.stop();
        }
        std::thread::park_timeout(POLL);
    }
}
