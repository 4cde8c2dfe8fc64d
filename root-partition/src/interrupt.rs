//! Device interrupts: a vector each, asked for by hypercall, awaited by tasks.

use crate::hypervisor::{hypercalls, messages, ports};
use crate::processor::{Local, local};
use core::future::poll_fn;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Poll;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::waitqueue::GenericAtomicWaker;
use hypercall_api::call::{DeviceCalls, Hypercalls};
use hypercall_api::id::PartitionId;
use hypercall_api::interrupt::{
    DeviceId, InterruptEntry, MapDeviceInterrupt, RetargetDeviceInterrupt, TRIGGER_EDGE, UnmapDeviceInterrupt,
};
use hypercall_api::status::HvStatus;

/// Vector of synthetic timer 0.
pub const TIMER_VECTOR: u8 = 0xf0;
/// Vector by which one processor wakes another.
pub const WAKE_VECTOR: u8 = 0xf1;
/// Vector of SINT 0: messages of the hypervisor.
pub const MESSAGE_VECTOR: u8 = 0xf2;
/// Vector of SINT 2: messages and events of children.
pub const PORT_VECTOR: u8 = 0xf3;
/// Vectors that devices get. Those below 0x30 are left out, as some mean something to Hyper-V's own hypervisor.
const DEVICE_VECTORS: core::ops::Range<u8> = 0x30..0xf0;

static LINES: [Line; 256] = [const { Line::new() }; 256];

/// One vector that a device may have, on whichever processor it comes.
struct Line {
    taken: AtomicBool,
    raised: AtomicBool,
    waker: GenericAtomicWaker<CriticalSectionRawMutex>,
}

impl Line {
    const fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            raised: AtomicBool::new(false),
            waker: GenericAtomicWaker::new(CriticalSectionRawMutex::new()),
        }
    }
}

/// Wakes whoever waits for the interrupts that came to this processor. Called by its executor, not in interrupt context.
pub fn dispatch(local: &Local) {
    for word in 0..4 {
        let mut pending = local.take_pending(word);
        while pending != 0 {
            let vector = word * 64 + pending.trailing_zeros() as usize;
            pending &= pending - 1;
            match vector as u8 {
                TIMER_VECTOR => local.timers.expire(),
                MESSAGE_VECTOR => messages::receive(local),
                PORT_VECTOR => ports::receive(local),
                WAKE_VECTOR => {}
                _ => {
                    LINES[vector].raised.store(true, Ordering::Release);
                    LINES[vector].waker.wake();
                }
            }
        }
    }
}

/// Why a device got no interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InterruptError {
    /// Every vector is in use.
    #[error("all interrupt vectors are in use")]
    OutOfVectors,
    /// The hypervisor refused.
    #[error("the hypervisor did not map the interrupt: {0}")]
    Refused(#[from] HvStatus),
}

/// An interrupt of a device, at a vector of its own. Dropping it ends the interrupt.
#[derive(Debug)]
pub struct Interrupt {
    vector: u8,
    device: DeviceId,
    entry: InterruptEntry,
}

impl Interrupt {
    /// An edge-triggered interrupt of an IOAPIC pin, on this processor. The hypervisor programs the pin.
    pub fn io_apic(id: u8, pin: u8) -> Result<Self, InterruptError> {
        Self::map(DeviceId::io_apic(id), InterruptEntry::io_apic(u64::from(pin)))
    }

    /// A message-signalled interrupt of a PCI function, on this processor; [`message`](Self::message) says what to write
    /// into the function.
    pub fn message_signalled(segment: u16, rid: u16) -> Result<Self, InterruptError> {
        Self::map(DeviceId::pci(segment, rid), InterruptEntry::msi(0, 0))
    }

    fn map(device: DeviceId, entry: InterruptEntry) -> Result<Self, InterruptError> {
        let vector = DEVICE_VECTORS
            .into_iter()
            .find(|&vector| !LINES[usize::from(vector)].taken.swap(true, Ordering::AcqRel))
            .ok_or(InterruptError::OutOfVectors)?;
        LINES[usize::from(vector)].raised.store(false, Ordering::Release);
        let input = MapDeviceInterrupt {
            partition: PartitionId::SELF,
            device,
            flags: 0,
            base_table_index: 0,
            entry,
            interrupt_type: 0,
            trigger_mode: TRIGGER_EDGE,
            vector_count: 1,
            reserved: 0,
            vector: u32::from(vector),
            target_flags: 0,
            // A VP that the mask cannot name leaves its interrupts to one of the first 64; they reach the task all the same.
            vp_mask: 1 << (local().vp & 63),
        };
        match hypercalls().map_device_interrupt(&input) {
            Ok(mapped) => Ok(Self {
                vector,
                device,
                entry: mapped.entry,
            }),
            Err(status) => {
                LINES[usize::from(vector)].taken.store(false, Ordering::Release);
                Err(status.into())
            }
        }
    }

    /// Address and data of a message-signalled interrupt.
    pub const fn message(&self) -> (u32, u32) {
        self.entry.msi_address_data()
    }

    /// Its vector.
    pub const fn vector(&self) -> u8 {
        self.vector
    }

    /// Sends the interrupt to another VP, whose processor then takes it. The device keeps its message.
    pub fn move_to(&self, vp: u32) -> Result<(), InterruptError> {
        let input = RetargetDeviceInterrupt {
            partition: PartitionId::SELF,
            device: self.device,
            entry: self.entry,
            reserved: 0,
            vector: u32::from(self.vector),
            target_flags: 0,
            vp_mask: 1 << (vp & 63),
        };
        Ok(hypercalls().retarget_device_interrupt(&input)?)
    }

    /// Completes when the interrupt has come since the last call. One task at a time may wait.
    pub async fn wait(&mut self) {
        let line = &LINES[usize::from(self.vector)];
        poll_fn(|context| {
            line.waker.register(context.waker());
            match line.raised.swap(false, Ordering::AcqRel) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        let input = UnmapDeviceInterrupt {
            partition: PartitionId::SELF,
            device: self.device,
            entry: self.entry,
        };
        match hypercalls().unmap_device_interrupt(&input) {
            Ok(()) => LINES[usize::from(self.vector)]
                .taken
                .store(false, Ordering::Release),
            // The vector may still come, so nobody else must get it.
            Err(status) => log::warn!("interrupt {:#x} was not unmapped: {status}", self.vector),
        }
    }
}
