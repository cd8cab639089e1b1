//! Records on standard output: lines of JSON for machines, a table for people.

use quipu_client::{Record, json};

use crate::failure::Failure;
use crate::output::{Output, terminal_columns};
use crate::table::{Column, Table, cut, harmless};

/// Prints records batch by batch.
pub(crate) struct RecordPrinter {
    table: Table<6>,
    line: Vec<u8>,
}

impl RecordPrinter {
    /// Has printed nothing yet.
    pub(crate) fn new() -> Self {
        let table = Table::new([
            Column::Number("POSITION"),
            Column::Number("VERSION"),
            Column::Text("TIME"),
            Column::Text("AGGREGATE"),
            Column::Text("EVENT"),
            Column::Text("DATA"),
        ]);
        Self { table, line: Vec::new() }
    }

    /// Prints the next records.
    pub(crate) fn print(&mut self, out: &mut Output, records: &[Record]) -> Result<(), Failure> {
        if out.is_json() {
            return records.iter().try_for_each(|record| self.print_json(out, record));
        }
        let rows: Vec<_> = records.iter().map(row).collect();
        self.table.write(out, &rows)
    }

    /// Prints one record on one line that needs no heading.
    pub(crate) fn print_line(&mut self, out: &mut Output, record: &Record) -> Result<(), Failure> {
        if out.is_json() {
            return self.print_json(out, record);
        }
        let [position, version, time, aggregate, event_type, data] = row(record);
        let line = format!("{position:>8}  {time}  {aggregate} v{version}  {event_type}  {data}");
        match terminal_columns() {
            Some(columns) => out.line(cut(&line, columns)),
            None => out.line(line),
        }
    }

    fn print_json(&mut self, out: &mut Output, record: &Record) -> Result<(), Failure> {
        self.line.clear();
        json::write_record(record, &mut self.line);
        out.bytes_line(&self.line)
    }
}

fn row(record: &Record) -> [String; 6] {
    let name = format!("{}/{}", record.aggregate_type(), record.aggregate_id());
    [
        record.position().to_string(),
        record.version().to_string(),
        record.timestamp().to_string(),
        harmless(&name),
        harmless(record.event_type()),
        data(record),
    ]
}

/// The payload as one harmless line: text without control characters, or only its size.
fn data(record: &Record) -> String {
    match std::str::from_utf8(record.payload()) {
        Ok(text) => harmless(text),
        Err(_) => format!("({} bytes of {})", record.payload().len(), record.content_type()),
    }
}
