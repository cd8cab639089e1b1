//! The example of a host service, driven over HTTP as its clients do.
#![cfg(feature = "embedded")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_types, reason = "tests speak to a real socket")]
#![expect(clippy::disallowed_methods, reason = "a test damages a log")]

#[path = "../examples/call_compliance/app.rs"]
mod app;
#[path = "../examples/call_compliance/audit.rs"]
mod audit;
#[path = "../examples/call_compliance/http.rs"]
mod http;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use app::App;
use quipu_client::{AggregateKey, Append, Embedded, EventStore, Options, ReadError};
use quipu_domain::{PhoneKey, PhoneNumber};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const USER: &str = "00000000-0000-0000-0000-000000000007";
const FROM: &str = "+1 212 555 0101";
const TO: &str = "+1 (212) 555-0100";

/// The service on a port of its own.
struct Service {
    address: SocketAddr,
    app: Arc<App>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Service {
    async fn open(folder: &str) -> Self {
        let key = PhoneKey::new("test", &[7; 32]).unwrap();
        let app = Arc::new(App::open(folder, key).await.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, router) = (listener.local_addr().unwrap(), http::router(Arc::clone(&app)));
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            axum::serve(listener, router).with_graceful_shutdown(stopped).await.unwrap();
        });
        Self { address, app, stop, served }
    }

    async fn close(self) {
        self.stop.send(()).unwrap();
        self.served.await.unwrap();
        Arc::into_inner(self.app).expect("nobody else has it").stop().await.unwrap();
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let headers = "x-correlation-id: campaign-12\r\nx-forwarded-for: 192.0.2.9\r\n\
                       user-agent: test\tof tabs\r\n";
        self.ask_with(headers, method, path, body).await
    }

    async fn ask_with(&self, headers: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-user-id: {USER}\r\n\
             {headers}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, serde_json::from_str(body).unwrap_or_default())
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.ask("POST", path, body).await
    }

    /// What the audit says, as the names of the events.
    async fn audit(&self, question: &str) -> (Vec<Value>, Vec<String>) {
        let (code, entries) = self.ask("GET", &format!("/audit?{question}"), Value::Null).await;
        assert_eq!(code, 200, "{entries}");
        let entries = entries.as_array().unwrap().clone();
        let names = entries.iter().map(|entry| entry["event"].as_str().unwrap().to_owned());
        (entries.clone(), names.collect())
    }
}

fn consent() -> Value {
    json!({
        "number": TO, "consent_type": "express", "channel": "voice", "expires_at": null,
        "ip_address": "192.0.2.1", "source": "web form",
    })
}

