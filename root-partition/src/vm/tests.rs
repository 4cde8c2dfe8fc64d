//! The worker over a fake hypervisor.

use super::assignment::Assignments;
use super::fake::{FakeFiles, FakeHost};
use super::worker::Worker;
use crate::disk::Registry;
use crate::shell::machines::{MachineState as State, Machines, Order};
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use hypercall_api::intercept::{
    AccessType, ExecutionState, InterceptHeader, IoPortAccess, IoPortIntercept, MemoryIntercept,
    MsrIntercept, UnrecoverableException,
};
use hypercall_api::message::{Message, MessageType};
use hypercall_api::partition::PartitionProperty;
use hypercall_api::register::RegisterName;
use proptest::prelude::*;
use std::sync::Arc;
use zerocopy::{FromZeros, IntoBytes};

const WEB: &[u8] = b"processors = 2\nmemory = \"5MiB\"\nkernel = \"kernels/web\"\ncap = 50\n";
/// Frames of the root: enough, with some to spare.
const FRAMES: usize = 8192;

fn world(frames: usize) -> (FakeHost, Worker<FakeHost>) {
    world_of(WEB, frames)
}

/// A worker over `files`, and over their disks.
fn worker_of(host: FakeHost, files: FakeFiles) -> Worker<FakeHost> {
    let files = Arc::new(files);
    let disks = Arc::new(Registry::new(files.clone(), || 1 << 30));
    disks.set_ready();
    Worker::new(host, files, disks, Assignments::new(None, Vec::new()), 0)
}

/// A worker of the one description `web`.
pub(super) fn world_of(description: &'static [u8], frames: usize) -> (FakeHost, Worker<FakeHost>) {
    let kernel = super::loader::tests::elf64(b"text of a kernel", Some(0x20_0000));
    let files = FakeFiles(vec![
        ("vms/web.toml", description),
        ("kernels/web", kernel.leak()),
    ]);
    let host = FakeHost::with_frames(frames);
    (host.clone(), worker_of(host, files))
}

/// Runs a future and the machines' tasks until the future ends.
pub(super) fn finish<T>(host: &FakeHost, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..10_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
        host.step();
    }
    panic!("it does not end");
}

pub(super) fn order(host: &FakeHost, worker: &Worker<FakeHost>, order: Order) -> Result<(), String> {
    finish(host, worker.order("web", order)).map_err(|error| error.to_string())
}

/// A machine that runs.
fn running() -> (FakeHost, Worker<FakeHost>) {
    let (host, worker) = world(FRAMES);
    order(&host, &worker, Order::Start).unwrap();
    (host, worker)
}

fn state(worker: &Worker<FakeHost>) -> State {
    worker.show("web").unwrap().state
}

/// Nothing is left of any machine.
fn assert_clean(host: &FakeHost) {
    assert_eq!(host.free_frames(), FRAMES);
    assert_eq!((host.own_pool(), host.partitions().0), (0, 0));
    assert!(host.ports.lock().is_clean());
}

fn header(access: AccessType, rip: u64) -> InterceptHeader {
    let mut header = InterceptHeader::new_zeroed();
    header.access = access;
    header.rip = rip;
    header.state = ExecutionState(ExecutionState::CR0_PE);
    header.cs.attributes = 0xc09b;
    header
}

fn port_message(access: AccessType, port: u16, size: u8, rax: u64) -> Message {
    let mut intercept = IoPortIntercept::new_zeroed();
    intercept.header = header(access, 0x20_0000);
    intercept.header.length_and_cr8 = 1;
    intercept.port = port;
    intercept.access = IoPortAccess::new(size, false, false);
    intercept.rax = rax;
    Message::new(MessageType::IO_PORT_INTERCEPT, 0, intercept.as_bytes())
}

fn memory_message(access: AccessType, gpa: u64, bytes: &[u8]) -> Message {
    let mut intercept = MemoryIntercept::new_zeroed();
    intercept.header = header(access, 0x20_0000);
    intercept.gpa.0 = gpa;
    intercept.instruction_byte_count = bytes.len() as u8;
    intercept.instruction[..bytes.len()].copy_from_slice(bytes);
    Message::new(MessageType::UNMAPPED_GPA, 0, intercept.as_bytes())
}

fn console(worker: &Worker<FakeHost>) -> String {
    String::from_utf8(worker.console("web", 0).unwrap().1).unwrap()
}

