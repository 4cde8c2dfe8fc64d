//! Calls about ports, connections, messages and events.

use super::named_partition;
use crate::partition::port;
use crate::partition::vp::Vp;
use hypercall_api::port::{ConnectPort, CreatePort, DeletePort, DisconnectPort, PostMessage, SignalEvent};
use hypercall_api::status::HvStatus;

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
