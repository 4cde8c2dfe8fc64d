//! A report as aligned text.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use super::{Field, Report, Section, Table, Value, units};
use crate::shell::editor::{COLUMNS, view::columns};

/// Blanks between two columns.
const GUTTER: usize = 2;

/// The text, each line ending in a newline; sections are parted by an empty line.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    // Groups of fields belong together: they share one column of labels.
    let fields = report.sections.iter().filter_map(|section| match section {
        Section::Fields(_, fields) => Some(fields),
        _ => None,
    });
    let label_width = fields
        .flatten()
        .map(|field| columns(field.label))
        .max()
        .unwrap_or(0);
    let mut after_fields = false;
    for section in &report.sections {
        let is_fields = matches!(section, Section::Fields(..));
        let joins = after_fields && is_fields;
        if !text.is_empty() && !joins {
            text.push('\n');
        }
        match section {
            Section::Fields(_, fields) => render_fields(fields, label_width, &mut text),
            Section::Table(table) => render_table(table, &mut text),
            Section::Remark(remark) => {
                text.push_str(remark);
                if !remark.ends_with('\n') {
                    text.push('\n');
                }
            }
        }
        after_fields = is_fields;
    }
    text
}

fn render_fields(fields: &[Field], label_width: usize, text: &mut String) {
    for field in fields {
        let mut label = field.label;
        for value in wrap(&field.value, COLUMNS.saturating_sub(label_width + GUTTER)) {
            let cells = [Cell::left(label.to_string()), Cell::left(value)];
            line(&cells, &[label_width, 0], text);
            label = "";
        }
    }
}

/// A value in lines of `width` columns. Only lists are broken, between two elements: nothing else gets long.
fn wrap(value: &Value, width: usize) -> Vec<String> {
    let Value::List(values) = value else {
        return alloc::vec![show(value)];
    };
    let mut lines: Vec<String> = Vec::new();
    for value in values {
        let shown = show(value);
        match lines.last_mut() {
            // Room for the comma, the blank, and a comma that may follow.
            Some(last) if columns(last) + columns(&shown) + 3 <= width => {
                last.push_str(", ");
                last.push_str(&shown);
            }
            Some(last) => {
                last.push(',');
                lines.push(shown);
            }
            None => lines.push(shown),
        }
    }
    if lines.is_empty() {
        lines.push(show(value));
    }
    lines
}

fn render_table(table: &Table, text: &mut String) {
    let visible: Vec<usize> = (0..table.columns.len())
        .filter(|&index| !table.columns[index].label.is_empty())
        .collect();
    let rows = table.rows.iter().map(|row| {
        let cells = visible.iter().map(|&index| &row[index]);
        cells
            .map(|value| Cell {
                text: show(value),
                right: is_quantity(value),
            })
            .collect::<Vec<_>>()
    });
    let rows: Vec<Vec<Cell>> = rows.collect();
    let header: Vec<Cell> = visible
        .iter()
        .enumerate()
        .map(|(place, &index)| Cell {
            text: table.columns[index].label.to_uppercase(),
            // A heading stands over its numbers.
            right: rows.first().is_some_and(|row| row[place].right),
        })
        .collect();
    let widths: Vec<usize> = (0..visible.len())
        .map(|place| {
            let cells = rows.iter().map(|row| columns(&row[place].text));
            cells.max().unwrap_or(0).max(columns(&header[place].text))
        })
        .collect();
    for row in core::iter::once(&header).chain(&rows) {
        line(row, &widths, text);
    }
}

struct Cell {
    text: String,
    right: bool,
}

impl Cell {
    fn left(text: String) -> Self {
        Self { text, right: false }
    }
}

/// Writes one line of `cells`, without blanks at its end.
fn line(cells: &[Cell], widths: &[usize], text: &mut String) {
    let mut blanks = 0;
    for (cell, &width) in cells.iter().zip(widths) {
        let padding = width.saturating_sub(columns(&cell.text));
        let (before, after) = if cell.right { (padding, 0) } else { (0, padding) };
        if !cell.text.is_empty() {
            text.extend(core::iter::repeat_n(' ', blanks + before));
            text.push_str(&cell.text);
            blanks = 0;
        } else {
            blanks += before;
        }
        blanks += after + GUTTER;
    }
    text.push('\n');
}

fn is_quantity(value: &Value) -> bool {
    matches!(
        value,
        Value::Number(_) | Value::Bytes(_) | Value::Hertz(_) | Value::Nanoseconds(_)
    )
}

/// A value as people see it.
fn show(value: &Value) -> String {
    match value {
        Value::None => String::from("-"),
        Value::Flag(flag) => String::from(if *flag { "yes" } else { "no" }),
        Value::Number(number) => format!("{number}"),
        Value::Bytes(size) => units::bytes(*size),
        Value::Hertz(frequency) => units::hertz(*frequency),
        Value::Nanoseconds(time) => units::nanoseconds(*time),
        Value::Hex(number) => format!("{number:#x}"),
        Value::Text(text) => text.replace('\n', " "),
        Value::List(values) if values.is_empty() => String::from("none"),
        Value::List(values) => values.iter().map(show).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_numbers_to_the_right_and_no_line_ends_in_blanks() {
        let mut table = Table::new(
            "disks",
            &[("name", "name"), ("size_bytes", "size"), ("note", "note")],
        );
        table.row([Value::text("web"), Value::Bytes(64 << 30), Value::text("läuft")]);
        table.row([Value::text("database"), Value::Bytes(512), Value::text("")]);
        assert_eq!(
            render(&Report::table(table)),
            "NAME          SIZE  NOTE\nweb       64.0 GiB  läuft\ndatabase     512 B\n"
        );
    }

    #[test]
    fn groups_of_fields_share_their_label_column_and_tables_stand_apart() {
        let mut report = Report::new();
        report.push_fields("", [("version", "version", Value::text("1"))]);
        report.push_fields("memory", [("total_bytes", "memory total", Value::Bytes(2 << 30))]);
        let mut table = Table::new("t", &[("a", "a"), ("hidden", "")]);
        table.row([Value::None, Value::Number(1)]);
        report.push_table(table);
        assert_eq!(
            render(&report),
            "version       1\nmemory total  2.0 GiB\n\nA\n-\n"
        );
    }

    #[test]
    fn a_table_without_rows_shows_its_heading() {
        assert_eq!(
            render(&Report::table(Table::new("t", &[("a", "a"), ("b", "b")]))),
            "A  B\n"
        );
    }

    #[test]
    fn a_long_list_goes_on_in_the_next_line_under_its_first_element() {
        let mut report = Report::new();
        let names = (0..12).map(|index| format!("feature-{index}"));
        report.push_fields("", [("features", "features", Value::texts(names))]);
        let text = render(&report);
        assert!(text.lines().all(|line| columns(line) <= COLUMNS));
        let second = text.lines().nth(1).expect("is there");
        assert!(text.lines().next().expect("is there").ends_with(','));
        assert!(second.starts_with("          feature-6, "), "{text}");
    }

    #[test]
    fn lists_are_joined_and_nothing_is_a_dash() {
        assert_eq!(show(&Value::texts(["a", "b"])), "a, b");
        assert_eq!(show(&Value::List(Vec::new())), "none");
        assert_eq!(show(&Value::None), "-");
    }
}
