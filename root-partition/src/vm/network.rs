//! Switches and machines' network cards: what the shell commands.

use super::bus::network::Card;
use super::description::{NAME_RULE, NetworkDescription, is_name};
use super::host::Host;
use super::worker::Worker;
use crate::net::capture::Capture;
use crate::shell::switches::{CaptureEnd, CardInfo, Networks, PortChange, PortInfo, PortName, SwitchInfo};
use crate::shell::system::{Pending, SystemError};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vsp::network::Wire;
use vsp::network::wire::Tap;
use vsp::switch::Kind;
use vsp::switch::port::PortId;
use vsp::switch::words::Mirror;

/// Ticks of 100 ns from 1601, where the wall clock begins, to 1970.
const FROM_1601_TO_1970: u64 = 116_444_736_000_000_000;

/// A port that was found, and the card in it.
struct Found {
    wire: Arc<Wire>,
    port: PortId,
    card: Option<Arc<Card>>,
}

impl<H: Host> Worker<H> {
    fn cards(&self) -> Vec<Arc<Card>> {
        let machines = self.all();
        let devices = machines.iter().filter_map(|machine| machine.devices());
        devices.flat_map(|devices| devices.cards()).collect()
    }

    fn find_port(&self, name: &PortName) -> Result<Found, SystemError> {
        match name {
            PortName::Card(machine, index) => {
                let cards = self.devices(machine)?.cards();
                let card = cards.into_iter().find(|card| card.index == *index);
                let plugged = card.and_then(|card| Some((card.port()?, card)));
                let ((wire, port), card) = plugged.ok_or_else(|| {
                    SystemError::new(format!(
                        "'{machine}' has no network card {index}: 'net list' shows those that there are"
                    ))
                })?;
                Ok(Found {
                    wire,
                    port,
                    card: Some(card),
                })
            }
            PortName::Port(switch, port) => {
                let wire = self.switches().find(switch).map_err(SystemError::new)?;
                if wire.with(|switch| switch.port(*port).is_none()) {
                    return Err(SystemError::new(format!(
                        "switch '{switch}' has no port {port}: 'net list' shows those that there are"
                    )));
                }
                let in_it = |card: &Arc<Card>| {
                    let plug = card.port();
                    plug.is_some_and(|(other, own)| Arc::ptr_eq(&other, &wire) && own == *port)
                };
                let card = self.cards().into_iter().find(in_it);
                Ok(Found {
                    wire,
                    port: *port,
                    card,
                })
            }
        }
    }
}

fn card_info(card: &Card) -> CardInfo {
    let nic = card.nic();
    CardInfo {
        machine: card.machine.clone(),
        index: card.index,
        link: nic.has_link(),
        channels: nic.open_channels(),
        mtu: nic.mtu(),
        refused: nic.counters.refused.load(Ordering::Relaxed),
    }
}

impl<H: Host> Networks for Worker<H> {
    fn switches(&self) -> Vec<SwitchInfo> {
        let cards = self.cards();
        let in_port = |wire: &Arc<Wire>, id: PortId| {
            let found = cards.iter().find(|card| {
                let plug = card.port();
                plug.is_some_and(|(other, port)| Arc::ptr_eq(&other, wire) && port == id)
            });
            found.map(|card| card_info(card))
        };
        let info = |(name, wire): (String, Arc<Wire>)| {
            let (kind, learned, mirror, ports) = wire.with(|switch| {
                let ports: Vec<_> = switch.ports().map(|(id, port)| (id, port.clone())).collect();
                let learned = switch.learned(self.now()).count();
                (switch.kind(), learned, switch.mirror(), ports)
            });
            let ports = ports.into_iter().map(|(id, port)| PortInfo {
                id,
                port,
                card: in_port(&wire, id),
            });
            SwitchInfo {
                name,
                kind,
                ports: ports.collect(),
                learned,
                mirror,
            }
        };
        Worker::switches(self).all().into_iter().map(info).collect()
    }

