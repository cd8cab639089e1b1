//! Postgres is talked to through TLS where that is asked for, and only with whom it is meant.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "tests make files of their own")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use quipu_replicator::{Postgres, Replicator};
use quipu_tests::postgres::{Cluster, give_to_user};
use support::{Bench, mirror, wait};
use tempfile::TempDir;

fn certificate() -> (String, String) {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[test]
fn a_server_is_trusted_by_its_certificate_only() {
    let folder = TempDir::new().unwrap();
    let (certificate_pem, key_pem) = certificate();
    let (certificate_file, key_file) = (folder.path().join("crt"), folder.path().join("key"));
    std::fs::write(&certificate_file, &certificate_pem).unwrap();
    std::fs::write(&key_file, key_pem).unwrap();
    std::fs::set_permissions(&key_file, PermissionsExt::from_mode(0o600)).unwrap();
    give_to_user(&certificate_file);
    give_to_user(&key_file);
    let settings = [
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", certificate_file.display()),
        format!("ssl_key_file={}", key_file.display()),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let Some(cluster) = Cluster::start_in(folder, &settings) else { return };
    let bench = Bench::on(Arc::new(cluster));
    // From now on nobody gets in without.
    let rules = bench.cluster.data().join("pg_hba.conf");
    std::fs::write(rules, "hostssl all all 127.0.0.1/32 trust\n").unwrap();
    bench.query("SELECT pg_reload_conf()");
    bench.append_plain(10);
    let with = |mode: &str, ca: Option<&str>| {
        let address = format!("{}?sslmode={mode}", bench.address);
        let postgres = Postgres::new(&address, "public", ca.map(str::as_bytes)).unwrap();
        let replicator = Replicator::new(Arc::new(bench.log.clone()), postgres, mirror());
        wait(async move { replicator.catch_up().await.map_err(|error| error.to_string()) })
    };
    let plain = with("disable", None).unwrap_err();
    assert!(plain.contains("pg_hba.conf"), "{plain}");
    let (other, _) = certificate();
    for stranger in [None, Some(other.as_str())] {
        let refused = with("require", stranger).unwrap_err();
        assert!(refused.contains("certificate"), "{refused}");
    }
    with("require", Some(&certificate_pem)).unwrap();
    assert_eq!(bench.value("SELECT count(*) FROM event_store"), "10");
}
