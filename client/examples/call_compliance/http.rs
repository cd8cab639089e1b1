//! The service over HTTP: numbers come in here, and go no further but as hashes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use quipu_client::limits::{CORRELATION_BYTES_MAX, USER_AGENT_BYTES_MAX};
use quipu_client::{EventContext, Timestamp, Uuid};
use quipu_domain::catalogue::{
    CallOutcome, CallStarted, Channel, ConsentGranted, ConsentRevoked, ConsentType,
};
use quipu_domain::{PhoneNumber, PhoneNumberHash};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::app::{App, Refused};
use crate::audit::Audit;

/// The way of every answer: what it is, or why not.
type Answer = Result<Response, Failure>;

/// What the service listens to.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/consents", post(grant))
        .route("/consents/revoke", post(revoke))
        .route("/do-not-call", post(list_do_not_call))
        .route("/calls", post(check_call))
        .route("/calls/{id}/start", post(start))
        .route("/calls/{id}/answer", post(answer))
        .route("/calls/{id}/complete", post(complete))
        .route("/audit", get(audit))
        .route("/status", get(status))
        .with_state(app)
}

/// Why a request failed.
struct Failure(StatusCode, String);

#[expect(clippy::needless_pass_by_value, reason = "map_err hands errors over")]
impl Failure {
    fn bad(problem: impl ToString) -> Self {
        Self(StatusCode::BAD_REQUEST, problem.to_string())
    }

    fn fault(problem: impl ToString) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, problem.to_string())
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Call(_) | Refused::Consent(_) => {
                Self(StatusCode::CONFLICT, refused.to_string())
            }
            _ => Self::fault(refused),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

/// A body. What is wrong with one is said without what stands in it, which may be a number.
struct Body<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(JsonRejection::JsonDataError(_) | JsonRejection::JsonSyntaxError(_)) => {
                Err(Failure::bad("the body is not the JSON that belongs here"))
            }
            Err(rejection) => Err(Failure(rejection.status(), rejection.body_text())),
        }
    }
}

/// Who asks, from where, and what it belongs to: it goes with every event. What is no fault of who
/// asks, and says little, is left out rather than that nothing is recorded.
fn context(headers: &HeaderMap) -> Result<EventContext, Failure> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let mut context = EventContext::new();
    if let Some(user) = text("x-user-id") {
        context = context.by_user(user.parse().map_err(Failure::bad)?);
    }
    if let Some(correlation) = text("x-correlation-id") {
        if correlation.len() > CORRELATION_BYTES_MAX {
            let given = correlation.len();
            let problem = format!("{CORRELATION_BYTES_MAX} bytes are the most, not {given}");
            return Err(Failure::bad(format!("x-correlation-id: {problem}")));
        }
        if correlation.contains(char::is_control) {
            return Err(Failure::bad("x-correlation-id: it holds a tab"));
        }
        context = context.correlated(correlation);
    }
    // The client, and behind it the proxies, which are trusted here to say so.
    let client = text("x-forwarded-for").and_then(|hops| hops.split(',').next());
    if let Some(ip) = client.and_then(|ip| ip.trim().parse().ok()) {
        context = context.from_ip(ip);
    }
    if let Some(agent) = text("user-agent") {
        let agent = agent.get(..USER_AGENT_BYTES_MAX).unwrap_or(agent);
        context = context.user_agent(agent.replace('\t', " "));
    }
    if let Some(trace) = text("traceparent").and_then(|trace| trace.parse().ok()) {
        context = context.traceparent(trace);
    }
    Ok(context)
}

/// A number as it comes in. What is wrong with it is said without it.
fn hash(app: &App, number: &str) -> Result<PhoneNumberHash, Failure> {
    Ok(app.hash(&number.parse::<PhoneNumber>().map_err(Failure::bad)?))
}

#[derive(Deserialize)]
struct Grant {
    number: String,
    consent_type: ConsentType,
    channel: Channel,
    expires_at: Option<Timestamp>,
    ip_address: std::net::IpAddr,
    source: String,
}

async fn grant(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Body(grant): Body<Grant>,
) -> Answer {
    let granted = ConsentGranted {
        phone_number_hash: hash(&app, &grant.number)?,
        consent_type: grant.consent_type,
        channel: grant.channel,
        expires_at: grant.expires_at,
        ip_address: grant.ip_address,
        source: grant.source,
    };
    app.grant(&context(&headers)?, granted).await?;
    Ok(StatusCode::CREATED.into_response())
}