fn crash_message(control: u64) -> Message {
    let mut intercept = MsrIntercept::new_zeroed();
    intercept.header = header(AccessType::WRITE, 0x20_0000);
    intercept.msr = hypercall_api::msr::CRASH_CTL;
    (intercept.rdx, intercept.rax) = (control >> 32, control & 0xffff_ffff);
    Message::new(MessageType::MSR_INTERCEPT, 0, intercept.as_bytes())
}

fn log(worker: &Worker<FakeHost>) -> String {
    let entries = worker.log("web").unwrap();
    entries.into_iter().map(|entry| entry.text + "\n").collect()
}

#[test]
fn a_guests_report_of_its_crash_is_logged_and_stops_it() {
    let (host, worker) = running();
    for (index, value) in [1, 2, 3, 0x20_0000, 7].into_iter().enumerate() {
        host.set(
            1,
            RegisterName(RegisterName::GUEST_CRASH_P0.0 + index as u32),
            value,
        );
    }
    host.intercept(1, &crash_message(0xc000_0000_0000_0000));
    assert_eq!(state(&worker), State::Crashed);
    // The kernel's first bytes.
    assert!(
        log(&worker).contains("guest: text of\ncrashed: "),
        "{}",
        log(&worker)
    );
}

#[test]
fn a_crash_whose_text_is_nowhere_is_a_crash_all_the_same() {
    let (host, worker) = running();
    host.set(0, RegisterName::GUEST_CRASH_P3, u64::MAX - 3);
    host.set(0, RegisterName::GUEST_CRASH_P4, u64::MAX);
    host.intercept(0, &crash_message(0xc000_0000_0000_0000));
    assert_eq!(state(&worker), State::Crashed);
    assert!(log(&worker).contains("its text cannot be read"));
}

#[test]
fn a_crash_without_a_text_tells_its_parameters() {
    let (host, worker) = running();
    host.set(0, RegisterName::GUEST_CRASH_P2, 0xffff_8000);
    host.intercept(0, &crash_message(0x8000_0000_0000_0000));
    assert!(log(&worker).contains("crashed: the guest says that it has: 0x0 0x0 0xffff8000 0x0 0x0"));
}

#[test]
fn what_a_guest_is_not_told_of_reaches_the_hypervisor() {
    let kernel = super::loader::tests::elf64(b"text of a kernel", Some(0x20_0000));
    let web = [WEB, b"[enlightenments]\ntlb_flush = false\n"].concat();
    let files = FakeFiles(vec![("vms/web.toml", web.leak()), ("kernels/web", kernel.leak())]);
    let host = FakeHost::with_frames(FRAMES);
    let worker = worker_of(host.clone(), files);
    order(&host, &worker, Order::Start).unwrap();
    let policies = host.partition(|_, partition| partition.cpuid.clone());
    assert_eq!(policies, [(0x4000_0004, 1 << 2)]);
}

#[test]
fn a_machine_finds_its_acpi_tables() {
    let (_host, worker) = running();
    assert_eq!(worker.memory("web", 0xe_0000, 8).unwrap(), b"RSD PTR ");
}

#[test]
fn a_start_makes_the_partition_and_lets_its_vps_run() {
    let (host, worker) = running();
    assert_eq!(state(&worker), State::Running);
    let (vps, pages, cap) = host.partition(|_, partition| {
        let cap = partition
            .properties
            .iter()
            .find(|(property, _)| *property == PartitionProperty::CPU_CAP);
        (
            partition.vps.len(),
            partition.pages.len(),
            cap.map(|(_, value)| *value),
        )
    });
    // Two large pages, and 1 MiB of small ones.
    assert_eq!((vps, pages, cap), (2, 2 + 256, Some(0x8000)));
    assert_eq!(host.register(0, RegisterName::RIP), 0x20_0000);
    assert_ne!(host.register(0, RegisterName::RBX), 0);
    for vp in 0..2 {
        assert_eq!(host.register(vp, RegisterName::EXPLICIT_SUSPEND), 0);
    }
}

#[test]
fn what_the_guest_sends_stands_on_its_console() {
    let (host, worker) = running();
    for byte in b"hi" {
        host.intercept(0, &port_message(AccessType::WRITE, 0x3f8, 1, (*byte).into()));
    }
    assert_eq!(console(&worker), "hi");
    assert_eq!(host.register(0, RegisterName::INTERCEPT_SUSPEND), 0);
    assert_eq!(host.register(0, RegisterName::RIP), 0x20_0001);
}

