//! The shell as its user meets it, over a fake system.

use super::super::commands::COMMANDS;
use super::super::fake::{END, FakeSystem, FakeTerminal, PAUSE, block_on};
use super::super::system::SystemError;
use super::*;
use proptest::prelude::*;
use zerocopy::FromZeros;

/// Types `script` at a prompt, to the end of the input; returns how the session ended and what stood on the terminal.
fn typed(system: &FakeSystem, script: impl AsRef<[u8]>) -> (End, String) {
    let terminal = FakeTerminal::typing(&[script.as_ref(), &[END]].concat());
    let mut session = Session::new(system, Box::new(terminal.clone()));
    let end = block_on(session.run());
    (end, terminal.output().replace("\r\n", "\n"))
}

/// Runs one command; returns its status and output.
fn run(system: &FakeSystem, line: &str) -> (u8, String) {
    let terminal = FakeTerminal::default();
    let mut session = Session::new(system, Box::new(terminal.clone()));
    let status = block_on(session.run_line(line));
    (status.0, terminal.output().replace("\r\n", "\n"))
}

/// Runs one command that succeeds; returns its output.
fn ok(line: &str) -> String {
    let (status, output) = run(&FakeSystem::new(), line);
    assert_eq!(status, 0, "{line}: {output}");
    output
}

fn json(line: &str) -> serde_json::Value {
    let (_, output) = run(&FakeSystem::new(), line);
    assert_eq!(output.lines().count(), 1, "{line}: one document, on one line");
    serde_json::from_str(&output).expect("is JSON")
}

mod prompt {
    use super::*;

    #[test]
    fn a_command_runs_and_the_next_prompt_follows() {
        assert_eq!(
            typed(&FakeSystem::new(), "echo a  'b  c'\r"),
            (
                End::EndOfInput,
                "partita> echo a  'b  c'\na b  c\npartita> ".into()
            )
        );
    }

    #[test]
    fn the_status_of_a_failed_command_stands_in_the_next_prompt_until_one_succeeds() {
        let (_, output) = typed(&FakeSystem::new(), "hv inof\n\necho\n");
        assert_eq!(
            output,
            "partita> hv inof\nunknown command 'hv inof': did you mean 'hv info'?\n\
             [2] partita> \n[2] partita> echo\n\npartita> "
        );
    }

    #[test]
    fn a_last_line_without_newline_runs() {
        let (_, output) = typed(&FakeSystem::new(), "echo last");
        assert_eq!(output, "partita> echo last\nlast\npartita> ");
    }

    #[test]
    fn tab_completes_from_the_table() {
        let (_, output) = typed(&FakeSystem::new(), "ec\tdone\r");
        assert_eq!(output, "partita> ec\r\u{1b}[Kpartita> echo done\ndone\npartita> ");
    }

    #[test]
    fn ctrl_d_on_an_empty_line_tells_how_to_leave() {
        let (end, output) = typed(&FakeSystem::new(), "\x04echo on\r");
        assert_eq!(end, End::EndOfInput);
        assert!(output.contains("'poweroff' powers the machine off"), "{output}");
        assert!(output.contains("\non\n"), "{output}");
    }

    #[test]
    fn a_line_that_lost_characters_is_not_run() {
        let line = alloc::format!("echo {}\r", "x".repeat(2000));
        let (_, output) = typed(&FakeSystem::new(), line);
        assert!(output.contains("nothing was run\n[2] partita> "), "{output}");
    }

    #[test]
    fn a_notice_appears_above_the_line_that_is_typed() {
        let system = FakeSystem::new();
        system.notices.lock().push_back("warning: \u{1b}[31mfire".into());
        let (_, output) = typed(&system, [b"echo a".as_slice(), &[PAUSE], b"b\r"].concat());
        assert!(
            output.starts_with("partita> echo a\r\u{1b}[Kwarning: \\u{1b}[31mfire\npartita> echo ab\nab\n"),
            "{output:?}"
        );
    }

    #[test]
    fn history_lists_what_was_typed() {
        let (_, output) = typed(&FakeSystem::new(), "echo a\recho a\rhistory\r");
        assert!(
            output.contains("NUMBER  LINE\n     1  echo a\n     2  history\n"),
            "{output}"
        );
    }

