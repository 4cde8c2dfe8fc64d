//! A 16550A (National Semiconductor PC16550D), without a line behind it: what the guest sends is there at once, what it
//! is sent waits until its FIFO has room.

use alloc::collections::VecDeque;

/// Ports that it takes.
pub const PORTS: u16 = 8;
/// Bytes of each FIFO.
const FIFO: usize = 16;
/// Bytes of input that wait behind the FIFO; more are lost, as on a line.
const WAITING: usize = 64 << 10;

const IER_RECEIVED: u8 = 1 << 0;
const IER_TRANSMITTED: u8 = 1 << 1;
const IER_LINE: u8 = 1 << 2;
const IER_MODEM: u8 = 1 << 3;

const IIR_NONE: u8 = 0x01;
const IIR_MODEM: u8 = 0x00;
const IIR_TRANSMITTED: u8 = 0x02;
const IIR_RECEIVED: u8 = 0x04;
const IIR_LINE: u8 = 0x06;
const IIR_TIMEOUT: u8 = 0x0c;
const IIR_FIFOS: u8 = 0xc0;

const FCR_ENABLE: u8 = 1 << 0;
const FCR_CLEAR_RECEIVED: u8 = 1 << 1;

const LCR_DIVISOR: u8 = 1 << 7;
const MCR_LOOP: u8 = 1 << 4;
const MCR_BITS: u8 = 0x1f;

const LSR_DATA: u8 = 1 << 0;
const LSR_OVERRUN: u8 = 1 << 1;
/// Holding register and shift register empty.
const LSR_IDLE: u8 = 0x60;

/// Clear to send, data set ready, carrier: somebody listens.
const MODEM_CONNECTED: u8 = 0xb0;

/// The UART. Whether its interrupt line is high is [`interrupt`](Self::interrupt).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uart {
    ier: u8,
    lcr: u8,
    mcr: u8,
    scratch: u8,
    divisor: u16,
    fifos: bool,
    trigger: usize,
    received: VecDeque<u8>,
    waiting: VecDeque<u8>,
    overrun: bool,
    /// The transmitter has become empty, and the guest has not been told.
    transmitted: bool,
    modem: u8,
}

impl Default for Uart {
    fn default() -> Self {
        Self {
            ier: 0,
            lcr: 0,
            mcr: 0,
            scratch: 0,
            divisor: 12,
            fifos: false,
            trigger: 1,
            received: VecDeque::new(),
            waiting: VecDeque::new(),
            overrun: false,
            transmitted: false,
            modem: MODEM_CONNECTED,
        }
    }
}

impl Uart {
    /// Whether its interrupt line is high.
    pub fn interrupt(&self) -> bool {
        self.cause() != IIR_NONE
    }

    /// Bytes for the guest.
    pub fn receive(&mut self, bytes: &[u8]) {
        let room = WAITING.saturating_sub(self.waiting.len());
        self.waiting.extend(bytes.iter().take(room));
        self.fill();
    }

    /// The guest reads register `offset`, 0 to 7.
    pub fn read(&mut self, offset: u16) -> u8 {
        let divisor = self.lcr & LCR_DIVISOR != 0;
        match offset {
            0 if divisor => self.divisor as u8,
            1 if divisor => (self.divisor >> 8) as u8,
            0 => self.read_data(),
            1 => self.ier,
            2 => self.read_cause(),
            3 => self.lcr,
            4 => self.mcr,
            5 => self.read_line_status(),
            6 => self.read_modem_status(),
            7 => self.scratch,
            _ => 0xff,
        }
    }

    /// The guest writes register `offset`, 0 to 7; what it returns goes out on the line.
    pub fn write(&mut self, offset: u16, value: u8) -> Option<u8> {
        let divisor = self.lcr & LCR_DIVISOR != 0;
        match offset {
            0 if divisor => self.divisor = self.divisor & 0xff00 | u16::from(value),
            1 if divisor => self.divisor = self.divisor & 0x00ff | u16::from(value) << 8,
            0 => return self.send(value),
            1 => self.write_interrupt_enable(value),
            2 => self.write_fifo_control(value),
            3 => self.lcr = value,
            4 => self.write_modem_control(value),
            7 => self.scratch = value,
            _ => {}
        }
        None
    }

    fn read_data(&mut self) -> u8 {
        let byte = self.received.pop_front().unwrap_or(0);
        self.fill();
        byte
    }

