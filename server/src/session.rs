//! What the tasks of one connection share.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use quipu_protocol::Fault;
use quipu_protocol::filter::FILTERS_BYTES_MAX;
use tokio_util::sync::CancellationToken;

use crate::answers::Answers;
use crate::budget::Purse;
use crate::outbox::Outbox;
use crate::service::Service;
use crate::stream::Control;

/// One connection, as its tasks see it.
pub(crate) struct Session {
    pub(crate) service: Arc<Service>,
    pub(crate) outbox: Outbox,
    pub(crate) answers: Answers,
    /// Open streams, by request id.
    pub(crate) streams: Mutex<HashMap<u64, Arc<Control>>>,
    /// Room for appends that are not answered.
    pub(crate) appends: Purse,
    /// Room for records that are not written.
    pub(crate) output: Purse,
    /// The server is stopping.
    pub(crate) stop: CancellationToken,
}

impl Session {
    pub(crate) fn new(service: &Arc<Service>) -> Self {
        let options = &service.options;
        Self {
            outbox: Outbox::default(),
            answers: Answers::default(),
            streams: Mutex::default(),
            appends: Purse::new(options.connection_append_bytes, &service.appends),
            output: Purse::new(options.connection_output_bytes, &service.output),
            stop: service.stop.child_token(),
            service: Arc::clone(service),
        }
    }

    /// Adds an open stream, unless there are too many or their filters hold too much.
    pub(crate) fn add_stream(&self, id: u64, control: &Arc<Control>) -> Result<(), Fault> {
        let mut streams = self.streams.lock();
        let (limit, given) = (self.service.options.streams_max, streams.len() + 1);
        if given > limit {
            return Err(Fault::over("streams", limit, given));
        }
        let held: usize = streams.values().map(|open| open.filter_bytes).sum();
        let (limit, given) = (FILTERS_BYTES_MAX, held + control.filter_bytes);
        if given > limit {
            return Err(Fault::over("filters", limit, given));
        }
        streams.insert(id, Arc::clone(control));
        Ok(())
    }

    /// Whether what is not written holds room that another connection waits for.
    pub(crate) fn is_in_the_way(&self) -> bool {
        self.output.is_in_the_way() || self.appends.is_in_the_way()
    }

    /// Bytes of one message, in both directions.
    pub(crate) fn message_bytes_max(&self) -> usize {
        quipu_protocol::message_bytes_max(&self.service.log.shared().options.limits)
    }
}
