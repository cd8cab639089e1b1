//! One customer's account: what may be charged, paid and given back.

use std::collections::BTreeMap;

use quipu_client::{Aggregate, Inapplicable, Snapshotted, Uuid};
use serde::{Deserialize, Serialize};

use crate::catalogue::{
    AccountClosed, AccountEvent, AccountOpened, AccountReactivated, AccountSuspended,
    AccountUpdated, BalanceAdjusted, ChargeAuthorised, CreditApplied, InvoiceIssued, PaymentFailed,
    PaymentReceived, RefundIssued,
};
use crate::currency::Currency;
use crate::money::{Money, MoneyError};

/// One account; the aggregate's id is a UUID.
///
/// The balance is what the customer has left: payments and credits raise it, charges and refunds
/// lower it, adjustments move it either way, an invoice moves nothing. It may be below zero.
///
/// Rules:
/// 1. An account is opened once, everything else follows that, and once it is closed nothing more
///    happens.
/// 2. Every amount is of the account's currency and above zero; an adjustment may be below.
/// 3. A suspended account takes no charges; everything else goes on.
/// 4. A refund gives back a payment that was received, and no more than is left of it. A payment
///    is received once.
/// 5. An account is closed at a balance of zero.
/// 6. A balance that no amount can hold is refused.
///
/// The state has an entry for each payment ever received, some 80 bytes in a snapshot: with more
/// than about 13,000 it is larger than an event may be by default, and no snapshot is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    status: AccountStatus,
    balance: Option<Money>,
    /// What is left of each payment to give back.
    refundable: BTreeMap<Uuid, Money>,
}

/// What an account takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccountStatus {
    /// Nothing: it does not exist.
    #[default]
    None,
    /// Everything.
    Open,
    /// No charges.
    Suspended,
    /// Nothing any more.
    Closed,
}

/// Why nothing happened to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccountRefusal {
    /// It must have another status for that.
    #[error("the account is {actual:?}; for that it must be {required:?}")]
    Status {
        /// The status it must have.
        required: AccountStatus,
        /// The status it has.
        actual: AccountStatus,
    },
    /// There is no such account.
    #[error("the account was never opened")]
    NotOpened,
    /// It is closed.
    #[error("the account is closed")]
    Closed,
    /// It takes no charges.
    #[error("the account is suspended: it takes no charges")]
    Suspended,
    /// An update that changes nothing.
    #[error("the update changes nothing")]
    NothingChanged,
    /// An amount that is zero or less, or an adjustment by zero.
    #[error("{0} is no amount for that: it must be above zero, or, to adjust, not zero")]
    Amount(Money),
    /// Another currency, or more than an amount can hold.
    #[error(transparent)]
    Money(#[from] MoneyError),
    /// No such payment was received.
    #[error("payment {0} was never received")]
    UnknownPayment(Uuid),
    /// The payment was received already.
    #[error("payment {0} was already received")]
    RepeatedPayment(Uuid),
    /// More than is left of the payment.
    #[error("a refund of {given} is more than what is left of the payment, {left}")]
    RefundTooLarge {
        /// The refund.
        given: Money,
        /// What is left.
        left: Money,
    },
    /// Money is owed, by one side or the other.
    #[error("the account has a balance of {0}: it is closed at zero only")]
    NotSettled(Money),
}

type Decision = Result<Vec<AccountEvent>, AccountRefusal>;

impl Account {
    /// What it takes.
    #[must_use]
    pub fn status(&self) -> AccountStatus {
        self.status
    }

    /// What the customer has left; `None` before the account is opened.
    #[must_use]
    pub fn balance(&self) -> Option<Money> {
        self.balance
    }

    /// Opens the account.
    pub fn open(&self, owner_id: Uuid, currency: Currency) -> Decision {
        self.require(AccountStatus::None)?;
        Ok(vec![AccountOpened { owner_id, currency }.into()])
    }

    /// Notes what changed.
    pub fn update(&self, update: AccountUpdated) -> Decision {
        self.live_balance()?;
        if update.changes.is_empty() {
            return Err(AccountRefusal::NothingChanged);
        }
        Ok(vec![update.into()])
    }

    /// Takes no charges from now on.
    pub fn suspend(&self, reason: impl Into<String>) -> Decision {
        self.require(AccountStatus::Open)?;
        Ok(vec![AccountSuspended { reason: reason.into() }.into()])
    }

