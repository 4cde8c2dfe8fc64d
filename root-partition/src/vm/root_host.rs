//! The real kernel and the real hypervisor.
#![allow(unsafe_code)]

use super::bus::calls::{BusCalls, Row};
use super::host::{BLOCK, Host, Job, Listener};
use super::signal::Signal;
use crate::hypervisor::ports::{self, Sink};
use crate::hypervisor::{hypercalls, messages, statistics, time};
use crate::memory::address_space;
use crate::memory::paging::Access;
use crate::memory::window::Window;
use crate::processor::{self, local, random};
use crate::{executor, wall_clock};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use embassy_time::Timer;
use hypercall_api::access::{TranslateFlags, TranslatedVirtualAddress};
use hypercall_api::address::{Gpfn, Gva};
use hypercall_api::call::{DeviceCalls, GuestCalls, Hypercalls, Incomplete, PartitionCalls, VpCalls};
use hypercall_api::code::HypercallCode;
use hypercall_api::control::HypercallInput;
use hypercall_api::counter::COUNTERS;
use hypercall_api::device::{DeviceDomain, DeviceDomainId};
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::intercept::{AccessMask, InterceptType, RegisterCpuidResult};
use hypercall_api::interrupt::{AssertVirtualInterrupt, DeviceId, MapDeviceInterrupt, MappedDeviceInterrupt};
use hypercall_api::memory::{MapGpaFlags, MemoryBalance};
use hypercall_api::message::{MESSAGE_PAYLOAD, Message};
use hypercall_api::partition::{CreatePartition, CreationFlags, PartitionProperty};
use hypercall_api::port::{ConnectionId, ConnectionInfo, PortId, PortInfo, PortType};
use hypercall_api::register::{RegisterAssociation, RegisterName, RegisterValue, VpRegisters};
use hypercall_api::state::VpStatePage;
use hypercall_api::status::HvStatus;
use vmbus::protocol::id::{CHANNEL_MESSAGE, SINT};
use zerocopy::{FromZeros, IntoBytes};

static OWN_PAGES: AtomicUsize = AtomicUsize::new(0);

/// Registers that go in one call of an answer: calls over few registers do without the page-sized buffer of those over
/// long lists.
const FEW: usize = 8;
/// Registers that one call reads for the emulation of an instruction.
const FEW_NAMES: usize = 16;
/// What both begin with.
const HEADER: usize = size_of::<VpRegisters>();

/// The kernel that this is, on the hypervisor below.
#[derive(Clone, Copy, Debug)]
pub struct RootHost;

impl Host for RootHost {
    fn allocate_block(&self) -> Option<u64> {
        let (start, size) = address_space::allocate_blocks(1)?;
        debug_assert_eq!(size as u64, BLOCK);
        Some(start)
    }

    fn allocate_frames(&self, count: usize) -> Option<u64> {
        address_space::allocate_run(count)
    }

    fn release(&self, range: Range<u64>) {
        // SAFETY: the worker gives back what it was given, once nothing uses it.
        unsafe { address_space::release(range) };
    }

    fn own_pages(&self) -> &AtomicUsize {
        &OWN_PAGES
    }

    fn spawn(&self, job: Job) {
        executor::spawn_on(local().vp, job).detach();
    }

    fn now(&self) -> u64 {
        time::now()
    }

    fn sleep(&self, time: Duration) -> Job {
        Box::pin(Timer::after_micros(
            time.as_micros().try_into().unwrap_or(u64::MAX),
        ))
    }

    fn wall_clock(&self) -> Option<u64> {
        wall_clock::now()
    }

    fn fill_random(&self, bytes: &mut [u8]) -> bool {
        random::fill(bytes)
    }

    fn listen(&self, partition: PartitionId, listener: Option<Arc<dyn Listener>>) {
        messages::listen(partition, listener);
    }

    fn create_partition(&self) -> Result<PartitionId, HvStatus> {
        let flags = CreationFlags::GPA_SUPER_PAGES
            | CreationFlags::LAPIC_ENABLED
            | CreationFlags::INTERCEPT_MESSAGE_PAGE_ENABLED
            | CreationFlags::X2APIC_CAPABLE;
        hypercalls().create_partition(&CreatePartition::new(flags))
    }

    fn initialize_partition(&self, partition: PartitionId) -> Result<(), HvStatus> {
        hypercalls().initialize_partition(partition)
    }

    fn set_property(
        &self,
        partition: PartitionId,
        property: PartitionProperty,
        value: u64,
    ) -> Result<(), HvStatus> {
        hypercalls().set_partition_property(partition, property, value)
    }

    fn register_cpuid(&self, policy: &RegisterCpuidResult) -> Result<(), HvStatus> {
        hypercalls().register_cpuid_result(policy)
    }

