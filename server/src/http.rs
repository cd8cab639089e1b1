//! Health and metrics, over HTTP, for operators and their machines.
#![expect(clippy::disallowed_types, reason = "axum serves on a socket that `listener` opened")]

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use quipu_engine::LogState;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::metrics;
use crate::service::Service;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers until `stop`.
pub(crate) async fn serve(listener: TcpListener, service: Arc<Service>, stop: CancellationToken) {
    let routes = Router::new()
        .route("/health/live", get(async || "live\n"))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(service);
    let served = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "health and metrics are not served any more");
    }
}

async fn ready(State(service): State<Arc<Service>>) -> impl IntoResponse {
    let log = service.log.shared();
    if service.stop.is_cancelled() {
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

/// Asks the disk, so not on the runtime's own threads.
async fn metrics(State(service): State<Arc<Service>>) -> impl IntoResponse {
    let text = spawn_blocking(move || metrics::text(&service)).await;
    let Ok(Ok(text)) = text else {
        let plain = [(header::CONTENT_TYPE, "text/plain")];
        return (StatusCode::INTERNAL_SERVER_ERROR, plain, "cannot look at the log\n".to_owned());
    };
    (StatusCode::OK, [(header::CONTENT_TYPE, OPEN_METRICS)], text)
}