    fn read_cause(&mut self) -> u8 {
        let cause = self.cause();
        if cause == IIR_TRANSMITTED {
            self.transmitted = false;
        }
        cause | if self.fifos { IIR_FIFOS } else { 0 }
    }

    fn read_line_status(&mut self) -> u8 {
        let overrun = core::mem::take(&mut self.overrun);
        LSR_IDLE | if overrun { LSR_OVERRUN } else { 0 } | if self.received.is_empty() { 0 } else { LSR_DATA }
    }

    fn read_modem_status(&mut self) -> u8 {
        let status = self.modem;
        self.modem &= 0xf0;
        status
    }

    fn send(&mut self, byte: u8) -> Option<u8> {
        // The byte is gone at once, so the transmitter is empty again.
        self.transmitted = true;
        if self.mcr & MCR_LOOP == 0 {
            return Some(byte);
        }
        if self.received.len() < self.capacity() {
            self.received.push_back(byte);
        } else {
            self.overrun = true;
        }
        None
    }

    fn write_interrupt_enable(&mut self, value: u8) {
        // Enabling the interrupt of an empty transmitter raises it.
        if value & !self.ier & IER_TRANSMITTED != 0 {
            self.transmitted = true;
        }
        self.ier = value & 0x0f;
    }

    fn write_fifo_control(&mut self, value: u8) {
        let fifos = value & FCR_ENABLE != 0;
        if fifos != self.fifos || value & FCR_CLEAR_RECEIVED != 0 {
            self.received.clear();
        }
        self.fifos = fifos;
        self.trigger = match value >> 6 {
            _ if !fifos => 1,
            0 => 1,
            1 => 4,
            2 => 8,
            _ => 14,
        };
        self.fill();
    }

    fn write_modem_control(&mut self, value: u8) {
        self.mcr = value & MCR_BITS;
        let lines = match self.mcr & MCR_LOOP {
            0 => MODEM_CONNECTED,
            // DTR, RTS, OUT1 and OUT2 come back as DSR, CTS, RI and DCD.
            _ => (self.mcr & 1) << 5 | (self.mcr & 2) << 3 | (self.mcr & 4) << 4 | (self.mcr & 8) << 4,
        };
        let changed = (self.modem ^ lines) >> 4;
        // RI reports only its end.
        let ended = self.modem & !lines & 0x40 != 0;
        let delta = changed & 0x0b | if ended { 0x04 } else { 0 };
        self.modem = lines | self.modem & 0x0f | delta;
        self.fill();
    }

    const fn capacity(&self) -> usize {
        if self.fifos { FIFO } else { 1 }
    }

    /// Moves what waits into the FIFO. In loop mode the line is cut off.
    fn fill(&mut self) {
        while self.mcr & MCR_LOOP == 0 && self.received.len() < self.capacity() {
            let Some(byte) = self.waiting.pop_front() else {
                break;
            };
            self.received.push_back(byte);
        }
    }

