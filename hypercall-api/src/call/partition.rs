//! Calls of a parent about its children, their memory and their ports.

use super::{Hypercalls, Incomplete, rep};
use crate::address::{Gpa, Gpfn};
use crate::code::HypercallCode as Code;
use crate::id::{PartitionId, VpIndex};
use crate::memory::{
    DepositMemory, GetMemoryBalance, LARGE_PAGE_PAGES, MapGpaFlags, MapGpaPages, MemoryBalance,
    ProximityDomainInfo, UnmapGpaPages, WithdrawMemory,
};
use crate::message::Message;
use crate::partition::{CreatePartition, GetPartitionProperty, PartitionProperty, SetPartitionProperty};
use crate::port::{
    ConnectPort, ConnectionId, ConnectionInfo, CreatePort, DeletePort, DisconnectPort, PortId, PortInfo,
    PostMessageDirect, SignalEventDirect, SignaledEventDirect,
};
use crate::status::HvStatus;
use zerocopy::{FromZeros, IntoBytes};

/// Calls of a parent about its children, their memory and their ports. A call that needs memory fails with
/// `INSUFFICIENT_MEMORY` until the pool of the partition it names has enough.
pub trait PartitionCalls: Hypercalls {
    /// `HvCallCreatePartition`. The memory that it needs comes from the caller's own pool.
    fn create_partition(&self, input: &CreatePartition) -> Result<PartitionId, HvStatus> {
        // SAFETY: the new partition has no memory of the caller's.
        unsafe { self.simple(Code::CREATE_PARTITION, input) }
    }

    /// `HvCallInitializePartition`.
    fn initialize_partition(&self, partition: PartitionId) -> Result<(), HvStatus> {
        // SAFETY: the partition has no VP yet.
        unsafe { self.simple(Code::INITIALIZE_PARTITION, &partition) }
    }

    /// `HvCallFinalizePartition`: ends the partition. What it held goes back to its pool, to be withdrawn.
    fn finalize_partition(&self, partition: PartitionId) -> Result<(), HvStatus> {
        // SAFETY: the call ends the partition's accesses.
        unsafe { self.simple(Code::FINALIZE_PARTITION, &partition) }
    }

    /// `HvCallDeletePartition`: the id is no longer valid.
    fn delete_partition(&self, partition: PartitionId) -> Result<(), HvStatus> {
        // SAFETY: the call ends the partition's accesses.
        unsafe { self.simple(Code::DELETE_PARTITION, &partition) }
    }

    /// `HvCallGetPartitionProperty`.
    fn partition_property(
        &self,
        partition: PartitionId,
        property: PartitionProperty,
    ) -> Result<u64, HvStatus> {
        let input = GetPartitionProperty {
            partition,
            property,
            padding: 0,
        };
        // SAFETY: the call only reads.
        unsafe { self.simple(Code::GET_PARTITION_PROPERTY, &input) }
    }

    /// `HvCallSetPartitionProperty`.
    fn set_partition_property(
        &self,
        partition: PartitionId,
        property: PartitionProperty,
        value: u64,
    ) -> Result<(), HvStatus> {
        let input = SetPartitionProperty {
            partition,
            property,
            padding: 0,
            value,
        };
        // SAFETY: properties limit what a partition may do; none concerns the caller's memory.
        unsafe { self.simple(Code::SET_PARTITION_PROPERTY, &input) }
    }

    /// `HvCallDepositMemory`: gives `pages` to the pool of `partition`. On an error the pages done stay given.
    ///
    /// # Safety
    /// The pages must be the caller's to give: nothing may use them until they have been withdrawn.
    unsafe fn deposit_memory(&self, partition: PartitionId, pages: &[Gpfn]) -> Result<(), Incomplete> {
        // SAFETY: the caller gives the pages up.
        unsafe { rep::input(self, Code::DEPOSIT_MEMORY, |_| DepositMemory { partition }, pages) }
    }

    /// `HvCallWithdrawMemory`: takes unused pages out of the pool of `partition` into `pages`, as many as there are and fit;
    /// the result says how many. They are zeroed.
    fn withdraw_memory(&self, partition: PartitionId, pages: &mut [Gpfn]) -> Result<usize, HvStatus> {
        let input = WithdrawMemory {
            partition,
            proximity: ProximityDomainInfo::ANY,
        };
        let total = pages.len();
        // SAFETY: the call only gives memory.
        match unsafe { rep::output(self, Code::WITHDRAW_MEMORY, &input, &[] as &[u64], pages) } {
            Ok(()) => Ok(total),
            Err(Incomplete {
                status: HvStatus::NO_RESOURCES,
                completed,
            }) => Ok(completed),
            // What came before the error is in `pages`, and lost with it otherwise.
            Err(Incomplete { completed, .. }) if completed != 0 => Ok(completed),
            Err(Incomplete { status, .. }) => Err(status),
        }
    }

    /// `HvCallGetMemoryBalance`: pages in the pool of `partition`.
    fn memory_balance(&self, partition: PartitionId) -> Result<MemoryBalance, HvStatus> {
        let input = GetMemoryBalance {
            partition,
            proximity: ProximityDomainInfo::ANY,
        };
        // SAFETY: the call only reads.
        unsafe { self.simple(Code::GET_MEMORY_BALANCE, &input) }
    }

