//! Ports, connections and event flags for tests.

use super::calls::{BusCalls, Row};
use crate::hypervisor::ports::Sink;
use crate::vm::fake::FakeHost;
use crate::vm::host::{FRAME, Host, Job};
use crate::vm::signal::{Signal, yield_now};
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::port::{ConnectionId, PortId, PortInfo, PortType};
use hypercall_api::status::HvStatus;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ptr::NonNull;
use std::sync::Arc;

/// Messages that a port of the guest's holds.
pub(crate) const SLOTS: usize = 16;

type Key = (PartitionId, u32);

/// All ports and connections of all partitions.
#[derive(Default)]
pub(crate) struct FakePorts {
    ids: BTreeSet<u32>,
    ports: BTreeMap<Key, (PartitionId, PortInfo)>,
    connections: BTreeMap<Key, Key>,
    sinks: BTreeMap<u32, Arc<dyn Sink>>,
    flags: BTreeMap<(u32, u16), Arc<Signal>>,
    /// Messages for guests that wait at ports.
    posted: BTreeMap<Key, VecDeque<Vec<u8>>>,
    /// Flags of guests, by VP and number.
    pub(crate) signalled: BTreeSet<(u32, u16)>,
    /// Rows that are mapped.
    pub(crate) rows: usize,
}

impl FakePorts {
    /// Whether nothing of it is in use.
    pub(crate) fn is_clean(&self) -> bool {
        self.ids.is_empty()
            && self.ports.is_empty()
            && self.connections.is_empty()
            && self.sinks.is_empty()
            && self.flags.is_empty()
            && self.rows == 0
    }

    /// Asserts that a partition that goes has no ports and connections left that the root would have to end.
    pub(crate) fn assert_free_of(&self, partition: PartitionId) {
        assert!(self.ports.keys().all(|(owner, _)| *owner != partition));
        assert!(self.ports.values().all(|(connector, _)| *connector != partition));
    }
}

impl FakeHost {
    /// The one guest posts a message.
    pub(crate) fn guest_posts(&self, connection: ConnectionId, message: &[u8]) -> Result<(), HvStatus> {
        let id = PartitionId(self.partition(|id, _| id));
        let sink = {
            let ports = self.ports.lock();
            let (_, port) = ports
                .connections
                .get(&(id, connection.0))
                .ok_or(HvStatus::INVALID_CONNECTION_ID)?;
            ports.sinks.get(port).cloned().ok_or(HvStatus::INVALID_PORT_ID)?
        };
        sink.message(message);
        Ok(())
    }

    /// The one guest signals an event.
    pub(crate) fn guest_signals(&self, connection: ConnectionId) -> Result<(), HvStatus> {
        let id = PartitionId(self.partition(|id, _| id));
        let ports = self.ports.lock();
        let key = ports
            .connections
            .get(&(id, connection.0))
            .ok_or(HvStatus::INVALID_CONNECTION_ID)?;
        let (_, info) = ports.ports.get(key).ok_or(HvStatus::INVALID_PORT_ID)?;
        assert_eq!(info.port_type, PortType::EVENT);
        ports.flags[&(info.target_vp.0, info.base_flag)].raise();
        Ok(())
    }

    /// The one guest takes a message.
    pub(crate) fn guest_takes(&self) -> Option<Vec<u8>> {
        let id = PartitionId(self.partition(|id, _| id));
        let mut ports = self.ports.lock();
        let mut queues = ports.posted.iter_mut().filter(|((owner, _), _)| *owner == id);
        queues.find_map(|(_, queue)| queue.pop_front())
    }
}

struct FakeRow {
    start: NonNull<u8>,
    size: usize,
    host: FakeHost,
}

// SAFETY: the row is an address.
unsafe impl Send for FakeRow {}
// SAFETY: as above.
unsafe impl Sync for FakeRow {}

impl Row for FakeRow {
    fn start(&self) -> NonNull<u8> {
        self.start
    }

    fn size(&self) -> usize {
        self.size
    }
}

impl Drop for FakeRow {
    fn drop(&mut self) {
        self.host.ports.lock().rows -= 1;
    }
}

