//! What the driver needs of the world, so that its logic runs on the host as well, against a controller made of memory.

use crate::drivers::pci::device::Device;
use core::future::Future;

/// A controller's registers, and the machine around it.
pub trait Hardware: Device {
    /// The time, in 100 ns.
    fn now(&self) -> u64;

    /// Completes after `ticks` times 100 ns.
    fn sleep(&self, ticks: u64) -> impl Future<Output = ()> + Send;

    /// The running processor, counted from 0.
    fn processor(&self) -> usize;
}

/// 100 ns in a millisecond.
pub const MILLISECOND: u64 = 10_000;
/// 100 ns in a second.
pub const SECOND: u64 = 1000 * MILLISECOND;