    /// Takes charges again.
    pub fn reactivate(&self, reason: impl Into<String>) -> Decision {
        self.require(AccountStatus::Suspended)?;
        Ok(vec![AccountReactivated { reason: reason.into() }.into()])
    }

    /// Closes the account for good.
    pub fn close(&self, reason: impl Into<String>) -> Decision {
        let balance = self.live_balance()?;
        if balance.minor_units != 0 {
            return Err(AccountRefusal::NotSettled(balance));
        }
        Ok(vec![AccountClosed { reason: reason.into() }.into()])
    }

    /// Takes a charge off the balance.
    pub fn authorise_charge(&self, charge: ChargeAuthorised) -> Decision {
        let balance = self.balance_for(charge.amount)?;
        if self.status == AccountStatus::Suspended {
            return Err(AccountRefusal::Suspended);
        }
        balance.minus(charge.amount)?;
        Ok(vec![charge.into()])
    }

    /// Adds a payment to the balance.
    pub fn receive_payment(&self, payment: PaymentReceived) -> Decision {
        self.balance_for(payment.amount)?.plus(payment.amount)?;
        if self.refundable.contains_key(&payment.payment_id) {
            return Err(AccountRefusal::RepeatedPayment(payment.payment_id));
        }
        Ok(vec![payment.into()])
    }

    /// Notes a payment that did not come in.
    pub fn fail_payment(&self, payment: PaymentFailed) -> Decision {
        self.balance_for(payment.amount)?;
        Ok(vec![payment.into()])
    }

    /// Gives a payment back, or a part of it.
    pub fn refund(&self, refund: RefundIssued) -> Decision {
        let (balance, given) = (self.balance_for(refund.amount)?, refund.amount);
        let payment_id = refund.payment_id;
        let left = self.refundable.get(&payment_id).copied();
        let left = left.ok_or(AccountRefusal::UnknownPayment(payment_id))?;
        if left.minus(given)?.minor_units < 0 {
            return Err(AccountRefusal::RefundTooLarge { given, left });
        }
        balance.minus(given)?;
        Ok(vec![refund.into()])
    }

    /// Adds a credit to the balance.
    pub fn apply_credit(&self, credit: CreditApplied) -> Decision {
        self.balance_for(credit.amount)?.plus(credit.amount)?;
        Ok(vec![credit.into()])
    }

    /// Asks for money.
    pub fn issue_invoice(&self, invoice: InvoiceIssued) -> Decision {
        self.balance_for(invoice.amount)?;
        Ok(vec![invoice.into()])
    }

    /// Puts the balance right.
    pub fn adjust_balance(&self, adjustment: BalanceAdjusted) -> Decision {
        if adjustment.amount.minor_units == 0 {
            return Err(AccountRefusal::Amount(adjustment.amount));
        }
        self.live_balance()?.plus(adjustment.amount)?;
        Ok(vec![adjustment.into()])
    }

    fn require(&self, required: AccountStatus) -> Result<(), AccountRefusal> {
        match self.status {
            actual if actual == required => Ok(()),
            AccountStatus::Closed => Err(AccountRefusal::Closed),
            actual => Err(AccountRefusal::Status { required, actual }),
        }
    }

    /// The balance, of an account that is neither unopened nor closed.
    fn live_balance(&self) -> Result<Money, AccountRefusal> {
        match self.status {
            AccountStatus::Closed => Err(AccountRefusal::Closed),
            _ => self.balance.ok_or(AccountRefusal::NotOpened),
        }
    }

    /// The balance, if `amount` is one that may move on this account (rules 1 and 2).
    fn balance_for(&self, amount: Money) -> Result<Money, AccountRefusal> {
        let balance = self.live_balance()?;
        amount.of(balance.currency)?;
        if amount.minor_units <= 0 {
            return Err(AccountRefusal::Amount(amount));
        }
        Ok(balance)
    }
}

impl Snapshotted for Account {}

