//! Ports of messages and events: of the root for what a child sends, of the child for what the root sends.

use crate::hypervisor::ports::PORT_SINT;
use crate::vm::host::Host;
use crate::vm::pool::{PoolError, with_deposits};
use crate::vm::signal::Signal;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::port::{ConnectionId, PortId, PortInfo, loopback};
use hypercall_api::status::HvStatus;
use vmbus::server::MessageTarget;

/// A port of one partition, and connections of another to it.
pub struct Port<H: Host> {
    host: H,
    owner: PartitionId,
    port: PortId,
    connector: PartitionId,
    connections: Vec<ConnectionId>,
    created: bool,
    /// Of an event port: the root's VP and its flag.
    flag: Option<(u32, u16)>,
}

impl<H: Host> Port<H> {
    /// A port of the root for messages of `child`, which posts them to `connections`.
    pub fn for_messages(
        host: &H,
        child: PartitionId,
        connections: &[ConnectionId],
        vp: u32,
    ) -> Result<Self, PoolError> {
        let info = PortInfo::message(PORT_SINT.into(), VpIndex(vp));
        let port = host.take_port();
        Self::of_root(host, port, None).set_up(child, connections, info)
    }

    /// A port of the root for the signals of `child` to `connection`, which raise `signal` on the root's VP `vp`.
    pub fn for_events(
        host: &H,
        child: PartitionId,
        connection: ConnectionId,
        vp: u32,
        signal: Arc<Signal>,
    ) -> Result<Self, PoolError> {
        let flag = host.take_flag(vp, signal).ok_or(HvStatus::NO_RESOURCES)?;
        let info = PortInfo::event(PORT_SINT.into(), VpIndex(vp), flag, 1);
        let port = host.take_port();
        Self::of_root(host, port, Some((vp, flag))).set_up(child, &[connection], info)
    }

    /// A port of `child` for the root's messages, where the child wants them.
    pub fn to_child(host: &H, child: PartitionId, target: MessageTarget) -> Result<Self, PoolError> {
        let info = PortInfo::message(target.sint.into(), target.vp);
        // A number of the root's own serves as the connection's and, in the child, as the port's.
        let id = host.take_port();
        let mut port = Self::of_root(host, id, None);
        port.owner = child;
        port.set_up(PartitionId::SELF, &[ConnectionId(id.0)], info)
    }

    /// The ports and connections of a machine to itself ([`loopback`]): one for messages, one for events.
    pub fn loopback(host: &H, child: PartitionId) -> Result<[Self; 2], PoolError> {
        let own = |connection, info| {
            let mut port = Self::of_root(host, host.take_port(), None);
            port.owner = child;
            port.set_up(child, &[connection], info)
        };
        let vp = VpIndex(0);
        let events = PortInfo::event(
            loopback::EVENT_SINT.into(),
            vp,
            loopback::FIRST_FLAG,
            loopback::FLAGS,
        );
        Ok([
            own(
                loopback::MESSAGES,
                PortInfo::message(loopback::MESSAGE_SINT.into(), vp),
            )?,
            own(loopback::EVENTS, events)?,
        ])
    }

    fn of_root(host: &H, port: PortId, flag: Option<(u32, u16)>) -> Self {
        Self {
            host: host.clone(),
            owner: PartitionId::SELF,
            port,
            connector: PartitionId::SELF,
            connections: Vec::new(),
            created: false,
            flag,
        }
    }

    /// On failure, all that was done is undone.
    fn set_up(
        mut self,
        connector: PartitionId,
        connections: &[ConnectionId],
        info: PortInfo,
    ) -> Result<Self, PoolError> {
        self.connector = connector;
        let (host, owner, port) = (self.host.clone(), self.owner, self.port);
        with_deposits(&host, owner, || host.create_port(owner, port, connector, info))?;
        self.created = true;
        for &connection in connections {
            with_deposits(&host, connector, || {
                host.connect_port(connector, connection, owner, port, info.port_type)
            })?;
            self.connections.push(connection);
        }
        Ok(self)
    }

    /// Its id.
    pub fn id(&self) -> PortId {
        self.port
    }

    /// Posts a message to it, from the root.
    pub fn post(&self, message: &[u8]) -> Result<(), HvStatus> {
        match self.connections.first() {
            Some(connection) => self.host.post_message(*connection, message),
            None => Err(HvStatus::INVALID_CONNECTION_ID),
        }
    }
}

impl<H: Host> Drop for Port<H> {
    fn drop(&mut self) {
        let mut ended = Ok(());
        for connection in &self.connections {
            ended = ended.and(self.host.disconnect_port(self.connector, *connection));
        }
        if self.created {
            ended = ended.and(self.host.delete_port(self.owner, self.port));
        }
        if let Err(status) = ended {
            // Whoever used the numbers next would get what is meant for this.
            log::error!("a port of partition {} is lost: {status}", self.owner);
            return;
        }
        if let Some((vp, flag)) = self.flag {
            self.host.give_back_flag(vp, flag);
        }
        self.host.give_back_port(self.port);
    }
}
