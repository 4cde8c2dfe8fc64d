//! Waiting for other processors: until none uses a translation that was taken away, until none holds what was taken out
//! of a table.
//!
//! A processor's epoch is odd while it runs a guest or sleeps. Then it holds nothing of the hypervisor's, and whatever it
//! does next it will find as it is now. A processor that waits here runs no guest, so two that wait do not wait for each
//! other's guests; deletions take turns so that they do not wait for each other either.

use super::interrupts;
use super::local::Processor;
use core::sync::atomic::Ordering;

fn others() -> impl Iterator<Item = &'static Processor> {
    let own = Processor::current().index;
    Processor::all().filter(move |processor| processor.index != own)
}

/// Returns when no other processor runs a guest that has been running since before this call: translations that were taken
/// away before are used by nobody.
pub fn stop_guests() {
    for processor in others() {
        let epoch = processor.guest_epoch.load(Ordering::SeqCst);
        // One that sleeps uses no translations, and before it runs a guest it looks whether memory has changed.
        if epoch % 2 == 1 && !processor.sleeping.load(Ordering::SeqCst) {
            interrupts::poke(processor);
            while processor.guest_epoch.load(Ordering::SeqCst) == epoch {
                core::hint::spin_loop();
            }
        }
    }
}

/// Returns when every other processor has left the hypervisor since this call, or runs a guest or sleeps: what was taken
/// out of a table before is held by nobody.
pub fn leave_hypervisor() {
    for processor in others() {
        let epoch = processor.guest_epoch.load(Ordering::SeqCst);
        if epoch.is_multiple_of(2) {
            while processor.guest_epoch.load(Ordering::SeqCst) == epoch {
                core::hint::spin_loop();
            }
        }
    }
}
