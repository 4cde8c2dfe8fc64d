//! Asynchronous tasks: allocated on the heap, one run queue a processor, no preemption.
//!
//! A task belongs to one processor, named when it is spawned; its waker puts it into that processor's queue and, where the
//! processor sleeps, wakes it by an inter-processor interrupt. Tasks end by returning, or when their [`Task`] is dropped.
//!
//! | module | holds |
//! |---|---|
//! | [`critical_section`] | the critical section that embassy's crates need |
//! | [`local_task`] | tasks that stay on their processor |
//! | [`queue`] | run queues and spawning |
//! | [`timer`] | `embassy-time` on synthetic timer 0 |

mod critical_section;
mod local_task;
pub mod queue;
pub mod timer;

use crate::interrupt;
use crate::processor::local;
use core::sync::atomic::Ordering;

pub use async_task::Task;
pub use local_task::{spawn_here, spawn_local};
pub use queue::{spawn, spawn_on, task_count};

/// Tasks that run before the loop looks at interrupts again.
const BATCH: usize = 32;

/// Runs the tasks of this processor, for good.
pub fn run() -> ! {
    let local = local();
    x86_64::instructions::interrupts::enable();
    loop {
        interrupt::dispatch(local);
        let ran = (0..BATCH).take_while(|_| local.queue.run_one()).count();
        if ran > 0 {
            continue;
        }
        // From here on a wake-up must send an interrupt. Work that came before is seen by the check, and an interrupt that
        // comes after it stays pending until `sti` lets it end the `hlt`.
        x86_64::instructions::interrupts::disable();
        local.idle.store(true, Ordering::SeqCst);
        if local.queue.is_empty() && !local.has_pending() {
            x86_64::instructions::interrupts::enable_and_hlt();
        } else {
            x86_64::instructions::interrupts::enable();
        }
        local.idle.store(false, Ordering::SeqCst);
    }
}
