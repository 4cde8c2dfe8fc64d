//! The table that a benchmark prints: figures beside their targets.

/// One line of the printed table.
#[derive(Debug, PartialEq)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The figure; `None` where the machine did not give it.
    pub measured: Option<f64>,
    /// Its unit.
    pub unit: String,
    /// Its target.
    pub at_most: Option<f64>,
}

impl Row {
    /// A number of instructions.
    pub fn instructions(name: impl Into<String>, measured: Option<f64>, at_most: Option<f64>) -> Self {
        Self {
            name: name.into(),
            measured,
            unit: "instructions".into(),
            at_most,
        }
    }

    /// Whether it was measured and is not beyond its target.
    pub fn ok(&self) -> bool {
        match (self.measured, self.at_most) {
            (Some(measured), Some(limit)) => measured <= limit,
            (measured, _) => measured.is_some(),
        }
    }
}

/// The table, with a line at its head.
pub fn table(rows: &[Row]) -> String {
    let number = |value: Option<f64>, missing: &str| match value {
        Some(value) if value.fract() == 0.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.2}"),
        None => missing.to_owned(),
    };
    let mut text = format!(
        "{:32} {:>14} {:>10}  {:12} {}\n",
        "figure", "measured", "target", "unit", "ok"
    );
    for row in rows {
        text.push_str(&format!(
            "{:32} {:>14} {:>10}  {:12} {}\n",
            row.name,
            number(row.measured, "not measured"),
            number(row.at_most, "-"),
            row.unit,
            if row.ok() { "yes" } else { "NO" }
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_without_a_target_or_a_measurement_is_shown() {
        let rows = [
            Row::instructions("flush", Some(80.0), None),
            Row::instructions("lost", None, Some(1.0)),
        ];
        let table = table(&rows);
        assert!(table.contains("80"), "{table}");
        assert!(table.contains("not measured"), "{table}");
    }

    #[test]
    fn a_figure_beyond_its_target_or_without_a_measurement_is_not_ok() {
        let row = |measured, at_most| Row::instructions("", measured, at_most);
        assert!(row(Some(1.0), Some(1.0)).ok() && row(Some(1.0), None).ok());
        assert!(!row(Some(1.1), Some(1.0)).ok() && !row(None, Some(1.0)).ok() && !row(None, None).ok());
    }
}
