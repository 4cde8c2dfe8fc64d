//! A virtual switch: says where a frame goes, and nothing more.
//!
//! [`Switch::forward`] sees the first bytes of a frame and returns the ports that it goes to; whoever carries frames copies each
//! from its sender's memory straight into its receiver's. So a frame crosses with one copy, and one that is larger than a
//! segment stays so up to a port that cannot take it. Time comes from outside, in ticks of 100 ns.
//!
//! | file | what it is |
//! |---|---|
//! | [`frame`] | the header of a frame, as the switch reads it |
//! | [`port`] | settings and counters of a port |
//! | [`vlan`] | which VLAN a frame belongs to, and which ports are in it |
//! | [`table`] | which address is behind which port |
//! | `path` | where a port's last frame went |
//! | [`guard`] | servers' messages that only servers' ports may send |
//! | [`limit`] | caps of bandwidth |
//! | [`capture`] | the format of captured frames |
//! | [`words`] | settings as people write and read them |

pub mod capture;
pub mod frame;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod guard;
pub mod limit;
mod path;
pub mod port;
pub mod table;
#[cfg(test)]
mod tests;
pub mod vlan;
pub mod words;

use alloc::vec::Vec;
use frame::FrameHeader;
use path::Path;
use port::{Counters, Drop, PortId, PortKind, PortSettings};
use table::Table;
use vlan::VlanId;
use vmbus::protocol::network::{ETHERNET_HEADER, Mac};

pub use frame::HEADER_BYTES;
pub use port::{Direction, Port};

/// A tick: 100 ns.
pub const TICKS_A_SECOND: u64 = 10_000_000;

/// Ports of a switch at most.
pub const MAX_PORTS: usize = 256;

/// Who takes part in a switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Children.
    Private,
    /// Children and the root.
    Internal,
    /// Children, the root and a physical network.
    External,
}

impl Kind {
    /// Whether ports of `port` may be on it.
    pub const fn takes(self, port: PortKind) -> bool {
        match port {
            PortKind::Guest => true,
            PortKind::Host => !matches!(self, Self::Private),
            PortKind::Uplink => matches!(self, Self::External),
        }
    }
}

/// Why a port cannot be added.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AttachError {
    /// The switch is of another kind.
    #[error("a {0:?} switch has no {1:?} port")]
    Kind(Kind, PortKind),
    /// All ports are taken.
    #[error("the switch has no free port (it has {MAX_PORTS})")]
    Full,
    /// Another port has the address.
    #[error("another port of the switch has the address {0}")]
    AddressTaken(Mac),
    /// The switch has an uplink.
    #[error("the switch has an uplink already")]
    SecondUplink,
}

/// A frame that came in at a port.
#[derive(Clone, Copy, Debug)]
pub struct Ingress<'a> {
    /// The port.
    pub port: PortId,
    /// The frame's first bytes: all of them, or at least [`HEADER_BYTES`].
    pub bytes: &'a [u8],
    /// Bytes of all of it.
    pub length: usize,
    /// A VLAN tag that came beside it.
    pub tag: Option<u16>,
    /// When it came, in ticks.
    pub now: u64,
}

/// One port that a frame goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Egress {
    /// The port.
    pub port: PortId,
    /// The VLAN tag that the frame has there, beside it.
    pub tag: Option<u16>,
    /// The frame holds a tag of its own in its bytes, which is to be cut out ([`frame::cut_tag`]).
    pub cut_tag: bool,
}

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It goes to so many ports.
    Forwarded(usize),
    /// It goes nowhere.
    Dropped(Drop),
}

/// The switch.
#[derive(Clone, Debug)]
pub struct Switch {
    kind: Kind,
    ports: Vec<Option<Port>>,
    table: Table,
    /// Where mirrored frames go.
    mirror_to: Option<PortId>,
    /// Changes of all that says where frames go, counted.
    changes: u64,
}

