//! The root in its port of a switch: frames wait here for its stack, and go from its stack to the switch.

use super::gateway::port::GatewayPorts;
use crate::hypervisor::time;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::Context;
use crossbeam_queue::ArrayQueue;
use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};
use embassy_sync::waitqueue::AtomicWaker;
use spin::Once;
use vmbus::protocol::network::{ETHERNET_HEADER, Mac};
use vsp::network::wire::NoRoom;
use vsp::network::{Endpoint, Frame, Wire, segment};
use vsp::switch::port::PortId;

/// Frames that wait for the stack at most.
const WAITING: usize = 256;

/// The port.
pub struct HostPort {
    address: Mac,
    mtu: usize,
    plug: Once<(Arc<Wire>, PortId)>,
    gateway: Once<Arc<GatewayPorts>>,
    waiting: ArrayQueue<Vec<u8>>,
    waker: AtomicWaker,
    link: AtomicBool,
    /// Frames for the stack that were not what was said beside them.
    pub refused: AtomicU64,
}

impl HostPort {
    /// A port for a stack with this address, which is to be plugged in.
    pub fn new(address: Mac, mtu: usize) -> Self {
        Self {
            address,
            mtu,
            plug: Once::new(),
            gateway: Once::new(),
            waiting: ArrayQueue::new(WAITING),
            waker: AtomicWaker::new(),
            link: AtomicBool::new(false),
            refused: AtomicU64::new(0),
        }
    }

    /// Tells the port where it is, once.
    pub fn plug(&self, wire: Arc<Wire>, port: PortId) {
        self.plug.call_once(|| (wire, port));
    }

    /// Has `gateway` see all frames that come to the port, and those that the stack sends.
    pub fn put_behind(&self, gateway: Arc<GatewayPorts>) {
        self.gateway.call_once(|| gateway);
    }

    /// Its hardware address.
    pub const fn address(&self) -> Mac {
        self.address
    }

    /// The link has come up or gone down.
    pub fn set_link(&self, up: bool) {
        self.link.store(up, Ordering::Release);
        self.waker.wake();
    }

    /// Whether there is a link.
    pub fn link_up(&self) -> bool {
        self.link.load(Ordering::Acquire)
    }

    /// Sends a frame to the switch.
    pub fn send(&self, frame: &Frame<'_>) {
        if let Some((wire, port)) = self.plug.get() {
            wire.transmit(*port, frame, time::now());
        }
    }
}

impl HostPort {
    /// Has a frame wait for the stack.
    pub fn queue(&self, frame: &Frame<'_>) -> Result<(), NoRoom> {
        let mut room = Ok(());
        // The stack is told of no offload: it gets packets cut and complete.
        let done = segment::complete(frame, None, false, |bytes| {
            if self.waiting.push(bytes.to_vec()).is_err() {
                room = Err(NoRoom);
            }
        });
        if done.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        self.waker.wake();
        room
    }
}

impl Endpoint for HostPort {
    fn deliver(&self, frame: &Frame<'_>, tag: Option<u16>, cut_tag: bool) -> Result<(), NoRoom> {
        // The root is in the network without a tag only.
        if tag.is_some() || cut_tag {
            return Ok(());
        }
        match self
            .gateway
            .get()
            .is_none_or(|gateway| gateway.from_outside(frame))
        {
            true => self.queue(frame),
            false => Ok(()),
        }
    }
}

/// The port as the stack's network card.
pub struct StackDriver(pub Arc<HostPort>);

/// A frame for the stack.
pub struct Received(Vec<u8>);

/// The right to send a frame.
pub struct Sending<'a>(&'a HostPort);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(mut self, f: F) -> R {
        f(&mut self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut bytes = vec![0; length];
        let result = f(&mut bytes);
        let frame = Frame::of_bytes(&bytes);
        if self
            .0
            .gateway
            .get()
            .is_none_or(|gateway| gateway.from_stack(&frame))
        {
            self.0.send(&frame);
        }
        result
    }
}

impl Driver for StackDriver {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, context: &mut Context<'_>) -> Option<(Received, Sending<'_>)> {
        self.0.waker.register(context.waker());
        let frame = self.0.waiting.pop()?;
        Some((Received(frame), Sending(&self.0)))
    }

    fn transmit(&mut self, _context: &mut Context<'_>) -> Option<Sending<'_>> {
        Some(Sending(&self.0))
    }

    fn link_state(&mut self, context: &mut Context<'_>) -> LinkState {
        self.0.waker.register(context.waker());
        match self.0.link_up() {
            true => LinkState::Up,
            false => LinkState::Down,
        }
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = self.0.mtu + ETHERNET_HEADER;
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(self.0.address.0)
    }
}
