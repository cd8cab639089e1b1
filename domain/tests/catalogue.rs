//! The catalogue: its page, what it has ever written, and what it refuses to read.
#![expect(clippy::disallowed_methods, reason = "tests read the repository")]

use std::path::{Path, PathBuf};

use quipu_client::testing::stored;
use quipu_client::{
    AggregateEvent, AggregateKey, DecodeError, DecodeProblem, EncodeError, NewEvent, Position,
    Record, Timestamp, UntypedEvent, Uuid, Version,
};
use quipu_domain::PlatformEvent;
use quipu_domain::catalogue::{
    AccountEvent, AccountUpdated, CallEvent, CallStarted, ConsentEvent, ConsentGranted, catalogue,
};
use quipu_domain::events::EventDescription;
use quipu_domain::events_page;
use serde_json::json;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn events() -> Vec<EventDescription> {
    catalogue().into_iter().flat_map(|family| family.events).collect()
}

fn new_event(aggregate_type: &str, event_type: &str, payload: impl Into<Vec<u8>>) -> NewEvent {
    let key = AggregateKey::new(aggregate_type, "1");
    NewEvent::json(Uuid::from_u128(7), key, event_type, Timestamp::from_micros(0), payload)
}

fn record(event: &NewEvent) -> Record {
    stored(event, Position(42), Version(3))
}

fn refused(event: &NewEvent) -> DecodeProblem {
    let error: DecodeError = PlatformEvent::decode(&record(event)).expect_err("refused");
    assert_eq!((error.event_id, error.position), (Uuid::from_u128(7), Position(42)));
    assert_eq!(error.event_type, event.event_type);
    let text = error.to_string();
    for part in [&event.event_id.to_string(), "position 42", &event.event_type] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    error.problem
}

#[test]
fn the_page_shows_the_catalogue() {
    let page = std::fs::read_to_string(repository("docs/events.md")).unwrap_or_default();
    assert!(
        page == events_page(),
        "docs/events.md differs from the catalogue in domain/src/catalogue/. Make it again with\n\
         cargo run -p quipu-domain --example events_page\nand read the difference before you \
         commit it."
    );
}

/// One file for each event and each schema version there ever was; a file is never changed.
#[test]
fn what_was_ever_written_is_read_and_what_is_written_does_not_change_unnoticed() {
    for event in events() {
        let current = event.example.schema_version;
        for schema_version in 1..=current {
            let path = format!("domain/tests/fixtures/{}.{schema_version}.json", event.name);
            let json = std::fs::read_to_string(repository(&path)).unwrap_or_else(|error| {
                let example = String::from_utf8_lossy(&event.example.payload);
                panic!("{path}: {error}. Keep the event's JSON there, for ever: {example}")
            });
            let mut old = new_event(event.aggregate_type, event.name, json.trim_end());
            old.schema_version = schema_version;
            let read = PlatformEvent::decode(&record(&old)).unwrap_or_else(|error| {
                panic!("{path} is no longer read: {error}. Give {} an upcaster.", event.name)
            });
            let written = read.encode().unwrap();
            assert_eq!((written.schema_version, &*written.event_type), (current, event.name));
            if schema_version == current {
                assert_eq!(
                    String::from_utf8_lossy(&written.payload),
                    json.trim_end(),
                    "{path} is written otherwise now: give {} a new schema version, with an \
                     upcaster from the last",
                    event.name
                );
            }
        }
    }
}

#[test]
fn no_fixture_is_of_an_event_that_is_gone() {
    let known = |name: &str| events().iter().any(|event| event.name == name);
    let fixtures = std::fs::read_dir(repository("domain/tests/fixtures")).unwrap();
    for fixture in fixtures {
        let name = fixture.unwrap().file_name().into_string().unwrap();
        assert!(known(name.split('.').next().unwrap()), "{name}: a log may still have such events");
    }
}

#[test]
fn every_example_comes_back_from_its_record() {
    for event in events() {
        let stored =
            record(&new_event(event.aggregate_type, event.name, event.example.payload.clone()));
        let read = PlatformEvent::decode(&stored).unwrap();
        assert_eq!(read.encode().unwrap(), event.example, "{}", event.name);
    }
}