impl Aggregate for Account {
    const TYPE: &'static str = AccountEvent::AGGREGATE_TYPE;
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) -> Result<(), Inapplicable> {
        if let AccountEvent::AccountOpened(opened) = event {
            self.balance = Some(Money::zero(opened.currency));
        }
        let never_opened = || Inapplicable::because("the account was never opened");
        let balance = self.balance.ok_or_else(never_opened)?;
        let balance_after = balance_after(balance, event);
        let balance_after = balance_after.map_err(|error| Inapplicable::because(error.to_string()));
        self.balance = Some(balance_after?);
        self.keep_refundable(event)?;
        self.status = match event {
            AccountEvent::AccountOpened(_) | AccountEvent::AccountReactivated(_) => {
                AccountStatus::Open
            }
            AccountEvent::AccountSuspended(_) => AccountStatus::Suspended,
            AccountEvent::AccountClosed(_) => AccountStatus::Closed,
            _ => self.status,
        };
        Ok(())
    }
}

impl Account {
    fn keep_refundable(&mut self, event: &AccountEvent) -> Result<(), Inapplicable> {
        match event {
            AccountEvent::PaymentReceived(payment) => {
                self.refundable.insert(payment.payment_id, payment.amount);
            }
            AccountEvent::RefundIssued(refund) => {
                let unknown = || AccountRefusal::UnknownPayment(refund.payment_id);
                let left = self.refundable.get_mut(&refund.payment_id);
                let left = left.ok_or_else(|| Inapplicable::because(unknown().to_string()))?;
                let after = left.minus(refund.amount);
                *left = after.map_err(|error| Inapplicable::because(error.to_string()))?;
            }
            _ => {}
        }
        Ok(())
    }
}

fn balance_after(balance: Money, event: &AccountEvent) -> Result<Money, MoneyError> {
    match event {
        AccountEvent::ChargeAuthorised(charge) => balance.minus(charge.amount),
        AccountEvent::PaymentReceived(payment) => balance.plus(payment.amount),
        AccountEvent::RefundIssued(refund) => balance.minus(refund.amount),
        AccountEvent::CreditApplied(credit) => balance.plus(credit.amount),
        AccountEvent::BalanceAdjusted(adjustment) => balance.plus(adjustment.amount),
        AccountEvent::AccountOpened(_)
        | AccountEvent::AccountUpdated(_)
        | AccountEvent::AccountSuspended(_)
        | AccountEvent::AccountReactivated(_)
        | AccountEvent::AccountClosed(_)
        | AccountEvent::PaymentFailed(_)
        | AccountEvent::InvoiceIssued(_) => Ok(balance),
    }
}

#[cfg(test)]
mod tests {
    use quipu_client::testing::{Given, given};

    use super::*;
    use crate::example;

    const PAYMENT: u128 = 4;

    fn dollars(cents: i64) -> Money {
        example::dollars(cents)
    }

    fn euros(cents: i64) -> Money {
        Money::new(cents, "EUR".parse().unwrap())
    }

    fn opened() -> AccountEvent {
        AccountOpened::example().into()
    }

    fn suspended() -> AccountEvent {
        AccountSuspended { reason: "late".to_owned() }.into()
    }

    fn reactivated() -> AccountEvent {
        AccountReactivated { reason: "paid".to_owned() }.into()
    }

    fn closed() -> AccountEvent {
        AccountClosed { reason: "asked".to_owned() }.into()
    }

    fn charge(amount: Money) -> ChargeAuthorised {
        ChargeAuthorised { amount, ..ChargeAuthorised::example() }
    }

    fn payment(amount: Money) -> PaymentReceived {
        PaymentReceived { amount, payment_id: example::id(PAYMENT), ..PaymentReceived::example() }
    }

    fn refund(amount: Money) -> RefundIssued {
        RefundIssued { amount, payment_id: example::id(PAYMENT), ..RefundIssued::example() }
    }

    fn credit(amount: Money) -> CreditApplied {
        CreditApplied { amount, ..CreditApplied::example() }
    }

    fn adjustment(amount: Money) -> BalanceAdjusted {
        BalanceAdjusted { amount, ..BalanceAdjusted::example() }
    }

    /// Every decision, each with an amount of its own.
    fn decide_everything(account: &Account, amount: Money) -> Vec<(&'static str, Decision)> {
        let failed = PaymentFailed { amount, ..PaymentFailed::example() };
        let invoice = InvoiceIssued { amount, ..InvoiceIssued::example() };
        vec![
            ("charge", account.authorise_charge(charge(amount))),
            ("payment", account.receive_payment(payment(amount))),
            ("failed payment", account.fail_payment(failed)),
            ("refund", account.refund(refund(amount))),
            ("credit", account.apply_credit(credit(amount))),
            ("invoice", account.issue_invoice(invoice)),
            ("adjustment", account.adjust_balance(adjustment(amount))),
        ]
    }