    fn intercept_msrs(&self, partition: PartitionId) -> Result<(), HvStatus> {
        let access = AccessMask::READ | AccessMask::WRITE;
        hypercalls().install_intercept(partition, InterceptType::MSR, access, 0)
    }

    fn finalize_partition(&self, partition: PartitionId) -> Result<(), HvStatus> {
        hypercalls().finalize_partition(partition)
    }

    fn delete_partition(&self, partition: PartitionId) -> Result<(), HvStatus> {
        hypercalls().delete_partition(partition)
    }

    fn deposit(&self, partition: PartitionId, pages: &[Gpfn]) -> Result<(), Incomplete> {
        // SAFETY: the pages came from the frame allocator for this, and go back to it only after they were withdrawn.
        unsafe { hypercalls().deposit_memory(partition, pages) }
    }

    fn balance(&self, partition: PartitionId) -> Result<MemoryBalance, HvStatus> {
        hypercalls().memory_balance(partition)
    }

    fn withdraw(&self, partition: PartitionId, pages: &mut [Gpfn]) -> Result<usize, HvStatus> {
        hypercalls().withdraw_memory(partition, pages)
    }

    fn map(
        &self,
        partition: PartitionId,
        target: Gpfn,
        flags: MapGpaFlags,
        pages: &[Gpfn],
    ) -> Result<(), Incomplete> {
        // SAFETY: the pages are a child's RAM (`GuestMemory`), to which the root makes no references, or registers.
        unsafe { hypercalls().map_gpa_pages(partition, target, flags, pages) }
    }

    fn attach_device(&self, partition: PartitionId, device: DeviceId) -> Result<(), HvStatus> {
        let domain = DeviceDomain::new(partition, DeviceDomainId::DEFAULT);
        hypercalls().attach_device_domain(domain, device)
    }

    fn detach_device(&self, partition: PartitionId, device: DeviceId) -> Result<(), HvStatus> {
        hypercalls().detach_device_domain(partition, device)
    }

    fn map_device_interrupt(&self, input: &MapDeviceInterrupt) -> Result<MappedDeviceInterrupt, HvStatus> {
        hypercalls().map_device_interrupt(input)
    }

    fn create_vp(&self, partition: PartitionId, vp: VpIndex) -> Result<(), HvStatus> {
        hypercalls().create_vp(partition, vp)
    }

    fn map_message_page(&self, partition: PartitionId, vp: VpIndex) -> Result<Gpfn, HvStatus> {
        let page = hypercalls().map_vp_state_page(partition, vp, VpStatePage::INTERCEPT_MESSAGE)?;
        let base = page.base().ok_or(HvStatus::INVALID_PARAMETER)?.0;
        // A page of the root's own RAM, deposited before, is mapped, and comes back to it one day.
        if !address_space::has_ram(&(base..base + 4096)) {
            address_space::protect(base..base + 4096, Access::CONSTANTS)
                .map_err(|_| HvStatus::NO_RESOURCES)?;
        }
        Ok(page)
    }

    fn read_message(&self, page: Gpfn) -> Message {
        const WORDS: usize = size_of::<Message>() / 8;
        const HEADER: usize = WORDS - MESSAGE_PAYLOAD / 8;
        let base = (page.0 * 4096) as *const u64;
        let mut words = [0u64; WORDS];
        // SAFETY: the page is mapped as long as the VP is, and the hypervisor writes it only before it tells of a message.
        let read = |index: usize| unsafe { base.add(index).read_volatile() };
        (0..HEADER).for_each(|index| words[index] = read(index));
        // `payload_size` is the fifth byte.
        let payload = (words[0] >> 32) as usize & 0xff;
        let end = (HEADER + payload.div_ceil(8)).min(WORDS);
        (HEADER..end).for_each(|index| words[index] = read(index));
        let mut message = Message::new_zeroed();
        message.as_mut_bytes().copy_from_slice(words.as_bytes());
        message
    }

    fn get_registers(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        names: &[RegisterName],
        values: &mut [RegisterValue],
    ) -> Result<(), HvStatus> {
        if names.len() > FEW_NAMES || names.len() != values.len() {
            return Ok(hypercalls().get_vp_registers(partition, vp, names, values)?);
        }
        let mut block = [0; HEADER + FEW_NAMES * size_of::<RegisterName>()];
        let list = names.as_bytes();
        block[..HEADER].copy_from_slice(VpRegisters::of(partition, vp).as_bytes());
        block[HEADER..HEADER + list.len()].copy_from_slice(list);
        let control = HypercallInput::rep(HypercallCode::GET_VP_REGISTERS, names.len() as u16);
        // SAFETY: the call only reads.
        let result =
            unsafe { hypercalls().issue(control, &block[..HEADER + list.len()], values.as_mut_bytes()) };
        match (result.status(), usize::from(result.reps_completed())) {
            // It stopped early: the rest goes as a list of its own.
            (HvStatus::SUCCESS, done) if done < names.len() => {
                Ok(hypercalls().get_vp_registers(partition, vp, &names[done..], &mut values[done..])?)
            }
            (status, _) => status.ok(),
        }
    }

