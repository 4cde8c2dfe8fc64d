//! Calls about ports, connections, messages and events.

use super::{named_child, named_partition};
use crate::partition::Partition;
use crate::partition::port;
use crate::partition::shared::VpShared;
use crate::partition::synic::Slot;
use crate::partition::vp::Vp;
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::message::{MESSAGE_PAYLOAD, Message, MessageType, SINT_COUNT};
use hypercall_api::port::{
    ConnectPort, CreatePort, DeletePort, DisconnectPort, PostMessage, PostMessageDirect, SignalEvent,
    SignalEventDirect, SignaledEventDirect,
};
use hypercall_api::status::HvStatus;
use zerocopy::FromBytes;

/// `HvCallCreatePort`.
pub(super) fn create(vp: &mut Vp, input: &CreatePort) -> Result<(), HvStatus> {
    if input.port_vtl != 0 || input.min_connection_vtl != 0 {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let owner = named_partition(vp, input.port_partition)?;
    let connector = named_partition(vp, input.connection_partition)?;
    port::create(owner, input.port, input.info, connector.id)
}

/// `HvCallDeletePort`.
pub(super) fn delete(vp: &mut Vp, input: &DeletePort) -> Result<(), HvStatus> {
    port::delete(named_partition(vp, input.port_partition)?, input.port)
}

/// `HvCallConnectPort`.
pub(super) fn connect(vp: &mut Vp, input: &ConnectPort) -> Result<(), HvStatus> {
    if input.connection_vtl != 0 {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let connector = named_partition(vp, input.connection_partition)?;
    let owner = named_partition(vp, input.port_partition)?;
    port::connect(
        connector,
        input.connection,
        owner,
        input.port,
        input.info.port_type,
    )
}

/// `HvCallDisconnectPort`.
pub(super) fn disconnect(vp: &mut Vp, input: &DisconnectPort) -> Result<(), HvStatus> {
    port::disconnect(named_partition(vp, input.connection_partition)?, input.connection)
}

/// `HvCallPostMessage`.
pub(super) fn post_message(vp: &mut Vp, input: &PostMessage) -> Result<(), HvStatus> {
    let payload = input
        .payload
        .get(..input.payload_size as usize)
        .ok_or(HvStatus::INVALID_PARAMETER)?;
    port::post_message(vp.partition, input.connection, input.message_type, payload)
}

/// `HvCallSignalEvent`.
pub(super) fn signal_event(vp: &mut Vp, input: &SignalEvent) -> Result<(), HvStatus> {
    port::signal_event(vp.partition, input.connection, input.flag)
}

/// A VP of a child at one of whose SINTs something is to arrive without a port.
fn direct_target(
    vp: &Vp,
    partition: PartitionId,
    index: VpIndex,
    vtl: u8,
    sint: u32,
) -> Result<(&'static Partition, &'static VpShared), HvStatus> {
    let child = named_child(vp, partition)?;
    if vtl != 0 || sint >= SINT_COUNT as u32 {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let slot = child.vp(index).ok_or(HvStatus::INVALID_VP_INDEX)?;
    Ok((child, &slot.shared))
}

/// `HvCallPostMessageDirect`.
pub(super) fn post_message_direct(vp: &mut Vp, input: &PostMessageDirect) -> Result<(), HvStatus> {
    let (child, target) = direct_target(vp, input.partition, input.vp, input.vtl, input.sint)?;
    let message = Message::read_from_bytes(&input.message).map_err(|_| HvStatus::INVALID_PARAMETER)?;
    if message.payload_size as usize > MESSAGE_PAYLOAD || message.message_type == MessageType::NONE {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    match target.synic.deliver(child, input.sint as usize, &message) {
        Slot::Filled => {
            target.raise_sints();
            Ok(())
        }
        Slot::Taken => Err(HvStatus::INSUFFICIENT_BUFFERS),
    }
}

/// `HvCallSignalEventDirect`.
pub(super) fn signal_event_direct(
    vp: &mut Vp,
    input: &SignalEventDirect,
) -> Result<SignaledEventDirect, HvStatus> {
    let (child, target) = direct_target(vp, input.partition, input.vp, input.vtl, input.sint as u32)?;
    let newly = target.synic.signal(child, input.sint as usize, input.flag)?;
    target.raise_sints();
    Ok(SignaledEventDirect {
        newly_signaled: u8::from(newly),
        reserved: [0; 7],
    })
}
