//! Accounts and their money. Amounts are integers in minor units with their currency.

use quipu_client::{Timestamp, Uuid};
use serde_json::{Map, Value};

use crate::currency::Currency;
use crate::events::events;
use crate::example;
use crate::money::Money;

events! {
    /// One customer's account, and the money that moves on it. The id is a UUID.
    AccountEvent of "Account";

    /// An account was opened.
    AccountOpened {
        /// Whose it is.
        owner_id: Uuid = example::id(2),
        /// The one currency of all its amounts.
        currency: Currency = example::currency(),
    }

    /// What is known of an account changed.
    AccountUpdated {
        /// The new value of everything that changed, by name.
        changes: Map<String, Value> = example::object(r#"{"plan":"business"}"#),
    }

    /// An account takes no charges until it is reactivated.
    AccountSuspended {
        /// Why.
        reason: String = "payment overdue".to_owned(),
    }

    /// A suspended account takes charges again.
    AccountReactivated {
        /// Why.
        reason: String = "payment received".to_owned(),
    }

    /// An account was closed for good.
    AccountClosed {
        /// Why.
        reason: String = "asked by its owner".to_owned(),
    }

    /// A charge was taken off the balance.
    ChargeAuthorised {
        /// The charge.
        charge_id: Uuid = example::id(3),
        /// How much; above zero.
        amount: Money = example::dollars(1_250),
        /// The call it is for.
        #[serde(skip_serializing_if = "Option::is_none")]
        call_id: Option<Uuid> = Some(example::id(1)),
        /// What it is for, in words.
        description: String = "call, 61.5 s".to_owned(),
    }

    /// A payment came in: the balance rises.
    PaymentReceived {
        /// The payment.
        payment_id: Uuid = example::id(4),
        /// How much; above zero.
        amount: Money = example::dollars(5_000),
        /// How it was paid.
        method: String = "card".to_owned(),
        /// The invoice it is for.
        #[serde(skip_serializing_if = "Option::is_none")]
        invoice_id: Option<Uuid> = Some(example::id(5)),
    }

    /// A payment was tried and did not come in.
    PaymentFailed {
        /// The payment.
        payment_id: Uuid = example::id(6),
        /// How much it was to be; above zero.
        amount: Money = example::dollars(5_000),
        /// Why it failed.
        reason: String = "card declined".to_owned(),
    }

    /// A payment, or a part of it, was given back: the balance falls.
    RefundIssued {
        /// The refund.
        refund_id: Uuid = example::id(7),
        /// The payment it gives back.
        payment_id: Uuid = example::id(4),
        /// How much; above zero, and no more than is left of the payment.
        amount: Money = example::dollars(2_000),
        /// Why.
        reason: String = "charged twice".to_owned(),
    }

    /// A credit was given: the balance rises.
    CreditApplied {
        /// The credit.
        credit_id: Uuid = example::id(8),
        /// How much; above zero.
        amount: Money = example::dollars(500),
        /// Why.
        reason: String = "goodwill".to_owned(),
    }

    /// An invoice was sent. It asks for money and moves none.
    InvoiceIssued {
        /// The invoice.
        invoice_id: Uuid = example::id(5),
        /// How much it asks for; above zero.
        amount: Money = example::dollars(5_000),
        /// When it is to be paid.
        due_at: Timestamp = example::time(),
    }

    /// The balance was put right by hand.
    BalanceAdjusted {
        /// By how much; below zero where it falls, never zero.
        amount: Money = example::dollars(-75),
        /// Why.
        reason: String = "rounding of March".to_owned(),
        /// The user who did it.
        adjusted_by: Uuid = example::id(9),
    }
}
