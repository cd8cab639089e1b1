//! Whatever bytes a payload has: they are read as what they say, or refused; nothing panics.

use proptest::prelude::*;
use quipu_client::testing::stored;
use quipu_client::{
    AggregateEvent, AggregateKey, NewEvent, Position, Record, Timestamp, Traceparent, Uuid, Version,
};
use quipu_domain::catalogue::catalogue;
use quipu_domain::events::EventDescription;
use quipu_domain::{Currency, PhoneNumber, PhoneNumberHash, PlatformEvent};

fn record(event: &EventDescription, payload: Vec<u8>) -> Record {
    let key = AggregateKey::new(event.aggregate_type, "1");
    let time = Timestamp::from_micros(0);
    let new_event = NewEvent::json(Uuid::from_u128(1), key, event.name, time, payload);
    stored(&new_event, Position(1), Version(1))
}

fn any_event() -> impl Strategy<Value = EventDescription> {
    let events: Vec<_> = catalogue().into_iter().flat_map(|family| family.events).collect();
    prop::sample::select(events)
}

/// An event's example with some bytes replaced, or cut off.
fn edited() -> impl Strategy<Value = (EventDescription, Vec<u8>)> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (any_event(), edits, any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(event, edits, cut, is_cut)| {
            let mut payload = event.example.payload.clone();
            for (at, byte) in edits {
                let at = at.index(payload.len());
                payload[at] = byte;
            }
            if is_cut {
                payload.truncate(cut.index(payload.len()));
            }
            (event, payload)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_read_is_written_and_read_the_same((event, payload) in edited()) {
        if let Ok(read) = PlatformEvent::decode(&record(&event, payload)) {
            let written = read.encode().unwrap().payload;
            prop_assert_eq!(PlatformEvent::decode(&record(&event, written)).unwrap(), read);
        }
    }

    #[test]
    fn a_phone_number_is_none_or_normalised(text in "[+0-9 ().a-z\u{a0}é-]{0,24}|.{0,40}") {
        if let Ok(number) = text.parse::<PhoneNumber>() {
            let normalised = number.expose_e164();
            prop_assert!(normalised.starts_with('+') && normalised.len() <= 16);
            prop_assert!(normalised[1..].bytes().all(|byte| byte.is_ascii_digit()));
            prop_assert_eq!(normalised.parse::<PhoneNumber>().unwrap(), number);
        }
    }

    #[test]
    fn other_texts_are_what_they_say_or_refused(text in "[0-9a-f]{64}|[A-Z]{3}|.{0,70}") {
        if let Ok(hash) = text.parse::<PhoneNumberHash>() {
            prop_assert_eq!(hash.to_string(), text.as_str());
        }
        if let Ok(currency) = text.parse::<Currency>() {
            prop_assert_eq!(currency.code(), text.as_str());
        }
        if let Ok(traceparent) = text.parse::<Traceparent>() {
            prop_assert_eq!(traceparent.as_str(), text.as_str());
        }
    }
}
