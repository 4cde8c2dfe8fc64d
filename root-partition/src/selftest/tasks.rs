//! The executor on all processors: tasks, timers, and wake-ups across processors, none of which may be lost.

use super::Outcome;
use crate::executor;
use crate::processor::{self, local};
use alloc::format;
use alloc::sync::Arc;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::channel::Channel;
use embassy_time::{Duration, TimeoutError, Timer, with_timeout};

/// How long a task sleeps to show that timers work.
const SLEEP: Duration = Duration::from_millis(2);
/// How long a processor may take before it counts as dead.
const PATIENCE: Duration = Duration::from_secs(60);
/// Messages there and back.
const ROUNDS: u32 = 200;

type Mailbox = Channel<CriticalSectionRawMutex, u32, 1>;

/// Runs a task on each processor that sleeps there, which takes an inter-processor interrupt and the processor's own timer.
pub(super) async fn on_each_processor() -> Outcome {
    let all = processor::local::all();
    for expected in all {
        let task = executor::spawn_on(expected.vp, async {
            let before = local().vp;
            Timer::after(SLEEP).await;
            (before, local().vp)
        });
        match with_timeout(PATIENCE, task).await {
            Ok(seen) if seen == (expected.vp, expected.vp) => {}
            Ok(seen) => return Err(format!("a task of VP {} ran on VPs {seen:?}", expected.vp)),
            Err(TimeoutError) => {
                let patience = PATIENCE.as_secs();
                return Err(format!(
                    "VP {} did not run a task within {patience} s",
                    expected.vp
                ));
            }
        }
    }
    Ok(format!("every VP runs tasks and timers: {} of {0}", all.len()))
}

/// Sends messages between a task of the first and one of the last processor; each sleeps until the other's message comes.
pub(super) async fn ping_pong() -> Outcome {
    let last = processor::local::all().last().map_or(0, |last| last.vp);
    let there = Arc::new(Mailbox::new());
    let back = Arc::new(Mailbox::new());
    let echo = {
        let (there, back) = (there.clone(), back.clone());
        executor::spawn_on(last, async move {
            for _ in 0..ROUNDS {
                back.send(there.receive().await).await;
            }
        })
    };
    let ping = executor::spawn_on(0, async move {
        for round in 0..ROUNDS {
            there.send(round).await;
            if back.receive().await != round {
                return Err(round);
            }
        }
        Ok(())
    });
    let patience = PATIENCE.as_secs();
    match with_timeout(PATIENCE, ping).await {
        Ok(Ok(())) => {}
        Ok(Err(round)) => return Err(format!("message {round} came back changed")),
        Err(TimeoutError) => return Err(format!("a wake-up was lost: nothing came within {patience} s")),
    }
    echo.await;
    Ok(format!("{ROUNDS} messages went from VP 0 to VP {last} and back"))
}