#[test]
fn the_events_the_platform_asked_for_are_there() {
    let names: Vec<&str> = events().iter().map(|event| event.name).collect();
    let asked = "ConsentGranted ConsentRevoked DNCCheckPerformed ComplianceViolationDetected \
                 CallCreated CallAttempted CallStarted CallAnswered CallCompleted CallFailed \
                 AccountOpened AccountUpdated AccountSuspended AccountReactivated AccountClosed \
                 ChargeAuthorised PaymentReceived PaymentFailed RefundIssued CreditApplied \
                 InvoiceIssued BalanceAdjusted";
    assert_eq!(names, asked.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn an_absent_option_is_left_out_and_read_as_absent() {
    let json = r#"{"type":"hours","passed":false,"duration":5}"#;
    let check: quipu_domain::catalogue::ComplianceCheck = serde_json::from_str(json).unwrap();
    assert_eq!(check.reason, None);
    assert_eq!(serde_json::to_string(&check).unwrap(), json);
}

#[test]
fn an_event_that_has_no_json_is_not_written() {
    let expires_at = Some(Timestamp::from_micros(i64::MAX));
    let event = ConsentGranted { expires_at, ..ConsentGranted::example() };
    match ConsentEvent::from(event).encode() {
        Err(EncodeError::NotJson { event_type, problem }) => {
            assert_eq!(event_type, "ConsentGranted");
            assert!(problem.contains("RFC 3339"), "{problem}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_event_that_could_not_be_read_again_is_not_written() {
    let nested = |depth| (1..depth).fold(json!([]), |inner, _| json!([inner]));
    let update = |depth| {
        let changes = [("notes".to_owned(), nested(depth))].into_iter().collect();
        AccountEvent::from(AccountUpdated { changes }).encode()
    };
    let payload = update(125).unwrap().payload;
    let stored = record(&new_event("Account", "AccountUpdated", payload));
    assert!(AccountEvent::decode(&stored).is_ok());
    let untyped =
        UntypedEvent { event_type: "Noted".to_owned(), schema_version: 1, data: nested(128) };
    for refused in [update(126), untyped.encode()] {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("nested 128 deep, 127 is the most"), "{error}");
    }
}

#[test]
fn what_stands_in_place_of_a_time_is_not_repeated() {
    let started = CallEvent::from(CallStarted::example()).encode().unwrap().payload;
    let mut started: serde_json::Value = serde_json::from_slice(&started).unwrap();
    started["started_at"] = json!("+12125550100");
    let problem = refused(&new_event("Call", "CallStarted", started.to_string())).to_string();
    assert!(problem.contains("started_at") && !problem.contains("2125550100"), "{problem}");
}

#[test]
fn an_unknown_type_is_named() {
    assert_eq!(refused(&new_event("Call", "CallForwarded", "{}")), DecodeProblem::UnknownType);
    assert_eq!(refused(&new_event("Ticket", "CallCreated", "{}")), DecodeProblem::UnknownType);
    let of_another = record(&new_event("Consent", "CallCreated", "{}"));
    assert_eq!(ConsentEvent::decode(&of_another).unwrap_err().problem, DecodeProblem::UnknownType);
    assert_eq!(CallEvent::decode(&of_another).unwrap_err().problem, DecodeProblem::UnknownType);
}

#[test]
fn a_schema_version_that_is_newer_or_none_is_named() {
    let mut event = new_event("Call", "CallCreated", "{}");
    event.schema_version = 2;
    assert_eq!(refused(&event), DecodeProblem::NewerSchema { given: 2, known: 1 });
    event.schema_version = 0;
    assert_eq!(refused(&event), DecodeProblem::NoSchema);
}

#[test]
fn json_that_does_not_fit_is_named_with_what_is_wrong() {
    let cases = [
        ("CallFailed", r"{}", "missing field `reason`"),
        ("CallFailed", r#"{"reason":7}"#, "reason: invalid type: integer, expected"),
        ("CallFailed", r#"{"reason":"x","more":1}"#, "unknown field `more`"),
        ("CallFailed", r#"{"reason":"x","reason":"y"}"#, "duplicate field"),
        ("CallFailed", r#""x""#, "invalid type"),
        ("CallCompleted", r#"{"duration":1.5,"outcome":"busy"}"#, "invalid type: floating point"),
        ("CallCompleted", r#"{"duration":-1,"outcome":"busy"}"#, "invalid value"),
        (
            "CallCompleted",
            r#"{"duration":1,"outcome":"bored"}"#,
            "outcome: unknown variant, expected",
        ),
    ];
    for (event_type, json, wrong) in cases {
        match refused(&new_event("Call", event_type, json)) {
            DecodeProblem::Unfit { schema_version: 1, problem } => {
                assert!(problem.contains(wrong), "{json}: {problem}");
            }
            other => panic!("{json}: {other}"),
        }
    }
}

#[test]
fn a_raw_phone_number_where_a_hash_belongs_is_refused_and_not_repeated() {
    for given in [r#""+12125550100""#, "12125550100", "[12125550100]"] {
        let json = format!(
            r#"{{"from_number_hash":{given},"to_number_hash":{given},
               "started_at":"2026-01-02T03:04:05Z"}}"#
        );
        match refused(&new_event("Call", "CallStarted", json)) {
            DecodeProblem::Unfit { problem, .. } => {
                assert!(!problem.contains("2125550100"), "{problem}");
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn what_is_no_json_is_named() {
    let mut event = new_event("Call", "CallCreated", [0xff, 0]);
    event.content_type = "application/octet-stream".to_owned();
    let given = event.content_type.clone();
    assert_eq!(refused(&event), DecodeProblem::NotJson { given });
}