impl Switch {
    /// A switch without ports.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            ports: Vec::new(),
            table: Table::new(),
            mirror_to: None,
            changes: 0,
        }
    }

    /// Who takes part.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Adds a port.
    pub fn attach(&mut self, settings: PortSettings) -> Result<PortId, AttachError> {
        if !self.kind.takes(settings.kind) {
            return Err(AttachError::Kind(self.kind, settings.kind));
        }
        if settings.kind == PortKind::Uplink
            && self
                .ports()
                .any(|(_, port)| port.settings.kind == PortKind::Uplink)
        {
            return Err(AttachError::SecondUplink);
        }
        self.address_is_free(None, &settings)?;
        let free = self.ports.iter().position(Option::is_none);
        let index = match free {
            Some(index) => index,
            None if self.ports.len() < MAX_PORTS => {
                self.ports.push(None);
                self.ports.len() - 1
            }
            None => return Err(AttachError::Full),
        };
        let id = PortId(index as u16);
        if let Some(slot) = self.ports.get_mut(index) {
            *slot = Some(Port::new(settings));
        }
        self.forget(id);
        Ok(id)
    }

    /// Removes a port, and all that was learned of it.
    pub fn detach(&mut self, id: PortId) -> Option<Counters> {
        let port = self.ports.get_mut(usize::from(id.0))?.take()?;
        self.forget(id);
        if self.mirror_to == Some(id) {
            self.mirror_to = None;
        }
        Some(port.counters)
    }

    /// Changes the settings of a port; its kind stays.
    pub fn configure(
        &mut self,
        id: PortId,
        change: impl FnOnce(&mut PortSettings),
    ) -> Result<(), AttachError> {
        let Some(port) = self.port(id) else {
            return Ok(());
        };
        let mut settings = port.settings.clone();
        change(&mut settings);
        settings.kind = port.settings.kind;
        self.address_is_free(Some(id), &settings)?;
        let limit_changed = settings.limit != port.settings.limit;
        if let Some(port) = self.ports.get_mut(usize::from(id.0)).and_then(Option::as_mut) {
            if limit_changed {
                port.bucket = limit::Bucket::new(settings.limit);
            }
            port.settings = settings;
        }
        self.forget(id);
        Ok(())
    }

    /// Sends copies of what mirrored ports send and take to `to`.
    pub fn mirror_to(&mut self, to: Option<PortId>) {
        self.mirror_to = to.filter(|&id| self.port(id).is_some());
        self.changes += 1;
    }

    /// A port has changed: forgets what was learned of it, and all ways that were found.
    fn forget(&mut self, id: PortId) {
        self.table.forget_port(id);
        self.changes += 1;
    }

    /// Where mirrored frames go.
    pub const fn mirror(&self) -> Option<PortId> {
        self.mirror_to
    }

    /// A port.
    pub fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(usize::from(id.0))?.as_ref()
    }

    /// All ports.
    pub fn ports(&self) -> impl Iterator<Item = (PortId, &Port)> {
        let numbered = self.ports.iter().enumerate();
        numbered.filter_map(|(index, port)| Some((PortId(index as u16), port.as_ref()?)))
    }

    /// The learned addresses: VLAN, address, port.
    pub fn learned(&self, now: u64) -> impl Iterator<Item = (VlanId, Mac, PortId)> {
        self.table.iter(now)
    }

    /// Whether `port` may send `bytes` now; if not, the tick from which on it may.
    pub fn admit(&mut self, id: PortId, bytes: usize, now: u64) -> Result<(), u64> {
        match self.ports.get_mut(usize::from(id.0)) {
            Some(Some(port)) => port.bucket.take(bytes, now),
            _ => Ok(()),
        }
    }

    /// Takes `bytes` that `port` has sent already off what it may send; returns the tick from which on it may send more, if that is not now.
    #[inline]
    pub fn charge(&mut self, id: PortId, bytes: usize, now: u64) -> Option<u64> {
        let Some(Some(port)) = self.ports.get_mut(usize::from(id.0)) else {
            return None;
        };
        if !port.bucket.is_capped() {
            return None;
        }
        // What is over the cap is held against the next.
        let _ = port.bucket.take(bytes, now);
        port.bucket.take(0, now).err()
    }

    /// Tells that a frame found no room at `port`, although the switch had sent it there.
    pub fn no_room(&mut self, id: PortId, length: usize) {
        if let Some(Some(port)) = self.ports.get_mut(usize::from(id.0)) {
            let sent = &mut port.counters.to_port;
            sent.frames = sent.frames.saturating_sub(1);
            sent.bytes = sent.bytes.saturating_sub(length as u64);
            port.counters.drop(Drop::NoRoom);
        }
    }

    /// Says where a frame goes, and pushes those ports to `out`.
    #[inline]
    pub fn forward(&mut self, ingress: &Ingress<'_>, out: &mut impl Extend<Egress>) -> Verdict {
        match self.known(ingress) {
            Some(egress) => {
                out.extend(Some(egress));
                Verdict::Forwarded(1)
            }
            None => self.look_up(ingress, out),
        }
    }

    /// As [`forward`](Self::forward), if the frame goes where the port's last one went, and the port has no cap; otherwise nothing has
    /// happened.
    #[inline(always)]
    pub(crate) fn known(&mut self, ingress: &Ingress<'_>) -> Option<Egress> {
        let Ingress {
            port,
            bytes,
            length,
            tag,
            now,
        } = *ingress;
        let source = self.ports.get_mut(usize::from(port.0))?.as_mut()?;
        let path = source
            .path
            .as_ref()
            .filter(|_| tag.is_none() && !source.bucket.is_capped())?;
        let (egress, ethertype) = path.leads(bytes, self.changes, now)?;
        if guard::is_guarded(source.settings.guard, ethertype, bytes, ETHERNET_HEADER) {
            return None;
        }
        source.counters.from_port.count(length);
        // It is there, or the path would not lead to it.
        let port = self.ports.get_mut(usize::from(egress.port.0))?.as_mut()?;
        port.counters.to_port.count(length);
        Some(egress)
    }

    /// As [`forward`](Self::forward), without what is remembered of the last frame.
    #[inline(never)]
    fn look_up(&mut self, ingress: &Ingress<'_>, out: &mut impl Extend<Egress>) -> Verdict {
        let Ingress {
            port: from,
            bytes,
            length,
            tag,
            now,
        } = *ingress;
        let Some(Some(source)) = self.ports.get_mut(usize::from(from.0)) else {
            return Verdict::Dropped(Drop::NoPort);
        };
        source.path = None;
        let (header, vlan) = match admit(source, bytes, tag) {
            Ok(admitted) => admitted,
            Err(reason) => {
                source.counters.drop(reason);
                return Verdict::Dropped(reason);
            }
        };
        source.counters.from_port.count(length);
        let mirrored = source.settings.mirror.contains(Direction::FROM_PORT);
        if self.table.learn(vlan, header.source, from, now) {
            self.changes += 1;
        }
        let target = self.target(vlan, header.destination, now);
        let mut spread = Spread {
            out,
            vlan,
            priority: header.tag.map_or(0, |tci| tci & 0xf000),
            cut_tag: header.tag_in_frame,
            length,
            mirrored,
            reached: 0,
            last: None,
        };
        match target {
            Some(to) if to == from => {}
            Some(to) => {
                if let Some(Some(port)) = self.ports.get_mut(usize::from(to.0)) {
                    spread.send(to, port);
                }
            }
            None => {
                for (index, slot) in self.ports.iter_mut().enumerate() {
                    let id = PortId(index as u16);
                    let Some(port) = slot.as_mut().filter(|_| id != from) else {
                        continue;
                    };
                    if Some(id) != self.mirror_to && port.settings.may_be_behind(header.destination) {
                        spread.send(id, port);
                    }
                }
            }
        }
        let Spread {
            mirrored,
            reached,
            priority,
            cut_tag,
            last,
            ..
        } = spread;
        match self.mirror_to.filter(|&to| mirrored && to != from) {
            Some(to) => self.copy_to_mirror(to, vlan, priority, cut_tag, length, out),
            None => {
                let found = last.filter(|_| target.is_some() && !mirrored);
                let path = found.and_then(|egress| Path::new(bytes, &header, egress, self.changes, now));
                if let Some(Some(source)) = self.ports.get_mut(usize::from(from.0)) {
                    source.path = path;
                }
            }
        }
        if reached == 0 {
            return Verdict::Dropped(Drop::Nowhere);
        }
        Verdict::Forwarded(reached)
    }

    /// The port that an address is behind: as it was learned, or else as ports are set up. `None` if it is a group's, or nobody knows.
    fn target(&self, vlan: VlanId, address: Mac, now: u64) -> Option<PortId> {
        if address.is_group() {
            return None;
        }
        self.table.find(vlan, address, now).or_else(|| {
            let mut ports = self.ports();
            let found = ports.find(|(_, port)| {
                port.settings.address == Some(address) && port.settings.vlan.leave(vlan).is_some()
            });
            found.map(|(id, _)| id)
        })
    }

    /// A mirror sees all VLANs, tagged.
    fn copy_to_mirror(
        &mut self,
        to: PortId,
        vlan: VlanId,
        priority: u16,
        cut_tag: bool,
        length: usize,
        out: &mut impl Extend<Egress>,
    ) {
        if let Some(Some(port)) = self.ports.get_mut(usize::from(to.0)) {
            port.counters.to_port.count(length);
            let tag = (vlan.0 != 0).then_some(vlan.0 | priority);
            out.extend([Egress {
                port: to,
                tag,
                cut_tag,
            }]);
        }
    }

    fn address_is_free(&self, own: Option<PortId>, settings: &PortSettings) -> Result<(), AttachError> {
        let taken = |(id, port): (PortId, &Port)| {
            Some(id) != own && settings.address.is_some() && port.settings.address == settings.address
        };
        match settings.address.filter(|_| self.ports().any(taken)) {
            Some(address) => Err(AttachError::AddressTaken(address)),
            None => Ok(()),
        }
    }
}

