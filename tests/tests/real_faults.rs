//! What strikes in `faults` (see CONTRIBUTING.md) strikes: power cuts lose what is not on the disk,
//! wires do what networks do. The faults themselves are a program of their own.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "these tests write files that are no log, and listen; one that cannot go on has failed"
)]

use std::fs::{File, read, write};
use std::time::Duration;

use quipu_tests::faults::loop_disk::{FileSystem, LoopDisk};
use quipu_tests::faults::wire::{Mode, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_power_cut_takes_what_is_not_on_the_disk_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    for kind in [FileSystem::Ext4, FileSystem::Xfs] {
        let mut disk = match LoopDisk::new(kind, folder.path(), 512 << 20) {
            Ok(disk) => disk,
            Err(error) => {
                eprintln!("SKIPPED: {kind} cannot be mounted here: {error:#}");
                continue;
            }
        };
        let (synced, other) = (disk.at().join("synced"), disk.at().join("other"));
        write(&synced, "knot").unwrap();
        File::open(&synced).unwrap().sync_all().unwrap();
        File::open(disk.at()).unwrap().sync_all().unwrap();
        write(&other, "knot").unwrap();
        disk.cut_power().unwrap();
        let refused = write(disk.at().join("late"), "knot").unwrap_err();
        assert!(refused.raw_os_error().is_some(), "{kind}: {refused}");
        disk.mount_again().unwrap();
        assert_eq!(read(&synced).unwrap(), b"knot", "{kind}");
        assert!(!other.exists(), "{kind}: what was not synced is there");
    }
}

#[test]
fn a_disk_is_filled_to_the_last_block_and_emptied() {
    let folder = tempfile::tempdir().unwrap();
    let Ok(mut disk) = LoopDisk::new(FileSystem::Ext4, folder.path(), 32 << 20) else {
        eprintln!("SKIPPED: no file system can be mounted here");
        return;
    };
    let before = disk.free_bytes().unwrap();
    disk.fill(0).unwrap();
    assert!(disk.free_bytes().unwrap() < 4096);
    let full = write(disk.at().join("more"), vec![1; 4096]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    disk.free().unwrap();
    assert!(disk.free_bytes().unwrap() + (1 << 20) > before);
}

/// A server that says back what it hears, and a wire to it.
fn echo(runtime: &Runtime) -> Wire {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let server = listener.local_addr().unwrap().to_string();
    runtime.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.ok();
            });
        }
    });
    Wire::to(runtime, server).unwrap()
}

async fn connect(wire: &Wire) -> TcpStream {
    let address = wire.address().strip_prefix("quipu://").unwrap();
    TcpStream::connect(address).await.unwrap()
}

async fn hear(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut heard = vec![0; 64];
    let bytes = timeout(PATIENCE, stream.read(&mut heard)).await.expect("something comes")?;
    heard.truncate(bytes);
    Ok(heard)
}

#[test]
fn a_wire_carries_is_silent_and_goes_on() {
    let runtime = Runtime::new().unwrap();
    let wire = echo(&runtime);
    runtime.block_on(async {
        let mut stream = connect(&wire).await;
        stream.write_all(b"one").await.unwrap();
        assert_eq!(hear(&mut stream).await.unwrap(), b"one");
        wire.set(Mode::Silent);
        stream.write_all(b"two").await.unwrap();
        let silence = timeout(Duration::from_millis(100), hear(&mut stream)).await;
        assert!(silence.is_err(), "{silence:?}");
        wire.set(Mode::Through);
        assert_eq!(hear(&mut stream).await.unwrap(), b"two");
    });
}

#[test]
fn a_wire_ends_connections_in_order_or_by_a_reset_and_refuses_them() {
    let runtime = Runtime::new().unwrap();
    let wire = echo(&runtime);
    runtime.block_on(async {
        for by_reset in [false, true] {
            let mut stream = connect(&wire).await;
            stream.write_all(b"one").await.unwrap();
            hear(&mut stream).await.unwrap();
            wire.cut(by_reset);
            let ended = hear(&mut stream).await;
            assert_eq!(ended.is_err(), by_reset, "{ended:?}");
        }
        wire.set(Mode::ResetAfter(4));
        let mut stream = connect(&wire).await;
        stream.write_all(b"knots").await.unwrap();
        let mut heard = Vec::new();
        let reset = timeout(PATIENCE, stream.read_to_end(&mut heard)).await.expect("it ends");
        assert!(reset.is_err() && heard.len() <= 4, "{reset:?} after {heard:?}");
        wire.set(Mode::Closed);
        let mut stream = connect(&wire).await;
        assert!(hear(&mut stream).await.is_ok_and(|heard| heard.is_empty()));
    });
}