    #[track_caller]
    fn assert_balance(account: &Given<Account>, cents: i64) {
        assert_eq!(account.state().balance(), Some(dollars(cents)));
    }

    #[test]
    fn every_movement_moves_the_balance_its_way() {
        let account = given::<Account>([])
            .when(|account| account.open(example::id(2), example::currency()))
            .then([opened()]);
        assert_balance(&account, 0);
        let account = account
            .when(|account| account.receive_payment(payment(dollars(500))))
            .then([payment(dollars(500)).into()]);
        assert_balance(&account, 500);
        let account = account
            .when(|account| account.authorise_charge(charge(dollars(700))))
            .then([charge(dollars(700)).into()]);
        assert_balance(&account, -200);
        let account = account
            .when(|account| account.apply_credit(credit(dollars(50))))
            .then([credit(dollars(50)).into()])
            .when(|account| account.adjust_balance(adjustment(dollars(-5))))
            .then([adjustment(dollars(-5)).into()]);
        assert_balance(&account, -155);
        let account = account
            .when(|account| account.refund(refund(dollars(100))))
            .then([refund(dollars(100)).into()]);
        assert_balance(&account, -255);
        let account = account
            .when(|account| account.issue_invoice(InvoiceIssued::example()))
            .then([InvoiceIssued::example().into()])
            .when(|account| account.fail_payment(PaymentFailed::example()))
            .then([PaymentFailed::example().into()])
            .when(|account| account.update(AccountUpdated::example()))
            .then([AccountUpdated::example().into()]);
        assert_balance(&account, -255);
    }

    #[test]
    fn an_account_is_opened_once() {
        let (required, actual) = (AccountStatus::None, AccountStatus::Open);
        given::<Account>([opened()])
            .when(|account| account.open(example::id(2), example::currency()))
            .then_refused(AccountRefusal::Status { required, actual });
    }

    #[test]
    fn nothing_happens_to_an_account_that_was_never_opened() {
        let nobody = Account::default();
        for (what, decision) in decide_everything(&nobody, dollars(1)) {
            assert_eq!(decision, Err(AccountRefusal::NotOpened), "{what}");
        }
        assert_eq!(nobody.close("x"), Err(AccountRefusal::NotOpened));
        assert_eq!(nobody.update(AccountUpdated::example()), Err(AccountRefusal::NotOpened));
        assert!(Account::default().apply(&suspended()).is_err());
    }

    #[test]
    fn nothing_happens_to_a_closed_account() {
        let account = given::<Account>([opened(), closed()]);
        for (what, decision) in decide_everything(account.state(), dollars(1)) {
            assert_eq!(decision, Err(AccountRefusal::Closed), "{what}");
        }
        let closed = account.state();
        assert_eq!(closed.open(example::id(2), example::currency()), Err(AccountRefusal::Closed));
        assert_eq!(closed.update(AccountUpdated::example()), Err(AccountRefusal::Closed));
        assert_eq!(closed.suspend("x"), Err(AccountRefusal::Closed));
        assert_eq!(closed.reactivate("x"), Err(AccountRefusal::Closed));
        assert_eq!(closed.close("x"), Err(AccountRefusal::Closed));
    }

    #[test]
    fn a_suspended_account_takes_no_charges_and_everything_else() {
        let account = given::<Account>([opened(), payment(dollars(9)).into(), suspended()]);
        for (what, decision) in decide_everything(account.state(), dollars(1)) {
            match what {
                "charge" => assert_eq!(decision, Err(AccountRefusal::Suspended)),
                "payment" => {
                    let payment = AccountRefusal::RepeatedPayment(example::id(PAYMENT));
                    assert_eq!(decision, Err(payment));
                }
                _ => assert_eq!(decision.map(|events| events.len()), Ok(1), "{what}"),
            }
        }
        account
            .when(|account| account.reactivate("paid"))
            .then([reactivated()])
            .when(|account| account.authorise_charge(charge(dollars(1))))
            .then([charge(dollars(1)).into()]);
    }

