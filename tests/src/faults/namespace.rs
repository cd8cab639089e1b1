//! A network of two hosts in one machine: a namespace with a cable to this one, to be pulled.

use std::process::id;

use anyhow::Result;

use super::loop_disk::run;

/// A network namespace, until it is dropped.
pub struct Namespace {
    name: String,
    cable: String,
    /// Of the host on the other side.
    pub host: String,
}

impl Namespace {
    /// A new one; the addresses are of the range that is kept for such tests (RFC 2544).
    pub fn new() -> Result<Self> {
        let (name, cable) = (format!("quipu-{}", id()), format!("qf{}", id() % 1_000_000));
        let net = id() % 250;
        let host = format!("198.18.{net}.2");
        let inside = format!("{cable}i");
        run("ip", &["netns", "add", &name])?;
        let namespace = Self { name, cable, host };
        let Self { name, cable, host } = &namespace;
        let ends = ["link", "add", cable, "type", "veth", "peer", "name", &inside, "netns", name];
        run("ip", &ends)?;
        run("ip", &["addr", "add", &format!("198.18.{net}.1/30"), "dev", cable])?;
        run("ip", &["link", "set", cable, "up"])?;
        run("ip", &["-n", name, "addr", "add", &format!("{host}/30"), "dev", &inside])?;
        run("ip", &["-n", name, "link", "set", &inside, "up"])?;
        run("ip", &["-n", name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// What runs a program there. `ip netns exec` would give it a copy of every mount, too, and a
    /// disk whose power is cut meanwhile could not be mounted again.
    pub fn within(&self) -> Vec<String> {
        ["nsenter".to_owned(), format!("--net=/run/netns/{}", self.name)].to_vec()
    }

    /// Pulls the cable, or plugs it in. Packets that are sent meanwhile are gone.
    pub fn plug(&self, is_in: bool) -> Result<()> {
        run("ip", &["link", "set", &self.cable, if is_in { "up" } else { "down" }])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        run("ip", &["link", "del", &self.cable]).ok();
        run("ip", &["netns", "del", &self.name]).ok();
    }
}