    fn set_registers(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        registers: &[RegisterAssociation],
    ) -> Result<(), HvStatus> {
        if registers.len() > FEW {
            return Ok(hypercalls().set_vp_registers(partition, vp, registers)?);
        }
        let mut block = [0; HEADER + FEW * size_of::<RegisterAssociation>()];
        let list = registers.as_bytes();
        block[..HEADER].copy_from_slice(VpRegisters::of(partition, vp).as_bytes());
        block[HEADER..HEADER + list.len()].copy_from_slice(list);
        let control = HypercallInput::rep(HypercallCode::SET_VP_REGISTERS, registers.len() as u16);
        // SAFETY: the call changes a child's VP, which reaches no memory of the root's.
        let result = unsafe { hypercalls().issue(control, &block[..HEADER + list.len()], &mut []) };
        match (result.status(), usize::from(result.reps_completed())) {
            // It stopped early: the rest goes as a list of its own.
            (HvStatus::SUCCESS, done) if done < registers.len() => {
                Ok(hypercalls().set_vp_registers(partition, vp, &registers[done..])?)
            }
            (status, _) => status.ok(),
        }
    }

    fn translate(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        flags: TranslateFlags,
        address: Gva,
    ) -> Result<TranslatedVirtualAddress, HvStatus> {
        hypercalls().translate(partition, vp, flags, address)
    }

    fn assert_interrupt(&self, interrupt: &AssertVirtualInterrupt) -> Result<(), HvStatus> {
        hypercalls().assert_virtual_interrupt(interrupt)
    }

    fn statistics(&self, partition: PartitionId, vp: VpIndex) -> Result<Box<[u64; COUNTERS]>, HvStatus> {
        statistics::read(partition, vp)
    }
}

impl BusCalls for RootHost {
    fn map_row(&self, frames: &[u64]) -> Option<Box<dyn Row>> {
        match Window::new(frames) {
            Ok(window) => Some(Box::new(window)),
            Err(error) => {
                log::warn!("a guest's pages cannot be mapped: {error}");
                None
            }
        }
    }

    fn take_port(&self) -> PortId {
        ports::take_port()
    }

    fn listen_port(&self, port: PortId, sink: Arc<dyn Sink>) {
        ports::listen(port, sink);
    }

    fn give_back_port(&self, port: PortId) {
        ports::give_back_port(port);
    }

    fn take_flag(&self, vp: u32, signal: Arc<Signal>) -> Option<u16> {
        ports::take_flag(vp, signal)
    }

    fn give_back_flag(&self, vp: u32, flag: u16) {
        ports::give_back_flag(vp, flag);
    }

    fn create_port(
        &self,
        owner: PartitionId,
        port: PortId,
        connector: PartitionId,
        info: PortInfo,
    ) -> Result<(), HvStatus> {
        hypercalls().create_port(owner, port, connector, info)
    }

    fn delete_port(&self, owner: PartitionId, port: PortId) -> Result<(), HvStatus> {
        hypercalls().delete_port(owner, port)
    }

    fn connect_port(
        &self,
        connector: PartitionId,
        connection: ConnectionId,
        owner: PartitionId,
        port: PortId,
        port_type: PortType,
    ) -> Result<(), HvStatus> {
        let info = match port_type {
            PortType::EVENT => ConnectionInfo::event(),
            _ => ConnectionInfo::message(),
        };
        hypercalls().connect_port(connector, connection, owner, port, info)
    }

    fn disconnect_port(&self, connector: PartitionId, connection: ConnectionId) -> Result<(), HvStatus> {
        hypercalls().disconnect_port(connector, connection)
    }

    fn post_message(&self, connection: ConnectionId, payload: &[u8]) -> Result<(), HvStatus> {
        hypercalls().post_message(connection, CHANNEL_MESSAGE, payload)
    }

    fn signal_event(&self, child: PartitionId, vp: VpIndex, flag: u16) -> Result<(), HvStatus> {
        hypercalls().signal_event_direct(child, vp, SINT, flag).map(drop)
    }

    fn this_vp(&self) -> u32 {
        local().vp
    }

    fn vps(&self) -> u32 {
        // Those that did not start take no events.
        let running = |local: &&&processor::Local| local.running.load(Ordering::Acquire);
        processor::local::all().iter().take_while(running).count() as u32
    }

    fn spawn_on(&self, vp: u32, job: Job) {
        executor::spawn_on(vp, job).detach();
    }

    fn pause(&self, milliseconds: u64) -> Job {
        Box::pin(Timer::after_millis(milliseconds))
    }
}

impl Row for Window {
    fn start(&self) -> NonNull<u8> {
        Window::start(self)
    }

    fn size(&self) -> usize {
        Window::size(self)
    }
}