    /// The pending interrupt of the highest priority, as IIR tells it.
    fn cause(&self) -> u8 {
        if self.ier & IER_LINE != 0 && self.overrun {
            IIR_LINE
        } else if self.ier & IER_RECEIVED != 0 && self.received.len() >= self.trigger {
            IIR_RECEIVED
        } else if self.ier & IER_RECEIVED != 0 && !self.received.is_empty() {
            // Four characters' time has always passed.
            IIR_TIMEOUT
        } else if self.ier & IER_TRANSMITTED != 0 && self.transmitted {
            IIR_TRANSMITTED
        } else if self.ier & IER_MODEM != 0 && self.modem & 0x0f != 0 {
            IIR_MODEM
        } else {
            IIR_NONE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn linux_finds_a_16550a() {
        // drivers/tty/serial/8250/8250_port.c: autoconfig.
        let mut uart = Uart::default();
        uart.write(1, 0);
        assert_eq!(uart.read(1) & 0x0f, 0);
        uart.write(1, 0x0f);
        assert_eq!(uart.read(1) & 0x0f, 0x0f);
        uart.write(1, 0);
        uart.write(4, MCR_LOOP | 0x0a);
        assert_eq!(uart.read(6) & 0xf0, 0x90);
        uart.write(4, 0);
        uart.write(2, FCR_ENABLE);
        assert_eq!(uart.read(2) >> 6, 3);
        // No register behind EFR or a second bank: LCR 0xbf shows the divisor, scratch keeps its value.
        uart.write(7, 0xa5);
        assert_eq!(uart.read(7), 0xa5);
        // The 64-byte FIFO of a 16750 is not there.
        uart.write(3, LCR_DIVISOR);
        uart.write(2, FCR_ENABLE | 0x20);
        assert_eq!(uart.read(2) & 0x20, 0);
    }

    #[test]
    fn the_divisor_is_kept_apart_from_data() {
        let mut uart = Uart::default();
        uart.write(3, LCR_DIVISOR);
        assert_eq!(uart.write(0, 0x34), None);
        uart.write(1, 0x12);
        assert_eq!((uart.read(0), uart.read(1)), (0x34, 0x12));
        uart.write(3, 3);
        assert_eq!(uart.write(0, b'x'), Some(b'x'));
        assert_eq!(uart.read(1), 0);
    }

    #[test]
    fn an_empty_transmitter_interrupts_when_enabled_and_after_each_byte() {
        let mut uart = Uart::default();
        assert!(!uart.interrupt());
        uart.write(1, IER_TRANSMITTED);
        assert!(uart.interrupt());
        assert_eq!(uart.read(2), IIR_TRANSMITTED);
        assert!(!uart.interrupt(), "reading IIR acknowledges it");
        uart.write(0, b'a');
        assert!(uart.interrupt());
        uart.write(1, 0);
        assert!(!uart.interrupt());
    }

    #[test]
    fn input_waits_for_room_in_the_fifo_and_comes_in_order() {
        let mut uart = Uart::default();
        uart.write(2, FCR_ENABLE | 0xc0);
        uart.write(1, IER_RECEIVED);
        let input: Vec<u8> = (0..40).collect();
        uart.receive(&input);
        assert_eq!(uart.read(2) & 0x0f, IIR_RECEIVED);
        let read: Vec<u8> = (0..40).map(|_| uart.read(0)).collect();
        assert_eq!(read, input);
        assert_eq!(uart.read(5), LSR_IDLE);
        assert!(!uart.interrupt());
    }

    #[test]
    fn a_few_bytes_below_the_trigger_interrupt_as_a_timeout() {
        let mut uart = Uart::default();
        uart.write(2, FCR_ENABLE | 0x80);
        uart.write(1, IER_RECEIVED);
        uart.receive(b"abc");
        assert_eq!(uart.read(2) & 0x0f, IIR_TIMEOUT);
    }

    #[test]
    fn loop_mode_brings_back_what_is_sent_and_cuts_the_line() {
        let mut uart = Uart::default();
        uart.write(4, MCR_LOOP);
        uart.receive(b"outside");
        assert_eq!(uart.write(0, 0xae), None);
        assert_eq!(uart.read(5) & LSR_DATA, LSR_DATA);
        assert_eq!(uart.read(0), 0xae);
        uart.write(4, 0);
        assert_eq!(uart.read(0), b'o');
    }

    #[test]
    fn an_overrun_is_told_once() {
        let mut uart = Uart::default();
        uart.write(4, MCR_LOOP);
        uart.write(1, IER_LINE);
        uart.write(0, 1);
        uart.write(0, 2);
        assert_eq!(uart.read(2), IIR_LINE);
        assert_eq!(uart.read(5) & LSR_OVERRUN, LSR_OVERRUN);
        assert_eq!(uart.read(5) & LSR_OVERRUN, 0);
    }

    proptest! {
        #[test]
        fn a_driver_that_serves_every_interrupt_ends_with_the_line_low(
            writes in prop::collection::vec((0u16..8, any::<u8>()), 0..64),
            input in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut uart = Uart::default();
            for (offset, value) in writes {
                uart.write(offset, value);
            }
            uart.receive(&input);
            uart.write(3, 3);
            for _ in 0..200 {
                match uart.read(2) & 0x0f {
                    IIR_NONE => break,
                    IIR_LINE => uart.read(5),
                    IIR_MODEM => uart.read(6),
                    IIR_TRANSMITTED => 0,
                    _ => uart.read(0),
                };
            }
            prop_assert!(!uart.interrupt());
        }

        #[test]
        fn every_byte_of_input_arrives_once_and_in_order(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
            fifo: bool,
        ) {
            let mut uart = Uart::default();
            uart.write(2, u8::from(fifo));
            let mut read = Vec::new();
            for piece in &pieces {
                uart.receive(piece);
                if uart.read(5) & LSR_DATA != 0 {
                    read.push(uart.read(0));
                }
            }
            while uart.read(5) & LSR_DATA != 0 {
                read.push(uart.read(0));
            }
            prop_assert_eq!(read, pieces.concat());
        }
    }
}
