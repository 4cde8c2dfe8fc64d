//! The 16550 UART: output polled, input by interrupt into a queue. An interrupt that does not come costs only speed, as
//! the queue is also filled every now and then.
#![allow(unsafe_code)]

use crate::interrupt::Interrupt;
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use core::task::{Context, Poll};
use crossbeam_queue::ArrayQueue;
use embassy_futures::select::{Either, select};
use embassy_sync::waitqueue::AtomicWaker;
use embassy_time::{Duration, Timer};
use spin::Once;
use x86_64::instructions::port::Port;

const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const SCRATCH: u16 = 7;

const LINE_DATA_READY: u8 = 1 << 0;
const LINE_HOLDING_EMPTY: u8 = 1 << 5;
const LINE_IDLE: u8 = 1 << 6;
/// Bytes that the transmit FIFO takes once it is empty.
const FIFO_DEPTH: usize = 16;
/// Polls of the line status before output is given up; at a microsecond each, far longer than a byte takes.
const PATIENCE: u32 = 200_000;
/// Bytes of input that are kept.
const QUEUE: usize = 1024;
/// How often the queue is filled where interrupts do not come.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How often it is filled where they do, in case one was lost.
const SAFETY_INTERVAL: Duration = Duration::from_secs(1);

static BASE: AtomicU16 = AtomicU16::new(0);
static BROKEN: AtomicBool = AtomicBool::new(false);
static INPUT: Once<ArrayQueue<u8>> = Once::new();
static READER: AtomicWaker = AtomicWaker::new();

/// Sets the UART at port `base` to 115,200 baud, 8 bits, no parity. Without a UART there, output goes nowhere.
pub fn init(base: u16) {
    BASE.store(base, Ordering::Relaxed);
    write(SCRATCH, 0x5a);
    BROKEN.store(read(SCRATCH) != 0x5a, Ordering::Relaxed);
    for (register, value) in [
        (INTERRUPT_ENABLE, 0),
        (LINE_CONTROL, 0x80),
        (DATA, 1),
        (INTERRUPT_ENABLE, 0),
        (LINE_CONTROL, 0x03),
        (FIFO_CONTROL, 0xc7),
        // DTR, RTS, and OUT2, which lets the interrupt out.
        (MODEM_CONTROL, 0x0b),
    ] {
        write(register, value);
    }
}

/// Sends `bytes`, and gives up where the UART does not take them.
pub fn send(bytes: &[u8]) {
    for chunk in bytes.chunks(FIFO_DEPTH) {
        if !wait_for(LINE_HOLDING_EMPTY) {
            return;
        }
        chunk.iter().for_each(|&byte| write(DATA, byte));
    }
}

/// Waits until everything has left the UART.
pub fn flush() {
    wait_for(LINE_IDLE);
}

fn wait_for(bit: u8) -> bool {
    if BROKEN.load(Ordering::Relaxed) {
        return false;
    }
    for _ in 0..PATIENCE {
        if read(LINE_STATUS) & bit != 0 {
            return true;
        }
        core::hint::spin_loop();
    }
    BROKEN.store(true, Ordering::Relaxed);
    false
}

/// Fills the input queue, for good.
pub async fn receive(mut interrupt: Option<Interrupt>) {
    let queue = INPUT.call_once(|| ArrayQueue::new(QUEUE));
    write(INTERRUPT_ENABLE, u8::from(interrupt.is_some()));
    let mut interrupts_come = false;
    loop {
        let more = fill(queue);
        let interval = match interrupts_come && !more {
            true => SAFETY_INTERVAL,
            false => POLL_INTERVAL,
        };
        match &mut interrupt {
            None => Timer::after(interval).await,
            Some(interrupt) => match select(interrupt.wait(), Timer::after(interval)).await {
                Either::First(()) => interrupts_come = true,
                Either::Second(()) => {}
            },
        }
    }
}

/// Moves what the UART holds to the queue. Returns whether something had to stay, which holds the sender back.
fn fill(queue: &ArrayQueue<u8>) -> bool {
    let mut moved = false;
    let mut stays = false;
    while !BROKEN.load(Ordering::Relaxed) && read(LINE_STATUS) & LINE_DATA_READY != 0 {
        stays = queue.is_full();
        if stays {
            break;
        }
        // The queue has one producer, so there is still room.
        let _ = queue.push(read(DATA));
        moved = true;
    }
    if moved {
        READER.wake();
    }
    stays
}

/// The next byte of input, for one task.
pub fn poll_read(context: &mut Context<'_>) -> Poll<u8> {
    READER.register(context.waker());
    match INPUT.get().and_then(ArrayQueue::pop) {
        Some(byte) => Poll::Ready(byte),
        None => Poll::Pending,
    }
}

fn read(register: u16) -> u8 {
    // SAFETY: the ports are the UART's, which is this module's alone; reading them breaks no memory.
    unsafe { Port::new(BASE.load(Ordering::Relaxed) + register).read() }
}

fn write(register: u16, value: u8) {
    // SAFETY: as above.
    unsafe { Port::new(BASE.load(Ordering::Relaxed) + register).write(value) }
}