impl BusCalls for FakeHost {
    /// Only frames that are in a row already.
    fn map_row(&self, frames: &[u64]) -> Option<Box<dyn Row>> {
        assert!(
            frames.windows(2).all(|pair| pair[1] == pair[0] + FRAME),
            "frames in a row"
        );
        self.ports.lock().rows += 1;
        Some(Box::new(FakeRow {
            start: NonNull::new(*frames.first()? as *mut u8)?,
            size: frames.len() * FRAME as usize,
            host: self.clone(),
        }))
    }

    fn take_port(&self) -> PortId {
        let mut ports = self.ports.lock();
        let free = (1..)
            .find(|id| !ports.ids.contains(id))
            .expect("there is a free id");
        ports.ids.insert(free);
        PortId(free)
    }

    fn listen_port(&self, port: PortId, sink: Arc<dyn Sink>) {
        self.ports.lock().sinks.insert(port.0, sink);
    }

    fn give_back_port(&self, port: PortId) {
        let mut ports = self.ports.lock();
        assert!(ports.ids.remove(&port.0));
        let sink = ports.sinks.remove(&port.0);
        drop(ports);
        drop(sink);
    }

    fn take_flag(&self, vp: u32, signal: Arc<Signal>) -> Option<u16> {
        let mut ports = self.ports.lock();
        let free = (0..).find(|flag| !ports.flags.contains_key(&(vp, *flag)))?;
        ports.flags.insert((vp, free), signal);
        Some(free)
    }

    fn give_back_flag(&self, vp: u32, flag: u16) {
        assert!(self.ports.lock().flags.remove(&(vp, flag)).is_some());
    }

    fn create_port(
        &self,
        owner: PartitionId,
        port: PortId,
        connector: PartitionId,
        info: PortInfo,
    ) -> Result<(), HvStatus> {
        if owner != PartitionId::SELF && info.target_vp.0 >= 2 {
            return Err(HvStatus::INVALID_VP_INDEX);
        }
        let before = self.ports.lock().ports.insert((owner, port.0), (connector, info));
        assert!(before.is_none());
        Ok(())
    }

    fn delete_port(&self, owner: PartitionId, port: PortId) -> Result<(), HvStatus> {
        let mut ports = self.ports.lock();
        ports.posted.remove(&(owner, port.0));
        ports
            .ports
            .remove(&(owner, port.0))
            .map(drop)
            .ok_or(HvStatus::INVALID_PORT_ID)
    }

    fn connect_port(
        &self,
        connector: PartitionId,
        connection: ConnectionId,
        owner: PartitionId,
        port: PortId,
        port_type: PortType,
    ) -> Result<(), HvStatus> {
        let mut ports = self.ports.lock();
        let (expected, info) = ports
            .ports
            .get(&(owner, port.0))
            .ok_or(HvStatus::INVALID_PORT_ID)?;
        assert_eq!((*expected, info.port_type), (connector, port_type));
        let before = ports
            .connections
            .insert((connector, connection.0), (owner, port.0));
        assert!(before.is_none());
        Ok(())
    }

    fn disconnect_port(&self, connector: PartitionId, connection: ConnectionId) -> Result<(), HvStatus> {
        let removed = self.ports.lock().connections.remove(&(connector, connection.0));
        removed.map(drop).ok_or(HvStatus::INVALID_CONNECTION_ID)
    }

    fn post_message(&self, connection: ConnectionId, payload: &[u8]) -> Result<(), HvStatus> {
        let mut ports = self.ports.lock();
        let key = *ports
            .connections
            .get(&(PartitionId::SELF, connection.0))
            .ok_or(HvStatus::INVALID_CONNECTION_ID)?;
        let queue = ports.posted.entry(key).or_default();
        if queue.len() == SLOTS {
            return Err(HvStatus::INSUFFICIENT_BUFFERS);
        }
        queue.push_back(payload.to_vec());
        Ok(())
    }

    fn signal_event(&self, _: PartitionId, vp: VpIndex, flag: u16) -> Result<(), HvStatus> {
        self.ports.lock().signalled.insert((vp.0, flag));
        Ok(())
    }

    fn this_vp(&self) -> u32 {
        0
    }

    fn vps(&self) -> u32 {
        2
    }

    fn spawn_on(&self, _: u32, job: Job) {
        self.spawn(job);
    }

    fn pause(&self, _: u64) -> Job {
        Box::pin(yield_now())
    }
}
