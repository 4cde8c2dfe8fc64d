//! [`Station`] as smoltcp's device.

use super::{Incoming, Outgoing, Station};
use ::smoltcp::iface::{Interface, PollResult, SocketSet};
use ::smoltcp::phy::{self, Checksum, DeviceCapabilities, Medium};
use ::smoltcp::time::Instant;

impl phy::Device for Station {
    type RxToken<'a> = Incoming<'a>;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let length = self.take()?;
        Some(self.tokens(length))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        self.card.is_writable(0).then(|| self.outgoing())
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.largest_frame();
        capabilities.checksum.ipv4 = Checksum::None;
        capabilities.checksum.tcp = Checksum::None;
        capabilities.checksum.udp = Checksum::None;
        capabilities
    }
}

impl phy::RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        self.send(length, f)
    }
}

/// Has an interface take what has come and send what there is, and signals the host at most once.
pub fn poll(
    interface: &mut Interface,
    now: Instant,
    station: &mut Station,
    sockets: &mut SocketSet<'_>,
) -> PollResult {
    let card = station.card.clone();
    let _batch = card.batch();
    interface.poll(now, station, sockets)
}
