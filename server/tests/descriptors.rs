//! A server without a descriptor for the next connection goes on, and takes it when there is one. A
//! process of its own: the limit is the whole process's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "the kernel says it in /proc, which is no log")]

mod support;

use std::time::Duration;

use quipu_protocol::Hello;
use quipu_server::ServerOptions;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Client, event, serve};
use tokio::time::sleep;

fn open_descriptors() -> u64 {
    std::fs::read_dir("/proc/self/fd").unwrap().count() as u64
}

fn allow_descriptors(current: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum }).unwrap();
}

async fn failures(metrics: std::net::SocketAddr) -> u64 {
    let mut client = Client::connect(metrics).await;
    client.send(b"GET /metrics HTTP/1.1\r\nHost: quipu\r\nConnection: close\r\n\r\n").await;
    let mut page = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut client.socket, &mut page).await.unwrap();
    let line = page.lines().find_map(|it| it.strip_prefix("quipu_accept_failures_total "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn without_descriptors_it_waits_counts_and_goes_on() {
    let served = serve(ServerOptions::default()).await;
    let metrics = served.server.http_address().unwrap();
    let mut first = served.client().await;
    assert_eq!(failures(metrics).await, 0);
    sleep(Duration::from_millis(50)).await;
    let before = getrlimit(Resource::Nofile).current.unwrap_or(1_024);
    // The directory that counts them is one of them: room for the client's end alone.
    allow_descriptors(open_descriptors());
    let mut second = served.silent().await;
    sleep(Duration::from_millis(450)).await;
    first.append(1, vec![event(1)]).await;
    allow_descriptors(before);
    second.greet(&Hello::new("second", None)).await.unwrap();
    second.append(1, vec![event(2)]).await;
    let failed = failures(metrics).await;
    assert!((2..=10).contains(&failed), "{failed} refusals in half a second");
}
