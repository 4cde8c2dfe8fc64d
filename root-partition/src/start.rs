//! From the entry to the shell.
#![allow(unsafe_code)]

use crate::acpi::Firmware;
use crate::boot::start_info::Memory;
use crate::boot::{BootInfo, CommandLine};
use crate::disk::{self, Registry};
use crate::drivers::{pci, serial};
use crate::hypervisor::{detect, hypercalls, time};
use crate::interrupt::Interrupt;
use crate::memory::address_space::{self, Image};
use crate::memory::frames::Frames;
use crate::memory::heap::{self, Heap};
use crate::memory::layout;
use crate::processor::{self, instruction::ordered_tsc};
use crate::selftest::Targets;
use crate::shell::session::Session;
use crate::shell::terminal::Terminal;
use crate::system::Machine;
use crate::vm::archive::BootArchive;
use crate::vm::assignment::Assignments;
use crate::vm::machine::Files;
use crate::vm::root_host::RootHost;
use crate::vm::worker::Worker;
use crate::{console, executor, hypervisor, logger, net, stop, wall_clock};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Display;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Poll};
use hypercall_api::call::Hypercalls;
use spin::Once;

/// ISA interrupts of the serial ports.
const SERIAL_IRQS: [(u16, u8); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];
/// File of the boot archive whose lines the shell runs before it powers the machine off.
const EXEC: &str = "exec";
/// End of what the boot stub maps.
const BOOT_MAP_END: u64 = 4 << 30;

