//! `quipu bench echo`: the same client and messages as `bench append --server`, against a server
//! that answers at once and stores nothing: what is left is the price of the way there and back.
#![expect(clippy::disallowed_types, reason = "this module is a server of its own")]

use std::io;

use bytes::BytesMut;
use quipu_client::{AppendOutcome, Limits, Position, Uuid};
use quipu_protocol::handshake::{PROTOCOL, RECORD_FORMATS};
use quipu_protocol::{
    Frame, Framer, Kind, MAGIC, Message, Pong, Progress, StatusIs, Welcome, message_bytes_max,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

use super::append::{Plan, measure};
use crate::failure::Failure;
use crate::output::{Output, whisper};
use crate::session::Target;

const EXAMPLES: &str = "Examples:
  quipu bench echo --writers 8 --in-flight 4 --batch 100
  quipu bench echo --writers 1 --in-flight 1 --batch 1

Client and server share this process: processor time and memory are of both.";

/// What to send.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    plan: Plan,
}

/// Sends appends to a server that stores nothing, and prints what was measured.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::Unreachable(format!("cannot serve: {error}"));
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(failed)?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?.to_string();
    let batch = args.plan.batch;
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream, batch));
        }
    });
    whisper(format_args!("sending for {} s", args.plan.seconds));
    measure(&args.plan, Target::Server(&address))?.print(out)
}

/// Answers until the client goes.
async fn echo(mut stream: TcpStream, batch: u64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut framer, mut received) = (Framer::new(), BytesMut::new());
    framer.set_bytes_max(message_bytes_max(&Limits::default()));
    let mut answers = BytesMut::new();
    let positions = (1..=batch).map(Position).collect();
    let outcome = AppendOutcome { duplicate: false, positions, versions: Vec::new() };
    while stream.read_buf(&mut received).await? > 0 {
        while let Progress::Frame(frame) =
            framer.advance(&mut received).map_err(io::Error::other)?
        {
            answer(&frame, &outcome, &mut answers);
        }
        stream.write_all(&answers).await?;
        answers.clear();
    }
    Ok(())
}

fn answer(frame: &Frame, outcome: &AppendOutcome, answers: &mut BytesMut) {
    match Kind::from_u8(frame.kind) {
        Some(Kind::Hello) => {
            answers.extend_from_slice(&MAGIC);
            welcome().encode(0, answers);
        }
        Some(Kind::Append) => outcome.encode(frame.request_id, answers),
        Some(Kind::Status) => StatusIs("{}".to_owned()).encode(frame.request_id, answers),
        Some(Kind::Ping) => Pong.encode(frame.request_id, answers),
        _ => {}
    }
}

fn welcome() -> Welcome {
    let limits = Limits::default();
    let saturated = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Welcome {
        protocol: PROTOCOL.max,
        record_format: RECORD_FORMATS.max,
        log_id: Uuid::from_u128(1),
        event_bytes_max: saturated(limits.event_bytes_max),
        append_bytes_max: saturated(limits.append_bytes_max),
        append_events_max: saturated(limits.append_events_max),
        message_bytes_max: saturated(message_bytes_max(&limits)),
        window_events: 1_000,
        window_bytes: 8 << 20,
        streams_max: 1,
        heartbeat_ms: 5_000,
        dead_after_ms: 15_000,
        server: "echo".to_owned(),
    }
}
