//! Virtual machines for tests of the shell: `web` runs, `db` has crashed, `mail` is described.

use alloc::{
    boxed::Box,
    string::{String, ToString},
    vec::Vec,
};
use core::{
    future::ready,
    task::{Context, Poll},
    time::Duration,
};

use hypercall_api::counter::{COUNTERS, EXIT_BASE, TOTAL_RUN_TIME};
use hypercall_api::processor::SegmentRegister;
use hypercall_api::register::{RegisterName, RegisterValue};
use spin::Mutex;

use crate::vm::description::{DiskDescription, NetworkDescription};

use super::{
    machines::{
        ChannelInfo, Fill, MachineEvent, MachineInfo, MachineState, Machines, OpenChannel, Order, UnitInfo,
        VpStatistics,
    },
    switches::{PortChange, PortName},
    system::{Pending, SystemError},
};

#[derive(Default)]
pub(crate) struct FakeMachines {
    pub(crate) orders: Mutex<Vec<(String, Order)>>,
    pub(crate) typed: Mutex<Vec<u8>>,
    /// `web` is off once this many bytes were typed on its console.
    pub(crate) ends_after: usize,
    /// Disks that were attached.
    pub(crate) attached: Mutex<Vec<DiskDescription>>,
    /// Changes of ports.
    pub(crate) changes: Mutex<Vec<(PortName, PortChange)>>,
    /// Network cards that were attached.
    pub(crate) cards: Mutex<Vec<NetworkDescription>>,
    /// Media that were put in drives, or taken out.
    pub(crate) media: Mutex<Vec<(u8, Option<String>)>>,
}

const CONSOLE: &[u8] = b"web: up\r\n\x1b[1mready\x1b[m\n";

fn machine(name: &str, state: MachineState) -> MachineInfo {
    MachineInfo {
        name: name.to_string(),
        state,
        since: Duration::from_secs(62),
        processors: 2,
        memory: 64 << 20,
        kernel: "kernels/web".into(),
        modules: alloc::vec!["disks/web.img".into()],
        command_line: "quiet".into(),
        console: "com1",
        weight: 100,
        cap: Some(50),
        reserve: 0,
        partition: Some(0x202),
        kept: Some(40 << 10),
        starts: 1,
        disks: alloc::vec![UnitInfo {
            lun: 0,
            source: Some("nvme0".into()),
            kind: "disk",
            read_only: false,
        }],
        heartbeat: Some("alive".into()),
        guest: alloc::vec![("OSName".into(), "Debian".into())],
    }
}

impl Machines for FakeMachines {
    fn list(&self) -> Vec<MachineInfo> {
        let off = self.ends_after != 0 && self.typed.lock().len() >= self.ends_after;
        let web = if off {
            MachineState::Off
        } else {
            MachineState::Running
        };
        alloc::vec![machine("db", MachineState::Crashed), machine("web", web)]
    }

    fn show(&self, name: &str) -> Result<MachineInfo, SystemError> {
        let mut machines = self.list().into_iter();
        let found = machines.find(|machine| machine.name == name);
        found.ok_or_else(|| SystemError::new(alloc::format!("there is no virtual machine '{name}'")))
    }

    fn descriptions(&self) -> Vec<String> {
        alloc::vec!["mail".into(), "web".into()]
    }

    fn create(&self, description: &str, name: Option<&str>) -> Result<String, SystemError> {
        Ok(name.unwrap_or(description).to_string())
    }

