//! The root's side of the hypervisor: finding it, calling it, and the pages it shares.
//!
//! | module | holds |
//! |---|---|
//! | [`detect`] | the CPUID leaves |
//! | [`faults`] | what devices tried and were refused |
//! | [`hypercall_page`] | the page that makes the calls |
//! | [`messages`] | what the hypervisor tells about children |
//! | [`page_msr`] | pages that are agreed on by an MSR |
//! | [`parameters`] | pages for a call's input and output |
//! | [`ports`] | messages and events of children |
//! | `slot` | a message slot |
//! | [`statistics`] | the VPs' counters |
//! | [`synthetic_timer`] | synthetic timer 0 of each VP |
//! | [`time`] | the reference time |

pub mod detect;
pub mod faults;
pub mod hypercall_page;
pub mod messages;
mod page_msr;
pub mod parameters;
pub mod ports;
mod slot;
pub mod statistics;
pub mod synthetic_timer;
pub mod time;

use crate::memory::paging::{Access, PagingError};
use crate::processor::local;
use core::sync::atomic::Ordering;
use hypercall_api::msr;

pub use hypercall_page::{HypercallPage, hypercalls};

/// Prepares what the machine has once: hypercall page and reference time.
pub fn init() -> Result<(), PagingError> {
    hypercall_page::init()?;
    time::init()
}

/// Prepares what each processor has: VP assist page, SynIC and timer. Runs on the processor itself.
pub fn init_processor() -> Result<(), PagingError> {
    page_msr::enable(msr::VP_ASSIST_PAGE, Access::DATA)?;
    let events = page_msr::enable(msr::SIEFP, Access::DATA)?;
    local().event_page.store(events, Ordering::Relaxed);
    let messages = page_msr::enable(msr::SIMP, Access::DATA)?;
    local().message_page.store(messages, Ordering::Relaxed);
    page_msr::enable_synic();
    messages::init();
    ports::init();
    synthetic_timer::init();
    Ok(())
}