    #[test]
    fn only_an_open_account_is_suspended_and_only_a_suspended_one_reactivated() {
        let (required, actual) = (AccountStatus::Open, AccountStatus::Suspended);
        given::<Account>([opened(), suspended()])
            .when(|account| account.suspend("again"))
            .then_refused(AccountRefusal::Status { required, actual });
        let (required, actual) = (AccountStatus::Suspended, AccountStatus::Open);
        given::<Account>([opened()])
            .when(|account| account.reactivate("why"))
            .then_refused(AccountRefusal::Status { required, actual });
    }

    #[test]
    fn amounts_of_another_currency_are_refused_and_never_folded() {
        let (expected, given_currency) = (dollars(0).currency, euros(0).currency);
        let refusal = MoneyError::OtherCurrency { expected, given: given_currency };
        let account = given::<Account>([opened(), payment(dollars(9)).into()]);
        for (what, decision) in decide_everything(account.state(), euros(1)) {
            assert_eq!(decision, Err(AccountRefusal::Money(refusal)), "{what}");
        }
        let mut account = account.state().clone();
        let error = account.apply(&charge(euros(1)).into()).unwrap_err();
        assert_eq!(error.to_string(), refusal.to_string());
    }

    #[test]
    fn amounts_are_above_zero_and_adjustments_not_zero() {
        let account = given::<Account>([opened(), payment(dollars(9)).into()]);
        for amount in [dollars(0), dollars(-1)] {
            for (what, decision) in decide_everything(account.state(), amount) {
                if what == "adjustment" && amount != dollars(0) {
                    assert!(decision.is_ok());
                } else {
                    assert_eq!(decision, Err(AccountRefusal::Amount(amount)), "{what}");
                }
            }
        }
    }

    #[test]
    fn a_balance_that_no_amount_can_hold_is_refused() {
        let most = dollars(i64::MAX);
        let full = || given::<Account>([opened(), credit(most).into()]);
        let (left, right) = (most, dollars(1));
        let overflow = || AccountRefusal::Money(MoneyError::Overflow { left, right });
        full().when(|account| account.receive_payment(payment(right))).then_refused(overflow());
        full().when(|account| account.apply_credit(credit(right))).then_refused(overflow());
        full().when(|account| account.adjust_balance(adjustment(right))).then_refused(overflow());
        let (left, right) = (dollars(-i64::MAX), dollars(2));
        given::<Account>([opened(), charge(most).into()])
            .when(|account| account.authorise_charge(charge(right)))
            .then_refused(AccountRefusal::Money(MoneyError::Overflow { left, right }));
        let paid = [opened(), payment(dollars(10)).into()];
        let (left, right) = (dollars(i64::MIN), dollars(1));
        given::<Account>(paid.into_iter().chain([most, dollars(11)].map(|all| charge(all).into())))
            .when(|account| account.refund(refund(right)))
            .then_refused(AccountRefusal::Money(MoneyError::Overflow { left, right }));
    }

    #[test]
    fn a_refund_gives_back_no_more_than_is_left_of_a_payment_that_came_in() {
        let payment_id = example::id(PAYMENT);
        given::<Account>([opened(), credit(dollars(500)).into()])
            .when(|account| account.refund(refund(dollars(1))))
            .then_refused(AccountRefusal::UnknownPayment(payment_id));
        let (given_amount, left) = (dollars(301), dollars(300));
        given::<Account>([opened(), payment(dollars(500)).into(), refund(dollars(200)).into()])
            .when(|account| account.refund(refund(given_amount)))
            .then_refused(AccountRefusal::RefundTooLarge { given: given_amount, left });
        given::<Account>([opened(), payment(dollars(500)).into(), refund(dollars(200)).into()])
            .when(|account| account.refund(refund(left)))
            .then([refund(left).into()]);
    }

    #[test]
    fn an_account_is_closed_at_zero_only() {
        given::<Account>([opened(), credit(dollars(1)).into()])
            .when(|account| account.close("asked"))
            .then_refused(AccountRefusal::NotSettled(dollars(1)));
        given::<Account>([opened(), credit(dollars(1)).into(), charge(dollars(1)).into()])
            .when(|account| account.close("asked"))
            .then([closed()]);
    }

    #[test]
    fn an_update_changes_something() {
        let changes = serde_json::Map::new();
        given::<Account>([opened()])
            .when(|account| account.update(AccountUpdated { changes }))
            .then_refused(AccountRefusal::NothingChanged);
    }
}