    #[test]
    fn poweroff_ends_the_session_and_types_no_further_prompt() {
        let system = FakeSystem::new();
        let (end, output) = typed(&system, "poweroff\recho never\r");
        assert_eq!((end, output.as_str()), (End::PowerOff, "partita> poweroff\n"));
        assert_eq!(*system.calls.lock(), ["power_off"]);
    }

    #[test]
    fn a_poweroff_that_fails_says_why_and_goes_on() {
        let mut system = FakeSystem::new();
        system.power = Err(SystemError::new("the firmware names no sleep register"));
        let (end, output) = typed(&system, "poweroff\r");
        assert_eq!(end, End::EndOfInput);
        assert!(
            output.contains("poweroff: the firmware names no sleep register\n[1] partita> "),
            "{output}"
        );
    }

    #[test]
    fn the_session_may_move_between_processors() {
        fn is_send<T: Send>(_: &T) {}
        let system = FakeSystem::new();
        let mut session = Session::new(&system, Box::new(FakeTerminal::default()));
        is_send(&session.run());
        is_send(&session.run_script(["echo"]));
    }
}

mod interrupt {
    use super::*;

    #[test]
    fn ctrl_c_ends_a_command_that_never_would() {
        let script = [b"hv bench endless\r".as_slice(), &[PAUSE, PAUSE, 3], b"echo on\r"].concat();
        let (_, output) = typed(&FakeSystem::new(), script);
        assert_eq!(
            output,
            "partita> hv bench endless\n^C\n[130] partita> echo on\non\npartita> "
        );
    }

    #[test]
    fn ctrl_c_is_the_ordinary_end_of_following_a_log() {
        let pauses = [PAUSE; 40];
        let script = [b"hv log --follow\r".as_slice(), &pauses, &[3]].concat();
        let (_, output) = typed(&FakeSystem::new(), script);
        assert_eq!(
            output,
            "partita> hv log --follow\n[0.000] hypervisor 0.1.0\n[0.012] 2 LPs\n^C\npartita> "
        );
    }

