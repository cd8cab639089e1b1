//! Tables for people: columns as wide as what stands in them, the last one cut to the terminal.

use unicode_width::UnicodeWidthChar;

use crate::failure::Failure;
use crate::output::{Output, terminal_columns};

/// A column's heading, and on which side its cells begin.
#[derive(Clone, Copy)]
pub(crate) enum Column {
    /// Begins on the left.
    Text(&'static str),
    /// Ends on the right.
    Number(&'static str),
}

impl Column {
    fn heading(self) -> &'static str {
        match self {
            Self::Text(heading) | Self::Number(heading) => heading,
        }
    }
}

/// A table that is written part by part; a later part may need wider columns.
pub(crate) struct Table<const N: usize> {
    columns: [Column; N],
    widths: [usize; N],
    line_width_max: Option<usize>,
    begun: bool,
}

impl<const N: usize> Table<N> {
    /// A table with these columns.
    pub(crate) fn new(columns: [Column; N]) -> Self {
        let widths = columns.map(|column| width(column.heading()));
        Self { columns, widths, line_width_max: terminal_columns(), begun: false }
    }

    /// Columns at least this wide, where the first rows do not show what will come.
    pub(crate) fn at_least(mut self, widths: [usize; N]) -> Self {
        for (widest, least) in self.widths.iter_mut().zip(widths) {
            *widest = least.max(*widest);
        }
        self
    }

    /// Writes the next rows, with the headings in front of the first.
    pub(crate) fn write(&mut self, out: &mut Output, rows: &[[String; N]]) -> Result<(), Failure> {
        for row in rows {
            for (widest, cell) in self.widths.iter_mut().zip(row) {
                *widest = (*widest).max(width(cell));
            }
        }
        if !std::mem::replace(&mut self.begun, true) {
            let headings = self.columns.map(|column| column.heading().to_owned());
            out.line(self.line(&headings))?;
        }
        rows.iter().try_for_each(|row| out.line(self.line(row)))
    }

    fn line(&self, row: &[String; N]) -> String {
        let mut line = String::new();
        for (at, (cell, column)) in row.iter().zip(self.columns).enumerate() {
            let padding = " ".repeat(self.widths[at] - width(cell));
            match column {
                Column::Number(_) => line.extend([padding.as_str(), cell]),
                Column::Text(_) if at + 1 == N => line.push_str(cell),
                Column::Text(_) => line.extend([cell, padding.as_str()]),
            }
            if at + 1 < N {
                line.push_str("  ");
            }
        }
        match self.line_width_max {
            Some(limit) => cut(&line, limit),
            None => line,
        }
    }
}

/// Writes names and values, one a line.
pub(crate) fn write_facts<'a>(
    out: &mut Output,
    facts: impl IntoIterator<Item = (&'a str, String)> + Clone,
) -> Result<(), Failure> {
    let widest = facts.clone().into_iter().map(|(name, _)| width(name)).max().unwrap_or(0);
    for (name, value) in facts {
        out.line(format_args!("{name:widest$}  {value}"))?;
    }
    Ok(())
}

fn width(text: &str) -> usize {
    text.chars().map(|character| character.width().unwrap_or(0)).sum()
}

/// The text, or as much of it as `limit` columns hold, with a mark that it goes on.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    let (mut columns, mut keep) = (0, 0);
    for (at, character) in text.char_indices() {
        columns += character.width().unwrap_or(0);
        if columns > limit {
            return format!("{}…", &text[..keep]);
        }
        if columns < limit {
            keep = at + character.len_utf8();
        }
    }
    text.to_owned()
}

/// Text that a terminal shows as it is: what turns it around or is not seen is spelled.
pub(crate) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' => shown.extend(letter.escape_unicode()),
            _ if letter.is_control() => shown.push(' '),
            _ => shown.push(letter),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_to_columns_and_not_to_bytes() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 5), "abcd…");
        assert_eq!(cut("日本語", 6), "日本語");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
    }

    #[test]
    fn what_turns_text_around_or_is_not_seen_is_spelled() {
        let hostile = "a\u{202e}b\u{200b}c\u{feff}d\u{2028}e\tf";
        assert_eq!(harmless(hostile), r"a\u{202e}b\u{200b}c\u{feff}d\u{2028}e f");
        assert_eq!(harmless("Zürich 電話 \u{1f600}"), "Zürich 電話 \u{1f600}");
    }

    #[test]
    fn cells_line_up() {
        let mut table = Table::new([Column::Number("N"), Column::Text("ID"), Column::Text("DATA")]);
        table.line_width_max = Some(14);
        table.widths = [3, 4, 9];
        let line = |row: [&str; 3]| table.line(&row.map(str::to_owned));
        assert_eq!(line(["1", "日本", "{}"]), "  1  日本  {}");
        assert_eq!(line(["100", "ab", "123456789"]), "100  ab    12…");
    }
}
