//! What a command says: a [`Report`], written once and rendered as a table for people or as JSON for programs.
//!
//! | module | holds |
//! |---|---|
//! | [`json`] | one JSON document a report |
//! | [`table`] | aligned text |
//! | [`units`] | "2.0 GiB" |

pub mod json;
pub mod table;
pub mod units;

use alloc::{
    string::{String, ToString},
    vec::Vec,
};

/// One value. Its kind fixes how people see it; programs get numbers as numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// Nothing there: `-`, and `null`.
    None,
    /// `yes` or `no`.
    Flag(bool),
    /// A count.
    Number(u64),
    /// A size in bytes.
    Bytes(u64),
    /// A frequency in Hz.
    Hertz(u64),
    /// A time in nanoseconds.
    Nanoseconds(u64),
    /// An address or a register: `0xfed90000`, for programs too, since JSON numbers are exact only up to 2⁵³.
    Hex(u64),
    /// Text.
    Text(String),
    /// Several values.
    List(Vec<Value>),
}

impl Value {
    /// Text made of anything that can be shown.
    pub fn text(shown: impl ToString) -> Self {
        Self::Text(shown.to_string())
    }

    /// A list of texts.
    pub fn texts(texts: impl IntoIterator<Item = impl ToString>) -> Self {
        Self::List(texts.into_iter().map(Self::text).collect())
    }

    /// `None` as [`Value::None`].
    pub fn optional(text: Option<impl ToString>) -> Self {
        text.map_or(Self::None, Self::text)
    }
}

/// A value with its names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// For programs: snake_case, never changed, with the unit at its end where there is one.
    pub key: &'static str,
    /// For people.
    pub label: &'static str,
    /// The value.
    pub value: Value,
}

/// A column of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    /// For programs. Empty: programs do not see the column.
    pub key: String,
    /// For people. Empty: people do not see the column.
    pub label: String,
}

/// Rows under the same columns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// For programs. Empty: programs do not see the table.
    pub key: &'static str,
    /// The columns.
    pub columns: Vec<Column>,
    /// The rows, as long as `columns` each.
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    /// A table without rows. `columns` are key and label each.
    pub fn new(key: &'static str, columns: &[(&str, &str)]) -> Self {
        let mut table = Self {
            key,
            columns: Vec::new(),
            rows: Vec::new(),
        };
        for (key, label) in columns {
            table.column(key, label);
        }
        table
    }

    /// Adds a column; before the first row.
    pub fn column(&mut self, key: impl ToString, label: impl ToString) {
        self.columns.push(Column {
            key: key.to_string(),
            label: label.to_string(),
        });
    }

    /// Adds a row.
    pub fn row(&mut self, values: impl IntoIterator<Item = Value>) {
        let mut row: Vec<Value> = values.into_iter().collect();
        debug_assert_eq!(row.len(), self.columns.len());
        row.resize(self.columns.len(), Value::None);
        self.rows.push(row);
    }
}

/// A part of a report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Section {
    /// Named values; inside an object of this name for programs, unless it is empty.
    Fields(&'static str, Vec<Field>),
    /// A table.
    Table(Table),
    /// Text that only people see.
    Remark(String),
}

/// What a command says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// The parts, in the order in which they are shown.
    pub sections: Vec<Section>,
    /// The command found that something is wrong: its status is 1 although it could say all this.
    pub failed: bool,
}

impl Report {
    /// A report that says nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A report of one table.
    pub fn table(table: Table) -> Self {
        let mut report = Self::new();
        report.push_table(table);
        report
    }

    /// A report of text for people.
    pub fn remark(text: impl ToString) -> Self {
        let mut report = Self::new();
        report.push_remark(text);
        report
    }

    /// Adds named values: key, label and value each. `group` may be empty.
    pub fn push_fields(
        &mut self,
        group: &'static str,
        fields: impl IntoIterator<Item = (&'static str, &'static str, Value)>,
    ) {
        let fields = fields
            .into_iter()
            .map(|(key, label, value)| Field { key, label, value })
            .collect();
        self.sections.push(Section::Fields(group, fields));
    }

    /// Adds a table.
    pub fn push_table(&mut self, table: Table) {
        self.sections.push(Section::Table(table));
    }

    /// Adds text for people.
    pub fn push_remark(&mut self, text: impl ToString) {
        self.sections.push(Section::Remark(text.to_string()));
    }
}