#[test]
fn reads_of_ports_change_only_the_bytes_that_were_read() {
    let (host, _worker) = running();
    host.intercept(1, &port_message(AccessType::READ, 0x80, 1, 0x1234_5678_9abc_de00));
    assert_eq!(host.register(1, RegisterName::RAX), 0x1234_5678_9abc_deff);
    host.intercept(1, &port_message(AccessType::READ, 0xcfc, 4, u64::MAX << 32));
    assert_eq!(host.register(1, RegisterName::RAX), 0xffff_ffff);
}

#[test]
fn a_string_goes_to_the_port_and_stops_before_a_page_that_is_not_there() {
    let (host, worker) = running();
    let mut intercept = IoPortIntercept::new_zeroed();
    intercept.header = header(AccessType::WRITE, 0x20_0000);
    intercept.port = 0x3f8;
    intercept.access = IoPortAccess::new(1, true, true);
    intercept.instruction_byte_count = 2;
    intercept.instruction[..2].copy_from_slice(&[0xf3, 0x6e]);
    intercept.rcx = 4;
    intercept.rsi = 0x20_0000;
    host.intercept(
        0,
        &Message::new(MessageType::IO_PORT_INTERCEPT, 0, intercept.as_bytes()),
    );
    assert_eq!(console(&worker), "text");
    let rip = || host.register(0, RegisterName::RIP);
    assert_eq!((rip(), host.register(0, RegisterName::RCX)), (0x20_0002, 0));
    assert_eq!(host.register(0, RegisterName::RSI), 0x20_0004);

    intercept.rsi = 0xff_efff;
    host.intercept(
        0,
        &Message::new(MessageType::IO_PORT_INTERCEPT, 0, intercept.as_bytes()),
    );
    assert_eq!((rip(), host.register(0, RegisterName::RCX)), (0x20_0000, 3));
    intercept.rsi = 0xff_f000;
    host.intercept(
        0,
        &Message::new(MessageType::IO_PORT_INTERCEPT, 0, intercept.as_bytes()),
    );
    let event = host.partition(|_, partition| partition.vps[&0][&RegisterName::PENDING_EVENT0]);
    assert_eq!(event.pending_exception().vector(), 14);
    assert_eq!(event.pending_exception().parameter, 0xff_f000);
}

#[test]
fn input_interrupts_through_the_io_apic() {
    let (host, worker) = running();
    // mov [rax], ecx, with the register select, then the window.
    for (address, value) in [
        (0xfec0_0000, 0x18),
        (0xfec0_0010, 0x34),
        (0xfec0_0000, 0x19),
        (0xfec0_0010, 1 << 24),
    ] {
        host.set(0, RegisterName::RCX, value);
        host.intercept(0, &memory_message(AccessType::WRITE, address, &[0x89, 0x08]));
        assert_eq!(host.register(0, RegisterName::RIP), 0x20_0002);
    }
    host.intercept(0, &port_message(AccessType::WRITE, 0x3f9, 1, 1));
    assert!(host.interrupts().is_empty());
    worker.type_in("web", b"x").unwrap();
    let interrupts = host.interrupts();
    assert_eq!(interrupts.len(), 1);
    assert_eq!((interrupts[0].vector, interrupts[0].destination), (0x34, 1));
    host.intercept(0, &port_message(AccessType::READ, 0x3f8, 1, 0));
    assert_eq!(host.register(0, RegisterName::RAX), u64::from(b'x'));
}

#[test]
fn an_msr_that_does_not_exist_faults() {
    let (host, _worker) = running();
    let mut intercept = MsrIntercept::new_zeroed();
    intercept.header = header(AccessType::READ, 0x20_0000);
    host.intercept(
        0,
        &Message::new(MessageType::MSR_INTERCEPT, 0, intercept.as_bytes()),
    );
    let event = host.partition(|_, partition| partition.vps[&0][&RegisterName::PENDING_EVENT0]);
    assert_eq!(event.pending_exception().event, 0x000d_0101);
}

#[test]
fn a_guest_that_powers_itself_off_leaves_nothing() {
    let (host, worker) = running();
    host.intercept(0, &port_message(AccessType::WRITE, 0x600, 1, 0x34));
    assert_eq!(state(&worker), State::Off);
    assert_clean(&host);
}

#[test]
fn a_guest_that_resets_itself_is_a_new_partition() {
    let (host, worker) = running();
    host.intercept(0, &port_message(AccessType::WRITE, 0x602, 1, 1));
    assert_eq!((state(&worker), host.partitions()), (State::Running, (1, 1)));
    assert_eq!(worker.show("web").unwrap().starts, 2);
    order(&host, &worker, Order::Kill).unwrap();
    assert_clean(&host);
}