fn numbers() -> Value {
    json!({ "from": FROM, "to": TO, "started_at": "2026-01-02T03:04:05Z" })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_checked_made_and_audited() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    let service = Service::open(folder).await;

    let (code, verdict) = service.post("/calls", numbers()).await;
    assert_eq!((code, &verdict["is_allowed"]), (403, &json!(false)), "nobody has consented");
    assert_eq!(service.post("/consents", consent()).await.0, 201);
    assert_eq!(service.post("/consents", consent()).await.0, 409, "it is given already");
    let (code, verdict) = service.post("/calls", numbers()).await;
    assert_eq!((code, &verdict["is_allowed"]), (201, &json!(true)), "{verdict}");
    let call = verdict["call_id"].as_str().unwrap().to_owned();

    let completed = json!({ "seconds": 61, "outcome": "connected" });
    let early = service.post(&format!("/calls/{call}/complete"), completed.clone()).await;
    assert_eq!(early.0, 409, "it has not started: {}", early.1);
    assert_eq!(service.post(&format!("/calls/{call}/start"), numbers()).await.0, 200);
    assert_eq!(service.post(&format!("/calls/{call}/answer"), Value::Null).await.0, 200);
    assert_eq!(service.post(&format!("/calls/{call}/complete"), completed).await.0, 200);

    let revocation = json!({
        "number": TO, "consent_type": "express", "reason": "asked", "revoked_by": "consumer",
    });
    assert_eq!(service.post("/consents/revoke", revocation.clone()).await.0, 200);
    assert_eq!(service.post("/consents/revoke", revocation).await.0, 409);
    assert_eq!(service.post("/calls", numbers()).await.0, 403);

    let hash = service.app.hash(&TO.parse::<PhoneNumber>().unwrap());
    let (entries, names) = service.audit(&format!("hash={hash}")).await;
    let refused = [
        "CallCreated",
        "CallAttempted",
        "CallFailed",
        "DNCCheckPerformed",
        "ComplianceViolationDetected",
    ];
    // A call has its numbers from its attempt on: its creation names none.
    let story = [
        &refused[1..],
        &[
            "ConsentGranted",
            "CallAttempted",
            "DNCCheckPerformed",
            "CallStarted",
            "CallAnswered",
            "CallCompleted",
            "ConsentRevoked",
        ],
        &refused[1..],
    ]
    .concat();
    assert_eq!(names, story);
    let positions: Vec<u64> =
        entries.iter().map(|entry| entry["position"].as_u64().unwrap()).collect();
    assert!(positions.is_sorted());
    for entry in &entries {
        let who = [&entry["user_id"], &entry["ip_address"], &entry["user_agent"]];
        assert_eq!(who, [USER, "192.0.2.9", "test of tabs"]);
        assert!(entry["happened_at"].is_string() && entry["recorded_at"].is_string());
        assert!(!entry.to_string().contains("5550100"), "no number is in the log");
    }
    let number = TO.replace('+', "%2B").replace(' ', "%20");
    assert_eq!(service.audit(&format!("number={number}")).await.0, entries);
    let (_, all) = service.audit("correlation=campaign-12").await;
    assert_eq!(all.len(), story.len() + 3, "with the three creations");

    assert_eq!(service.post("/do-not-call", json!({ "number": TO })).await.0, 200);
    assert_eq!(service.post("/consents", consent()).await.0, 201);
    let (code, verdict) = service.post("/calls", numbers()).await;
    assert_eq!(code, 403);
    assert_eq!(verdict["checks"][1]["reason"], "listed: internal", "{verdict}");
    service.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_come_once_each_also_of_what_happened_before_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    for round in 1..=2 {
        let service = Service::open(folder).await;
        for _ in 0..3 {
            assert_eq!(service.post("/calls", numbers()).await.0, 403);
        }
        let told = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                let (_, status) = service.ask("GET", "/status", Value::Null).await;
                if status["alerts"] == 3 {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let status = told.await.expect("every violation is told, in each round only the new ones");
        assert_eq!(status["handlers"]["alerts"]["parked"], 0, "round {round}: {status}");
        service.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused_without_repeating_it() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::open(folder.path().to_str().unwrap()).await;
    let (code, said) = service.post("/calls", json!({ "from": FROM, "to": "555-0199" })).await;
    assert_eq!(code, 400);
    assert!(!said.to_string().contains("555"), "{said}");
    let number = json!({ "from": 12_125_550_101_u64, "to": TO });
    let (code, said) = service.post("/calls", number).await;
    assert_eq!((code, said["error"].is_string()), (400, true));
    assert!(!said.to_string().contains("555"), "{said}");
    assert_eq!(service.ask("GET", "/audit", Value::Null).await.0, 400);
    let nobody = format!("/audit?hash={}", "0".repeat(64));
    assert_eq!(service.ask("GET", &nobody, Value::Null).await, (200, json!([])));
    service.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_goes_unrecorded_for_a_header_that_says_little() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::open(folder.path().to_str().unwrap()).await;
    let listed = service.post("/do-not-call", json!({ "number": TO })).await;
    assert_eq!(listed.0, 200);
    let agent = "x".repeat(3_000);
    let headers = format!(
        "x-forwarded-for: 203.0.113.7, 10.0.0.1\r\ntraceparent: 00-x\r\nuser-agent: {agent}\r\n\
         x-correlation-id: headers\r\n"
    );
    let numbers = json!({ "from": FROM, "to": TO });
    let (code, _) = service.ask_with(&headers, "POST", "/calls", numbers.clone()).await;
    assert_eq!(code, 403, "it is on the list");
    let (entries, _) = service.audit("correlation=headers").await;
    assert_eq!(entries[0]["ip_address"], "203.0.113.7");
    assert_eq!(entries[0]["user_agent"].as_str().unwrap().len(), 1_024);
    let long = format!("x-correlation-id: {}\r\n", "x".repeat(256));
    let (code, said) = service.ask_with(&long, "POST", "/calls", numbers).await;
    assert_eq!(code, 400);
    assert!(said.to_string().contains("255 bytes are the most, not 256"), "{said}");
    service.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_of_a_damaged_log_is_an_error_and_not_a_part_of_the_truth() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::default().with_segment_bytes(1 << 20);
    let log = Embedded::open(folder.path(), options.clone()).unwrap();
    let number = PhoneKey::new("test", &[7; 32]).unwrap().hash(&TO.parse().unwrap());
    for call in 0..24 {
        let key = AggregateKey::new("Call", call.to_string());
        let more = "x".repeat(100_000);
        let payload = json!({ "to_number_hash": number.to_string(), "more": more }).to_string();
        log.append(Append::any(vec![log.new_event(key, "CallAttempted", payload)])).await.unwrap();
    }
    log.close();
    drop(log);
    let sealed = folder.path().join("00000000000000000001.seg");
    let mut bytes = std::fs::read(&sealed).unwrap();
    bytes[500_000] ^= 1;
    std::fs::write(&sealed, bytes).unwrap();
    let log = Embedded::open(folder.path(), options).unwrap();
    let audit = audit::Audit::follow(&log).unwrap();
    let error = audit.of_number(&log, number).await.unwrap_err();
    assert!(matches!(error, ReadError::Corruption(_)), "{error}");
    log.close();
}
