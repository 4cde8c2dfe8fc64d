//! Calls that any guest makes.

use super::{Hypercalls, Incomplete, rep};
use crate::code::HypercallCode as Code;
use crate::control::HypercallInput;
use crate::flush::{
    FlushFlags, FlushVirtualAddressSpace, FlushVirtualAddressSpaceEx, GvaRange, MAX_BANKS,
    NotifyLongSpinWait, SendIpi, SendIpiEx, VpSet,
};
use crate::message::{MESSAGE_PAYLOAD, MessageType};
use crate::port::{ConnectionId, PostMessage, SignalEvent};
use crate::status::HvStatus;
use zerocopy::{FromZeros, Immutable, IntoBytes};

/// Calls that any guest makes.
pub trait GuestCalls: Hypercalls {
    /// `HvCallPostMessage`: sends `payload`, at most [`MESSAGE_PAYLOAD`] bytes.
    fn post_message(
        &self,
        connection: ConnectionId,
        message_type: MessageType,
        payload: &[u8],
    ) -> Result<(), HvStatus> {
        let mut input = PostMessage::new_zeroed();
        input.connection = connection;
        input.message_type = message_type;
        input.payload_size = payload.len() as u32;
        let room = input.payload.get_mut(..payload.len().min(MESSAGE_PAYLOAD + 1));
        room.ok_or(HvStatus::INVALID_PARAMETER)?.copy_from_slice(payload);
        // SAFETY: the call only reads the caller's memory.
        unsafe { self.simple(Code::POST_MESSAGE, &input) }
    }

    /// `HvCallSignalEvent`: sets flag `flag` of the port's.
    fn signal_event(&self, connection: ConnectionId, flag: u16) -> Result<(), HvStatus> {
        let input = SignalEvent {
            connection,
            flag,
            reserved: 0,
        };
        // SAFETY: the call only reads.
        unsafe { fast(self, Code::SIGNAL_EVENT, &input) }
    }

    /// `HvCallSendSyntheticClusterIpi`: raises `vector` in each VP below 64 whose bit is set.
    fn send_ipi(&self, vector: u8, processor_mask: u64) -> Result<(), HvStatus> {
        let input = SendIpi {
            vector: vector as u32,
            reserved: 0,
            processor_mask,
        };
        // SAFETY: an interrupt is what the caller's handlers are for.
        unsafe { fast(self, Code::SEND_SYNTHETIC_CLUSTER_IPI, &input) }
    }

    /// `HvCallSendSyntheticClusterIpiEx`: raises `vector` in each VP of `set`.
    fn send_ipi_ex(&self, vector: u8, set: &VpSet) -> Result<(), HvStatus> {
        let input = SendIpiEx {
            vector: vector as u32,
            reserved: 0,
            set_format: set.format(),
            valid_banks: set.valid_banks(),
        };
        // SAFETY: an interrupt is what the caller's handlers are for.
        unsafe { with_banks(self, Code::SEND_SYNTHETIC_CLUSTER_IPI_EX, &input, set) }
    }

    /// `HvCallFlushVirtualAddressSpace`: flushes what VPs hold of the address space at `cr3`.
    fn flush_address_space(&self, cr3: u64, flags: FlushFlags, processor_mask: u64) -> Result<(), HvStatus> {
        let input = flush(cr3, flags, processor_mask);
        // SAFETY: a flush changes no mapping.
        unsafe { self.simple(Code::FLUSH_VIRTUAL_ADDRESS_SPACE, &input) }
    }

    /// `HvCallFlushVirtualAddressSpaceEx`: likewise, on the VPs of `set`.
    fn flush_address_space_ex(&self, cr3: u64, flags: FlushFlags, set: &VpSet) -> Result<(), HvStatus> {
        let input = FlushVirtualAddressSpaceEx {
            address_space: cr3,
            flags: flags.bits(),
            set_format: set.format(),
            valid_banks: set.valid_banks(),
        };
        // SAFETY: a flush changes no mapping.
        unsafe { with_banks(self, Code::FLUSH_VIRTUAL_ADDRESS_SPACE_EX, &input, set) }
    }

