//! Run queues and spawning.

use crate::interrupt::WAKE_VECTOR;
use crate::processor::{self, Local, apic, local};
use async_task::{Runnable, Task};
use core::future::Future;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use crossbeam_queue::SegQueue;

static TASKS: AtomicU64 = AtomicU64::new(0);
static NEXT_VP: AtomicUsize = AtomicUsize::new(0);

/// Tasks of one processor that are ready to run.
#[derive(Default)]
pub struct RunQueue(SegQueue<Runnable>);

impl RunQueue {
    /// An empty queue.
    pub const fn new() -> Self {
        Self(SegQueue::new())
    }

    /// Whether no task is ready.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Runs the task that waits longest, and says whether there was one.
    pub fn run_one(&self) -> bool {
        let Some(task) = self.0.pop() else {
            return false;
        };
        task.run();
        true
    }
}

/// Starts `future` as a task of the next processor that runs, each in turn.
pub fn spawn<F>(future: F) -> Task<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let all = processor::local::all();
    let start = NEXT_VP.fetch_add(1, Ordering::Relaxed);
    let target = (0..all.len())
        .map(|step| all[(start + step) % all.len()])
        .find(|target| target.running.load(Ordering::Acquire))
        .unwrap_or_else(local);
    start_task(future, target)
}

/// Starts `future` as a task of VP `vp`; of this one where that does not run.
pub fn spawn_on<F>(vp: u32, future: F) -> Task<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let target = processor::local::all()
        .get(vp as usize)
        .filter(|target| target.running.load(Ordering::Acquire));
    start_task(future, target.copied().unwrap_or_else(local))
}

/// Tasks that have been spawned and have not ended.
pub fn task_count() -> u64 {
    TASKS.load(Ordering::Relaxed)
}

/// Starts `future` as a task of the processor `target`.
pub(super) fn start_task<F>(future: F, target: &'static Local) -> Task<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let counted = Counted::new();
    let future = async move {
        let _counted = counted;
        future.await
    };
    let (runnable, task) = async_task::spawn(future, move |runnable| make_ready(runnable, target));
    runnable.schedule();
    task
}

fn make_ready(task: Runnable, target: &'static Local) {
    target.queue.0.push(task);
    // Pairs with the sleeper, which announces itself first and looks into its queue afterwards: one of the two sees the other.
    fence(Ordering::SeqCst);
    if target.idle.load(Ordering::SeqCst)
        && target.vp != local().vp
        && target.idle.swap(false, Ordering::SeqCst)
    {
        apic::send(target.apic_id.load(Ordering::Acquire), WAKE_VECTOR);
    }
}

/// Counts a task while it lives.
struct Counted;

impl Counted {
    fn new() -> Self {
        TASKS.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        TASKS.fetch_sub(1, Ordering::Relaxed);
    }
}
