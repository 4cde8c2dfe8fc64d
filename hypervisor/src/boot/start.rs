//! From the boot stub to the root partition's first instruction: the order of it all.
#![allow(unsafe_code)]

use super::image::{self, ImageError, Plan};
use super::information::{BootError, BootInformation, Rsdp};
use super::processors::{bring_up_machine, place_processors, start_others};
use super::root::{self, Layout, START_INFO_PAGES};
use super::{multiboot2, pvh};
use crate::memory::address::{FRAME_SIZE, Frame, Spa, SpaRange};
use crate::memory::frames::{FrameAllocator, FrameError};
use crate::memory::host_paging::{HostPaging, Protection};
use crate::memory::map::{MapError, MemoryMap};
use crate::memory::ownership::Ownership;
use crate::memory::physical::IdentityMapped;
use crate::memory::tables::TableError;
use crate::platform::AcpiError;
use crate::platform::acpi::Platform;
use crate::platform::local_apic;
use crate::platform::registers::tsc;
use crate::platform::serial::Serial;
use crate::processor::local::Processor;
use crate::processor::stacks::{self, Stack};
use crate::system::{self, FRAMES, System};
use crate::virtualization::{Missing, detect};
use crate::{VERSION, cpuid, iommu, log as logger, scheduler, stop};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use hypercall_api::archive::{Archive, ArchiveError};
use hypercall_api::operator::HardwareSupport;
use hypercall_api::pvh::MemoryKind;
use spin::Mutex;
use x86_64::PhysAddr;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

/// Where the linker and the boot stub put things.
pub struct Image {
    /// The image as a whole.
    pub extent: SpaRange,
    /// End of its code; constants follow.
    pub text_end: Spa,
    /// End of its constants; data follows.
    pub rodata_end: Spa,
    /// The boot stub's page tables, which map the first 4 GiB for everything.
    pub boot_page_table: u32,
}

