//! Money: the balance of each account, and what moved on each day, by currency.

use std::collections::HashMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use quipu_client::{AggregateEvent, EventType, Record};
use quipu_domain::Money;
use quipu_domain::catalogue::{
    AccountEvent, AccountOpened, BalanceAdjusted, ChargeAuthorised, CreditApplied, InvoiceIssued,
    PaymentFailed, PaymentReceived, RefundIssued,
};

use crate::instant::Instant;
use crate::projection::{Fold, Interest, OnFailure, Projection, declared};
use crate::session::Session;
use crate::sql_error::SqlError;

const MIGRATIONS: [&str; 1] = [include_str!("sql/account_balances_1.sql")];
const BALANCES: &str = include_str!("sql/account_balances.sql");
const TOTALS: &str = include_str!("sql/financial_totals.sql");

/// Balances by account, and totals by day, currency and kind.
#[derive(Clone, Debug)]
pub struct AccountBalances {
    interest: Interest,
    on_failure: OnFailure,
}

impl AccountBalances {
    /// The projection `account_balances`.
    #[must_use]
    pub fn new(on_failure: OnFailure) -> Self {
        let event_types = [
            AccountOpened::NAME,
            ChargeAuthorised::NAME,
            PaymentReceived::NAME,
            PaymentFailed::NAME,
            RefundIssued::NAME,
            CreditApplied::NAME,
            InvoiceIssued::NAME,
            BalanceAdjusted::NAME,
        ];
        Self { interest: Interest::of(&[AccountEvent::AGGREGATE_TYPE], &event_types), on_failure }
    }
}

impl Projection for AccountBalances {
    declared!("account_balances", MIGRATIONS);

    fn fold(&self) -> Box<dyn Fold> {
        Box::new(AccountsFold::default())
    }
}

struct Balance {
    change: i128,
    updated_at: Instant,
}

#[derive(Default)]
struct Total {
    events: i64,
    minor_units: i128,
}

#[derive(Default)]
struct AccountsFold {
    /// By account and currency.
    balances: HashMap<(String, String), Balance>,
    /// By day, currency and kind.
    totals: HashMap<(i32, String, &'static str), Total>,
}

/// What an event does to the balance of its account, and as what it is counted.
struct Movement {
    kind: &'static str,
    amount: Money,
    sign: i128,
}

impl Movement {
    fn of(event: &AccountEvent) -> Option<Self> {
        let (kind, amount, sign) = match event {
            AccountEvent::AccountOpened(it) => ("account_opened", Money::zero(it.currency), 0),
            AccountEvent::ChargeAuthorised(it) => ("charge_authorised", it.amount, -1),
            AccountEvent::PaymentReceived(it) => ("payment_received", it.amount, 1),
            AccountEvent::PaymentFailed(it) => ("payment_failed", it.amount, 0),
            AccountEvent::RefundIssued(it) => ("refund_issued", it.amount, -1),
            AccountEvent::CreditApplied(it) => ("credit_applied", it.amount, 1),
            AccountEvent::InvoiceIssued(it) => ("invoice_issued", it.amount, 0),
            AccountEvent::BalanceAdjusted(it) => ("balance_adjusted", it.amount, 1),
            _ => return None,
        };
        Some(Self { kind, amount, sign })
    }
}

impl Fold for AccountsFold {
    fn take(&mut self, record: &Record) -> Result<(), String> {
        let updated_at = Instant::of(record.timestamp())?;
        let event = AccountEvent::decode(record).map_err(|error| error.problem.to_string())?;
        let Some(Movement { kind, amount, sign }) = Movement::of(&event) else { return Ok(()) };
        let (currency, minor_units) = (amount.currency.to_string(), i128::from(amount.minor_units));
        let key = (record.aggregate_id().to_owned(), currency.clone());
        let balance = self.balances.entry(key).or_insert(Balance { change: 0, updated_at });
        balance.change += sign * minor_units;
        balance.updated_at = updated_at;
        let total = self.totals.entry((updated_at.day(), currency, kind)).or_default();
        total.events += 1;
        total.minor_units += minor_units;
        Ok(())
    }

    fn apply<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<(), SqlError>> {
        async {
            if self.balances.is_empty() {
                return Ok(());
            }
            let (keys, balances) = (|| self.balances.keys(), || self.balances.values());
            let accounts: Vec<&str> = keys().map(|(account, _)| account.as_str()).collect();
            let currencies: Vec<&str> = keys().map(|(_, currency)| currency.as_str()).collect();
            let changes: Vec<String> = balances().map(|it| it.change.to_string()).collect();
            let updated: Vec<Instant> = balances().map(|it| it.updated_at).collect();
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
                [&accounts, &currencies, &changes, &updated];
            session.execute("write account_balances", BALANCES, &parameters).await?;
            let (keys, totals) = (|| self.totals.keys(), || self.totals.values());
            let days: Vec<i32> = keys().map(|(day, ..)| *day).collect();
            let currencies: Vec<&str> = keys().map(|(_, currency, _)| currency.as_str()).collect();
            let kinds: Vec<&str> = keys().map(|(.., kind)| *kind).collect();
            let events: Vec<i64> = totals().map(|it| it.events).collect();
            let amounts: Vec<String> = totals().map(|it| it.minor_units.to_string()).collect();
            let doing = "write financial_totals";
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
                [&days, &currencies, &kinds, &events, &amounts];
            session.execute(doing, TOTALS, &parameters).await.map(drop)
        }
        .boxed()
    }
}
