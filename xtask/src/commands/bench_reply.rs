//! What a machine's console says when it is asked for figures.

use serde_json::Value;

use crate::console::PROMPT;

/// The JSON document that `command` printed: the first line after the command's own that is one.
pub fn reply(serial: &str, command: &str) -> Option<Value> {
    reply_number(serial, command, 0)
}

/// The number between two texts, the first time that it stands there.
pub fn number_of(text: &str, before: &str, behind: &str) -> Option<f64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(before));
    lines.find_map(|(_, rest)| rest.split_once(behind)?.0.parse().ok())
}

/// As [`reply`], of the time `number` that the command was given, counted from zero.
pub fn reply_number(serial: &str, command: &str, number: usize) -> Option<Value> {
    let mut lines = serial.lines();
    for _ in 0..=number {
        lines.find(|line| line.trim_end().ends_with(command))?;
    }
    let after = lines;
    after
        .map_while(|line| (!line.contains(PROMPT)).then_some(line))
        .find_map(|line| {
            let line = line.trim();
            if line.starts_with('{') {
                serde_json::from_str(line).ok()
            } else {
                None
            }
        })
}

/// Walks into a document along `a/b/name=cpuid/median_ticks`: a step is a key, or picks an array's element by one of its keys.
pub fn look_up<'v>(document: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('/')
        .try_fold(document, |value, step| match (value, step.split_once('=')) {
            (Value::Array(elements), Some((key, wanted))) => elements
                .iter()
                .find(|element| element[key].as_str() == Some(wanted)),
            _ => value.get(step),
        })
}

/// When the first event that begins with `text` happened, in ns.
pub fn event(log: &Value, text: &str) -> Option<f64> {
    let is_it = |event: &&Value| {
        event["event"]
            .as_str()
            .is_some_and(|event| event.starts_with(text))
    };
    log["events"].as_array()?.iter().find(is_it)?["time_ns"].as_f64()
}

/// The median in a line `bench: NAME MINIMUM MEDIAN`.
pub fn median(text: &str, name: &str) -> Option<f64> {
    let mut lines = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("bench: "));
    lines.find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [found, _, median] if found == name => median.parse().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERIAL: &str = "boot\npartita> hv bench --json\n{\"benchmarks\":[{\"name\":\"cpuid\",\"rounds\":9,\"median_ticks\":57},\
                          {\"name\":\"flush\",\"median_ticks\":80}]}\n\
                          partita> hv info --json\n{\"exits\":{\"total\":3}}\npartita> vm list\n";

    #[test]
    fn a_reply_is_the_document_between_a_command_and_the_next_prompt() {
        assert_eq!(reply(SERIAL, "hv info --json").unwrap()["exits"]["total"], 3);
        assert_eq!(reply(SERIAL, "vm list"), None);
        assert_eq!(reply(SERIAL, "hv stats"), None);
    }

    #[test]
    fn a_path_picks_an_element_by_its_name() {
        let document = reply(SERIAL, "hv bench --json").unwrap();
        assert_eq!(
            look_up(&document, "benchmarks/name=cpuid/median_ticks").unwrap(),
            57
        );
        assert_eq!(look_up(&document, "benchmarks/name=hlt/median_ticks"), None);
    }

    #[test]
    fn a_guests_line_gives_its_median_and_a_log_the_time_between_two_events() {
        let text = "bench: first instruction at 7 ticks\r\nbench: eom 300 310\r\nbench: done\r\n";
        assert_eq!(median(text, "eom"), Some(310.0));
        assert_eq!(median(text, "first"), None);
        let log = serde_json::json!({"events": [
            {"time_ns": 100, "event": "starting"},
            {"time_ns": 900, "event": "running as partition 0x2"},
        ]});
        let time = |text| event(&log, text);
        assert_eq!(
            (time("starting"), time("running"), time("off")),
            (Some(100.0), Some(900.0), None)
        );
    }
}