/// Why the hypervisor does not start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages are the documentation
pub enum StartError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error("memory map: {0}")]
    Map(#[from] MapError),
    #[error("this machine has {0} MiB of memory; Partita needs at least {MINIMUM_MIB} MiB")]
    TooLittleMemory(u64),
    #[error(
        "no room for {what} ({bytes} bytes): give the machine more memory, or make the boot archive smaller"
    )]
    NoRoom { what: &'static str, bytes: u64 },
    #[error(
        "there is no boot archive: give it as the first module (QEMU: `-initrd boot.cpio`; GRUB: `module2 boot.cpio`)"
    )]
    NoArchive,
    #[error("the boot archive is damaged: {0}")]
    Archive(#[from] ArchiveError),
    #[error("the boot archive has no file `root`, the root partition's image")]
    NoRoot,
    #[error("the root image is damaged: {0}")]
    Root(#[from] ImageError),
    #[error("the root image wants memory at {0}, which this machine does not have free there")]
    RootDoesNotFit(SpaRange),
    #[error("ACPI: {0}")]
    Acpi(#[from] AcpiError),
    #[error("page tables: {0}")]
    Tables(#[from] TableError),
    #[error("the hypervisor's reserve: {0}")]
    Frames(#[from] FrameError),
    #[error(
        "the hypervisor's reserve is too small for this machine; this is a bug, please report it with the log"
    )]
    ReserveTooSmall,
    #[error("no processor can run guests: QEMU's first one must not, and no other starts")]
    NoProcessor,
    #[error("the time stamp counter cannot be measured: neither the ACPI timer nor the PIT runs beside it")]
    NoClock,
}

/// Least memory of a machine, in MiB: a machine that is sold with 128 has a little less, as its firmware keeps some.
const MINIMUM_MIB: u64 = 120;
const LOW_LIMIT: Spa = Spa(1 << 32);

/// The hypervisor's page tables, for processors that come later.
static HOST_ROOT: AtomicU64 = AtomicU64::new(0);
/// Set when the root partition stands and processors may run its VPs.
static READY: AtomicBool = AtomicBool::new(false);

/// Starts the hypervisor. `boot_info` and `magic` are what the boot stub was given.
pub fn start(boot_info: u32, magic: u32, image: &Image) -> ! {
    let entered = tsc();
    // SAFETY: nobody else is there yet to drive the port.
    logger::start(entered, unsafe { Serial::new(stop::DEFAULT_CONSOLE) });
    match prepare(boot_info, magic, image, entered) {
        Ok(()) => {
            // SAFETY: the processor's own stack, which nothing uses yet; the boot stack is not needed any more.
            unsafe { stacks::switch(Processor::current().stacks.top(Stack::Work), run) }
        }
        Err(error) => stop::with_report(format_args!("cannot start: {error}")),
    }
}

/// Runs VPs, once there are any, or nothing on a processor that has none.
pub(super) extern "C" fn run() -> ! {
    while !READY.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
    let processor = Processor::current();
    if !processor.is_listed() {
        stop::halt();
    }
    scheduler::run(processor)
}

/// What `prepare` has found out, step by step.
pub(super) struct Machine {
    pub(super) boot: BootInformation,
    pub(super) platform: Platform,
    pub(super) hardware: HardwareSupport,
    /// The firmware's map.
    pub(super) firmware: MemoryMap,
    pub(super) archive: SpaRange,
    pub(super) plan: Plan,
    pub(super) reserve: SpaRange,
    pub(super) start_info: Frame,
    pub(super) rsdp: u64,
}

fn prepare(boot_info: u32, magic: u32, image: &Image, entered: u64) -> Result<(), StartError> {
    let boot = read_boot_information(boot_info, magic)?;
    obey_command_line(&boot);
    let [major, minor, patch] = VERSION;
    log::info!(
        "Partita hypervisor {major}.{minor}.{patch}, booted by {:?}",
        boot.protocol
    );
    let hardware = detect()?;
    let machine = survey(boot, hardware, image)?;
    // SAFETY: the reserve is RAM that `survey` found free, mapped by the boot stub.
    let mut frames = unsafe { FrameAllocator::new(machine.reserve)? };
    let mut paging = build_address_space(&machine, image, &mut frames)?;
    load_address_space(&paging);
    let processors = place_processors(&machine, &mut paging, &mut frames)?;
    // SAFETY: this is the first processor, and its tables are loaded once.
    unsafe { Processor::load(processors) };
    load_address_space(&paging);
    bring_up_machine(&machine, processors)?;
    start_others(&machine, image);
    if Processor::count() == 0 {
        return Err(StartError::NoProcessor);
    }
    load_root_image(&machine);
    place_ownership(&machine, &mut frames)?;
    let map = root_map(&machine, image)?;
    build_root(&machine, image, &map, &mut frames)?;
    restrict_devices(&machine, image, &map, &mut frames);
    describe_system(&machine, image, entered, &frames);
    FRAMES.call_once(|| Mutex::new(frames));
    log::info!("starting the root partition on {} processors", Processor::count());
    logger::release_console();
    system::root_entered(tsc());
    READY.store(true, Ordering::Release);
    Ok(())
}

fn read_boot_information(boot_info: u32, magic: u32) -> Result<BootInformation, StartError> {
    let readable = [SpaRange::new(Spa(1), LOW_LIMIT)].map(|range| range.unwrap_or(SpaRange::EMPTY));
    // SAFETY: the boot stub maps the first 4 GiB, and nobody else runs.
    let memory = unsafe { IdentityMapped::new(&readable) };
    let address = Spa(boot_info as u64);
    Ok(match magic {
        multiboot2::MAGIC => multiboot2::read(&memory, address)?,
        _ => pvh::read(&memory, address)?,
    })
}

/// `log=com2` sends the log to the second serial port too, `log=debug` and the like set its level, `serial=0x2f8` moves
/// the console, `debug-exit=0xf4` names the port of QEMU's isa-debug-exit.
fn obey_command_line(boot: &BootInformation) {
    const COM2: u16 = 0x2f8;
    let port = |key| match boot.command_line.number(key) {
        Ok(number) => number.and_then(|number| u16::try_from(number).ok()),
        Err(error) => {
            log::warn!("command line: {}: expected {}", error.word, error.expected);
            None
        }
    };
    let console = port("serial").unwrap_or(stop::DEFAULT_CONSOLE);
    if console != stop::DEFAULT_CONSOLE {
        // SAFETY: the operator says that a serial port is there.
        logger::set_console(unsafe { Serial::new(console) });
    }
    stop::set_ports(console, port("debug-exit").unwrap_or(0));
    for word in boot.command_line.words().filter(|word| word.key == "log") {
        match (word.value, word.value.map(str::parse)) {
            // SAFETY: COM2 is where the operator says that a serial port is.
            (Some("com2"), _) => logger::set_second(unsafe { Serial::new(COM2) }),
            (_, Some(Ok(level))) => log::set_max_level(level),
            _ => log::warn!(
                "command line: {}: expected com2, or error, warn, info, debug or trace",
                word.text
            ),
        }
    }
}

/// Reads the tables and decides where everything goes. Changes nothing, but for an archive that lies in the way.
fn survey(boot: BootInformation, hardware: HardwareSupport, image: &Image) -> Result<Machine, StartError> {
    let firmware = MemoryMap::from_firmware(boot.memory_map.iter().copied())?;
    let mib = firmware.total_ram() >> 20;
    if mib < MINIMUM_MIB {
        return Err(StartError::TooLittleMemory(mib));
    }
    let archive = boot.archive.ok_or(StartError::NoArchive)?;
    let plan = plan_root(archive)?;
    let low = [SpaRange::new(Spa(1), LOW_LIMIT).unwrap_or(SpaRange::EMPTY)];
    // SAFETY: the boot stub maps the first 4 GiB, and nobody else runs.
    let platform = Platform::read(&unsafe { IdentityMapped::new(&low) }, boot.rsdp)?;

    let present = platform
        .interrupts
        .processors
        .iter()
        .filter(|processor| processor.enabled)
        .count() as u64;
    let size = reserve_size(&firmware, present);
    let mut taken = [
        image.extent,
        archive,
        plan.extent,
        SpaRange::EMPTY,
        SpaRange::EMPTY,
    ];
    let find = |what, size, align, taken: &[SpaRange]| {
        firmware
            .find_free(size, align, LOW_LIMIT, taken)
            .ok_or(StartError::NoRoom { what, bytes: size })
    };
    let reserve = find("the hypervisor", size, 2 << 20, &taken)?;
    taken[3] = reserve;
    let start_info = find(
        "start information",
        (START_INFO_PAGES + 1) * FRAME_SIZE,
        FRAME_SIZE,
        &taken,
    )?;
    taken[4] = start_info;
    let fits = firmware.ram_ranges().any(|ram| ram.contains_range(plan.extent));
    if !fits || plan.extent.overlaps(image.extent) || plan.extent.overlaps(reserve) {
        return Err(StartError::RootDoesNotFit(plan.extent));
    }
    let archive = if archive.overlaps(plan.extent) {
        let room = find("the boot archive", archive.size(), FRAME_SIZE, &taken)?;
        log::info!("boot archive moved from {archive} to {room}, out of the root image's way");
        move_memory(archive, room);
        room
    } else {
        archive
    };
    let rsdp = place_rsdp(boot.rsdp, start_info);
    let start_info = Frame::containing(start_info.start());
    Ok(Machine {
        boot,
        platform,
        hardware,
        firmware,
        archive,
        plan,
        reserve,
        start_info,
        rsdp,
    })
}

/// The hypervisor's frames: so much for the machine, for each processor, for page tables that are split down to 4 KiB (the
/// root's and its IOMMU domain's), and for the state of each frame.
fn reserve_size(firmware: &MemoryMap, processors: u64) -> u64 {
    let states = frame_states(firmware).next_power_of_two();
    ((2 << 20) + processors * (256 << 10) + firmware.total_ram() / 256 + states).next_multiple_of(2 << 20)
}

/// Bytes of frame states: one a frame, up to the last of RAM.
fn frame_states(firmware: &MemoryMap) -> u64 {
    (firmware.end_of_ram().0 / FRAME_SIZE).next_multiple_of(FRAME_SIZE)
}

/// Keeps account of who uses the root's frames.
fn place_ownership(machine: &Machine, frames: &mut FrameAllocator) -> Result<(), StartError> {
    let size = frame_states(&machine.firmware);
    let order = (size / FRAME_SIZE).next_power_of_two().trailing_zeros();
    let run = frames.allocate_run(order).ok_or(StartError::ReserveTooSmall)?;
    // SAFETY: the run was just allocated, zeroed, and is never freed.
    let states = unsafe { core::slice::from_raw_parts(run.start().0 as *const AtomicU8, size as usize) };
    system::set_ownership(Ownership::new(states));
    Ok(())
}

fn archive_bytes(archive: SpaRange) -> &'static [u8] {
    // SAFETY: the loader put the archive there, below 4 GiB, where memory is mapped; nobody writes to it before the root
    // runs, and nothing of it is kept until then.
    unsafe { core::slice::from_raw_parts(archive.start().0 as *const u8, archive.size() as usize) }
}

fn plan_root(archive: SpaRange) -> Result<Plan, StartError> {
    if archive.end() > LOW_LIMIT || archive.is_empty() {
        return Err(StartError::NoArchive);
    }
    let root = Archive::new(archive_bytes(archive))
        .find("root")?
        .ok_or(StartError::NoRoot)?;
    Ok(image::plan(root.data)?)
}

/// Moves an archive to a place that does not overlap it.
fn move_memory(from: SpaRange, to: SpaRange) {
    // SAFETY: both ranges are RAM below 4 GiB; `to` was found free and does not overlap `from`.
    unsafe {
        core::ptr::copy_nonoverlapping(
            from.start().0 as *const u8,
            to.start().0 as *mut u8,
            from.size() as usize,
        )
    }
}

/// Where the root finds the RSDP: where it is, or the loader's copy behind the start information.
fn place_rsdp(rsdp: Rsdp, start_info: SpaRange) -> u64 {
    match rsdp {
        Rsdp::At(address) => address.0,
        Rsdp::Unknown => 0,
        Rsdp::Copy(bytes) => {
            let address = start_info.start().0 + START_INFO_PAGES * FRAME_SIZE;
            // SAFETY: the page was found free.
            unsafe { (address as *mut [u8; 36]).write(bytes) };
            address
        }
    }
}

/// Maps memory and registers at their own addresses, the image W^X, and nothing at address 0.
fn build_address_space(
    machine: &Machine,
    image: &Image,
    frames: &mut FrameAllocator,
) -> Result<HostPaging, StartError> {
    let mut paging = HostPaging::new(cpuid::has_gib_pages(), frames)?;
    let range = |start, end| SpaRange::new(start, end).unwrap_or(SpaRange::EMPTY);
    paging.map(range(Spa(FRAME_SIZE), LOW_LIMIT), Protection::Device, frames)?;
    for ram in machine.firmware.ram_ranges() {
        let ram = range(ram.start().max(Spa(FRAME_SIZE)), ram.end());
        paging.map(ram, Protection::Data, frames)?;
    }
    for unit in machine.platform.dmar.iter().flat_map(|dmar| &dmar.units) {
        paging.map(unit.register_range(), Protection::Device, frames)?;
    }
    paging.map(
        range(image.extent.start(), image.text_end),
        Protection::Text,
        frames,
    )?;
    paging.map(
        range(image.text_end, image.rodata_end),
        Protection::ReadOnly,
        frames,
    )?;
    Ok(paging)
}

fn load_address_space(paging: &HostPaging) {
    HOST_ROOT.store(paging.root().start().0, Ordering::Release);
    switch_address_space();
}

/// Loads the hypervisor's page tables into this processor.
pub(super) fn switch_address_space() {
    let root = PhysFrame::containing_address(PhysAddr::new_truncate(HOST_ROOT.load(Ordering::Acquire)));
    // SAFETY: the tables map everything that is in use at its own address.
    unsafe { Cr3::write(root, Cr3Flags::empty()) }
}

/// Copies the root's segments to where they belong. The rest of a segment is zeroes.
fn load_root_image(machine: &Machine) {
    let Ok(Some(root)) = Archive::new(archive_bytes(machine.archive)).find("root") else {
        return;
    };
    for segment in &machine.plan.segments {
        let bytes = segment.bytes(root.data);
        let (target, size) = (
            segment.memory.start().0 as *mut u8,
            segment.memory.size() as usize,
        );
        // SAFETY: the plan's extent is free RAM of the machine, checked in `survey`, and bounds each segment; the archive
        // is elsewhere.
        unsafe {
            target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            target.add(bytes.len()).write_bytes(0, size - bytes.len());
        }
    }
}

/// What the root has.
fn root_map(machine: &Machine, image: &Image) -> Result<MemoryMap, StartError> {
    let mut map = machine.firmware.clone();
    let start_info = SpaRange::sized(machine.start_info.start(), (START_INFO_PAGES + 1) * FRAME_SIZE);
    for range in [Some(image.extent), Some(machine.reserve), start_info]
        .into_iter()
        .flatten()
    {
        map.reserve(range, MemoryKind::RESERVED)?;
    }
    Ok(map)
}

/// Starts the IOMMU: devices reach what the root has.
fn restrict_devices(machine: &Machine, image: &Image, map: &MemoryMap, frames: &mut FrameAllocator) {
    let layout = iommu::start::Layout {
        map,
        kept: &[image.extent, machine.reserve],
        x2apic: local_apic::uses_x2apic(),
    };
    iommu::start::start(&machine.platform, &layout, frames);
}

fn build_root(
    machine: &Machine,
    image: &Image,
    map: &MemoryMap,
    frames: &mut FrameAllocator,
) -> Result<(), StartError> {
    let page =
        |address: Spa| SpaRange::sized(address.align_down(FRAME_SIZE), FRAME_SIZE).unwrap_or(SpaRange::EMPTY);
    let mut forbidden: arrayvec::ArrayVec<SpaRange, 64> = arrayvec::ArrayVec::new();
    forbidden.extend([
        image.extent,
        machine.reserve,
        page(machine.platform.interrupts.local_apic_address),
    ]);
    forbidden.extend(
        machine
            .platform
            .interrupts
            .io_apics
            .iter()
            .map(|io_apic| page(io_apic.address)),
    );
    forbidden.extend(
        machine
            .platform
            .dmar
            .iter()
            .flat_map(|dmar| &dmar.units)
            .map(|unit| unit.register_range()),
    );
    let layout = Layout {
        map,
        forbidden: &forbidden,
        archive: machine.archive,
        start_info: machine.start_info,
        entry: machine.plan.entry,
        command_line: machine.boot.command_line.text(),
        rsdp: machine.rsdp,
    };
    root::build(&layout, frames)?;
    Ok(())
}

fn describe_system(machine: &Machine, image: &Image, entered: u64, frames: &FrameAllocator) {
    let information = super::describe::information(&super::describe::Found {
        platform: &machine.platform,
        hardware: machine.hardware,
        ram: machine.firmware.total_ram(),
        kept: image.extent.size() + machine.reserve.size(),
        entered,
    });
    log::info!(
        "{} MiB of memory, {} KiB of it the hypervisor's ({} KiB free)",
        information.memory_total >> 20,
        information.memory_hypervisor >> 10,
        (frames.free_frames() * FRAME_SIZE) >> 10
    );
    system::set(System {
        information,
        image: image.extent,
        reserve: machine.reserve,
    });
}
