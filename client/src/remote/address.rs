//! Where a server is: `quipu://HOST:PORT`, or parts of it.

use std::fmt;
use std::str::FromStr;

use super::error::ConnectError;

const DEFAULT_PORT: u16 = 7440;
const SCHEME: &str = "quipu://";
const TLS_SCHEME: &str = "quipus://";

/// A server's host, by name or number, and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl FromStr for Address {
    type Err = ConnectError;

    fn from_str(given: &str) -> Result<Self, ConnectError> {
        let wrong = |problem| ConnectError::Address { given: given.to_owned(), problem };
        if given.starts_with(TLS_SCHEME) {
            return Err(ConnectError::Tls { given: given.to_owned() });
        }
        let rest = given.strip_prefix(SCHEME).unwrap_or(given);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains("://") || rest.contains(['/', '?', '#', '@', ' ']) {
            return Err(wrong("expected quipu://HOST:PORT"));
        }
        let (host, port) = split(rest).ok_or_else(|| wrong("the brackets do not match"))?;
        if host.is_empty() {
            return Err(wrong("it names no host"));
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => port.parse().map_err(|_| wrong("the port is no number up to 65535"))?,
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

/// Host and port; a host with several colons is a bare IPv6 address.
fn split(rest: &str) -> Option<(&str, Option<&str>)> {
    if let Some(bracketed) = rest.strip_prefix('[') {
        let (host, after) = bracketed.split_once(']')?;
        return match after {
            "" => Some((host, None)),
            _ => Some((host, Some(after.strip_prefix(':')?))),
        };
    }
    match rest.split_once(':') {
        Some((host, port)) if !port.contains(':') => Some((host, Some(port))),
        _ => Some((rest, None)),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            return write!(f, "{SCHEME}[{host}]:{port}");
        }
        write!(f, "{SCHEME}{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port_with_or_without_the_scheme() {
        let cases = [
            ("quipu://log.example:9", "log.example", 9),
            ("quipu://log.example/", "log.example", 7440),
            ("log.example", "log.example", 7440),
            ("127.0.0.1:80", "127.0.0.1", 80),
            ("[::1]:80", "::1", 80),
            ("quipu://[::1]", "::1", 7440),
            ("::1", "::1", 7440),
        ];
        for (given, host, port) in cases {
            let address = Address { host: host.to_owned(), port };
            assert_eq!(given.parse::<Address>().unwrap(), address, "{given}");
            assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_was_given() {
        let wrong = ["", ":80", "h:port", "h:99999", "http://h:1", "h/x", "a@h", "[::1", "[::1]8"];
        for given in wrong {
            let error = given.parse::<Address>().unwrap_err();
            assert!(matches!(error, ConnectError::Address { .. }), "{given}: {error}");
        }
        let error = "quipus://h:1".parse::<Address>().unwrap_err();
        assert!(error.to_string().contains("TLS"), "{error}");
    }
}
