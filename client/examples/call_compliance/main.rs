//! A call-compliance service with the log in its own process: whether a number may be called, what
//! became of the calls, and everything about a number, in order, who and when.
//!
//! ```text
//! cargo run -p quipu-client --example call_compliance [FOLDER [ADDRESS]]
//! ```
#![expect(clippy::print_stdout, reason = "a program that says where it listens")]
#![expect(clippy::disallowed_types, reason = "a program that listens")]

mod app;
mod audit;
mod http;

use std::error::Error;
use std::sync::Arc;

use quipu_domain::PhoneKey;
use tokio::net::TcpListener;

use crate::app::App;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| "call-compliance-log".to_owned());
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    // In earnest it comes from a vault: whoever has it can tell which hash is whose.
    let secret = std::env::var("PHONE_KEY").unwrap_or_else(|_| "not a secret".repeat(3));
    let key = PhoneKey::new("example", secret.as_bytes())?;

    let app = Arc::new(App::open(&folder, key).await?);
    let listener = TcpListener::bind(&address).await?;
    println!("listening on http://{}, log in {folder}", listener.local_addr()?);
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    axum::serve(listener, http::router(Arc::clone(&app))).with_graceful_shutdown(stop).await?;
    // What handlers are at is finished, and their places are saved.
    if let Some(app) = Arc::into_inner(app) {
        app.stop().await?;
    }
    Ok(())
}
