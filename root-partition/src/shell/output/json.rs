//! A report as one JSON document on one line, so that a program finds it between a prompt and the next.

use alloc::string::String;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::{Field, Report, Section, Table, Value};

/// The document, without a newline.
pub fn render(report: &Report) -> String {
    // Keys are strings and nothing in a report can fail to serialize, so the error is unreachable; an empty document
    // would still be valid JSON.
    serde_json::to_string(report).unwrap_or_else(|_| String::from("{}"))
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut document = serializer.serialize_map(None)?;
        for section in &self.sections {
            match section {
                Section::Fields("", fields) => {
                    for field in fields {
                        document.serialize_entry(field.key, &field.value)?;
                    }
                }
                Section::Fields(group, fields) => document.serialize_entry(group, &Object(fields))?,
                Section::Table(table) if !table.key.is_empty() => {
                    document.serialize_entry(table.key, table)?
                }
                Section::Table(_) | Section::Remark(_) => {}
            }
        }
        document.end()
    }
}

/// Fields as an object of their own.
struct Object<'a>(&'a [Field]);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|field| (field.key, &field.value)))
    }
}

/// An array of objects.
impl Serialize for Table {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(Some(self.rows.len()))?;
        for row in &self.rows {
            rows.serialize_element(&Row(self, row))?;
        }
        rows.end()
    }
}

struct Row<'a>(&'a Table, &'a [Value]);

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let keys = self.0.columns.iter().map(|column| &column.key);
        serializer.collect_map(keys.zip(self.1).filter(|(key, _)| !key.is_empty()))
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_unit(),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::Number(number) | Self::Bytes(number) | Self::Hertz(number) | Self::Nanoseconds(number) => {
                serializer.serialize_u64(*number)
            }
            Self::Hex(number) => serializer.collect_str(&format_args!("{number:#x}")),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(values) => serializer.collect_seq(values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn each_kind_of_section_has_its_json_form() {
        let mut report = Report::new();
        report.push_fields(
            "",
            [
                ("name", "name", Value::text("a \"b\"\n\u{7f}ä")),
                ("size_bytes", "size", Value::Bytes(u64::MAX)),
            ],
        );
        report.push_fields("cpu", [("base", "base", Value::Hex(0xfee0_0000))]);
        let mut table = Table::new("rows", &[("a", "A"), ("", "for people"), ("b", "")]);
        table.row([
            Value::Flag(true),
            Value::None,
            Value::List(vec![Value::Number(1), Value::None]),
        ]);
        report.push_table(table);
        report.push_table(Table::new("", &[("a", "A")]));
        report.push_remark("only people see this");
        assert_eq!(
            render(&report),
            "{\"name\":\"a \\\"b\\\"\\n\u{7f}ä\",\"size_bytes\":18446744073709551615,\
             \"cpu\":{\"base\":\"0xfee00000\"},\"rows\":[{\"a\":true,\"b\":[1,null]}]}"
        );
    }

    #[test]
    fn an_empty_report_is_an_empty_object() {
        assert_eq!(render(&Report::new()), "{}");
    }
}