    /// `HvCallFlushVirtualAddressList`: flushes `ranges` of the address space at `cr3`.
    fn flush_address_list(
        &self,
        cr3: u64,
        flags: FlushFlags,
        processor_mask: u64,
        ranges: &[GvaRange],
    ) -> Result<(), Incomplete> {
        let header = flush(cr3, flags, processor_mask);
        // SAFETY: a flush changes no mapping.
        unsafe { rep::input(self, Code::FLUSH_VIRTUAL_ADDRESS_LIST, |_| header, ranges) }
    }

    /// `HvCallFlushVirtualAddressListEx`: flushes `ranges` of the address space at `cr3` on the VPs of `set`.
    fn flush_address_list_ex(
        &self,
        cr3: u64,
        flags: FlushFlags,
        set: &VpSet,
        ranges: &[GvaRange],
    ) -> Result<(), Incomplete> {
        let header = FlushVirtualAddressSpaceEx {
            address_space: cr3,
            flags: flags.bits(),
            set_format: set.format(),
            valid_banks: set.valid_banks(),
        };
        let (banks, count) = wire_banks(set);
        let code = Code::FLUSH_VIRTUAL_ADDRESS_LIST_EX;
        // SAFETY: a flush changes no mapping.
        unsafe { rep::input_with_header(self, code, |_| header, &banks[..count], ranges) }
    }

    /// `HvCallNotifyLongSpinWait`: the caller has looked `spin_count` times at a lock.
    fn notify_long_spin_wait(&self, spin_count: u32) -> Result<(), HvStatus> {
        let input = NotifyLongSpinWait {
            spin_count,
            reserved: 0,
        };
        // SAFETY: a hint to the scheduler.
        unsafe { fast(self, Code::NOTIFY_LONG_SPIN_WAIT, &input) }
    }
}

impl<T: Hypercalls + ?Sized> GuestCalls for T {}

fn flush(cr3: u64, flags: FlushFlags, processor_mask: u64) -> FlushVirtualAddressSpace {
    FlushVirtualAddressSpace {
        address_space: cr3,
        flags: flags.bits(),
        processor_mask,
    }
}

/// A fast call whose input is at most 16 bytes.
///
/// # Safety
/// As for [`Hypercalls::issue`].
unsafe fn fast<H, I>(calls: &H, code: Code, input: &I) -> Result<(), HvStatus>
where
    H: Hypercalls + ?Sized,
    I: IntoBytes + Immutable,
{
    const { assert!(size_of::<I>() <= 16) };
    let mut words = [0u64; 2];
    words.as_mut_bytes()[..size_of::<I>()].copy_from_slice(input.as_bytes());
    // SAFETY: the caller vouches for what the call does.
    let result = unsafe { calls.issue_fast(HypercallInput::fast(code), words[0], words[1]) };
    result.status().ok()
}

/// A simple call whose variable header is the banks of `set`.
///
/// # Safety
/// As for [`Hypercalls::issue`].
unsafe fn with_banks<H, I>(calls: &H, code: Code, input: &I, set: &VpSet) -> Result<(), HvStatus>
where
    H: Hypercalls + ?Sized,
    I: IntoBytes + Immutable,
{
    let (banks, count) = wire_banks(set);
    let control = HypercallInput::simple(code).with_variable_header(count as u16);
    let parts = [input.as_bytes(), banks[..count].as_bytes(), &[]];
    // SAFETY: the caller vouches for what the call does.
    unsafe { calls.issue_parts(control, parts, &mut []) }
        .status()
        .ok()
}

/// The banks of a set that stand on the wire, and how many they are.
fn wire_banks(set: &VpSet) -> ([u64; MAX_BANKS], usize) {
    let mut banks = [0; MAX_BANKS];
    let mut count = 0;
    for (place, bank) in banks.iter_mut().zip(set.wire_banks()) {
        *place = bank;
        count += 1;
    }
    (banks, count)
}
