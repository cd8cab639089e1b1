//! The catalogue as a page for people: `docs/events.md`.

use std::fmt::{self, Write};

use crate::catalogue::catalogue;
use crate::events::{EventDescription, FamilyDescription};

const HEAD: &str = "\
# Events

<!-- Made from domain/src/catalogue/ by: cargo run -p quipu-domain --example events_page -->

Every event of the platform. The payload is JSON; a field marked *optional* is left out where it is
not known, never null. Any change of an event's fields is a new schema version, and what was written
before is read for ever. Phone numbers appear only as hashes (see
[domain-events.md](domain-events.md#phone-numbers)).
";

/// The text of `docs/events.md`.
#[must_use]
pub fn events_page() -> String {
    let mut page = HEAD.to_owned();
    let written = catalogue().iter().try_for_each(|family| write_family(&mut page, family));
    written.expect("text can always be written");
    page
}

fn write_family(page: &mut String, family: &FamilyDescription) -> fmt::Result {
    write!(page, "\n## {}\n\n{}\n", family.aggregate_type, family.documentation)?;
    family.events.iter().try_for_each(|event| write_event(page, event))
}

fn write_event(page: &mut String, event: &EventDescription) -> fmt::Result {
    write!(page, "\n### {}\n\n{}\n", event.name, event.documentation)?;
    let schema_version = event.example.schema_version;
    writeln!(page, "\nAggregate `{}`, schema version {schema_version}.\n", event.aggregate_type)?;
    if event.fields.is_empty() {
        writeln!(page, "It has no fields.\n")?;
    } else {
        write_fields(page, event)?;
    }
    writeln!(page, "```json\n{}\n```", event.example_json)
}

fn write_fields(page: &mut String, event: &EventDescription) -> fmt::Result {
    writeln!(page, "| field | JSON | says |\n| --- | --- | --- |")?;
    for field in &event.fields {
        let optional = if field.is_optional { ", *optional*" } else { "" };
        let (name, spelling, says) = (field.name, &field.spelling, &field.documentation);
        writeln!(page, "| `{name}` | {spelling}{optional} | {says} |")?;
    }
    writeln!(page)
}
