use super::super::super::fake::{END, FakeSystem, FakeTerminal, PAUSE, block_on};
use super::super::super::machines::Order;
use super::super::super::session::Session;
use alloc::boxed::Box;

/// Runs one line with `typed` at the terminal; returns status and output.
fn run(system: &FakeSystem, line: &str, typed: &[u8]) -> (u8, String) {
    let terminal = FakeTerminal::typing(typed);
    let mut session = Session::new(system, Box::new(terminal.clone()));
    let status = block_on(session.run_line(line));
    (status.0, terminal.output().replace("\r\n", "\n"))
}

fn ok(line: &str) -> String {
    let (status, output) = run(&FakeSystem::new(), line, b"");
    assert_eq!(status, 0, "{line}: {output}");
    output
}

#[test]
fn machines_and_descriptions_are_listed() {
    assert_eq!(
        ok("vm list"),
        "NAME  STATE           FOR  VPS    MEMORY  PARTITION  STARTS\n\
         db    crashed  1 min 02 s    2  64.0 MiB  0x202           1\n\
         web   running  1 min 02 s    2  64.0 MiB  0x202           1\n\
         \n\
         descriptions  mail, web\n"
    );
}

#[test]
fn orders_reach_their_machine() {
    let system = FakeSystem::new();
    let orders = [
        ("start", Order::Start),
        ("kill", Order::Kill),
        ("reset", Order::Reset),
        ("pause", Order::Pause),
        ("resume", Order::Resume),
        ("delete", Order::Delete),
    ];
    for (verb, order) in orders {
        assert_eq!(run(&system, &format!("vm {verb} web"), b""), (0, String::new()));
        assert_eq!(system.machines.orders.lock().pop(), Some(("web".into(), order)));
    }
    let (status, output) = run(&system, "vm kill wbe", b"");
    assert_eq!(
        (status, output.as_str()),
        (1, "vm kill: there is no virtual machine 'wbe'\n")
    );
}

#[test]
fn a_stop_asks_the_guest_and_waits() {
    let system = FakeSystem::new();
    assert_eq!(run(&system, "vm stop web", b"").0, 0);
    assert_eq!(
        system.machines.orders.lock().pop(),
        Some(("web".into(), Order::Stop))
    );
}

#[test]
fn a_stop_that_leads_nowhere_is_told_and_force_kills() {
    let system = FakeSystem::new();
    let (status, output) = run(&system, "vm stop db", b"");
    assert!(
        status == 1 && output.contains("crashed") && output.contains("'vm stop db --force' or 'vm kill db'"),
        "{output}"
    );
    assert_eq!(run(&system, "vm stop db --force", b"").0, 0);
    assert_eq!(
        system.machines.orders.lock().pop(),
        Some(("db".into(), Order::Kill))
    );
}

#[test]
fn disks_are_attached_and_detached() {
    let system = FakeSystem::new();
    assert_eq!(
        run(&system, "disk attach web archive:a.iso --dvd --lun 3", b""),
        (0, "LUN  3\n".into())
    );
    let attached = system.machines.attached.lock().pop().unwrap();
    assert_eq!(
        (attached.source.as_deref(), attached.read_only, attached.dvd),
        (Some("archive:a.iso"), true, true)
    );
    assert_eq!(run(&system, "disk detach web 0", b"").0, 0);
    assert_eq!(run(&system, "disk detach web 9", b"").0, 1);
    let (status, output) = run(&system, "disk detach web first", b"");
    assert!(
        status == 2 && output.contains("give one from 0 to 63"),
        "{status} {output}"
    );
}

#[test]
fn media_are_put_in_and_taken_out() {
    let system = FakeSystem::new();
    assert_eq!(run(&system, "disk insert web 2 archive:b.iso", b"").0, 0);
    assert_eq!(run(&system, "disk eject web 2", b"").0, 0);
    assert_eq!(
        *system.machines.media.lock(),
        [(2, Some("archive:b.iso".into())), (2, None)]
    );
    assert_eq!(run(&system, "disk eject nobody 2", b"").0, 1);
    assert_eq!(run(&system, "disk insert web 2", b"").0, 2, "no medium is named");
}