#[derive(Deserialize)]
struct Revoke {
    number: String,
    consent_type: ConsentType,
    reason: String,
    revoked_by: String,
}

async fn revoke(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Body(revoke): Body<Revoke>,
) -> Answer {
    let revoked = ConsentRevoked {
        phone_number_hash: hash(&app, &revoke.number)?,
        consent_type: revoke.consent_type,
        reason: revoke.reason,
        revoked_by: revoke.revoked_by,
    };
    app.revoke(&context(&headers)?, revoked).await?;
    Ok(StatusCode::OK.into_response())
}

#[derive(Deserialize)]
struct Listed {
    number: String,
}

async fn list_do_not_call(State(app): State<Arc<App>>, Body(listed): Body<Listed>) -> Answer {
    app.list_do_not_call(hash(&app, &listed.number)?);
    Ok(StatusCode::OK.into_response())
}

#[derive(Deserialize)]
struct Numbers {
    from: String,
    to: String,
}

async fn check_call(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Body(call): Body<Numbers>,
) -> Answer {
    let (from, to) = (hash(&app, &call.from)?, hash(&app, &call.to)?);
    let verdict = app.check_call(&context(&headers)?, from, to).await?;
    let is_allowed = verdict.is_allowed();
    let answer = json!({
        "call_id": verdict.call_id,
        "is_allowed": is_allowed,
        "checks": verdict.checks,
    });
    let code = if is_allowed { StatusCode::CREATED } else { StatusCode::FORBIDDEN };
    Ok((code, Json(answer)).into_response())
}

#[derive(Deserialize)]
struct Start {
    from: String,
    to: String,
    started_at: Timestamp,
}

async fn start(
    State(app): State<Arc<App>>,
    Path(call_id): Path<Uuid>,
    headers: HeaderMap,
    Body(start): Body<Start>,
) -> Answer {
    let started = CallStarted {
        from_number_hash: hash(&app, &start.from)?,
        to_number_hash: hash(&app, &start.to)?,
        started_at: start.started_at,
    };
    app.start(&context(&headers)?, &call_id.to_string(), started).await?;
    Ok(StatusCode::OK.into_response())
}

async fn answer(
    State(app): State<Arc<App>>,
    Path(call_id): Path<Uuid>,
    headers: HeaderMap,
) -> Answer {
    app.answer(&context(&headers)?, &call_id.to_string()).await?;
    Ok(StatusCode::OK.into_response())
}

#[derive(Deserialize)]
struct Complete {
    seconds: u32,
    outcome: CallOutcome,
}

async fn complete(
    State(app): State<Arc<App>>,
    Path(call_id): Path<Uuid>,
    headers: HeaderMap,
    Body(complete): Body<Complete>,
) -> Answer {
    let duration = Duration::from_secs(complete.seconds.into());
    let (context, id) = (context(&headers)?, call_id.to_string());
    app.complete(&context, &id, duration, complete.outcome).await?;
    Ok(StatusCode::OK.into_response())
}

/// By a number, by its hash, or by a correlation id.
#[derive(Deserialize)]
struct Question {
    number: Option<String>,
    hash: Option<PhoneNumberHash>,
    correlation: Option<String>,
}

async fn audit(State(app): State<Arc<App>>, Query(question): Query<Question>) -> Answer {
    let number = match (question.number, question.hash) {
        (Some(number), _) => Some(hash(&app, &number)?),
        (None, hash) => hash,
    };
    let entries = match (number, question.correlation) {
        (Some(number), _) => app.audit.of_number(&app.log, number).await,
        (None, Some(correlation)) => Audit::of_correlation(&app.log, &correlation).await,
        (None, None) => return Err(Failure::bad("give number, hash or correlation")),
    };
    Ok(Json(entries.map_err(Failure::fault)?).into_response())
}

async fn status(State(app): State<Arc<App>>) -> Answer {
    let handlers = app.bus.metrics().await.map_err(Failure::fault)?;
    let handlers: BTreeMap<&str, Value> = handlers
        .iter()
        .map(|(name, it)| (&**name, json!({ "lag": it.lag, "parked": it.parked })))
        .collect();
    let alerts = app.alerts.load(Ordering::Relaxed);
    Ok(Json(json!({ "alerts": alerts, "handlers": handlers })).into_response())
}
