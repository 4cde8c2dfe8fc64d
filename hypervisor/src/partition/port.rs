//! Ports and connections (TLFS, "Inter-Partition Communication"): who may send messages and events to whom, and the messages
//! that wait for a free slot.

use super::Partition;
use super::id_table::IdTable;
use super::message_queue::MessageQueue;
use super::shared::VpShared;
use super::synic::Slot;
use crate::memory::frames::FrameSource;
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::message::{EVENT_FLAGS, MESSAGE_PAYLOAD, Message, MessageType};
use hypercall_api::port::{ConnectionId, PortId, PortInfo, PortType};
use hypercall_api::status::HvStatus;
use zerocopy::FromZeros;

/// A port.
#[derive(Clone, Copy)]
pub struct Port {
    id: PortId,
    info: PortInfo,
    /// Who may connect.
    connector: PartitionId,
    /// Messages that wait; event ports have no queue.
    queue: Option<MessageQueue>,
    /// The next port whose messages wait for the same VP.
    next: Option<PortId>,
    /// Whether it is in such a list.
    listed: bool,
}

/// A connection to a port.
#[derive(Clone, Copy)]
pub struct Connection {
    owner: PartitionId,
    port: PortId,
}

/// A partition's ports and connections.
#[derive(Default)]
pub struct Ports {
    ports: IdTable<Port>,
    connections: IdTable<Connection>,
}

impl Ports {
    /// None.
    pub const fn new() -> Self {
        Self {
            ports: IdTable::new(),
            connections: IdTable::new(),
        }
    }

    fn port(&mut self, id: PortId) -> Option<&mut Port> {
        self.ports.get_mut(id.0)
    }
}

/// The VP that takes what arrives at a port.
fn target(partition: &Partition, vp: VpIndex) -> Option<&'static VpShared> {
    let index = if vp == VpIndex::ANY { VpIndex(0) } else { vp };
    partition.vp(index).map(|slot| &slot.shared)
}