#[test]
fn a_machine_shows_its_disks_and_what_its_guest_tells() {
    let shown = ok("vm show web");
    for line in [
        "heartbeat     alive\n",
        "  0  disk  nvme0   no\n",
        "OSName  Debian\n",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
}

#[test]
fn waiting_for_a_machine_that_crashed_fails_with_its_reason() {
    assert_eq!(ok("vm wait web"), "name   web\nstate  off\n");
    let (status, output) = run(&FakeSystem::new(), "vm start db --wait", b"");
    assert_eq!(status, 1);
    assert!(
        output.contains("reason  crashed: triple fault of VP 1"),
        "{output}"
    );
    assert_eq!(run(&FakeSystem::new(), "vm wait db --state crashed", b"").0, 0);
    assert_eq!(run(&FakeSystem::new(), "vm wait db --state up", b"").0, 2);
}

#[test]
fn an_attached_console_shows_what_was_written_before_and_takes_what_is_typed() {
    let system = FakeSystem::new();
    let (status, output) = run(&system, "vm console web", b"\xff\xff\xff\xff\xffab\x03\x1dc");
    assert_eq!(status, 0);
    assert_eq!(
        output, "attached to 'web': Ctrl-] leaves\nweb: up\n\x1b[1mready\x1b[m\n\nleft 'web'\n",
        "the guest may use escape sequences"
    );
    assert_eq!(*system.machines.typed.lock(), b"ab\x03");
}

#[test]
fn an_attached_console_ends_when_the_machine_is_off_or_the_terminal_ends() {
    let mut system = FakeSystem::new();
    system.machines.ends_after = 1;
    let typed: Vec<u8> = [PAUSE; 8].into_iter().chain([b'q']).collect();
    let (_, output) = run(&system, "vm console web", &typed);
    assert!(output.ends_with("\n'web' is off\n"), "{output}");
    assert_eq!(run(&FakeSystem::new(), "vm console web", &[END]).0, 0);
}

#[test]
fn a_dump_shows_escape_sequences_and_programs_get_the_text() {
    assert_eq!(ok("vm console web --dump"), "web: up\n\\u{1b}[1mready\\u{1b}[m\n");
    let (_, output) = run(&FakeSystem::new(), "vm console web --dump --json", b"");
    let document: serde_json::Value = serde_json::from_str(&output).expect("is JSON");
    assert_eq!(document["text"], "web: up\r\n\u{1b}[1mready\u{1b}[m\n");
    assert_eq!(document["next"], 22);
}

#[test]
fn registers_are_those_of_a_program_or_all() {
    let basic = ok("vm regs web 1");
    assert!(
        basic.contains("RAX       0x1235\n") && !basic.contains("XMM0"),
        "{basic}"
    );
    assert!(basic.contains("CS        0x0008 base 0x0 limit 0xffffffff attributes 0xa09b"));
    assert!(ok("vm regs web --all").contains("XMM0      0x10000000000000000000000000\n"));
    let (status, output) = run(&FakeSystem::new(), "vm regs web one", b"");
    assert_eq!(
        (status, output.as_str()),
        (2, "'one' is no VP: give a number, as in 64 or 0x40\n")
    );
}

#[test]
fn memory_is_shown_in_lines() {
    assert_eq!(
        ok("vm dump web 0x3f 18"),
        "ADDRESS  BYTES                                            TEXT\n\
         0x3f     3f 40 41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e  ?@ABCDEFGHIJKLMN\n\
         0x4f     4f 50                                            OP\n"
    );
}

#[test]
fn every_command_has_json() {
    for line in [
        "list",
        "create mail",
        "start web --wait",
        "wait web",
        "show web",
        "regs web",
        "log web",
        "stats web",
        "dump web 0 16",
    ] {
        let (status, output) = run(&FakeSystem::new(), &format!("vm {line} --json"), b"");
        let document: serde_json::Value = serde_json::from_str(&output).expect("is JSON");
        assert!(status == 0 && document.get("error").is_none(), "{line}: {output}");
    }
}
