//! How a filter travels; wire-protocol.md §7.7.

use bytes::BytesMut;
use quipu_types::Filter;
use quipu_types::limits::{CORRELATION_BYTES_MAX, TYPE_BYTES_MAX};

use crate::fields::{
    DecodeError, Fields, put_bool, put_key, put_list, put_option, put_text, put_time, within,
};

/// The most names in one list of a filter: each record is compared with all of them.
pub const FILTER_NAMES_MAX: usize = 1_000;
/// The most that the filters of a connection's open streams hold together.
pub const FILTERS_BYTES_MAX: usize = 1 << 20;
/// What a name holds beside its text.
const BESIDE_NAME_BYTES: usize = 24;

/// What a filter holds for as long as its stream is open.
#[must_use]
pub fn filter_bytes(filter: &Filter) -> usize {
    let names = filter.aggregate_types.iter().chain(&filter.event_types);
    let key = filter.aggregate.as_ref();
    names.map(|name| name.len() + BESIDE_NAME_BYTES).sum::<usize>()
        + key.map_or(0, |key| key.aggregate_type.len() + key.aggregate_id.len())
        + filter.correlation_id.as_ref().map_or(0, String::len)
}

pub(crate) fn put_filter(out: &mut BytesMut, filter: &Filter) {
    put_option(out, filter.aggregate.as_ref(), put_key);
    put_list(out, &filter.aggregate_types, |out, name| put_text(out, name));
    put_list(out, &filter.event_types, |out, name| put_text(out, name));
    put_option(out, filter.correlation_id.as_ref(), |out, id| put_text(out, id));
    for time in [&filter.since, &filter.until, &filter.recorded_since] {
        put_option(out, time.as_ref(), |out, time| put_time(out, *time));
    }
    put_bool(out, filter.include_system);
}

pub(crate) fn filter(fields: &mut Fields) -> Result<Filter, DecodeError> {
    Ok(Filter {
        aggregate: fields.option(Fields::key_within_limits)?,
        aggregate_types: names(fields)?,
        event_types: names(fields)?,
        correlation_id: fields
            .option(|fields| fields.text_within("filter correlation_id", CORRELATION_BYTES_MAX))?,
        since: fields.option(Fields::time)?,
        until: fields.option(Fields::time)?,
        recorded_since: fields.option(Fields::time)?,
        include_system: fields.bool()?,
    })
}

fn names(fields: &mut Fields) -> Result<Vec<String>, DecodeError> {
    let count = fields.count(4)?;
    within("filter names", FILTER_NAMES_MAX, count)?;
    fields.items(count, |fields| fields.text_within("filter name", TYPE_BYTES_MAX))
}
