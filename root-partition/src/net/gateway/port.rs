//! The gateway in its two ports: that of the internal switch, and the root's port of the external one.

use super::Gateway;
use super::route::Outside;
use super::verdict::{Made, Network, Verdict};
use crate::hypervisor::time;
use crate::net::host_port::HostPort;
use alloc::sync::Arc;
use alloc::vec::Vec;
use spin::{Mutex, Once};
use vsp::network::wire::NoRoom;
use vsp::network::{Endpoint, Frame, Wire};
use vsp::switch::port::PortId;

/// The gateway and where it is plugged in.
pub struct GatewayPorts {
    gateway: Mutex<Gateway>,
    inside: Once<(Arc<Wire>, PortId)>,
    outside: Once<Arc<HostPort>>,
}

impl GatewayPorts {
    /// A gateway that is plugged in nowhere.
    pub fn new(gateway: Gateway) -> Self {
        Self {
            gateway: Mutex::new(gateway),
            inside: Once::new(),
            outside: Once::new(),
        }
    }

    /// Tells it its port of the internal switch, once.
    pub fn plug_inside(&self, wire: Arc<Wire>, port: PortId) {
        self.inside.call_once(|| (wire, port));
    }

    /// Tells it the root's port of the external switch, once.
    pub fn plug_outside(&self, port: Arc<HostPort>) {
        self.outside.call_once(|| port);
    }

    /// Looks at the gateway, or changes it.
    pub fn with<R>(&self, run: impl FnOnce(&mut Gateway) -> R) -> R {
        run(&mut self.gateway.lock())
    }

    /// The root's address outside is this from now on.
    pub fn set_outside(&self, outside: Option<Outside>) {
        let mut made = Vec::new();
        self.gateway.lock().set_outside(outside, time::now(), &mut made);
        self.send(made);
    }

    /// Takes a frame that came to the root from outside; returns whether it is for the root's stack.
    pub fn from_outside(&self, frame: &Frame<'_>) -> bool {
        self.run(frame, |gateway, now, made| gateway.from_outside(frame, now, made))
    }

    /// Takes a frame that the root's stack sends; returns whether it is to go outside as it is.
    pub fn from_stack(&self, frame: &Frame<'_>) -> bool {
        self.run(frame, |gateway, now, made| gateway.from_stack(frame, now, made))
    }

    fn run(
        &self,
        frame: &Frame<'_>,
        step: impl FnOnce(&mut Gateway, u64, &mut Vec<Made>) -> Verdict,
    ) -> bool {
        let mut made = Vec::new();
        let now = time::now();
        // Frames are carried without the lock, as they may come back here.
        let verdict = step(&mut self.gateway.lock(), now, &mut made);
        self.send(made);
        match verdict {
            Verdict::Done => {}
            Verdict::Stack => return true,
            Verdict::Forward(to, packet) => self.carry(to, &packet.frame(frame)),
            Verdict::ForwardToStack(packet) => {
                if let Some(host) = self.outside.get() {
                    // Whoever sent it sends it again if it finds no room.
                    let _ = host.queue(&packet.frame(frame));
                }
            }
        }
        false
    }

    fn send(&self, made: Vec<Made>) {
        for made in made {
            self.carry(made.to, &Frame::of_bytes(&made.bytes));
        }
    }

    fn carry(&self, to: Network, frame: &Frame<'_>) {
        match to {
            Network::Inside => {
                if let Some((wire, port)) = self.inside.get() {
                    wire.transmit(*port, frame, time::now());
                }
            }
            Network::Outside => {
                if let Some(host) = self.outside.get() {
                    host.send(frame);
                }
            }
        }
    }
}

/// The gateway's port of the internal switch.
pub struct InsidePort(pub Arc<GatewayPorts>);

impl Endpoint for InsidePort {
    fn deliver(&self, frame: &Frame<'_>, tag: Option<u16>, cut_tag: bool) -> Result<(), NoRoom> {
        // The gateway is in the network without a tag only.
        if tag.is_none() && !cut_tag {
            self.0
                .run(frame, |gateway, now, made| gateway.from_inside(frame, now, made));
        }
        Ok(())
    }
}