    /// `HvCallMapGpaPages`: maps `pages` of the caller into `partition` from `target` on; with `LARGE_PAGE`, each is
    /// the first page of 2 MiB.
    ///
    /// # Safety
    /// The pages must be memory that the child may read and change at any time until it is unmapped.
    unsafe fn map_gpa_pages(
        &self,
        partition: PartitionId,
        target: Gpfn,
        flags: MapGpaFlags,
        pages: &[Gpfn],
    ) -> Result<(), Incomplete> {
        let unit = pages_of(flags.contains(MapGpaFlags::LARGE_PAGE));
        let header = |done: usize| MapGpaPages {
            partition,
            target: Gpfn(target.0.wrapping_add(done as u64 * unit)),
            flags: flags.bits(),
            padding: 0,
        };
        // SAFETY: the caller lends the pages.
        unsafe { rep::input(self, Code::MAP_GPA_PAGES, header, pages) }
    }

    /// `HvCallUnmapGpaPages`: unmaps `count` pages (large ones with `large`) from `target` on.
    fn unmap_gpa_pages(
        &self,
        partition: PartitionId,
        target: Gpfn,
        large: bool,
        count: usize,
    ) -> Result<(), Incomplete> {
        let header = |done: usize| UnmapGpaPages {
            partition,
            target: Gpfn(target.0.wrapping_add(done as u64 * pages_of(large))),
            flags: if large { UnmapGpaPages::LARGE_PAGE } else { 0 },
            padding: 0,
        };
        // SAFETY: the call only takes memory from the child.
        unsafe { rep::counted(self, Code::UNMAP_GPA_PAGES, header, count) }
    }

    /// `HvCallCreatePort`: a port of `port_partition` that `connection_partition` may connect to.
    fn create_port(
        &self,
        port_partition: PartitionId,
        port: PortId,
        connection_partition: PartitionId,
        info: PortInfo,
    ) -> Result<(), HvStatus> {
        let input = CreatePort {
            port_partition,
            port,
            port_vtl: 0,
            min_connection_vtl: 0,
            padding: 0,
            connection_partition,
            info,
            proximity: ProximityDomainInfo::ANY,
        };
        // SAFETY: a port delivers into pages that its owner gave for that.
        unsafe { self.simple(Code::CREATE_PORT, &input) }
    }

    /// `HvCallDeletePort`.
    fn delete_port(&self, port_partition: PartitionId, port: PortId) -> Result<(), HvStatus> {
        let input = DeletePort {
            port_partition,
            port,
            reserved: 0,
        };
        // SAFETY: the call only ends deliveries.
        unsafe { self.simple(Code::DELETE_PORT, &input) }
    }

    /// `HvCallConnectPort`: a connection of `connection_partition` to a port.
    fn connect_port(
        &self,
        connection_partition: PartitionId,
        connection: ConnectionId,
        port_partition: PartitionId,
        port: PortId,
        info: ConnectionInfo,
    ) -> Result<(), HvStatus> {
        let input = ConnectPort {
            connection_partition,
            connection,
            connection_vtl: 0,
            reserved: [0; 3],
            port_partition,
            port,
            padding: 0,
            info,
            proximity: ProximityDomainInfo::ANY,
        };
        // SAFETY: a connection leads to a port and to no memory.
        unsafe { self.simple(Code::CONNECT_PORT, &input) }
    }

    /// `HvCallDisconnectPort`.
    fn disconnect_port(
        &self,
        connection_partition: PartitionId,
        connection: ConnectionId,
    ) -> Result<(), HvStatus> {
        let input = DisconnectPort {
            connection_partition,
            connection,
            flags: 0,
        };
        // SAFETY: the call only ends deliveries.
        unsafe { self.simple(Code::DISCONNECT_PORT, &input) }
    }

    /// `HvCallPostMessageDirect`: puts `message` into slot `sint` of a child's VP.
    fn post_message_direct(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        sint: u32,
        message: &Message,
    ) -> Result<(), HvStatus> {
        let mut input = PostMessageDirect::new_zeroed();
        input.partition = partition;
        input.vp = vp;
        input.sint = sint;
        input.message.copy_from_slice(message.as_bytes());
        // SAFETY: the message goes into a page that the child gave for that.
        unsafe { self.simple(Code::POST_MESSAGE_DIRECT, &input) }
    }

    /// `HvCallSignalEventDirect`: sets event flag `flag` of `sint` of a child's VP, and says whether it was clear.
    fn signal_event_direct(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        sint: u8,
        flag: u16,
    ) -> Result<bool, HvStatus> {
        let input = SignalEventDirect {
            partition,
            vp,
            vtl: 0,
            sint,
            flag,
        };
        // SAFETY: the flag is in a page that the child gave for that.
        unsafe { self.simple::<_, SignaledEventDirect>(Code::SIGNAL_EVENT_DIRECT, &input) }
            .map(|output| output.newly_signaled != 0)
    }

    /// A doorbell: a write of `size` bytes (0: any number) with `value` (`None`: any) to `gpa` of `child` signals `port` of the caller.
    fn connect_doorbell(
        &self,
        child: PartitionId,
        connection: ConnectionId,
        port: PortId,
        gpa: Gpa,
        size: u32,
        value: Option<u64>,
    ) -> Result<(), HvStatus> {
        let size_code = match size {
            0 => 0,
            1 | 2 | 4 | 8 => u64::from(size.trailing_zeros()) + 1,
            _ => return Err(HvStatus::INVALID_PARAMETER),
        };
        let info = ConnectionInfo {
            port_type: crate::port::PortType::DOORBELL,
            padding: 0,
            gpa,
            trigger_value: value.unwrap_or(0),
            flags: size_code
                | match value {
                    Some(_) => 0,
                    None => ConnectionInfo::ANY_VALUE,
                },
        };
        self.connect_port(child, connection, PartitionId::SELF, port, info)
    }
}

impl<T: Hypercalls + ?Sized> PartitionCalls for T {}

const fn pages_of(large: bool) -> u64 {
    if large { LARGE_PAGE_PAGES } else { 1 }
}