#[test]
fn a_triple_fault_keeps_the_machine_for_a_look() {
    let (host, worker) = running();
    let mut intercept = UnrecoverableException::new_zeroed();
    intercept.header = header(AccessType::EXECUTE, 0xdead);
    host.intercept(
        1,
        &Message::new(MessageType::UNRECOVERABLE_EXCEPTION, 0, intercept.as_bytes()),
    );
    assert_eq!(state(&worker), State::Crashed);
    assert!(
        worker
            .log("web")
            .unwrap()
            .last()
            .unwrap()
            .text
            .contains("triple fault of VP 1 at 0xdead")
    );
    assert!(!worker.registers("web", 1).unwrap().is_empty());
    assert_eq!(host.register(0, RegisterName::EXPLICIT_SUSPEND), 1);
    order(&host, &worker, Order::Start).unwrap();
    assert_eq!((state(&worker), host.partitions()), (State::Running, (1, 1)));
}

#[test]
fn what_cannot_be_emulated_crashes_the_machine_and_says_what_it_was() {
    let (host, worker) = running();
    host.intercept(
        0,
        &memory_message(AccessType::READ, 0xd000_0000, &[0x0f, 0x28, 0x00]),
    );
    assert_eq!(state(&worker), State::Crashed);
    let log = worker.log("web").unwrap();
    assert!(
        log.last().unwrap().text.contains("the instruction Movaps"),
        "{log:?}"
    );
}

#[test]
fn pause_and_resume_suspend_all_vps() {
    let (host, worker) = running();
    order(&host, &worker, Order::Pause).unwrap();
    assert_eq!(state(&worker), State::Paused);
    assert_eq!(host.register(1, RegisterName::EXPLICIT_SUSPEND), 1);
    assert_eq!(
        order(&host, &worker, Order::Pause),
        Err("'web' is paused: only a running machine can be paused".into())
    );
    order(&host, &worker, Order::Resume).unwrap();
    assert_eq!(host.register(1, RegisterName::EXPLICIT_SUSPEND), 0);
}

#[test]
fn a_machine_is_deleted_once_it_is_off() {
    let (host, worker) = running();
    assert_eq!(
        order(&host, &worker, Order::Delete),
        Err("'web' is running: 'vm kill' ends it first".into())
    );
    order(&host, &worker, Order::Kill).unwrap();
    order(&host, &worker, Order::Delete).unwrap();
    assert!(worker.list().is_empty());
    assert_eq!(
        worker.show("web").unwrap_err().to_string(),
        "'web' has not been created: 'vm create web' does it"
    );
    assert_clean(&host);
}

#[test]
fn a_machine_that_there_is_not_is_told_with_the_nearest() {
    let (host, worker) = world(FRAMES);
    assert_eq!(
        finish(&host, worker.order("wbe", Order::Start))
            .unwrap_err()
            .to_string(),
        "there is no virtual machine 'wbe': did you mean 'web'?"
    );
    assert!(
        worker
            .create("mail", None)
            .unwrap_err()
            .to_string()
            .contains("no vms/mail.toml")
    );
    worker.create("web", None).unwrap();
    assert!(
        worker
            .create("web", None)
            .unwrap_err()
            .to_string()
            .contains("already")
    );
    assert_eq!(worker.create("web", Some("two")), Ok("two".into()));
}

#[test]
fn waiting_ends_when_the_state_comes() {
    let (host, worker) = running();
    let mut wait = worker.wait("web", &[State::Off]);
    let mut context = Context::from_waker(Waker::noop());
    assert!(wait.as_mut().poll(&mut context).is_pending());
    host.intercept(0, &port_message(AccessType::WRITE, 0x600, 1, 0x34));
    assert_eq!(wait.as_mut().poll(&mut context), Poll::Ready(Ok(State::Off)));
}

#[test]
fn events_of_a_partition_that_is_gone_are_not_its_successors() {
    let (host, worker) = running();
    let machine_events = host.partition(|id, _| id);
    order(&host, &worker, Order::Reset).unwrap();
    assert_ne!(host.partition(|id, _| id), machine_events);
    assert_eq!(state(&worker), State::Running);
}

