//! Starting, running and stopping the service.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::sync::watch;

use crate::app::{App, router};
use crate::model::ChatModel;

/// How the server behaves.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Required of every request but `/health`, as `Authorization: Bearer KEY`.
    pub api_key: Option<String>,
    /// Which web pages may use the server.
    pub cors: Cors,
    /// Bytes that a request's body may have.
    pub max_body: usize,
    /// How long requests may go on after the server was told to stop.
    pub drain: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        let drain = Duration::from_secs(30);
        ServerConfig { api_key: None, cors: Cors::Off, max_body: 8 << 20, drain }
    }
}

/// Which web pages may use the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cors {
    /// Those of its own origin.
    #[default]
    Off,
    /// All.
    Any,
    /// Those of these origins, such as `https://example.org`.
    Origins(Vec<String>),
}

/// Why the server ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No threads or sockets could be had.
    #[error("the server could not run: {0}")]
    Io(#[from] io::Error),
    /// Requests that were still running were cut off.
    #[error("requests were still running {0:?} after the server was told to stop, and were cut off")]
    Drain(Duration),
}

/// Serves models over HTTP.
pub struct Server {
    app: Arc<App>,
    drain: Duration,
    stop: watch::Sender<bool>,
}

impl Server {
    /// A server of these models.
    pub fn new(models: Vec<Arc<dyn ChatModel>>, config: ServerConfig) -> Self {
        let drain = config.drain;
        Server { app: Arc::new(App::new(models, config)), drain, stop: watch::Sender::new(false) }
    }

    /// A handle that ends [`Server::run`] from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.stop.clone())
    }

    /// Serves connections until it is told to stop, and then those that are open until they are done.
    pub fn run(self, listener: TcpListener) -> Result<(), ServeError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let result = runtime.block_on(self.serve(listener));
        runtime.shutdown_background();
        result
    }

    async fn serve(self, listener: TcpListener) -> Result<(), ServeError> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|stream| {
            let _as_it_is = stream.set_nodelay(true); // tokens are small and must not wait for each other
        });
        let told = |mut stop: watch::Receiver<bool>| async move {
            let _sender_gone = stop.wait_for(|stop| *stop).await;
        };
        let serve =
            axum::serve(listener, router(self.app)).with_graceful_shutdown(told(self.stop.subscribe()));
        let too_late = async {
            told(self.stop.subscribe()).await;
            tokio::time::sleep(self.drain).await;
        };
        tokio::select! {
            result = serve => Ok(result?),
            () = too_late => Err(ServeError::Drain(self.drain)),
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("drain", &self.drain).finish_non_exhaustive()
    }
}

/// Tells a server to stop.
#[derive(Clone, Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stopper {
    /// No new connections from now on; requests that are running are answered.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}
