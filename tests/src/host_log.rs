//! Logs of a host that do more than write down what they are told.

use std::panic::resume_unwind;
use std::sync::Once;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

struct Calls<F>(F);

impl<F: Fn() + Send + Sync + 'static> Subscriber for Calls<F> {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        (self.0)();
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A log that does this whatever it is told.
pub fn that_calls(act: impl Fn() + Send + Sync + 'static) -> impl Subscriber {
    Calls(act)
}

/// From now on, in this process, the log panics whatever it is told, as the usual one does where
/// standard error cannot be written.
///
/// # Panics
/// If there is another log already.
pub fn panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Without a word: a test has nothing to say of it.
        let panicking = that_calls(|| resume_unwind(Box::new("the host's log cannot be written")));
        tracing::subscriber::set_global_default(panicking).expect("there is no other log");
    });
}
