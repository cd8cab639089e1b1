//! The built-in read models are what a plain fold of the same events says.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::BTreeMap;

use quipu_client::{AggregateEvent, NewEvent, Timestamp, encode_event};
use quipu_domain::catalogue::*;
use quipu_domain::{Money, Nanoseconds, PhoneKey, PhoneNumberHash};
use quipu_replicator::BatchLimits;
use support::{Bench, all, seconds, uuid, wait};

fn hash(number: u8) -> PhoneNumberHash {
    let key = PhoneKey::new("test", &[7; 32]).unwrap();
    key.hash(&format!("+1212555{:04}", 1_000 + u32::from(number)).parse().unwrap())
}

fn event(bench: &Bench, event: &PlatformEvent, id: &str, at: Timestamp) -> NewEvent {
    let aggregate_type = match event {
        PlatformEvent::Consent(_) => ConsentEvent::AGGREGATE_TYPE,
        PlatformEvent::Compliance(_) => ComplianceEvent::AGGREGATE_TYPE,
        PlatformEvent::Call(_) => CallEvent::AGGREGATE_TYPE,
        PlatformEvent::Account(_) => AccountEvent::AGGREGATE_TYPE,
    };
    bench.typed((aggregate_type, id), &event.encode().unwrap(), at)
}

/// What a plain fold keeps, in the words of the tables.
#[derive(Default)]
struct Plain {
    statistics: BTreeMap<(String, String, String), (i64, u128)>,
    checks: BTreeMap<(String, String, String), (i64, i64)>,
    directions: BTreeMap<String, &'static str>,
    balances: BTreeMap<(String, String), i128>,
    totals: BTreeMap<(String, String, &'static str), (i64, i128)>,
    calls: BTreeMap<String, usize>,
    consents: BTreeMap<(String, ConsentType, Channel), bool>,
    listed: BTreeMap<String, bool>,
}

fn day(at: Timestamp) -> String {
    at.to_string()[..10].to_owned()
}

impl Plain {
    fn take(&mut self, event: &PlatformEvent, id: &str, at: Timestamp) {
        match event {
            PlatformEvent::Call(event) => self.take_call(event, id, at),
            PlatformEvent::Account(event) => self.take_account(event, id, at),
            PlatformEvent::Consent(ConsentEvent::ConsentGranted(it)) => {
                let key = (it.phone_number_hash.to_string(), it.consent_type, it.channel);
                self.consents.insert(key, false);
            }
            PlatformEvent::Consent(ConsentEvent::ConsentRevoked(it)) => {
                let hash = it.phone_number_hash.to_string();
                for ((number, kind, _), revoked) in &mut self.consents {
                    *revoked |= *number == hash && *kind == it.consent_type;
                }
            }
            PlatformEvent::Compliance(ComplianceEvent::DNCCheckPerformed(it)) => {
                self.listed.insert(it.phone_number_hash.to_string(), it.is_on_dnc);
            }
            PlatformEvent::Compliance(_) => {}
        }
    }

    fn take_call(&mut self, event: &CallEvent, id: &str, at: Timestamp) {
        let mut end = |outcome: &str, duration: u64| {
            let direction = self.directions.remove(id).unwrap_or("unknown").to_owned();
            let key = (day(at), direction, outcome.to_owned());
            let (calls, sum) = self.statistics.entry(key).or_default();
            (*calls, *sum) = (*calls + 1, *sum + u128::from(duration));
        };
        match event {
            CallEvent::CallCompleted(it) => {
                let outcome = serde_json::to_value(it.outcome).unwrap();
                end(outcome.as_str().unwrap(), it.duration.0);
            }
            CallEvent::CallFailed(_) => end("failed", 0),
            CallEvent::CallAttempted(it) => {
                let direction = match it.direction {
                    Direction::Inbound => "inbound",
                    Direction::Outbound => "outbound",
                };
                for check in &it.compliance_checks {
                    let key = (day(at), direction.to_owned(), check.check_type.clone());
                    let (made, failed) = self.checks.entry(key).or_default();
                    (*made, *failed) = (*made + 1, *failed + i64::from(!check.passed));
                }
                self.directions.insert(id.to_owned(), direction);
            }
            CallEvent::CallStarted(it) => {
                *self.calls.entry(it.to_number_hash.to_string()).or_default() += 1;
            }
            _ => {}
        }
    }