static BOOT: Once<(BootInfo, &'static Heap)> = Once::new();
static MACHINE: Once<Machine> = Once::new();

/// Starts the root: memory first, then [`main`] on a stack of its own.
///
/// # Safety
/// To be called once, by the image's entry, with the boot stub's map active and the real layout of the image.
pub unsafe fn begin(boot_info: u32, image: &Image, heap: &'static Heap) -> ! {
    let boot = BootInfo::read(&BootMap, u64::from(boot_info));
    let command_line = match &boot {
        Ok(boot) => CommandLine::parse(&boot.command_line),
        Err(_) => CommandLine::default(),
    };
    serial::init(command_line.serial);
    let boot = check(boot);
    stop::set_debug_exit(command_line.debug_exit);
    if !detect::is_present() {
        stop::cannot_start(
            &"the Partita hypervisor is not below: boot the hypervisor, with this image in its boot archive",
        );
    }

    let used: &[_] = &[
        image.text.start..image.data.end,
        boot.archive.clone().unwrap_or_default(),
    ];
    let mut free = layout::free_ram(boot.ram(), used);
    let Some(first_heap) = layout::first_heap(&free) else {
        stop::cannot_start(&"there is too little memory: give the machine at least 64 MiB more");
    };
    // SAFETY: the range is free RAM that the boot stub maps, and it is taken out of the free ranges below.
    unsafe { heap::claim(heap, first_heap.clone()) };
    free = layout::free_ram(free.into_iter(), core::slice::from_ref(&first_heap));
    let mut frames = Frames::new(free.last().map_or(0, |range| range.end));
    free.into_iter().for_each(|range| frames.release(range));
    // SAFETY: this is the boot processor with the stub's map; the frames are RAM that neither image, archive nor heap use.
    check(unsafe { address_space::init(frames, &boot.memory_map, image) });
    logger::init(command_line.log_level);
    BOOT.call_once(|| (boot, heap));
    // SAFETY: this is the boot processor with its final page tables.
    let Err(error) = unsafe { processor::start::boot_processor(main) };
    stop::cannot_start(&error)
}

/// Brings up what is left and becomes the boot processor's executor.
extern "C" fn main() -> ! {
    check(hypervisor::init());
    check(hypervisor::init_processor());
    let Some((boot, heap)) = BOOT.get() else {
        stop::cannot_start(&"the start information is lost");
    };
    let entered = time::now();
    wall_clock::init();
    let firmware = Firmware::read(boot.rsdp);
    let system = check(hypercalls().query_system());
    let vps = processor::start::other_processors(system.lp_count);
    let archive = boot_archive(boot);
    let disks = Arc::new(Registry::new(Arc::new(archive), address_space::free_bytes));
    let space = pci::config::init(&firmware.ecam);
    let functions = pci::scan::functions(space);
    let assignments = Assignments::new(Some(space), functions.clone());
    assignments.publish();
    let machine = MACHINE.call_once(|| Machine {
        vps,
        worker: Worker::new(RootHost, Arc::new(archive), disks.clone(), assignments, entered),
        pci: functions,
        disks: disks.clone(),
        soft_off: firmware.soft_off,
        targets: Targets {
            ram: boot.ram().collect(),
            io_apic: firmware
                .interrupts
                .io_apics
                .first()
                .map(|first| first.address.into()),
            heap,
        },
        entered,
        tsc_at_prompt: AtomicU64::new(0),
    });
    console::line(format_args!(
        "Partita root partition, version {}: {} {}, {} MiB",
        env!("CARGO_PKG_VERSION"),
        vps,
        if vps == 1 { "processor" } else { "processors" },
        boot.ram().map(|range| range.end - range.start).sum::<u64>() >> 20,
    ));
    log::info!(
        "{} PCI functions, {} free MiB",
        machine.pci.len(),
        address_space::free_bytes() >> 20
    );

    disk::start::begin(&machine.disks, &machine.pci);
    net::start::begin(
        machine.worker.switches(),
        &machine.pci,
        Files::file(&archive, net::config::FILE),
    );
    executor::spawn(hypervisor::faults::watch()).detach();
    let port = CommandLine::parse(&boot.command_line).serial;
    executor::spawn_on(0, serial::receive(serial_interrupt(&firmware, port))).detach();
    executor::spawn_on(0, shell(machine, commands(&archive))).detach();
    executor::run()
}

/// The interrupt of the console's UART; without one, input is polled.
fn serial_interrupt(firmware: &Firmware, port: u16) -> Option<Interrupt> {
    let (_, irq) = SERIAL_IRQS.iter().find(|(base, _)| *base == port)?;
    let (controller, pin) = firmware.interrupts.isa(*irq)?;
    match Interrupt::io_apic(controller.id, pin) {
        Ok(interrupt) => Some(interrupt),
        Err(error) => {
            log::warn!("serial input is polled: {error}");
            None
        }
    }
}

/// The boot archive; empty where there is none.
fn boot_archive(boot: &BootInfo) -> BootArchive {
    match boot.archive.clone() {
        // SAFETY: the archive's memory was kept out of the free RAM, is mapped, and nobody writes it.
        Some(range) => unsafe { BootArchive::at(range) },
        None => BootArchive::default(),
    }
}

/// The commands that the boot archive wants run.
fn commands(archive: &BootArchive) -> Option<String> {
    match archive.find(EXEC) {
        Ok(member) => Some(String::from_utf8_lossy(member?.data).into_owned()),
        Err(error) => {
            log::error!("the boot archive is damaged: {error}");
            None
        }
    }
}

/// The shell's task: the archive's commands, or a session with the user.
async fn shell(machine: &'static Machine, commands: Option<String>) {
    let mut session = Session::new(machine, Box::new(SerialTerminal));
    machine.tsc_at_prompt.store(ordered_tsc(), Ordering::Relaxed);
    match commands {
        Some(commands) => {
            let lines: Vec<&str> = commands.lines().filter(|line| !line.trim().is_empty()).collect();
            let failures = session.run_script(lines).await;
            disk::start::shut_down();
            stop::after_commands(failures == 0, machine.soft_off);
        }
        None => {
            session.run().await;
        }
    }
}

/// The console as the shell's terminal.
struct SerialTerminal;

impl Terminal for SerialTerminal {
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Option<u8>> {
        serial::poll_read(context).map(Some)
    }

    fn write(&mut self, bytes: &[u8]) {
        console::send(bytes);
    }
}

/// What the boot stub maps: the first 4 GiB.
struct BootMap;

impl Memory for BootMap {
    fn copy(&self, address: u64, into: &mut [u8]) -> bool {
        let readable = address != 0
            && address
                .checked_add(into.len() as u64)
                .is_some_and(|end| end <= BOOT_MAP_END);
        if readable {
            // SAFETY: the boot stub maps these addresses, and any bytes will do.
            unsafe { core::ptr::copy(address as *const u8, into.as_mut_ptr(), into.len()) };
        }
        readable
    }
}

/// The value, or an end with the reason.
fn check<T, E: Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| stop::cannot_start(&error))
}