    #[test]
    fn what_is_typed_while_a_command_runs_runs_after_it() {
        let (_, output) = typed(&FakeSystem::new(), "hv log\recho a\recho b\r");
        assert!(
            output.ends_with("> echo a\na\npartita> echo b\nb\npartita> "),
            "{output}"
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_typed_leave_the_session_alive(bytes in proptest::collection::vec(0u8..END, 0..400)) {
        let (end, _) = typed(&FakeSystem::new(), [bytes.as_slice(), b"\x03\x03echo alive\r"].concat());
        prop_assert!(end == End::EndOfInput);
    }

    #[test]
    fn any_words_behind_any_command_give_a_status(index in 0..COMMANDS.len(), rest in "[ -~ä'\"]{0,30}") {
        let line = format!("{} {rest}", COMMANDS[index].name());
        prop_assume!(!line.contains("endless") && !line.contains("follow") && !line.starts_with("hv bench"));
        let (status, output) = run(&FakeSystem::new(), &line);
        prop_assert!(status <= 2, "{line}: {output}");
        let (start, _) = complete::candidates(&FakeSystem::new(), &line);
        prop_assert!(line.is_char_boundary(start));
    }
}

mod script {
    use super::*;

    fn script(system: &FakeSystem, lines: &[&str]) -> (usize, String) {
        let terminal = FakeTerminal::default();
        let mut session = Session::new(system, Box::new(terminal.clone()));
        let failures = block_on(session.run_script(lines.iter().copied()));
        (failures, terminal.output().replace("\r\n", "\n"))
    }

    #[test]
    fn each_failing_line_is_reported_and_counted() {
        assert_eq!(
            script(
                &FakeSystem::new(),
                &["hv inof", "echo fine", "hv selftest iommu-registers"]
            ),
            (
                2,
                "partita> hv inof\nunknown command 'hv inof': did you mean 'hv info'?\n\
                 exec: 'hv inof' failed with status 2\n\
                 partita> echo fine\nfine\n\
                 partita> hv selftest iommu-registers\n\
                 SELF-TEST        RESULT  WHAT WAS SEEN\n\
                 iommu-registers  FAIL    read 0x10 where all ones were expected\n\
                 exec: 'hv selftest iommu-registers' failed with status 1\n"
                    .into()
            )
        );
    }

    #[test]
    fn a_blank_line_after_a_failure_does_not_fail_again() {
        assert_eq!(script(&FakeSystem::new(), &["hv", "", "# note"]).0, 1);
    }

    #[test]
    fn nothing_runs_after_poweroff() {
        let (failures, output) = script(&FakeSystem::new(), &["poweroff", "echo never"]);
        assert_eq!((failures, output.as_str()), (0, "partita> poweroff\n"));
    }
}

mod commands {
    use super::*;
    use crate::shell::commands::{Command, NOUNS};

    #[test]
    fn every_command_has_help_that_names_its_flags() {
        for row in COMMANDS {
            let text = ok(&alloc::format!("{} --help", row.name()));
            assert!(text.contains(row.help), "{text}");
            assert!(row.all_flags().all(|flag| text.contains(flag.name)), "{text}");
            assert_eq!(ok(&alloc::format!("help {}", row.name())), text);
        }
        for (noun, about) in NOUNS {
            assert!(ok(&alloc::format!("help {noun}")).contains(about));
        }
    }

    #[test]
    fn every_command_that_prints_data_prints_one_json_document_of_snake_case_keys() {
        fn check(value: &serde_json::Value) {
            match value {
                serde_json::Value::Object(fields) => fields.iter().for_each(|(key, value)| {
                    let snake = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                    assert!(!key.is_empty() && key.chars().all(snake), "{key}");
                    check(value);
                }),
                serde_json::Value::Array(values) => values.iter().for_each(check),
                _ => {}
            }
        }
        for row in COMMANDS.iter().filter(|row| row.prints_data) {
            let argument = if row.verb == "bench" { " cpuid" } else { "" };
            let document = json(&alloc::format!("{}{argument} --json", row.name()));
            assert!(
                document.as_object().is_some_and(|fields| !fields.is_empty()),
                "{document}"
            );
            check(&document);
        }
    }

    #[test]
    fn tables_fit_the_terminal_and_end_no_line_in_a_blank() {
        let needs_nothing = |row: &&Command| row.arguments.iter().all(|argument| !argument.required);
        let rows = COMMANDS.iter().filter(needs_nothing);
        for row in rows.filter(|row| row.verb != "bench") {
            for line in ok(&row.name()).lines() {
                assert!(line.chars().count() <= 80 && !line.ends_with(' '), "{line:?}");
            }
        }
    }

    #[test]
    fn failures_are_json_too_when_json_was_asked_for() {
        assert_eq!(
            json("hv inof --json"),
            serde_json::json!({"error": "unknown command 'hv inof': did you mean 'hv info'?", "status": 2})
        );
        let mut system = FakeSystem::new();
        system.information = Err(SystemError::new("access denied"));
        assert_eq!(
            run(&system, "hv info --json"),
            (1, "{\"error\":\"hv info: access denied\",\"status\":1}\n".into())
        );
        assert_eq!(run(&system, "hv info"), (1, "hv info: access denied\n".into()));
    }

    #[test]
    fn hv_info_tells_people_in_units_and_programs_in_bytes() {
        let text = ok("hv info");
        for line in [
            "LPs running            2",
            "memory total           2.0 GiB",
            "virtualization         AMD-V",
        ] {
            assert!(text.lines().any(|found| found == line), "{text}");
        }
        let document = json("hv info --json");
        assert_eq!(document["memory"]["total_bytes"], 2u64 << 30);
        assert_eq!(document["boot"]["hypervisor_ns"], 12_000_000);
        assert_eq!(document["iommus"][0]["capability"], "0xd2008c222f0606");
    }

    #[test]
    fn hv_stats_adds_up_reasons_and_vps() {
        let document = json("hv stats --json");
        assert_eq!(
            document["exits"][1],
            serde_json::json!({"reason": "hypercall", "vp0": 40, "vp1": 41, "total": 81})
        );
        assert_eq!(
            document["exits"][16],
            serde_json::json!({"reason": "total", "vp0": 50, "vp1": 51, "total": 101})
        );
        assert_eq!(document["vps"][0]["run_time_ns"], 12_345_600);
    }

    #[test]
    fn hv_stats_of_a_vp_that_is_not_there_names_those_that_are() {
        assert_eq!(
            run(&FakeSystem::new(), "hv stats --vp 2"),
            (2, "hv stats: there is no VP 2: the VPs are 0 to 1\n".into())
        );
        assert_eq!(json("hv stats --vp 1 --json")["vps"][0]["vp"], 1);
    }

    #[test]
    fn hv_check_fails_only_when_something_needed_is_missing() {
        assert!(ok("hv check").contains("verdict          Partita runs; what is missing costs"));
        let mut system = FakeSystem::new();
        let mut information = hypercall_api::operator::SystemInfo::new_zeroed();
        information.virtualization = hypercall_api::operator::VIRTUALIZATION_VMX;
        system.information = Ok(information);
        let (status, output) = run(&system, "hv check --json");
        let document: serde_json::Value = serde_json::from_str(&output).expect("is JSON");
        assert_eq!(status, 1);
        assert_eq!(document["needed_missing"], serde_json::json!(["nested paging"]));
        let checks = document["checks"].as_array().expect("is a list");
        assert!(
            checks.iter().all(|check| check["name"] != "VMCB clean bits"),
            "SVM's alone"
        );
        let without = checks.iter().find(|check| check["name"] == "IOMMU large pages");
        assert_eq!(
            without.expect("is there")["found"],
            false,
            "no unit has it where there is none"
        );
    }

    #[test]
    fn hv_log_joins_pieces_to_lines_and_tells_of_lost_bytes() {
        let mut system = FakeSystem::new();
        system.log = "eins\nzwei ä\nfast".into();
        assert_eq!(run(&system, "hv log"), (0, "eins\nzwei ä\nfast\n".into()));
        let document = run(&system, "hv log --json").1;
        assert_eq!(
            document,
            "{\"position\":0,\"next\":17,\"lines\":[\"eins\",\"zwei ä\",\"fast\"]}\n"
        );
    }

    #[test]
    fn a_log_that_begins_late_because_the_ring_is_full_is_no_loss_while_reading() {
        let mut system = FakeSystem::new();
        system.log_start = 1000;
        assert!(!run(&system, "hv log").1.contains("overwritten"));
    }

    #[test]
    fn following_as_json_is_refused() {
        let (status, output) = run(&FakeSystem::new(), "root log --follow --json");
        assert_eq!(status, 2);
        assert!(output.contains("leave out --follow or --json"), "{output}");
    }

    #[test]
    fn hv_selftest_lists_runs_one_and_runs_all_that_the_system_survives() {
        assert!(ok("hv selftest").contains("triple-fault     yes"));
        assert!(ok("hv selftest apic-page").contains("apic-page  pass    #GP"));
        let (status, output) = run(&FakeSystem::new(), "hv selftest --all --json");
        assert_eq!(status, 1);
        assert!(!output.contains("triple-fault"), "{output}");
        assert_eq!(
            run(&FakeSystem::new(), "hv selftest apic-pge").1,
            "hv selftest: unknown self-test 'apic-pge': did you mean 'apic-page'?\n"
        );
        assert_eq!(run(&FakeSystem::new(), "hv selftest x --all").0, 2);
    }

    #[test]
    fn hv_bench_prints_minimum_and_median() {
        assert_eq!(
            ok("hv bench cpuid"),
            "BENCHMARK  MINIMUM  MEDIAN  ROUNDS  WHAT IS MEASURED\n\
             cpuid          321     333    1000  CPUID, handled by the hypervisor\n"
        );
        assert_eq!(
            json("hv bench cpuid --json")["benchmarks"][0]["median_ticks"],
            333
        );
    }

    #[test]
    fn dev_list_names_classes_and_drivers() {
        assert_eq!(
            ok("dev list"),
            "ADDRESS       CLASS            ID         DRIVER  MACHINE\n\
             0000:00:00.0  Host bridge      8086:29c0  -       -\n\
             0000:00:02.0  NVMe controller  1b36:0010  nvme    -\n"
        );
        assert_eq!(json("dev list --json")["devices"][1]["driver"], "nvme");
    }

    #[test]
    fn the_version_is_told_even_when_the_hypervisor_does_not_answer() {
        let mut system = FakeSystem::new();
        system.information = Err(SystemError::new("access denied"));
        let (status, output) = run(&system, "version");
        assert_eq!(status, 0);
        assert!(output.contains("hypervisor  -\n"), "{output}");
    }

    #[test]
    fn root_info_and_root_log_show_the_roots_own() {
        assert!(ok("root info").contains("uptime       12.345 s\n"));
        assert!(ok("root info").contains("time         2026-11-21T16:30:06Z\n"));
        assert_eq!(ok("root log"), "root up\n");
    }
}
