//! [`Station`] as embassy-net's driver.

use super::{Incoming, Outgoing, Station};
use core::task::{Context, Poll};
use embassy_net_driver::{Capabilities, Checksum, Driver, HardwareAddress, LinkState, RxToken, TxToken};

impl Driver for Station {
    type RxToken<'a> = Incoming<'a>;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, context: &mut Context<'_>) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        match self.poll_take(context) {
            Poll::Ready(length) => Some(self.tokens(length)),
            Poll::Pending => None,
        }
    }

    fn transmit(&mut self, context: &mut Context<'_>) -> Option<Outgoing<'_>> {
        match self.card.poll_writable(0, context) {
            Poll::Ready(Ok(())) => Some(self.outgoing()),
            _ => None,
        }
    }

    fn link_state(&mut self, context: &mut Context<'_>) -> LinkState {
        // Whatever the host says wakes those who wait for frames.
        let _ = self.card.poll_readable(context);
        match self.card.has_link() {
            true => LinkState::Up,
            false => LinkState::Down,
        }
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = self.largest_frame();
        capabilities.checksum.ipv4 = Checksum::None;
        capabilities.checksum.tcp = Checksum::None;
        capabilities.checksum.udp = Checksum::None;
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(self.card.address().0)
    }
}

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        self.send(length, f)
    }
}

impl Station {
    /// As [`take`](Self::take); where there is nothing, `context` is woken when there is.
    fn poll_take(&mut self, context: &Context<'_>) -> Poll<usize> {
        if let Some(length) = self.take() {
            return Poll::Ready(length);
        }
        match self.card.poll_readable(context) {
            Poll::Ready(Ok(())) => match self.take() {
                Some(length) => Poll::Ready(length),
                None => {
                    // Frames for others came, and there may be more.
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
            },
            _ => Poll::Pending,
        }
    }
}
