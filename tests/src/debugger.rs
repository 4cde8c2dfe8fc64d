//! QEMU's debugger port, spoken to directly (GDB Remote Serial Protocol): enough to change a running machine's memory under it.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// How long QEMU may take to answer.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection; the machine stands still while it lives.
#[derive(Debug)]
pub struct Debugger {
    stream: UnixStream,
}

impl Debugger {
    /// QEMU's argument after `-gdb` for a port at `path`.
    pub fn argument(path: &Path) -> String {
        format!("unix:{},server=on,wait=off", path.display())
    }

    /// Stops the machine.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).context("QEMU has no debugger port")?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut debugger = Self { stream };
        ensure!(
            debugger.ask("Qqemu.PhyMemMode:1")? == "OK",
            "QEMU has no physical memory mode"
        );
        Ok(debugger)
    }

    /// Writes to physical memory.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        let mut packet = format!("M{address:x},{:x}:", bytes.len());
        for byte in bytes {
            write!(packet, "{byte:02x}")?;
        }
        let reply = self.ask(&packet)?;
        ensure!(reply == "OK", "QEMU does not write to {address:#x}: {reply}");
        Ok(())
    }

    /// Lets the machine go on.
    pub fn detach(mut self) -> Result<()> {
        ensure!(self.ask("D")? == "OK", "QEMU does not let go");
        Ok(())
    }

    fn ask(&mut self, packet: &str) -> Result<String> {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        write!(self.stream, "${packet}#{sum:02x}")?;
        let mut reply = Vec::new();
        // `+`, `$`, the reply, `#`, two digits.
        while self.byte()? != b'$' {}
        loop {
            match self.byte()? {
                b'#' => break,
                byte => reply.push(byte),
            }
            if reply.len() > 4096 {
                bail!("QEMU's reply has no end");
            }
        }
        let _ = (self.byte()?, self.byte()?);
        self.stream.write_all(b"+")?;
        Ok(String::from_utf8(reply)?)
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.stream
            .read_exact(&mut byte)
            .context("QEMU's debugger port does not answer")?;
        Ok(byte[0])
    }
}
