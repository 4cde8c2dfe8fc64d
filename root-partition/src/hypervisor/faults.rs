//! What devices tried and were refused, as the hypervisor tells of it: written into the root's log, and told to whoever sits at
//! the shell where a device begins to, and where it is silenced.

use super::hypercalls;
use crate::drivers::pci::Address;
use crate::vm::signal::Signal;
use alloc::collections::BTreeSet;
use embassy_time::{Duration, Timer};
use hypercall_api::call::DeviceCalls;
use hypercall_api::operator::{
    DmaDeviceState, DmaFault, IommuState, MAX_DMA_DEVICES, MAX_DMA_FAULTS, fault_reason,
};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// Faults of a look that are written down one by one.
const MOST: usize = 8;

static NEWS: Signal = Signal::new();

/// The hypervisor has something to tell.
pub(super) fn told() {
    NEWS.raise();
}

const fn address(segment: u16, rid: u16) -> Address {
    Address {
        segment,
        bus: (rid >> 8) as u8,
        slot: rid as u8,
    }
}

/// What was told before.
#[derive(Default)]
struct Watch {
    /// Faults since the start.
    count: u64,
    /// Devices that have had one.
    faulty: BTreeSet<Address>,
    /// Devices that are silenced.
    silenced: BTreeSet<Address>,
}

/// Writes down what there is to tell, for good.
pub async fn watch() {
    let mut watch = Watch::default();
    loop {
        NEWS.wait().await;
        match hypercalls().query_iommu() {
            Ok(state) => watch.look(&state),
            Err(status) => log::warn!("the IOMMU's faults cannot be read: {status}"),
        }
        Timer::after(PAUSE).await;
    }
}

impl Watch {
    fn look(&mut self, state: &IommuState) {
        let new = state.fault_count.saturating_sub(self.count);
        self.count = state.fault_count;
        let kept = (state.faults_kept as usize).min(MAX_DMA_FAULTS);
        let told = kept.min(MOST).min(usize::try_from(new).unwrap_or(MOST));
        for fault in &state.faults[kept - told..kept] {
            self.tell(fault);
        }
        if new > told as u64 {
            log::info!("{} more accesses of devices were refused", new - told as u64);
        }
        let known = (state.device_count as usize).min(MAX_DMA_DEVICES);
        let silenced = state.devices[..known]
            .iter()
            .filter(|device| device.state == DmaDeviceState::SILENCED);
        let silenced: BTreeSet<Address> = silenced
            .map(|device| address(device.segment, device.rid))
            .collect();
        for device in silenced.difference(&self.silenced) {
            log::error!("device {device} was refused too often: it is silenced until it is attached again");
        }
        self.silenced = silenced;
    }

    fn tell(&mut self, fault: &DmaFault) {
        let device = address(fault.segment, fault.rid);
        let reason = fault_reason(fault.reason);
        let what = match (fault.reason >= 0x20, fault.is_read != 0) {
            (true, _) => "raise interrupt entry",
            (false, true) => "read",
            (false, false) => "write",
        };
        let place = fault.address;
        match self.faulty.insert(device) {
            true => log::warn!(
                "device {device} tried to {what} {place:#x}, refused: {reason}; 'hv iommu faults' lists what follows"
            ),
            false => log::info!("device {device} tried to {what} {place:#x}, refused: {reason}"),
        }
    }
}