    fn take_account(&mut self, event: &AccountEvent, id: &str, at: Timestamp) {
        let (kind, amount, change) = match event {
            AccountEvent::PaymentReceived(it) => ("payment_received", it.amount, 1),
            AccountEvent::ChargeAuthorised(it) => ("charge_authorised", it.amount, -1),
            AccountEvent::RefundIssued(it) => ("refund_issued", it.amount, -1),
            AccountEvent::InvoiceIssued(it) => ("invoice_issued", it.amount, 0),
            _ => return,
        };
        let (currency, units) = (amount.currency.to_string(), i128::from(amount.minor_units));
        *self.balances.entry((id.to_owned(), currency.clone())).or_default() += change * units;
        let (events, sum) = self.totals.entry((day(at), currency, kind)).or_default();
        (*events, *sum) = (*events + 1, *sum + units);
    }
}

/// One of everything, more or less, in any order.
fn any_event(random: &mut fastrand::Rng) -> (PlatformEvent, String) {
    let number = hash(random.u8(..12));
    let call = format!("call {}", random.u8(..60));
    let kind = [ConsentType::Express, ConsentType::Implied][random.usize(..2)];
    let channel = [Channel::Voice, Channel::Sms, Channel::Email][random.usize(..3)];
    let currency = ["EUR", "USD"][random.usize(..2)].parse().unwrap();
    // As large as they come: sums do not fit a BIGINT.
    let amount = Money::new(i64::MAX - random.i64(0..1_000), currency);
    match random.u8(..12) {
        0 => {
            let grant = ConsentGranted {
                phone_number_hash: number,
                consent_type: kind,
                channel,
                ..ConsentGranted::example()
            };
            (PlatformEvent::Consent(grant.into()), number.to_string())
        }
        1 => {
            let revocation = ConsentRevoked {
                phone_number_hash: number,
                consent_type: kind,
                ..ConsentRevoked::example()
            };
            (PlatformEvent::Consent(revocation.into()), number.to_string())
        }
        2 => {
            let check = DNCCheckPerformed {
                phone_number_hash: number,
                is_on_dnc: random.bool(),
                ..DNCCheckPerformed::example()
            };
            (PlatformEvent::Compliance(check.into()), number.to_string())
        }
        3..6 => {
            let mut attempt = CallAttempted::example();
            attempt.direction = [Direction::Inbound, Direction::Outbound][random.usize(..2)];
            attempt.compliance_checks[0].passed = random.bool();
            (PlatformEvent::Call(attempt.into()), call)
        }
        6 => {
            let started = CallStarted { to_number_hash: number, ..CallStarted::example() };
            (PlatformEvent::Call(started.into()), call)
        }
        7 => {
            let duration = Nanoseconds(u64::MAX - u64::from(random.u8(..)));
            let outcome = [CallOutcome::Connected, CallOutcome::Busy][random.usize(..2)];
            (PlatformEvent::Call(CallCompleted { duration, outcome }.into()), call)
        }
        8 => (PlatformEvent::Call(CallFailed { reason: "x".to_owned() }.into()), call),
        9 => {
            let paid = PaymentReceived { amount, ..PaymentReceived::example() };
            (PlatformEvent::Account(paid.into()), format!("account {}", random.u8(..5)))
        }
        10 => {
            let charged = ChargeAuthorised { amount, ..ChargeAuthorised::example() };
            (PlatformEvent::Account(charged.into()), format!("account {}", random.u8(..5)))
        }
        _ => {
            let invoice = InvoiceIssued { amount, ..InvoiceIssued::example() };
            (PlatformEvent::Account(invoice.into()), format!("account {}", random.u8(..5)))
        }
    }
}

#[test]
fn random_events_give_the_tables_that_a_plain_fold_gives_in_batches_of_any_size() {
    let Some(bench) = Bench::new() else { return };
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut plain = Plain::default();
    for _ in 0..40 {
        let count = random.usize(1..120);
        let mut events = Vec::new();
        for _ in 0..count {
            let (happened, id) = any_event(&mut random);
            let at = seconds(1_700_000_000 + random.i64(0..400_000));
            plain.take(&happened, &id, at);
            events.push(event(&bench, &happened, &id, at));
        }
        bench.append(events);
        let events_max = random.usize(1..100);
        let limits = BatchLimits { events_max, ..BatchLimits::default() };
        let replicator = bench.replicator(all()).with_limits(limits);
        assert_eq!(wait(async { replicator.catch_up().await }).unwrap().failed, []);
    }
    compare(&bench, &plain);
    bench.verify(all());
}

fn compare(bench: &Bench, plain: &Plain) {
    let table = |sql: &str| bench.query(sql);
    let rows = plain.statistics.iter().map(|((day, direction, outcome), (calls, duration))| {
        vec![
            day.clone(),
            direction.clone(),
            outcome.clone(),
            calls.to_string(),
            duration.to_string(),
        ]
    });
    let mut expected: Vec<_> = rows.collect();
    expected.sort();
    assert_eq!(table("SELECT * FROM call_statistics ORDER BY 1, 2, 3"), expected);
    let rows = plain.checks.iter().map(|((day, direction, kind), (made, failed))| {
        vec![day.clone(), direction.clone(), kind.clone(), made.to_string(), failed.to_string()]
    });
    let checks = "SELECT day, direction, check_type, checks, failed FROM call_check_statistics \
                  ORDER BY 1, 2, 3";
    assert_eq!(table(checks), rows.collect::<Vec<_>>());
    let rows = plain.directions.iter().map(|(call, it)| vec![call.clone(), (*it).to_owned()]);
    assert_eq!(table("SELECT * FROM call_directions ORDER BY 1"), rows.collect::<Vec<_>>());
    let rows = plain.balances.iter().map(|((account, currency), balance)| {
        vec![account.clone(), currency.clone(), balance.to_string()]
    });
    let balances = "SELECT account_id, currency, balance FROM account_balances ORDER BY 1, 2";
    assert_eq!(table(balances), rows.collect::<Vec<_>>());
    let rows = plain.totals.iter().map(|((day, currency, kind), (events, units))| {
        vec![
            day.clone(),
            currency.clone(),
            (*kind).to_owned(),
            events.to_string(),
            units.to_string(),
        ]
    });
    let totals = table("SELECT * FROM financial_totals ORDER BY 1, 2, 3");
    assert_eq!(totals, rows.collect::<Vec<_>>());
    let rows = plain.calls.iter().map(|(hash, calls)| vec![hash.clone(), calls.to_string()]);
    let calls = "SELECT phone_number_hash, count(*) FROM compliance_calls k \
                 JOIN compliance_contacts c ON c.id = k.contact_id GROUP BY 1 ORDER BY 1";
    assert_eq!(table(calls), rows.collect::<Vec<_>>());
    let held = plain.consents.values().filter(|revoked| !**revoked).count();
    let all = plain.consents.len();
    let consents = "SELECT count(*), count(*) FILTER (WHERE revoked_at IS NULL) \
                    FROM compliance_consents";
    assert_eq!(table(consents), [[all.to_string(), held.to_string()]]);
    let rows = plain.listed.iter().map(|(hash, listed)| {
        vec![hash.clone(), if *listed { "listed" } else { "clear" }.to_owned()]
    });
    let listed = "SELECT phone_number_hash, dnc_status FROM compliance_contacts \
                  WHERE dnc_status IS NOT NULL ORDER BY 1";
    assert_eq!(table(listed), rows.collect::<Vec<_>>());
}

#[test]
fn a_contact_is_as_of_now_without_a_new_event() {
    let Some(bench) = Bench::new() else { return };
    let now = bench.log.new_event(quipu_client::AggregateKey::new("x", "x"), "x", "{}").timestamp;
    let ago = |seconds: i64| Timestamp::from_micros(now.as_micros() - seconds * 1_000_000);
    let grant = |number: u8, expires_at: Option<Timestamp>| {
        let phone_number_hash = hash(number);
        ConsentGranted { phone_number_hash, expires_at, ..ConsentGranted::example() }
    };
    let mut events = Vec::new();
    let mut add = |happened: PlatformEvent, at: Timestamp| {
        events.push(event(&bench, &happened, &uuid(1).to_string(), at));
    };
    // The first holds, the second has expired, the third was revoked, the fourth never given.
    add(PlatformEvent::Consent(grant(1, None).into()), ago(90));
    add(PlatformEvent::Consent(grant(2, Some(ago(10))).into()), ago(90));
    add(PlatformEvent::Consent(grant(3, None).into()), ago(90));
    let phone_number_hash = hash(3);
    let revoked = ConsentRevoked { phone_number_hash, ..ConsentRevoked::example() };
    add(PlatformEvent::Consent(revoked.into()), ago(80));
    let phone_number_hash = hash(4);
    let listed = DNCCheckPerformed { phone_number_hash, ..DNCCheckPerformed::example() };
    add(PlatformEvent::Compliance(listed.into()), ago(70));
    // Five calls within a day, and one before it.
    for hours in [1, 2, 3, 4, 5, 25] {
        let to_number_hash = hash(1);
        let started = CallStarted { to_number_hash, ..CallStarted::example() };
        add(PlatformEvent::Call(started.into()), ago(hours * 3_600));
    }
    let violation = ComplianceViolationDetected {
        phone_number_hash: hash(1),
        severity: Severity::High,
        ..ComplianceViolationDetected::example()
    };
    add(PlatformEvent::Compliance(violation.into()), ago(60));
    bench.append(events);
    bench.catch_up(all());
    let contact = |number: u8| {
        let sql = format!(
            "SELECT consent_status, dnc_status, call_count_24h, compliance_score \
             FROM compliance_projections WHERE phone_number_hash = '{}'",
            hash(number)
        );
        bench.query(&sql).remove(0).join(" ")
    };
    // 100 - 5 (unknown) - 20 (two calls above three) - 15 (a violation).
    assert_eq!(contact(1), "granted unknown 5 60");
    assert_eq!(contact(2), "expired unknown 0 75");
    assert_eq!(contact(3), "revoked unknown 0 55");
    assert_eq!(contact(4), "none listed 0 40");
    bench.verify(all());
}

#[test]
fn an_event_that_does_not_fit_stops_its_projection_and_no_other() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(10);
    let started = encode_event(&CallStarted::example()).unwrap();
    let mut broken = bench.typed(("Call", "1"), &started, seconds(1));
    broken.payload = br#"{"from_number_hash":"+12125550100"}"#.to_vec();
    let position = bench.append(vec![broken]);
    bench.append_plain(10);
    let replicator = bench.replicator(all());
    let failed = wait(async { replicator.catch_up().await }).unwrap().failed;
    assert_eq!(failed.len(), 1, "{failed:?}");
    let (name, problem) = &failed[0];
    assert_eq!(name, "compliance");
    let at = format!("position {position}");
    assert!(problem.contains(&at) && problem.contains("from_number_hash"), "{problem}");
    assert!(!problem.contains("212555"), "what stands in it is not repeated: {problem}");
    let rows = "SELECT last_processed_sequence, status, error_count, \
                last_error LIKE '%position 11%' \
                FROM event_subscriptions WHERE subscriber_name = 'compliance'";
    assert_eq!(bench.query(rows), [["10", "failed", "1", "t"]]);
    assert_eq!(bench.value("SELECT count(*) FROM event_store"), "21");
}
