//! What a bus needs of the root kernel and of the hypervisor, so that tests can stand in for both.

use crate::hypervisor::ports::Sink;
use crate::vm::host::Job;
use crate::vm::signal::Signal;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ptr::NonNull;
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::port::{ConnectionId, PortId, PortInfo, PortType};
use hypercall_api::status::HvStatus;

/// Frames in a row, for as long as it lives.
pub trait Row: Send + Sync {
    /// Its first byte; everybody may read and write them all.
    fn start(&self) -> NonNull<u8>;
    /// Bytes.
    fn size(&self) -> usize;
}

/// The calls. Ports and connections may need memory of the pool of the partition that has them.
pub trait BusCalls {
    /// Maps frames of RAM, by their addresses, in a row.
    fn map_row(&self, frames: &[u64]) -> Option<Box<dyn Row>>;

    /// An id for a port or a connection of the root.
    fn take_port(&self) -> PortId;
    /// Has a port's messages go to `sink`.
    fn listen_port(&self, port: PortId, sink: Arc<dyn Sink>);
    /// Gives an id back whose port is deleted.
    fn give_back_port(&self, port: PortId);
    /// An event flag of the root's VP `vp`, for `signal`.
    fn take_flag(&self, vp: u32, signal: Arc<Signal>) -> Option<u16>;
    /// Gives a flag back whose port is deleted.
    fn give_back_flag(&self, vp: u32, flag: u16);

    /// A port of `owner` that `connector` may connect to.
    fn create_port(
        &self,
        owner: PartitionId,
        port: PortId,
        connector: PartitionId,
        info: PortInfo,
    ) -> Result<(), HvStatus>;
    /// Deletes it.
    fn delete_port(&self, owner: PartitionId, port: PortId) -> Result<(), HvStatus>;
    /// A connection of `connector` to a port.
    fn connect_port(
        &self,
        connector: PartitionId,
        connection: ConnectionId,
        owner: PartitionId,
        port: PortId,
        port_type: PortType,
    ) -> Result<(), HvStatus>;
    /// Ends it.
    fn disconnect_port(&self, connector: PartitionId, connection: ConnectionId) -> Result<(), HvStatus>;
    /// Posts a channel message to a connection of the root's.
    fn post_message(&self, connection: ConnectionId, payload: &[u8]) -> Result<(), HvStatus>;
    /// Sets an event flag of a child's VP.
    fn signal_event(&self, child: PartitionId, vp: VpIndex, flag: u16) -> Result<(), HvStatus>;

    /// The root's VP that this runs on.
    fn this_vp(&self) -> u32;
    /// The root's VPs.
    fn vps(&self) -> u32;
    /// Runs a task on VP `vp` of the root.
    fn spawn_on(&self, vp: u32, job: Job);
    /// Completes after so many milliseconds, or a little later.
    fn pause(&self, milliseconds: u64) -> Job;
}
