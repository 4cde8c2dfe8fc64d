//! What the driver needs of the world, so that its logic runs on the host as well, against a card made of memory.

use core::future::Future;

/// A card's registers, and the machine around it.
pub trait Hardware: Send + Sync + 'static {
    /// Bytes of the register window.
    fn window(&self) -> u64;

    /// Reads the 32-bit register at `offset`, inside the window and aligned.
    fn read(&self, offset: u64) -> u32;

    /// Writes the 32-bit register at `offset`, inside the window and aligned.
    fn write(&self, offset: u64, value: u32);

    /// Keeps the card from memory for good, whatever it does.
    fn cut_off(&self);

    /// Completes after a millisecond.
    fn sleep_a_millisecond(&self) -> impl Future<Output = ()> + Send;
}
