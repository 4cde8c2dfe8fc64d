//! The first program of a Linux guest that is measured, and its load: a static program, so that it needs nothing beside it.
//!
//! The first thing that it does is to print `linux: user space at N ticks`, of the time stamp counter, which counts instructions on a
//! machine that does so. Then, by its first argument (what stands behind `--` on the kernel's command line):
//!
//! | argument | what it does |
//! |---|---|
//! | `stay` | nothing more |
//! | `random DEPTH COUNT` | loads the modules that `/modules` lists, and reads 4 KiB of the first SCSI disk, COUNT times, DEPTH at once |
//! | `sequential COUNT` | the same with 1 MiB, one after the other |
//! | `listen` | loads the modules, and answers over TCP |
//! | `talk ROUNDS BYTES` | asks the guest that listens, and measures: see `network.rs` |
//! | anything else | powers the machine off |
//!
//! Reads bypass the page cache. After them it prints `linux: N ticks a read` and `linux: done`, and does nothing more.
#![allow(unsafe_code)]

mod aio;
mod network;

use std::arch::x86_64::_rdtsc;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::thread::sleep;
use std::time::Duration;

const SMALL: usize = 4096;
const LARGE: usize = 1 << 20;
/// Reads before those that are counted.
const WARM_UP: usize = 64;
const DISK: &str = "/dev/sda";
/// Times that the disk is looked for, 10 ms apart.
const PATIENCE: u32 = 3000;

fn main() {
    let start = ticks();
    println!("linux: user space at {start} ticks");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["stay"] => Ok(()),
        ["random", depth, count] => number(depth).and_then(|depth| random(depth, number(count)?)),
        ["sequential", count] => number(count).and_then(sequential),
        ["listen"] => network::listen(),
        ["talk", rounds, bytes] => number(rounds).and_then(|rounds| network::talk(rounds, number(bytes)?)),
        _ => power_off(),
    };
    if let Err(error) = result {
        println!("linux: failed: {error}");
    }
    loop {
        // SAFETY: it waits for a signal that never comes.
        unsafe { libc::pause() };
    }
}

fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets programs use it.
    unsafe { _rdtsc() }
}

fn number(text: &str) -> io::Result<usize> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| io::Error::other(format!("'{text}' is no number above zero")))
}

/// Says how long no processor had anything to do so far, which is not to be counted, and powers off.
fn power_off() -> io::Result<()> {
    mount("proc", "/proc")?;
    let uptime = fs::read_to_string("/proc/uptime")?;
    let idle = uptime.split_whitespace().nth(1).unwrap_or("0");
    println!("linux: idle for {idle} s");
    // SAFETY: the machine's memory holds nothing that has to be kept.
    if unsafe { libc::reboot(libc::LINUX_REBOOT_CMD_POWER_OFF) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn mount(kind: &str, place: &str) -> io::Result<()> {
    let _ = fs::create_dir(place);
    let (kind, place) = (CString::new(kind)?, CString::new(place)?);
    // SAFETY: the strings are such, and no data are given.
    let done = unsafe { libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Loads the modules that `/modules` lists.
fn load_modules() -> io::Result<()> {
    for path in fs::read_to_string("/modules")?.lines() {
        let module = File::open(path)?;
        // SAFETY: the file stays open, and the parameters are an empty string.
        let done = unsafe { libc::syscall(libc::SYS_finit_module, module.as_raw_fd(), c"".as_ptr(), 0) };
        if done != 0 {
            return Err(io::Error::other(format!(
                "{path}: {}",
                io::Error::last_os_error()
            )));
        }
    }
    Ok(())
}

/// Loads the modules and opens the disk, past the page cache.
fn disk() -> io::Result<File> {
    mount("devtmpfs", "/dev")?;
    load_modules()?;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_DIRECT);
    for _ in 0..PATIENCE {
        match options.open(DISK) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => sleep(Duration::from_millis(10)),
            result => return result,
        }
    }
    Err(io::Error::other("there is no disk"))
}

fn report(start: u64, reads: usize) {
    println!("linux: {} ticks a read", (ticks() - start) / reads as u64);
    println!("linux: done");
}

fn sequential(count: usize) -> io::Result<()> {
    let disk = disk()?;
    let places = size(&disk)? / LARGE as u64;
    let mut buffer = aio::Buffers::new(1, LARGE);
    let mut read = |number: usize| disk.read_exact_at(buffer.get(0), number as u64 % places * LARGE as u64);
    (0..8).try_for_each(&mut read)?;
    let start = ticks();
    (0..count).try_for_each(&mut read)?;
    report(start, count);
    Ok(())
}

fn random(depth: usize, count: usize) -> io::Result<()> {
    let disk = disk()?;
    let places = size(&disk)? / SMALL as u64;
    // Far from each other, all of them in turn: the step has no divisor in common with any power of two.
    let place = |number: usize| (number as u64).wrapping_mul(9973) % places * SMALL as u64;
    let mut buffers = aio::Buffers::new(depth, SMALL);
    if depth == 1 {
        let mut read = |number| disk.read_exact_at(buffers.get(0), place(number));
        (0..WARM_UP).try_for_each(&mut read)?;
        let start = ticks();
        (0..count).try_for_each(&mut read)?;
        report(start, count);
        return Ok(());
    }
    let mut queue = aio::Queue::new(&disk, buffers)?;
    queue.read(WARM_UP.max(depth), place)?;
    let start = ticks();
    queue.read(count, place)?;
    report(start, count);
    Ok(())
}

fn size(mut disk: &File) -> io::Result<u64> {
    use std::io::{Seek, SeekFrom};
    let size = disk.seek(SeekFrom::End(0))?;
    match size >= LARGE as u64 {
        true => Ok(size),
        false => Err(io::Error::other("the disk has less than 1 MiB")),
    }
}
