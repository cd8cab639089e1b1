//! All that a client may say, and all that a server may say.

use bytes::BytesMut;
use quipu_types::AppendOutcome;

use crate::append::{AppendRequest, SystemAppend};
use crate::fault::Fault;
use crate::fields::DecodeError;
use crate::framer::Frame;
use crate::handshake::{Hello, Welcome};
use crate::message::Message;
use crate::question::{Ping, Pong, Status, StatusIs, VersionIs, VersionOf};
use crate::stream::{Cancel, Credit, End, Mark, Read, Records, Subscribe};

macro_rules! direction {
    ($(#[$doc:meta])* $name:ident { $($variant:ident($message:ty),)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each variant is the message of its name")]
        pub enum $name {
            $($variant($message),)*
        }

        impl $name {
            /// Appends the whole message.
            pub fn encode(&self, request_id: u64, out: &mut BytesMut) {
                match self {
                    $(Self::$variant(message) => message.encode(request_id, out),)*
                }
            }

            /// Reads a message; [`Frame::failed_request`] says what an error ends.
            ///
            /// # Errors
            /// That it is malformed, breaks a limit, or is of no kind that is known here.
            pub fn decode(frame: &Frame) -> Result<Self, DecodeError> {
                let Frame { kind, flags, request_id: id, ref body } = *frame;
                if flags != 0 {
                    return Err(DecodeError::Unknown { kind, flags });
                }
                $(if kind == <$message>::KIND as u8 {
                    if !<$message>::KIND.takes(id) {
                        return Err(DecodeError::RequestId { kind, id });
                    }
                    return <$message>::decode(body.clone()).map(Self::$variant);
                })*
                Err(DecodeError::Unknown { kind, flags })
            }
        }
    };
}

direction! {
    /// What a client says.
    Request {
        Append(AppendRequest),
        SystemAppend(SystemAppend),
        Read(Read),
        Subscribe(Subscribe),
        Credit(Credit),
        Cancel(Cancel),
        VersionOf(VersionOf),
        Status(Status),
        Ping(Ping),
        Pong(Pong),
        Hello(Hello),
    }
}

direction! {
    /// What a server says.
    Response {
        Appended(AppendOutcome),
        Records(Records),
        Mark(Mark),
        End(End),
        VersionIs(VersionIs),
        StatusIs(StatusIs),
        Ping(Ping),
        Pong(Pong),
        Welcome(Welcome),
        Error(Fault),
    }
}
