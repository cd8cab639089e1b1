//! A page of which one part is written by this program.

use anyhow::{Context, Result};

const BEGIN: &str = "<!-- what benches/compare/run has measured -->\n";
const END: &str = "<!-- the end of what it has measured -->";

/// The page with that part replaced.
pub(crate) fn with_figures(page: &str, figures: &str) -> Result<String> {
    let (before, rest) = page.split_once(BEGIN).with_context(|| missing(BEGIN))?;
    let (_, after) = rest.split_once(END).with_context(|| missing(END))?;
    Ok([before, BEGIN, "\n", figures.trim(), "\n\n", END, after].concat())
}

fn missing(mark: &str) -> String {
    format!("the page has no line {}", mark.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_part_between_the_marks_changes_and_can_change_again() {
        let page = format!("before\n{BEGIN}old\n{END}\nafter\n");
        let once = with_figures(&page, "new\n").unwrap();
        assert_eq!(once, format!("before\n{BEGIN}\nnew\n\n{END}\nafter\n"));
        assert_eq!(with_figures(&once, "new").unwrap(), once);
        assert!(with_figures("no marks", "new").is_err());
    }
}
