//! Switches for tests of the shell: `default` has the cards of `web` and `db`, and the root.

use super::fake_machines::FakeMachines;
use super::switches::{CaptureEnd, CardInfo, Networks, PortChange, PortInfo, PortName, SwitchInfo};
use super::system::{Pending, SystemError};
use crate::net::capture::Capture;
use crate::vm::description::NetworkDescription;
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::future::ready;
use vmbus::protocol::network::Mac;
use vsp::network::Frame;
use vsp::network::wire::Tap;
use vsp::switch::port::{PortId, PortSettings};
use vsp::switch::{Ingress, Kind, Switch};

impl FakeMachines {
    fn known(&self, name: &PortName) -> Result<(), SystemError> {
        let known = match name {
            PortName::Card(machine, index) => matches!(machine.as_str(), "web" | "db") && *index == 0,
            PortName::Port(switch, port) => switch == "default" && port.0 < 3,
        };
        match known {
            true => Ok(()),
            false => Err(SystemError::new(format!("there is no port {name}"))),
        }
    }
}

impl Networks for FakeMachines {
    fn switches(&self) -> Vec<SwitchInfo> {
        let mut switch = Switch::new(Kind::Internal);
        let (web, db) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let mut from = None;
        for settings in [
            PortSettings::guest(web),
            PortSettings::guest(db),
            PortSettings::host(Mac([2, 0, 0, 0, 0, 3])),
        ] {
            from = from.or(switch.attach(settings).ok());
        }
        let frame = [[2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]].concat();
        let frame = [frame, vec![0; 48]].concat();
        let mut out = Vec::new();
        let ingress = Ingress {
            port: from.unwrap(),
            bytes: &frame,
            length: frame.len(),
            tag: None,
            now: 0,
        };
        switch.forward(&ingress, &mut out);
        let ports = switch.ports().map(|(id, port)| PortInfo {
            id,
            port: port.clone(),
            card: ["web", "db"].get(usize::from(id.0)).map(|machine| CardInfo {
                machine: (*machine).into(),
                index: 0,
                link: true,
                channels: 2,
                mtu: 1500,
                refused: 0,
            }),
        });
        vec![SwitchInfo {
            name: "default".into(),
            kind: Kind::Internal,
            ports: ports.collect(),
            learned: 1,
            mirror: None,
        }]
    }

    fn create_switch(&self, name: &str, _: Kind) -> Result<(), SystemError> {
        match name {
            "default" => Err(SystemError::new("there is a switch 'default' already")),
            _ => Ok(()),
        }
    }

    fn delete_switch(&self, name: &str) -> Result<(), SystemError> {
        Err(SystemError::new(format!("switch '{name}' has 3 ports in use")))
    }

    fn change_port(&self, port: &PortName, change: PortChange) -> Result<(), SystemError> {
        self.known(port)?;
        self.changes.lock().push((port.clone(), change));
        Ok(())
    }

    fn attach_card(&self, _: &str, card: &NetworkDescription) -> Result<usize, SystemError> {
        self.cards.lock().push(card.clone());
        Ok(1)
    }

    fn detach_card<'a>(&'a self, machine: &'a str, index: usize) -> Pending<'a, Result<(), SystemError>> {
        Box::pin(ready(self.known(&PortName::Card(machine.into(), index))))
    }

    fn capture(&self, port: &PortName, capture: Arc<Capture>) -> Result<CaptureEnd, SystemError> {
        self.known(port)?;
        for _ in 0..2 {
            capture.see(PortId(0), &Frame::of_bytes(&[7; 60]), 10);
        }
        Ok(Box::new(()))
    }

    fn time_base(&self) -> u64 {
        0
    }
}