    fn attach<'a>(
        &'a self,
        name: &'a str,
        disk: &'a DiskDescription,
        lun: Option<u8>,
    ) -> Pending<'a, Result<u8, SystemError>> {
        let result = self.show(name).map(|_| {
            self.attached.lock().push(disk.clone());
            lun.unwrap_or(1)
        });
        Box::pin(ready(result))
    }

    fn detach(&self, name: &str, lun: u8) -> Result<(), SystemError> {
        self.show(name)?;
        match lun {
            0 => Ok(()),
            _ => Err(SystemError::new(alloc::format!("there is no unit {lun}"))),
        }
    }

    fn insert<'a>(&'a self, name: &'a str, lun: u8, source: &'a str) -> Pending<'a, Result<(), SystemError>> {
        let result = self.show(name).map(|_| {
            self.media.lock().push((lun, Some(source.to_string())));
        });
        Box::pin(ready(result))
    }

    fn eject(&self, name: &str, lun: u8) -> Result<(), SystemError> {
        self.show(name)?;
        self.media.lock().push((lun, None));
        Ok(())
    }

    fn order<'a>(&'a self, name: &'a str, order: Order) -> Pending<'a, Result<(), SystemError>> {
        let result = self
            .show(name)
            .map(|_| self.orders.lock().push((name.into(), order)));
        Box::pin(ready(result))
    }

    fn wait<'a>(
        &'a self,
        name: &'a str,
        _: &'a [MachineState],
    ) -> Pending<'a, Result<MachineState, SystemError>> {
        let state = self.show(name).map(|machine| match machine.state {
            MachineState::Running => MachineState::Off,
            state => state,
        });
        Box::pin(ready(state))
    }

    fn console(&self, name: &str, position: u64) -> Result<(u64, Vec<u8>), SystemError> {
        self.show(name)?;
        let bytes = CONSOLE.iter().skip(position as usize).take(5);
        Ok((position, bytes.copied().collect()))
    }

    fn poll_console(&self, name: &str, position: u64, _: &mut Context<'_>) -> Poll<()> {
        let running = self
            .show(name)
            .is_ok_and(|machine| machine.state == MachineState::Running);
        match position < CONSOLE.len() as u64 || !running {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn type_in(&self, _: &str, bytes: &[u8]) -> Result<(), SystemError> {
        self.typed.lock().extend(bytes);
        Ok(())
    }

    fn log(&self, name: &str) -> Result<Vec<MachineEvent>, SystemError> {
        self.show(name)?;
        let event = |millis, text: &str| MachineEvent {
            time: Duration::from_millis(millis),
            text: text.to_string(),
        };
        Ok(alloc::vec![
            event(1_500, "starting"),
            event(2_000, "crashed: triple fault of VP 1")
        ])
    }

    fn registers(&self, name: &str, vp: u32) -> Result<Vec<(RegisterName, RegisterValue)>, SystemError> {
        self.show(name)?;
        let code = SegmentRegister {
            base: 0,
            limit: u32::MAX,
            selector: 8,
            attributes: 0xa09b,
        };
        Ok(alloc::vec![
            (RegisterName::RAX, (0x1234 + u64::from(vp)).into()),
            (RegisterName::XMM0, (1u128 << 100).into()),
            (RegisterName::CS, code.into()),
        ])
    }

    fn channels(&self, name: &str) -> Result<Vec<ChannelInfo>, SystemError> {
        self.show(name)?;
        let channel = |relid, state, open| ChannelInfo {
            relid,
            device: "echo".into(),
            instance: "70617274-6974-6100-8000-6563686f0001".into(),
            backend: String::new(),
            sub_channel: 0,
            state,
            open,
        };
        let open = OpenChannel {
            vp: 1,
            root_vp: 0,
            fill: Some([
                Fill {
                    used: 4096,
                    size: 16384,
                },
                Fill { used: 0, size: 8192 },
            ]),
            received: 12,
            sent: 11,
            wakes: 5,
            signals: 4,
        };
        Ok(alloc::vec![
            channel(Some(1), "open", Some(open)),
            channel(None, "waiting", None),
        ])
    }

    fn statistics(&self, name: &str) -> Result<Vec<VpStatistics>, SystemError> {
        self.show(name)?;
        let mut counters = Box::new([0; COUNTERS]);
        counters[TOTAL_RUN_TIME] = 1000;
        counters[EXIT_BASE + 4] = 7;
        Ok(alloc::vec![VpStatistics {
            vp: 0,
            intercepts: 7,
            counters,
        }])
    }

    fn memory(&self, name: &str, address: u64, length: usize) -> Result<Vec<u8>, SystemError> {
        self.show(name)?;
        Ok((0..length)
            .map(|index| (address as usize + index) as u8)
            .collect())
    }
}
