//! The small requests and their answers: the version of an aggregate, the state of the server, a
//! sign of life.

use bytes::{BufMut, BytesMut};
use quipu_types::{AggregateKey, Version};

use crate::fields::{DecodeError, Fields, put_key, put_text};
use crate::message::{Kind, Message};

/// Asks for the newest durable version of an aggregate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionOf(pub AggregateKey);

impl Message for VersionOf {
    const KIND: Kind = Kind::VersionOf;

    fn write(&self, out: &mut BytesMut) {
        put_key(out, &self.0);
    }

    fn read(fields: &mut Fields) -> Result<Self, DecodeError> {
        fields.key_within_limits().map(Self)
    }
}

/// The newest durable version of an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionIs(pub Version);

impl Message for VersionIs {
    const KIND: Kind = Kind::VersionIs;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64_le(self.0.0);
    }

    fn read(fields: &mut Fields) -> Result<Self, DecodeError> {
        Ok(Self(Version(fields.u64()?)))
    }
}

/// The state of the server's log: one JSON document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusIs(pub String);

impl Message for StatusIs {
    const KIND: Kind = Kind::StatusIs;

    fn write(&self, out: &mut BytesMut) {
        put_text(out, &self.0);
    }

    fn read(fields: &mut Fields) -> Result<Self, DecodeError> {
        fields.text().map(Self)
    }
}

macro_rules! without_fields {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name;

        impl Message for $name {
            const KIND: Kind = Kind::$name;

            fn write(&self, _: &mut BytesMut) {}

            fn read(_: &mut Fields) -> Result<Self, DecodeError> {
                Ok(Self)
            }
        }
    )*};
}

without_fields! {
    /// Asks for the state of the server's log.
    Status
    /// Asks for a sign of life.
    Ping
    /// A sign of life.
    Pong
}
