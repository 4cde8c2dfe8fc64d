//! Hyper-V's interface, as a guest uses it.
//!
//! | module | holds |
//! |---|---|
//! | [`detect`] | whether there is one, and what it offers |
//! | [`hypercall_page`] | hypercalls |
//! | [`synic`] | messages and event flags |
//! | [`time`] | the reference time |
//! | [`timer`] | synthetic timers |

pub mod detect;
pub mod hypercall_page;
pub mod synic;
pub mod time;
pub mod timer;

pub use hypercall_page::HypercallPage;

use crate::processor::instruction::read_msr;
use core::sync::atomic::{AtomicBool, Ordering};
use hypercall_api::id::VpIndex;
use hypercall_api::msr;

static READY: AtomicBool = AtomicBool::new(false);

/// Establishes the interface: hypercall page, reference time, and the SynIC of this processor. `None` where there is no
/// hypervisor. Processors that are started afterwards turn their SynIC on by themselves.
pub fn init() -> Option<HypercallPage> {
    let offer = detect::find()?;
    let hypercalls = hypercall_page::init();
    time::init(offer);
    READY.store(true, Ordering::Release);
    init_processor();
    Some(hypercalls)
}

/// What each processor does for itself.
pub(crate) fn init_processor() {
    if READY.load(Ordering::Acquire) {
        synic::enable();
    }
}

/// The index of the running VP.
pub fn vp_index() -> VpIndex {
    VpIndex(read_msr(msr::VP_INDEX) as u32)
}