#[test]
fn a_kill_ends_a_start_at_any_point_and_leaves_nothing() {
    for steps in (0..400).step_by(7) {
        let (host, worker) = world(FRAMES);
        let mut context = Context::from_waker(Waker::noop());
        let mut start = worker.order("web", Order::Start);
        let started = (0..steps).any(|_| {
            host.step();
            start.as_mut().poll(&mut context).is_ready()
        });
        drop(start);
        if !worker.list().is_empty() {
            order(&host, &worker, Order::Kill).unwrap();
            assert_eq!(state(&worker), State::Off, "after {steps} steps ({started})");
        }
        host.run();
        if !worker.list().is_empty() {
            order(&host, &worker, Order::Kill).unwrap();
        }
        assert_clean(&host);
    }
}

#[test]
fn cycles_leak_nothing() {
    let (host, worker) = world(FRAMES);
    for _ in 0..5 {
        for verb in [Order::Start, Order::Kill, Order::Delete] {
            order(&host, &worker, verb).unwrap();
        }
        assert_clean(&host);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_start_without_enough_memory_fails_and_leaves_nothing(frames in 0usize..1320) {
        let (host, worker) = world(frames);
        let result = order(&host, &worker, Order::Start);
        if let Err(error) = &result {
            prop_assert!(error.contains("no memory left") || error.contains("MiB of memory left"), "{}", error);
            prop_assert_eq!(state(&worker), State::Off);
        } else {
            order(&host, &worker, Order::Kill).unwrap();
        }
        prop_assert_eq!((host.free_frames(), host.own_pool()), (frames, 0));
    }

    #[test]
    fn no_message_makes_it_panic(
        kind in prop::sample::select(vec![
            0x8000_0000u32, 0x8000_0001, 0x8000_0020, 0x8000_0021, 0x8000_0022, 0x8001_0000, 0x8001_0001, 0x8001_0002,
            0x8001_0003, 0x8001_0007, 1,
        ]),
        payload in prop::collection::vec(any::<u8>(), 0..=240),
    ) {
        let (host, worker) = running();
        host.intercept(0, &Message::new(MessageType(kind), 0, &payload));
        order(&host, &worker, Order::Kill).unwrap();
        prop_assert_eq!(host.free_frames(), FRAMES);
    }
}

#[test]
fn an_msr_that_it_does_not_have_is_what_the_description_says() {
    const TEXT: &[u8] = b"memory = \"5MiB\"\nkernel = \"kernels/web\"\n[[msr]]\nnumber = 0x35\nread = 0x100000002\nwrite = \"ignore\"\n";
    let (host, worker) = world_of(TEXT, FRAMES);
    order(&host, &worker, Order::Start).unwrap();
    assert!(host.partition(|_, partition| partition.hears_of_msrs));
    let access = |access, msr| {
        let mut intercept = MsrIntercept::new_zeroed();
        intercept.header = header(access, 0x20_0000);
        intercept.header.length_and_cr8 = 2;
        intercept.msr = msr;
        host.set(0, RegisterName::RIP, 0x20_0000);
        host.set(0, RegisterName::PENDING_EVENT0, 0);
        host.intercept(
            0,
            &Message::new(MessageType::MSR_INTERCEPT, 0, intercept.as_bytes()),
        );
        host.register(0, RegisterName::INTERCEPT_SUSPEND)
    };
    assert_eq!(access(AccessType::READ, 0x35), 0);
    assert_eq!(host.register(0, RegisterName::RAX), 2);
    assert_eq!(host.register(0, RegisterName::RDX), 1);
    assert_eq!(host.register(0, RegisterName::RIP), 0x20_0002);
    assert_eq!(access(AccessType::WRITE, 0x35), 0);
    assert_eq!(host.register(0, RegisterName::RIP), 0x20_0002);
    for refused in [AccessType::READ, AccessType::WRITE] {
        assert_eq!(access(refused, 0x36), 0);
        assert_ne!(host.register(0, RegisterName::PENDING_EVENT0) & 1, 0, "#GP");
        assert_eq!(host.register(0, RegisterName::RIP), 0x20_0000);
    }
}

#[test]
fn a_machine_with_ports_to_itself_leaves_none() {
    const TEXT: &[u8] = b"memory = \"5MiB\"\nkernel = \"kernels/web\"\nloopback = true\n";
    let (host, worker) = world_of(TEXT, FRAMES);
    order(&host, &worker, Order::Start).unwrap();
    assert!(!host.ports.lock().is_clean());
    order(&host, &worker, Order::Kill).unwrap();
    assert_clean(&host);
}
