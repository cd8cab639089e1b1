//! Whatever an account is asked for: what it decides it can fold, and its balance is the sum.

use proptest::prelude::*;
use quipu_client::{Aggregate, Uuid};
use quipu_domain::catalogue::{
    AccountEvent, BalanceAdjusted, ChargeAuthorised, CreditApplied, PaymentReceived, RefundIssued,
};
use quipu_domain::{Account, AccountRefusal, Currency, Money};

/// Amounts that are small, negative, of another currency, or next to the largest.
fn amounts() -> impl Strategy<Value = Money> {
    let minor_units = prop_oneof![8 => -5i64..2_000, 1 => (i64::MAX - 2)..=i64::MAX];
    (minor_units, prop_oneof![9 => Just("EUR"), 1 => Just("JPY")])
        .prop_map(|(minor_units, code)| Money::new(minor_units, currency(code)))
}

fn currency(code: &str) -> Currency {
    code.parse().expect("a currency")
}

fn decide(
    account: &Account,
    what: u8,
    amount: Money,
    payment: u8,
) -> Result<Vec<AccountEvent>, AccountRefusal> {
    let payment_id = Uuid::from_u128(u128::from(payment) + 1);
    match what {
        0 => account.authorise_charge(ChargeAuthorised { amount, ..ChargeAuthorised::example() }),
        1 => account.receive_payment(PaymentReceived {
            amount,
            payment_id,
            ..PaymentReceived::example()
        }),
        2 => account.refund(RefundIssued { amount, payment_id, ..RefundIssued::example() }),
        3 => account.apply_credit(CreditApplied { amount, ..CreditApplied::example() }),
        4 => account.adjust_balance(BalanceAdjusted { amount, ..BalanceAdjusted::example() }),
        5 => account.suspend("late"),
        6 => account.reactivate("paid"),
        7 => account.close("asked"),
        _ => account.open(payment_id, currency("EUR")),
    }
}

/// What an event adds to the balance, by a rule of its own.
fn movement(event: &AccountEvent) -> i128 {
    match event {
        AccountEvent::ChargeAuthorised(charge) => -i128::from(charge.amount.minor_units),
        AccountEvent::RefundIssued(refund) => -i128::from(refund.amount.minor_units),
        AccountEvent::PaymentReceived(payment) => payment.amount.minor_units.into(),
        AccountEvent::CreditApplied(credit) => credit.amount.minor_units.into(),
        AccountEvent::BalanceAdjusted(adjustment) => adjustment.amount.minor_units.into(),
        _ => 0,
    }
}

proptest! {
    #[test]
    fn what_an_account_decides_it_can_fold(
        wishes in prop::collection::vec((0u8..9, amounts(), 0u8..4), 1..80)
    ) {
        let (mut account, mut history, mut sum) = (Account::default(), Vec::new(), 0i128);
        account.apply(&account.open(Uuid::from_u128(1), currency("EUR")).unwrap()[0]).unwrap();
        for (what, amount, payment) in wishes {
            for event in decide(&account, what, amount, payment).unwrap_or_default() {
                prop_assert!(account.apply(&event).is_ok(), "{:?} after {:?}", event, history);
                sum += movement(&event);
                history.push(event);
            }
        }
        let balance = account.balance().map(|balance| i128::from(balance.minor_units));
        prop_assert_eq!(balance, Some(sum), "{:?}", history);
    }
}
