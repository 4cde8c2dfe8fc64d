//! A system and a terminal for tests.

use alloc::{
    boxed::Box,
    collections::VecDeque,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use hypercall_api::{
    counter::{EXIT_BASE, HYPERCALLS, TOTAL_RUN_TIME},
    id::PartitionId,
    operator::{
        DmaDevice, DmaDeviceState, DmaFault, HardwareSupport, IommuFlags, IommuInfo, IommuState, SystemInfo,
        VIRTUALIZATION_SVM,
    },
};
use spin::Mutex;
use zerocopy::FromZeros;

use super::{
    disks::Disks,
    fake_disks::FakeDisks,
    fake_machines::FakeMachines,
    fake_network::FakeNetwork,
    machines::Machines,
    network::RootNetwork,
    system::{
        LogText, Measurement, Named, PciDevice, Pending, RootInfo, Selftest, Statistics, System, SystemError,
    },
    terminal::Terminal,
};

/// In a script: nothing is there for one poll.
pub(crate) const PAUSE: u8 = 0xff;
/// In a script: the input ends.
pub(crate) const END: u8 = 0xfe;

/// A terminal that types a script; what was written can be read.
#[derive(Clone, Default)]
pub(crate) struct FakeTerminal {
    input: Arc<Mutex<VecDeque<u8>>>,
    output: Arc<Mutex<Vec<u8>>>,
}

impl FakeTerminal {
    pub(crate) fn typing(script: &[u8]) -> Self {
        let terminal = Self::default();
        terminal.input.lock().extend(script);
        terminal
    }

    pub(crate) fn output(&self) -> String {
        String::from_utf8(self.output.lock().clone()).expect("the shell writes UTF-8")
    }
}

impl Terminal for FakeTerminal {
    fn poll_read(&mut self, _: &mut Context<'_>) -> Poll<Option<u8>> {
        match self.input.lock().pop_front() {
            None | Some(PAUSE) => Poll::Pending,
            Some(END) => Poll::Ready(None),
            Some(byte) => Poll::Ready(Some(byte)),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.output.lock().extend_from_slice(bytes);
    }
}

/// Polls once, without anybody to wake.
pub(crate) fn now<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs a future to its end. Fails the test when it seems to have none.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..10_000 {
        if let Poll::Ready(value) = now(|context| future.as_mut().poll(context)) {
            return value;
        }
    }
    panic!("the future waits for something that does not come");
}

/// QEMU's default machine, as Partita would find it.
pub(crate) struct FakeSystem {
    pub(crate) information: Result<SystemInfo, SystemError>,
    pub(crate) iommu: IommuState,
    pub(crate) log: Vec<u8>,
    /// Where the oldest byte of `log` is.
    pub(crate) log_start: u64,
    pub(crate) notices: Mutex<VecDeque<String>>,
    pub(crate) power: Result<(), SystemError>,
    pub(crate) calls: Mutex<Vec<&'static str>>,
    pub(crate) machines: FakeMachines,
    pub(crate) disks: FakeDisks,
}

impl FakeSystem {
    pub(crate) fn new() -> Self {
        Self {
            information: Ok(information()),
            iommu: iommu(),
            log: b"[0.000] hypervisor 0.1.0\n[0.012] 2 LPs\n".to_vec(),
            log_start: 0,
            notices: Mutex::default(),
            power: Ok(()),
            calls: Mutex::default(),
            machines: FakeMachines::default(),
            disks: FakeDisks::default(),
        }
    }
}

/// The edu device at 0:3.0 has tried to write to the hypervisor.
fn iommu() -> IommuState {
    let mut state = IommuState::new_zeroed();
    let flags = IommuFlags::TRANSLATES | IommuFlags::REMAPS_INTERRUPTS | IommuFlags::EXTENDED_INTERRUPTS;
    (state.flags, state.levels, state.address_bits) = (flags.bits(), 4, 48);
    state.largest_page = 1 << 30;
    (state.domains, state.interrupts, state.interrupt_entries) = (1, 3, 512);
    (state.device_count, state.fault_count, state.faults_kept) = (1, 1, 1);
    state.faults[0] = DmaFault {
        time: 12_345_678,
        address: 0x20_0000,
        segment: 0,
        rid: 0x18,
        reason: 5,
        is_read: 0,
        reserved: [0; 2],
    };
    state.devices[0] = DmaDevice {
        owner: PartitionId(1),
        segment: 0,
        rid: 0x18,
        domain: 1,
        state: DmaDeviceState::ATTACHED,
        faults: 1,
    };
    state
}

fn information() -> SystemInfo {
    let hardware = HardwareSupport::NESTED_PAGING
        | HardwareSupport::X2APIC
        | HardwareSupport::GIB_PAGES
        | HardwareSupport::XSAVE
        | HardwareSupport::IOMMU
        | HardwareSupport::INTERRUPT_REMAPPING
        | HardwareSupport::EXTENDED_INTERRUPT_MODE
        | HardwareSupport::QUEUED_INVALIDATION
        | HardwareSupport::ECAM;
    let mut system = SystemInfo::new_zeroed();
    system.version = [0, 1, 0, 0];
    system.cpu_vendor = *b"AuthenticAMD";
    system.cpu_brand[..17].copy_from_slice(b"QEMU TCG CPU v2.5");
    system.virtualization = VIRTUALIZATION_SVM;
    system.lp_count = 2;
    system.lp_present = 2;
    system.memory_total = 2 << 30;
    system.memory_hypervisor = 16 << 20;
    system.memory_hypervisor_free = 12 << 20;
    system.memory_root = (2 << 30) - (16 << 20);
    system.hardware = hardware.bits();
    system.tsc_frequency = 2_000_000_000;
    system.apic_frequency = 1_000_000_000;
    system.tsc_at_entry = 1_000_000;
    system.tsc_at_root = 25_000_000;
    system.physical_address_bits = 40;
    system.iommu_count = 1;
    system.dmar_flags = 1;
    system.iommu[0] = IommuInfo {
        register_base: 0xfed9_0000,
        capability: 0xd2_008c_222f_0606,
        extended_capability: 0xf00f5a,
        segment: 0,
        include_all: 1,
        version: 0x10,
    };
    system
}

impl System for FakeSystem {
    fn information(&self) -> Result<SystemInfo, SystemError> {
        self.information.clone()
    }

    fn iommu(&self) -> Result<Box<IommuState>, SystemError> {
        Ok(Box::new(self.iommu))
    }

    fn hypervisor_log(&self, position: u64) -> Result<LogText, SystemError> {
        let position = position.max(self.log_start);
        let start = usize::try_from(position - self.log_start).expect("is small");
        // Seven bytes a piece: lines and characters are cut.
        let text: Vec<u8> = self.log.iter().skip(start).take(7).copied().collect();
        Ok(LogText {
            position,
            next: position + text.len() as u64,
            text,
        })
    }

    fn root_log(&self, position: u64) -> LogText {
        let text = if position == 0 {
            b"root up".to_vec()
        } else {
            Vec::new()
        };
        LogText {
            position,
            next: position + text.len() as u64,
            text,
        }
    }

    fn vp_count(&self) -> u32 {
        2
    }

    fn statistics(&self, vp: u32) -> Result<Box<Statistics>, SystemError> {
        let mut page = [0; hypercall_api::counter::COUNTERS];
        page[TOTAL_RUN_TIME] = 123_456;
        page[HYPERCALLS] = 40 + u64::from(vp);
        page[EXIT_BASE] = 10;
        page[EXIT_BASE + 1] = 40 + u64::from(vp);
        Ok(Box::new(page))
    }

    fn pci_devices(&self) -> Vec<PciDevice> {
        let device = |device, vendor_id, device_id, class, driver: Option<&str>| PciDevice {
            segment: 0,
            bus: 0,
            device,
            function: 0,
            vendor_id,
            device_id,
            class,
            driver: driver.map(str::to_string),
            machine: None,
        };
        alloc::vec![
            device(0, 0x8086, 0x29c0, [6, 0, 0], None),
            device(2, 0x1b36, 0x0010, [1, 8, 2], Some("nvme")),
        ]
    }

    fn root(&self) -> RootInfo {
        RootInfo {
            heap_total: 64 << 20,
            memory_free: 1 << 30,
            pool_free: 0,
            pool_used: 8192,
            heap_used: 123_456,
            tasks: 3,
            gpadls: 2,
            uptime: Duration::from_millis(12_345),
            unix_time: Some(1_795_278_606),
            tsc_at_prompt: 0,
        }
    }

    fn benchmarks(&self) -> Vec<Named> {
        alloc::vec![
            Named {
                name: "cpuid",
                description: "CPUID, handled by the hypervisor",
            },
            Named {
                name: "endless",
                description: "never ends",
            },
        ]
    }

    fn run_benchmark<'a>(&'a self, name: &'a str) -> Pending<'a, Result<Measurement, SystemError>> {
        if name == "endless" {
            return Box::pin(core::future::pending());
        }
        Box::pin(core::future::ready(Ok(Measurement {
            rounds: 1000,
            minimum: 321,
            median: 333,
        })))
    }

    fn selftests(&self) -> Vec<Selftest> {
        let test = |name, description, ends_system| Selftest {
            name,
            description,
            ends_system,
        };
        alloc::vec![
            test("apic-page", "Write to the local APIC's page", false),
            test("iommu-registers", "Read the IOMMU's registers", false),
            test("triple-fault", "Fault without an IDT", true),
        ]
    }

    fn run_selftest<'a>(&'a self, name: &'a str) -> Pending<'a, Result<String, SystemError>> {
        Box::pin(core::future::ready(match name {
            "apic-page" => Ok("#GP".to_string()),
            "iommu-registers" => Err(SystemError::new("read 0x10 where all ones were expected")),
            _ => panic!("{name} ends the system"),
        }))
    }

    fn sleep(&self, _: Duration) -> Pending<'_, ()> {
        let mut slept = false;
        Box::pin(core::future::poll_fn(move |_| {
            if core::mem::replace(&mut slept, true) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }))
    }

    fn power_off(&self) -> Result<(), SystemError> {
        self.calls.lock().push("power_off");
        self.power.clone()
    }

    fn reboot(&self) -> Result<(), SystemError> {
        self.calls.lock().push("reboot");
        self.power.clone()
    }

    fn machines(&self) -> Option<&dyn Machines> {
        Some(&self.machines)
    }

    fn disks(&self) -> Option<&dyn Disks> {
        Some(&self.disks)
    }

    fn network(&self) -> Option<&dyn RootNetwork> {
        Some(&FakeNetwork)
    }

    fn poll_notice(&self, _: &mut Context<'_>) -> Poll<String> {
        self.notices.lock().pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