/// Reads a frame's header and says which VLAN it is in, if its sender may send it.
#[inline]
fn admit(port: &Port, bytes: &[u8], tag: Option<u16>) -> Result<(FrameHeader, VlanId), Drop> {
    let settings = &port.settings;
    let header = FrameHeader::read(bytes, tag).ok_or(Drop::Malformed)?;
    // A group never sends.
    if header.source.is_group() {
        return Err(Drop::Malformed);
    }
    if settings.guard.contains(guard::Guards::SPOOFED_ADDRESS)
        && settings.address.is_some_and(|address| address != header.source)
    {
        return Err(Drop::Spoofed);
    }
    let vlan = settings.vlan.enter(header.tag).ok_or(Drop::OtherVlan)?;
    if guard::is_guarded(settings.guard, header.ethertype, bytes, header.payload) {
        return Err(Drop::Guarded);
    }
    Ok((header, vlan))
}

/// Collects the ports of one frame.
struct Spread<'a, O> {
    out: &'a mut O,
    vlan: VlanId,
    priority: u16,
    cut_tag: bool,
    length: usize,
    mirrored: bool,
    reached: usize,
    last: Option<Egress>,
}

impl<O: Extend<Egress>> Spread<'_, O> {
    fn send(&mut self, id: PortId, port: &mut Port) {
        let Some(leave) = port.settings.vlan.leave(self.vlan) else {
            return;
        };
        port.counters.to_port.count(self.length);
        self.mirrored |= port.settings.mirror.contains(Direction::TO_PORT);
        self.reached += 1;
        self.last = Some(Egress {
            port: id,
            tag: leave.tci(self.priority),
            cut_tag: self.cut_tag,
        });
        self.out.extend(self.last);
    }
}
