//! The command line: words of the form `name=value`, separated by spaces.

use log::LevelFilter;

/// Words that the root understands; others are ignored, as they may be meant for the hypervisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommandLine {
    /// `debug-exit=PORT`: QEMU's `isa-debug-exit` device, by which commands from the boot archive report how they ended.
    pub debug_exit: Option<u16>,
    /// `log=LEVEL`: what goes into the log ring.
    pub log_level: LevelFilter,
    /// `serial=PORT`: the console's UART.
    pub serial: u16,
}

impl Default for CommandLine {
    fn default() -> Self {
        Self {
            debug_exit: None,
            log_level: LevelFilter::Info,
            serial: 0x3f8,
        }
    }
}

impl CommandLine {
    /// Reads `text`. A value that cannot be read leaves the default.
    pub fn parse(text: &str) -> Self {
        let mut line = Self::default();
        for word in text.split_ascii_whitespace() {
            match word.split_once('=') {
                Some(("debug-exit", value)) => line.debug_exit = port(value),
                Some(("serial", value)) => line.serial = port(value).unwrap_or(line.serial),
                Some(("log", value)) => line.log_level = value.parse().unwrap_or(line.log_level),
                _ => {}
            }
        }
        line
    }
}

fn port(text: &str) -> Option<u16> {
    match text.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_words_are_read_and_others_ignored() {
        let line = CommandLine::parse("quiet debug-exit=0xf4 log=debug serial=760 iommu=off");
        assert_eq!(
            line,
            CommandLine {
                debug_exit: Some(0xf4),
                log_level: LevelFilter::Debug,
                serial: 0x2f8,
            }
        );
    }

    #[test]
    fn what_cannot_be_read_leaves_the_default() {
        let line = CommandLine::parse("debug-exit=0xfffff log=loud serial=com1 =");
        assert_eq!(line, CommandLine::default());
    }
}
