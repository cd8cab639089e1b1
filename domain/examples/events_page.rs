//! Writes `docs/events.md`, the catalogue's page.
#![expect(clippy::disallowed_methods, reason = "a program of the repository writes to it")]

fn main() -> std::io::Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/events.md");
    std::fs::write(path, quipu_domain::events_page())
}