/// Creates a port of `owner`'s that `connector` may connect to.
pub fn create(owner: &Partition, id: PortId, info: PortInfo, connector: PartitionId) -> Result<(), HvStatus> {
    let is_message = info.port_type == PortType::MESSAGE;
    let flags_fit = info.base_flag as usize + info.flag_count as usize <= EVENT_FLAGS;
    let valid = id.is_valid()
        && id.0 != 0
        && info.target_sint < 16
        && info.padding == 0
        && match info.port_type {
            PortType::MESSAGE => true,
            PortType::EVENT => info.flag_count != 0 && flags_fit,
            _ => false,
        };
    if !valid {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    target(owner, info.target_vp).ok_or(HvStatus::INVALID_VP_INDEX)?;
    let mut ports = owner.ports.lock();
    if ports.port(id).is_some() {
        return Err(HvStatus::INVALID_PORT_ID);
    }
    let mut pool = owner.pool.lock();
    let queue = if is_message {
        Some(MessageQueue::new(
            pool.allocate().ok_or(HvStatus::INSUFFICIENT_MEMORY)?,
        ))
    } else {
        None
    };
    let port = Port {
        id,
        info,
        connector,
        queue,
        next: None,
        listed: false,
    };
    let inserted = ports.ports.insert(id.0, port, &mut *pool);
    if inserted.is_err() {
        queue.into_iter().for_each(|queue| pool.free(queue.frame()));
    }
    inserted
}

/// Deletes a port, with the messages that wait at it. Connections to it lead nowhere.
pub fn delete(owner: &Partition, id: PortId) -> Result<(), HvStatus> {
    let mut ports = owner.ports.lock();
    let port = *ports.port(id).ok_or(HvStatus::INVALID_PORT_ID)?;
    if let (true, Some(vp)) = (port.listed, target(owner, port.info.target_vp)) {
        unlist(&mut ports, vp, id);
    }
    ports.ports.remove(id.0);
    port.queue
        .into_iter()
        .for_each(|queue| owner.pool.lock().free(queue.frame()));
    Ok(())
}

/// Takes a port out of the list of its VP.
fn unlist(ports: &mut Ports, vp: &VpShared, id: PortId) {
    let mut list = vp.waiting_ports.lock();
    let mut cursor = list.first;
    let mut previous: Option<PortId> = None;
    while let Some(current) = cursor {
        let next = ports.port(current).and_then(|port| port.next);
        if current == id {
            match previous {
                None => list.first = next,
                Some(previous) => {
                    if let Some(port) = ports.port(previous) {
                        port.next = next;
                    }
                }
            }
            if list.last == Some(id) {
                list.last = previous;
            }
            break;
        }
        previous = cursor;
        cursor = next;
    }
}

/// Connects `connector` to a port of `owner`'s.
pub fn connect(
    connector: &Partition,
    id: ConnectionId,
    owner: &Partition,
    port: PortId,
    port_type: PortType,
) -> Result<(), HvStatus> {
    if !id.is_valid() || id.0 == 0 {
        return Err(HvStatus::INVALID_CONNECTION_ID);
    }
    {
        let mut ports = owner.ports.lock();
        let port = ports.port(port).ok_or(HvStatus::INVALID_PORT_ID)?;
        if port.connector != connector.id || port.info.port_type != port_type {
            return Err(HvStatus::ACCESS_DENIED);
        }
    }
    let mut ports = connector.ports.lock();
    let connection = Connection {
        owner: owner.id,
        port,
    };
    if ports.connections.get_mut(id.0).is_some() {
        return Err(HvStatus::INVALID_CONNECTION_ID);
    }
    ports
        .connections
        .insert(id.0, connection, &mut *connector.pool.lock())
}

/// Ends a connection.
pub fn disconnect(connector: &Partition, id: ConnectionId) -> Result<(), HvStatus> {
    connector
        .ports
        .lock()
        .connections
        .remove(id.0)
        .map(|_| ())
        .ok_or(HvStatus::INVALID_CONNECTION_ID)
}

/// Gives back everything of a partition that goes away.
pub fn clear(partition: &Partition) {
    let mut ports = partition.ports.lock();
    let mut pool = partition.pool.lock();
    while let Some(port) = ports.ports.pop() {
        port.queue.into_iter().for_each(|queue| pool.free(queue.frame()));
    }
    while ports.connections.pop().is_some() {}
    ports.ports.clear(&mut *pool);
    ports.connections.clear(&mut *pool);
}

fn connection(sender: &Partition, id: ConnectionId) -> Result<Connection, HvStatus> {
    if !id.is_valid() {
        return Err(HvStatus::INVALID_CONNECTION_ID);
    }
    sender
        .ports
        .lock()
        .connections
        .get_mut(id.0)
        .copied()
        .ok_or(HvStatus::INVALID_CONNECTION_ID)
}

/// Posts a message to the port that a connection leads to.
pub fn post_message(
    sender: &Partition,
    id: ConnectionId,
    message_type: MessageType,
    payload: &[u8],
) -> Result<(), HvStatus> {
    if payload.len() > MESSAGE_PAYLOAD || message_type.is_hypervisor() || message_type == MessageType::NONE {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let connection = connection(sender, id)?;
    let owner = Partition::get(connection.owner).ok_or(HvStatus::INVALID_PORT_ID)?;
    let mut ports = owner.ports.lock();
    let port = ports.port(connection.port).ok_or(HvStatus::INVALID_PORT_ID)?;
    let queue = port.queue.as_mut().ok_or(HvStatus::INVALID_PORT_ID)?;
    let vp = target(owner, port.info.target_vp).ok_or(HvStatus::INVALID_VP_INDEX)?;
    let mut message = Message::new_zeroed();
    message.message_type = message_type;
    message.payload_size = payload.len() as u8;
    message.origin = port.id.0 as u64;
    message.payload[..payload.len()].copy_from_slice(payload);
    if !queue.push(&message) {
        return Err(HvStatus::INSUFFICIENT_BUFFERS);
    }
    if !port.listed {
        port.listed = true;
        port.next = None;
        let id = port.id;
        let mut list = vp.waiting_ports.lock();
        match list.last.replace(id) {
            None => list.first = Some(id),
            Some(last) => {
                if let Some(last) = ports.port(last) {
                    last.next = Some(id);
                }
            }
        }
    }
    drop(ports);
    deliver_waiting(owner, vp);
    Ok(())
}

/// Delivers the messages that wait for `vp`, each port's in order, as far as their slots are free.
pub fn deliver_waiting(partition: &Partition, vp: &VpShared) {
    if vp.waiting_ports.lock().first.is_none() {
        return;
    }
    let mut ports = partition.ports.lock();
    let mut list = vp.waiting_ports.lock();
    let mut cursor = list.first.take();
    list.last = None;
    while let Some(id) = cursor {
        let Some(port) = ports.port(id) else { break };
        cursor = port.next.take();
        let sint = port.info.target_sint as usize;
        port.listed = false;
        if let Some(queue) = &mut port.queue {
            while let Some(message) = queue.first() {
                if vp.synic.deliver(partition, sint, &message) == Slot::Taken {
                    port.listed = true;
                    break;
                }
                queue.pop();
            }
        }
        if port.listed {
            match list.last.replace(id) {
                None => list.first = Some(id),
                Some(last) => {
                    if let Some(last) = ports.port(last) {
                        last.next = Some(id);
                    }
                }
            }
        }
    }
    drop((list, ports));
    vp.raise_sints();
}

/// Signals an event through the port that a connection leads to.
pub fn signal_event(sender: &Partition, id: ConnectionId, flag: u16) -> Result<(), HvStatus> {
    let connection = connection(sender, id)?;
    let owner = Partition::get(connection.owner).ok_or(HvStatus::INVALID_PORT_ID)?;
    let info = {
        let mut ports = owner.ports.lock();
        ports.port(connection.port).ok_or(HvStatus::INVALID_PORT_ID)?.info
    };
    if info.port_type != PortType::EVENT {
        return Err(HvStatus::INVALID_PORT_ID);
    }
    if flag >= info.flag_count {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let vp = target(owner, info.target_vp).ok_or(HvStatus::INVALID_VP_INDEX)?;
    vp.synic
        .signal(owner, info.target_sint as usize, info.base_flag + flag)?;
    vp.raise_sints();
    Ok(())
}
