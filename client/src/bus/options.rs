//! Settings of a bus.

use std::time::Duration;

use quipu_types::Uuid;

/// What happens if a bus of this name runs already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfHeld {
    /// It is refused.
    #[default]
    Refuse,
    /// It is waited for: a stand-by.
    Wait,
}

/// Settings of a bus; the default is right for most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusOptions {
    /// Its name, at most 100 bytes and without `/`: handlers' names are within it. Different
    /// services on one log have different buses. Default: `main`.
    pub name: String,
    /// Who runs it, in words for an operator. Default: the process id.
    pub holder: String,
    /// What happens if it runs already.
    pub if_held: IfHeld,
    /// On a log that others can write to as well: how long a run that was not ended in order has to
    /// answer before it is taken for dead. Default: 10 s.
    pub lease_within: Duration,
    /// Threads that read for the handlers; none of them runs handlers. Default: 2.
    pub threads: usize,
    /// Goes on with places that were saved in this log, of which the log here is a restored copy.
    pub adopts: Option<Uuid>,
}

impl Default for BusOptions {
    fn default() -> Self {
        Self {
            name: "main".to_owned(),
            holder: format!("process {}", std::process::id()),
            if_held: IfHeld::default(),
            lease_within: Duration::from_secs(10),
            threads: 2,
            adopts: None,
        }
    }
}

impl BusOptions {
    /// The default ones, of a bus with this name.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}
