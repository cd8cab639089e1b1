//! Which Postgres, and how a connection to it is made ready.

use std::str::FromStr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::ReplicateError;
use crate::session::Session;
use crate::sql_error::SqlError;

/// The oldest server that will do.
const SERVER_VERSION_MIN: u32 = 13;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to connect to one of the servers, several perhaps, and to be let in.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// A server that takes no bytes for so long, or whose machine is silent for twice as long, is gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Which Postgres, in which schema of its database.
#[derive(Clone)]
pub struct Postgres {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    schema: String,
}

impl Postgres {
    /// The Postgres at an address such as `postgres://user:password@host/database?sslmode=require`.
    ///
    /// Tables are made in `schema`. The server's certificate is checked against `ca_pem`, or
    /// against what the system trusts; `sslmode=disable` does without.
    ///
    /// # Errors
    /// That the address is none, or the certificates are none.
    pub fn new(
        address: &str,
        schema: impl Into<String>,
        ca_pem: Option<&[u8]>,
    ) -> Result<Self, ReplicateError> {
        let settings = |problem: String| ReplicateError::Settings { problem };
        let mut config = Config::from_str(address).map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            settings(format!("{error}{}", cause.unwrap_or_default()))
        })?;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        config.tcp_user_timeout(SILENCE_MAX);
        // Where an answer is waited for, nothing is sent that could be found not to be taken.
        config.keepalives_idle(SILENCE_MAX).keepalives_interval(SILENCE_MAX);
        let tls = match config.get_ssl_mode() {
            SslMode::Disable => None,
            _ => Some(MakeRustlsConnect::new(trusting(ca_pem).map_err(settings)?)),
        };
        Ok(Self { config, tls, schema: schema.into() })
    }

    /// With this password, unless the address has one.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        if self.config.get_password().is_none() {
            self.config.password(password);
        }
        self
    }

    /// The schema of the tables.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// A connection that finds tables in the schema; `purpose` is what Postgres calls it.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(&self, purpose: &str) -> Result<Session, ReplicateError> {
        self.connect_to(purpose, &self.schema).await
    }

    /// A connection that finds tables in this schema, and makes them there. None is found in the
    /// schema that is served where this is another one.
    pub(crate) async fn connect_to(
        &self,
        purpose: &str,
        schema: &str,
    ) -> Result<Session, ReplicateError> {
        let mut config = self.config.clone();
        config.application_name(format!("quipu: {purpose}"));
        let failed = |error| SqlError::new("connect", error);
        let session = match &self.tls {
            None => {
                let (client, connection) =
                    answered(config.connect(NoTls)).await?.map_err(failed)?;
                self.session(client, drive(connection))
            }
            Some(tls) => {
                let connected = answered(config.connect(tls.clone())).await?;
                let (client, connection) = connected.map_err(failed)?;
                self.session(client, drive(connection))
            }
        };
        check(&session).await?;
        // A commit need not wait for the disk: whatever a crash of Postgres takes back, it takes
        // with its checkpoint, and then it is applied again. A statement or a transaction that is
        // cut off would be tried again for ever. A connection whose other end has gone without a
        // word holds its locks until Postgres notices.
        let settings = format!(
            "SET search_path TO {}; SET synchronous_commit TO off; SET jit TO off; \
             SET statement_timeout TO 0; SET idle_in_transaction_session_timeout TO 0; \
             SELECT set_config(name, '0', false) FROM pg_settings
             WHERE name = 'transaction_timeout'; \
             SET tcp_keepalives_idle TO {silence}; SET tcp_keepalives_interval TO {silence}; \
             SET tcp_keepalives_count TO 2; \
             SET TimeZone TO 'UTC'; SET client_min_messages TO warning",
            quoted(schema),
            silence = SILENCE_MAX.as_secs(),
        );
        session.run("set up the connection", &settings).await?;
        Ok(session)
    }

    fn session(
        &self,
        client: Client,
        connection: impl Future<Output = ()> + Send + 'static,
    ) -> Session {
        Session::new(client, quoted(&self.schema), tokio::spawn(connection).abort_handle())
    }
}

/// Its own time-out is of the way there only, not of what is said then.
async fn answered<T>(connecting: impl Future<Output = T>) -> Result<T, ReplicateError> {
    let seconds = ANSWER_TIMEOUT.as_secs();
    let answered = tokio::time::timeout(ANSWER_TIMEOUT, connecting).await;
    answered.map_err(|_| ReplicateError::NoAnswer { seconds })
}

/// What is wrong with a connection, whoever uses it is told.
async fn drive<E>(connection: impl Future<Output = Result<(), E>>) {
    drop(connection.await);
}

async fn check(session: &Session) -> Result<(), ReplicateError> {
    const SERVER: &str = "SELECT current_setting('server_version_num')::int, \
        current_setting('server_version'), current_setting('server_encoding')";
    let rows = session.query("ask for the server's version", SERVER, &[]).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    check_server(row.get(0), row.get(1), row.get(2))
}

fn check_server(number: i32, version: &str, encoding: &str) -> Result<(), ReplicateError> {
    let needed = SERVER_VERSION_MIN;
    if u32::try_from(number / 10_000).is_ok_and(|major| major < needed) {
        return Err(ReplicateError::OldServer { given: version.to_owned(), needed });
    }
    if encoding != "UTF8" {
        return Err(ReplicateError::Encoding { given: encoding.to_owned() });
    }
    Ok(())
}

fn trusting(ca_pem: Option<&[u8]>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = ca_pem {
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| format!("no PEM: {error}"))?;
            roots.add(certificate).map_err(|error| format!("no certificate: {error}"))?;
        }
        if roots.is_empty() {
            return Err("the file of trusted certificates holds none".to_owned());
        }
    } else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
    }
    let provider = rustls::crypto::ring::default_provider();
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// A name as SQL spells it, whatever stands in it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL spells it.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_server_and_another_encoding_are_refused_with_what_is_needed() {
        let error = check_server(120_017, "12.17", "UTF8").unwrap_err().to_string();
        assert!(error.contains("12.17") && error.contains("13"), "{error}");
        let error = check_server(150_004, "15.4", "LATIN1").unwrap_err().to_string();
        assert!(error.contains("LATIN1") && error.contains("UTF8"), "{error}");
        assert!(check_server(130_000, "13.0", "UTF8").is_ok());
    }

    #[test]
    fn a_machine_that_is_gone_is_found_out_within_a_minute_also_while_it_owes_an_answer() {
        let config = Postgres::new("postgres://h", "public", None).unwrap().config;
        let within = config.get_keepalives_idle() + config.get_keepalives_interval().unwrap();
        assert!(config.get_keepalives() && within <= Duration::from_mins(1), "{within:?}");
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        for address in ["postgres://host:port", "nonsense", "postgres://h?shine=1"] {
            let error = Postgres::new(address, "public", None).err().expect(address).to_string();
            assert!(error.len() > 30, "{error}");
        }
        assert!(Postgres::new("postgres://h", "public", Some(b"x")).is_err(), "no certificates");
    }
}
