//! Health and metrics, over HTTP, for operators and their machines.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use quipu_engine::LogState;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::http_port::HttpPort;
use crate::metrics;
use crate::service::Service;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is asked, and what was answered last.
struct Asked {
    service: Arc<Service>,
    metrics: Mutex<Option<Page>>,
}

/// A page of metrics, and when it was begun.
struct Page {
    begun: Instant,
    text: Option<Bytes>,
}

/// Answers until `stop`.
pub(crate) async fn serve(port: HttpPort, service: Arc<Service>, stop: CancellationToken) {
    let routes = Router::new()
        .route("/health/live", get(async || "live\n"))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(Asked { service, metrics: Mutex::default() }));
    let served = axum::serve(port, routes).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "health and metrics are not served any more");
    }
}

async fn ready(State(asked): State<Arc<Asked>>) -> impl IntoResponse {
    let log = asked.service.log.shared();
    if asked.service.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned());
    }
    match (log.state(), log.found_damage()) {
        (LogState::Writable, None) => (StatusCode::OK, "ready\n".to_owned()),
        (LogState::Writable, Some(damage)) => {
            (StatusCode::OK, format!("ready, but damaged: {damage}\n"))
        }
        (state, _) => (StatusCode::SERVICE_UNAVAILABLE, format!("{state}\n")),
    }
}

async fn metrics(State(asked): State<Arc<Asked>>) -> impl IntoResponse {
    let Some(text) = asked.metrics().await else {
        let plain = [(header::CONTENT_TYPE, "text/plain")];
        let problem = Bytes::from_static(b"cannot look at the log\n");
        return (StatusCode::INTERNAL_SERVER_ERROR, plain, problem);
    };
    (StatusCode::OK, [(header::CONTENT_TYPE, OPEN_METRICS)], text)
}

impl Asked {
    /// Looks at the log, which asks the disk, so not on the runtime's own threads. All who ask
    /// before a look begins share it: many at once cost two.
    async fn metrics(&self) -> Option<Bytes> {
        let asked = Instant::now();
        let mut last = self.metrics.lock().await;
        if let Some(page) = last.as_ref().filter(|page| page.begun >= asked) {
            return page.text.clone();
        }
        let begun = Instant::now();
        let service = Arc::clone(&self.service);
        let looked = spawn_blocking(move || metrics::text(&service)).await;
        let text = looked.ok().and_then(Result::ok).map(Bytes::from);
        last.insert(Page { begun, text }).text.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::options::ServerOptions;

    #[tokio::test]
    async fn many_who_ask_at_once_share_a_look_and_one_who_asks_later_gets_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let service =
            Service::new(Arc::new(crate::testing::log(&folder)), ServerOptions::default());
        let asked = Arc::new(Asked { service, metrics: Mutex::default() });
        let asking: Vec<_> = (0..50)
            .map(|_| {
                let asked = Arc::clone(&asked);
                tokio::spawn(async move { asked.metrics().await.unwrap() })
            })
            .collect();
        let mut pages = Vec::new();
        for page in asking {
            pages.push(page.await.unwrap());
        }
        let looks: HashSet<usize> = pages.iter().map(|page| page.as_ptr().addr()).collect();
        assert!(looks.len() <= 2, "{} looks", looks.len());
        let before = asked.metrics.lock().await.as_ref().unwrap().begun;
        asked.metrics().await.unwrap();
        assert!(asked.metrics.lock().await.as_ref().unwrap().begun > before, "never an old one");
    }
}
