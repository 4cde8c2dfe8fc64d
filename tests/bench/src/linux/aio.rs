//! Linux' asynchronous reads (`io_submit`), as libaio makes them.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The alignment that reads past the page cache want.
const ALIGNMENT: usize = 4096;
/// `IOCB_CMD_PREAD`.
const READ: u16 = 0;

/// Buffers of one size, aligned to pages.
pub(crate) struct Buffers {
    memory: Vec<u8>,
    first: usize,
    size: usize,
    count: usize,
}

impl Buffers {
    pub(crate) fn new(count: usize, size: usize) -> Self {
        // Written once, so that the pages are there.
        let memory = vec![1; count * size + ALIGNMENT];
        let first = memory.as_ptr().align_offset(ALIGNMENT);
        Self {
            memory,
            first,
            size,
            count,
        }
    }

    pub(crate) fn get(&mut self, index: usize) -> &mut [u8] {
        let start = self.first + index * self.size;
        &mut self.memory[start..start + self.size]
    }
}

/// `struct iocb`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Control {
    data: u64,
    key: u32,
    flags: u32,
    operation: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    more_flags: u32,
    event_file: u32,
}
const _: () = assert!(size_of::<Control>() == 64);

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    data: u64,
    control: u64,
    result: i64,
    more: i64,
}

/// Reads of a file, as many at once as there are buffers.
pub(crate) struct Queue {
    context: u64,
    controls: Vec<Control>,
    _buffers: Buffers,
}

impl Queue {
    pub(crate) fn new(file: &File, mut buffers: Buffers) -> io::Result<Self> {
        let mut context = 0_u64;
        // SAFETY: the kernel writes one word.
        check(unsafe { libc::syscall(libc::SYS_io_setup, buffers.count, &raw mut context) })?;
        let (count, size) = (buffers.count, buffers.size);
        let control = |index: usize| Control {
            data: index as u64,
            operation: READ,
            file: file.as_raw_fd() as u32,
            buffer: buffers.get(index).as_mut_ptr() as u64,
            bytes: size as u64,
            ..Control::default()
        };
        let controls = (0..count).map(control).collect();
        Ok(Self {
            context,
            controls,
            _buffers: buffers,
        })
    }

    /// Reads at `place(0)` to `place(count - 1)`. As many as have ended are begun anew in one call.
    pub(crate) fn read(&mut self, count: usize, place: impl Fn(usize) -> u64) -> io::Result<()> {
        let depth = self.controls.len();
        let mut begun = 0;
        let mut free: Vec<usize> = (0..depth).collect();
        let mut ended = 0;
        let mut events = vec![Event::default(); depth];
        let mut submitted: Vec<*mut Control> = Vec::with_capacity(depth);
        while ended < count {
            submitted.clear();
            while begun < count
                && let Some(index) = free.pop()
            {
                let control = &mut self.controls[index];
                control.offset = place(begun) as i64;
                submitted.push(control);
                begun += 1;
            }
            if !submitted.is_empty() {
                // SAFETY: the list and what it names stay as they are until their events have come.
                let taken = check(unsafe {
                    libc::syscall(
                        libc::SYS_io_submit,
                        self.context,
                        submitted.len(),
                        submitted.as_ptr(),
                    )
                })?;
                if taken as usize != submitted.len() {
                    return Err(io::Error::other("the kernel did not take all reads"));
                }
            }
            // SAFETY: there is room for so many events.
            let come = check(unsafe {
                libc::syscall(
                    libc::SYS_io_getevents,
                    self.context,
                    1_usize,
                    depth,
                    events.as_mut_ptr(),
                    std::ptr::null::<libc::timespec>(),
                )
            })?;
            for event in events.iter().take(come as usize) {
                if event.result != self.controls[event.data as usize].bytes as i64 {
                    return Err(io::Error::other(format!("a read ended with {}", event.result)));
                }
                free.push(event.data as usize);
                ended += 1;
            }
        }
        Ok(())
    }
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    match result {
        0.. => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}