    fn create_switch(&self, name: &str, kind: Kind) -> Result<(), SystemError> {
        if !is_name(name) {
            return Err(SystemError::new(format!("'{name}' is no name: {NAME_RULE}")));
        }
        Worker::switches(self)
            .create(name, kind)
            .map_err(SystemError::new)
    }

    fn delete_switch(&self, name: &str) -> Result<(), SystemError> {
        Worker::switches(self).delete(name).map_err(SystemError::new)
    }

    fn change_port(&self, name: &PortName, change: PortChange) -> Result<(), SystemError> {
        let Found { wire, port, card } = self.find_port(name)?;
        let result = match change {
            PortChange::Vlan(vlan) => {
                wire.with(|switch| switch.configure(port, |settings| settings.vlan = vlan))
            }
            PortChange::Limit(limit) => {
                wire.with(|switch| switch.configure(port, |settings| settings.limit = limit))
            }
            PortChange::Guard(guard) => {
                wire.with(|switch| switch.configure(port, |settings| settings.guard = guard))
            }
            PortChange::Mirror(Mirror::Of(direction)) => wire.with(|switch| {
                if direction.is_empty() && switch.mirror() == Some(port) {
                    switch.mirror_to(None);
                }
                switch.configure(port, |settings| settings.mirror = direction)
            }),
            PortChange::Mirror(Mirror::Takes) => {
                wire.with(|switch| switch.mirror_to(Some(port)));
                Ok(())
            }
            PortChange::Link(up) => {
                let card = card.ok_or_else(|| {
                    SystemError::new(format!(
                        "{name} has no machine's card in it, whose link could change"
                    ))
                })?;
                card.nic().set_link(up);
                Ok(())
            }
        };
        result.map_err(SystemError::new)
    }

    fn attach_card(&self, machine: &str, card: &NetworkDescription) -> Result<usize, SystemError> {
        let devices = self.devices(machine)?;
        let child = self.child(machine)?;
        let bus = child.bus().ok_or_else(|| no_bus(machine))?;
        let description = &self.get(machine)?.description;
        let switches = Worker::switches(self);
        let index = devices.attach_card(&child.host, switches, description, card, bus);
        index.map_err(SystemError::new)
    }

    fn detach_card<'a>(&'a self, machine: &'a str, index: usize) -> Pending<'a, Result<(), SystemError>> {
        Box::pin(async move {
            let devices = self.devices(machine)?;
            let child = self.child(machine)?;
            let bus = child.bus().ok_or_else(|| no_bus(machine))?;
            let detached = devices.detach_card(&child.host, index, bus).await;
            detached.map_err(SystemError::new)
        })
    }

    fn capture(&self, name: &PortName, capture: Arc<Capture>) -> Result<CaptureEnd, SystemError> {
        let Found { wire, port, .. } = self.find_port(name)?;
        let tap: Arc<dyn Tap> = capture;
        if !wire.begin_tap(port, tap.clone()) {
            return Err(SystemError::new(
                "frames of this switch are being captured already: one capture a switch at a time",
            ));
        }
        Ok(Box::new(Tapping { wire, tap }))
    }

    fn time_base(&self) -> u64 {
        let host = self.host();
        let since_1970 = host
            .wall_clock()
            .and_then(|time| time.checked_sub(FROM_1601_TO_1970));
        since_1970.map_or(0, |time| time.saturating_sub(self.now()))
    }
}

fn no_bus(machine: &str) -> SystemError {
    SystemError::new(format!("'{machine}' has no bus: its description turns VMBus off"))
}

/// A tap that is on its wire as long as this lives.
struct Tapping {
    wire: Arc<Wire>,
    tap: Arc<dyn Tap>,
}

impl Drop for Tapping {
    fn drop(&mut self) {
        self.wire.end_tap(&self.tap);
    }
}
