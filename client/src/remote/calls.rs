//! Requests other than appends: streams and questions that are open, and who is told.

use std::collections::HashMap;

use tokio::time::Instant;

use super::parts::PartSender;

/// How long a call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Until it is answered.
    Answered(Instant),
    /// Until it is sent; from then on heartbeats tell if the server lives, and its consumer how
    /// long it waits for more.
    Sent(Instant),
    Endless,
}

/// A request that the server has not closed.
struct Call {
    sender: PartSender,
    patience: Patience,
    is_sent: bool,
}

/// Streams and questions by their request ids.
///
/// Invariants:
/// 1. A call whose id the server knows stays until its closing message or the connection's end.
#[derive(Default)]
pub(super) struct Calls {
    open: HashMap<u64, Call>,
}

impl Calls {
    pub(super) fn open(&mut self, id: u64, sender: PartSender, patience: Patience) {
        self.open.insert(id, Call { sender, patience, is_sent: false });
    }

    pub(super) fn set_sent(&mut self, id: u64) {
        if let Some(call) = self.open.get_mut(&id) {
            call.is_sent = true;
            if matches!(call.patience, Patience::Sent(_)) {
                call.patience = Patience::Endless;
            }
        }
    }

    /// Who is told the next of several parts, and may have gone.
    pub(super) fn listener(&self, id: u64) -> Option<PartSender> {
        self.open.get(&id).map(|call| call.sender.clone())
    }

    /// Who is told the last part, and may have gone.
    pub(super) fn close(&mut self, id: u64) -> Option<PartSender> {
        self.open.remove(&id).map(|call| call.sender)
    }

    /// Whoever asked has gone.
    pub(super) fn forget(&mut self, id: u64) -> Forgotten {
        match self.open.get(&id) {
            None => Forgotten::Closed,
            Some(call) if call.is_sent => Forgotten::Sent,
            Some(_) => Forgotten::Unsent(self.close(id)),
        }
    }

    /// The connection is lost, and so is everything that was sent on it.
    pub(super) fn lose_connection(&mut self) -> Vec<PartSender> {
        self.open.extract_if(|_, call| call.is_sent).map(|(_, call)| call.sender).collect()
    }

    /// Everything, because nothing will be sent or answered any more.
    pub(super) fn drain(&mut self) -> Vec<PartSender> {
        self.open.drain().map(|(_, call)| call.sender).collect()
    }

    /// Those who have waited for too long.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(u64, PartSender)> {
        let is_late = |call: &Call| match call.patience {
            Patience::Answered(at) | Patience::Sent(at) => at <= now,
            Patience::Endless => false,
        };
        let mut late = Vec::new();
        for (id, call) in self.open.iter_mut().filter(|(_, call)| is_late(call)) {
            call.patience = Patience::Endless;
            late.push((*id, call.sender.clone()));
        }
        for (id, _) in &late {
            if !self.open[id].is_sent {
                self.open.remove(id);
            }
        }
        late
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}

/// What is left of a call that nobody waits for.
pub(super) enum Forgotten {
    /// The server knows it.
    Sent,
    /// The server has not heard of it. Who would have been told is to be dropped under no lock.
    Unsent(Option<PartSender>),
    /// It is closed already.
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::parts::parts;
    use std::time::Duration;

    #[test]
    fn patience_ends_when_it_says() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut calls = Calls::default();
        let patience = [
            (1, Patience::Answered(now)),
            (2, Patience::Answered(now)),
            (3, Patience::Sent(now)),
            (4, Patience::Sent(now)),
            (5, Patience::Endless),
            (6, Patience::Answered(later)),
        ];
        for (id, patience) in patience {
            calls.open(id, parts().0, patience);
        }
        calls.set_sent(1);
        calls.set_sent(3);
        let mut late: Vec<u64> = calls.expire(now).into_iter().map(|late| late.0).collect();
        late.sort_unstable();
        assert_eq!(late, [1, 2, 4]);
        assert!(calls.expire(now).is_empty(), "nobody is told twice");
        assert!(calls.close(1).is_some(), "the server's answer is still to come");
        assert!(calls.close(2).is_none() && calls.close(4).is_none());
        assert_eq!(calls.len(), 3);
    }

    #[test]
    fn what_the_server_knows_stays_until_it_closes_it() {
        let mut calls = Calls::default();
        for id in 1..=2 {
            calls.open(id, parts().0, Patience::Endless);
        }
        calls.set_sent(1);
        assert!(matches!(calls.forget(1), Forgotten::Sent));
        assert!(matches!(calls.forget(2), Forgotten::Unsent(Some(_))));
        assert!(matches!(calls.forget(2), Forgotten::Closed));
        assert!(calls.listener(1).is_some() && calls.listener(2).is_none());
        assert!(calls.close(1).is_some() && calls.close(1).is_none());
    }

    #[test]
    fn a_lost_connection_takes_only_what_was_sent() {
        let mut calls = Calls::default();
        for id in 1..=2 {
            calls.open(id, parts().0, Patience::Endless);
        }
        calls.set_sent(1);
        assert_eq!(calls.lose_connection().len(), 1);
        assert!(calls.listener(1).is_none() && calls.listener(2).is_some());
    }
}
