//! Events of every kind there is, the same in every run.

use quipu_types::{AggregateKey, Append, Metadata, NewEvent, Timestamp, Uuid};

/// Every field is present.
pub fn full_event(id: u128) -> NewEvent {
    NewEvent {
        event_id: Uuid::from_u128(0x0190_aaaa_bbbb_7ccc_8ddd_0000_0000_0000 | id),
        aggregate: AggregateKey::new("LoanApplication", "173688"),
        event_type: "Submitted".to_owned(),
        timestamp: Timestamp::from_micros(1_317_422_324_546_789),
        schema_version: 2,
        metadata: Metadata {
            user_id: Some(Uuid::from_u128(0x6513_270e_269e_4d37_b2a7_4de4_52e6_b438)),
            correlation_id: "loan 173688".to_owned(),
            causation_id: "cause".to_owned(),
            ip_address: "192.0.2.1".to_owned(),
            user_agent: "curl/8".to_owned(),
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
            custom: br#"{"branch":"A"}"#.to_vec(),
        },
        content_type: "application/json".to_owned(),
        payload: br#"{"amount":20000.0}"#.to_vec(),
    }
}

/// One of many kinds of events, by its id.
pub fn varied_event(id: u128) -> NewEvent {
    let key = match id % 7 {
        0 => AggregateKey::new("Konto/Übersicht", format!("Zoë \"{}\"", id % 5)),
        3 => AggregateKey::new("$checkpoint", "replicator"),
        kind => AggregateKey::new("Call", format!("{}-{kind}", id % 11)),
    };
    let mut event = full_event(id);
    event.aggregate = key;
    event.event_type = format!("Kind{}", id % 4);
    event.timestamp = Timestamp::from_micros(match id % 9 {
        0 => -1,
        1 => -62_135_596_800_000_000,
        2 => 253_402_207_199_999_999,
        _ => 1_767_323_045_000_000 + i64::try_from(id).unwrap_or(0) * 1_001,
    });
    if id.is_multiple_of(2) {
        event.metadata = Metadata::default();
    }
    match id % 5 {
        0 => {
            "application/octet-stream".clone_into(&mut event.content_type);
            event.payload = (0..id % 700).map(|byte| byte.to_le_bytes()[0] ^ 0xa5).collect();
        }
        1 => event.payload = br#"[1.0, {"a":1,"a":2}, "\u00fc\ud83d\ude00", null]"#.to_vec(),
        2 => event.payload = format!("{{\"text\":\"{}\"}}", "knot ".repeat(900)).into_bytes(),
        3 => event.schema_version = u16::MAX,
        _ => {}
    }
    event
}

/// Appends of one to four events each.
pub fn varied_appends(ids: std::ops::Range<u128>) -> Vec<Append> {
    let ids: Vec<u128> = ids.collect();
    let mut rest = ids.as_slice();
    let mut appends = Vec::new();
    while let Some(first) = rest.first() {
        let count = usize::try_from(first % 4).unwrap_or(0) + 1;
        let (these, others) = rest.split_at(count.min(rest.len()));
        appends.push(Append::any(these.iter().map(|id| varied_event(*id)).collect()));
        rest = others;
    }
    appends
}
