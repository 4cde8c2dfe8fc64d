//! Bringing the machine's processors, interrupt controllers and clocks under the hypervisor.
#![allow(unsafe_code)]

use super::start::{Image, Machine, StartError, run, switch_address_space};
use crate::memory::address::{FRAME_SIZE, Frame, Spa};
use crate::memory::frames::{FrameAllocator, FrameSource};
use crate::memory::host_paging::HostPaging;
use crate::platform::fadt::Register;
use crate::platform::registers::enable_xsave;
use crate::platform::{clock, emulator, io_apic, local_apic};
use crate::processor::interrupts::{ALARM_VECTOR, ERROR_VECTOR, SPURIOUS_VECTOR};
use crate::processor::local::{BLOCK_FRAMES, MAX_PROCESSORS, Processor};
use crate::processor::stacks::{Stack, Stacks};
use crate::processor::start::{arrived, start};
use crate::virtualization::svm;
use crate::{iommu, power};
use freestanding::trampoline::Trampoline;
use hypercall_api::id::LpIndex;
use spin::Mutex;

/// Where the EBDA and the video memory may begin.
const TRAMPOLINE_LIMIT: Spa = Spa(0x9_0000);

/// Gives every enabled processor its state and stacks. Returns the one that runs this. It comes first, or last where it
/// will not run guests.
pub(super) fn place_processors(
    machine: &Machine,
    paging: &mut HostPaging,
    frames: &mut FrameAllocator,
) -> Result<&'static Processor, StartError> {
    local_apic::enable_first(SPURIOUS_VECTOR, ERROR_VECTOR);
    let own = local_apic::id();
    let others = machine
        .platform
        .interrupts
        .processors
        .iter()
        .filter(|processor| processor.enabled);
    let others = others.map(|processor| processor.apic_id).filter(|&id| id != own);
    let spare = emulator::spares_first_processor(others.clone().count() + 1);
    if spare {
        log::info!("QEMU's TCG: its first processor runs no guests, as it loses changes of its state");
    }
    let (front, back) = if spare {
        (None, Some(own))
    } else {
        (Some(own), None)
    };
    let all = front
        .into_iter()
        .chain(others.take(MAX_PROCESSORS - 1))
        .chain(back);
    let mut this = None;
    for (index, apic_id) in all.enumerate() {
        const ORDER: u32 = Stacks::PAGES.next_power_of_two().trailing_zeros();
        let stacks = Stacks::new(frames.allocate_run(ORDER).ok_or(StartError::ReserveTooSmall)?);
        for stack in Stack::ALL {
            paging.unmap_guard(Frame::containing(stacks.guard(stack)), frames)?;
        }
        const BLOCK_ORDER: u32 = BLOCK_FRAMES.next_power_of_two().trailing_zeros();
        let block = frames
            .allocate_run(BLOCK_ORDER)
            .ok_or(StartError::ReserveTooSmall)?;
        let mut frame = || frames.allocate().ok_or(StartError::ReserveTooSmall);
        let pages = [frame()?, frame()?, frame()?, frame()?];
        // SAFETY: the frames were just allocated and are never freed.
        let processor = unsafe { Processor::prepare(block, LpIndex(index as u32), apic_id, stacks, pages) };
        if apic_id != own {
            OTHERS.lock()[index] = Some(processor);
            continue;
        }
        if !spare {
            processor.list();
        }
        this = Some(processor);
    }
    this.ok_or(StartError::ReserveTooSmall)
}

/// The other processors, which have their state, in order.
static OTHERS: Mutex<[Option<&'static Processor>; MAX_PROCESSORS]> = Mutex::new([None; MAX_PROCESSORS]);

/// Takes over interrupt controllers, power registers and clocks, and turns virtualisation on.
pub(super) fn bring_up_machine(machine: &Machine, processor: &'static Processor) -> Result<(), StartError> {
    let platform = &machine.platform;
    if platform.interrupts.has_8259 {
        io_apic::mask_8259();
    }
    for io_apic in &platform.interrupts.io_apics {
        // SAFETY: the MADT says that an I/O APIC is there; it is mapped as device memory.
        if !unsafe { io_apic::take(io_apic.id, io_apic.address.0) } {
            log::warn!("I/O APIC {} is one too many and stays as it is", io_apic.id);
        }
    }
    let reset = platform.power.reset.and_then(|reset| match reset.register {
        Register::Port(port) => Some((port, reset.value)),
        Register::Memory(_) | Register::PciConfiguration(_) => None,
    });
    power::set_ports(platform.power.pm1a_control, platform.power.pm1b_control, reset);
    if let Some([pm1a, pm1b]) = platform.power.s5_sleep_types {
        power::set_off_types(pm1a, pm1b);
    }
    if !clock::calibrate(platform.power.timer.map(|timer| timer.port)) {
        return Err(StartError::NoClock);
    }
    if iommu::start::allows_x2apic(platform) {
        local_apic::enter_x2apic();
    }
    prepare_processor(processor);
    log::info!(
        "TSC {} MHz, local APIC timer {} MHz, {}",
        clock::tsc_frequency() / 1_000_000,
        clock::apic_frequency() / 1_000_000,
        if local_apic::uses_x2apic() {
            "x2APIC"
        } else {
            "xAPIC"
        }
    );
    Ok(())
}

/// What each processor does for itself.
fn prepare_processor(processor: &'static Processor) {
    enable_xsave();
    clock::prepare_alarm(ALARM_VECTOR);
    svm::enable(processor);
}

pub(super) fn start_others(machine: &Machine, image: &Image) {
    let others = *OTHERS.lock();
    if others.iter().flatten().count() == 0 {
        return;
    }
    let taken = [image.extent, machine.archive, machine.reserve];
    let Some(page) = machine
        .firmware
        .find_free(FRAME_SIZE, FRAME_SIZE, TRAMPOLINE_LIMIT, &taken)
    else {
        log::error!("no memory below 1 MiB to start other processors from; going on with one");
        return;
    };
    // SAFETY: the page is free RAM, mapped writable; the boot tables map the first 4 GiB executable.
    let trampoline = unsafe { Trampoline::new(page.start().0, image.boot_page_table.into()) };
    for processor in others.iter().flatten() {
        if start(&trampoline, processor, processor_entry) {
            processor.list();
        } else {
            log::error!(
                "processor with APIC id {:#x} does not start; going on without it",
                processor.apic_id
            );
            break;
        }
    }
}

/// Where the trampoline leads.
extern "C" fn processor_entry(processor: &'static Processor) -> ! {
    switch_address_space();
    local_apic::enable_other(SPURIOUS_VECTOR, ERROR_VECTOR);
    // SAFETY: this is the processor that the state is for.
    unsafe { Processor::load(processor) };
    prepare_processor(processor);
    arrived(processor.apic_id);
    run()
}
