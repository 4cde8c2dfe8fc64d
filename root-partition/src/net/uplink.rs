//! A physical card in its port of a switch.

use super::host_port::HostPort;
use crate::drivers::e1000e::card::Card;
use crate::drivers::e1000e::hardware::Hardware;
use crate::drivers::e1000e::start::Upstream;
use crate::hypervisor::time;
use alloc::sync::Arc;
use vsp::network::wire::NoRoom;
use vsp::network::{Endpoint, Frame, Wire};
use vsp::switch::port::PortId;

/// Takes the frames that go to the physical network.
pub struct UplinkPort<H>(pub Arc<Card<H>>);

impl<H: Hardware> Endpoint for UplinkPort<H> {
    fn deliver(&self, frame: &Frame<'_>, tag: Option<u16>, cut_tag: bool) -> Result<(), NoRoom> {
        self.0.send(frame, tag, cut_tag)
    }
}

/// Brings the frames of the physical network to the switch.
pub struct FromUplink {
    /// The switch.
    pub wire: Arc<Wire>,
    /// The card's port.
    pub port: PortId,
    /// Who is told of the link.
    pub host: Arc<HostPort>,
}

impl Upstream for FromUplink {
    fn frame(&self, frame: &Frame<'_>) {
        self.wire.transmit(self.port, frame, time::now());
    }

    fn link(&self, up: bool) {
        self.host.set_link(up);
    }
}
