//! Resetting one function, as is due before somebody else gets it: what its last owner has left in it is gone afterwards, and its
//! registers are where they were.

use super::Address;
use super::config::ConfigSpace;
use super::function::Function;
use super::requester::bridge_to;
use super::scan::Identity;
use core::fmt;

const POWER_MANAGEMENT: u8 = 0x01;
const PCI_EXPRESS: u8 = 0x10;
const ADVANCED_FEATURES: u8 = 0x13;
const NO_VENDOR: u16 = 0xffff;

/// Milliseconds that a function may take after a reset before it must answer (PCIe 6.6.1), and most that it is waited for.
const SETTLE_MS: u64 = 100;
const PATIENCE_MS: u64 = 1_000;
/// Between two looks.
const STEP_MS: u64 = 10;
/// Milliseconds that a bus is held in reset, and that a change of power state takes.
const HOLD_MS: u64 = 2;
const POWER_MS: u64 = 10;

/// Words of the header that a reset clears and that are put back: latency, BARs, ROM, interrupt line.
const KEPT: [u16; 9] = [0x0c, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30, 0x3c];

/// How a function is reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// By its PCI Express capability (PCIe 6.6.2).
    FunctionLevel(u16),
    /// By its advanced features capability (PCI, ECN of 2006).
    AdvancedFeatures(u16),
    /// By being sent to D3hot and back, where that loses its state (PCI PM 5.4.1).
    PowerState(u16),
    /// By the bridge that it is alone behind (PCI-to-PCI Bridge 3.2.5.17).
    SecondaryBus(Address),
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FunctionLevel(_) => f.write_str("function level reset"),
            Self::AdvancedFeatures(_) => f.write_str("function level reset (advanced features)"),
            Self::PowerState(_) => f.write_str("power state D3"),
            Self::SecondaryBus(bridge) => write!(f, "secondary bus reset by {bridge}"),
        }
    }
}

/// Why a function is not as new.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} does not answer {PATIENCE_MS} ms after its reset")]
pub struct NoAnswer(Address);

impl Method {
    /// The gentlest way that `function` knows; `None` where there is none.
    pub fn of(space: &dyn ConfigSpace, functions: &[Identity], function: Function<'_>) -> Option<Self> {
        let has = |at: &u16, offset, bit| function.read(at + offset) & bit != 0;
        let express = function
            .capability(PCI_EXPRESS)
            .filter(|at| has(at, 4, 1 << 28))
            .map(Self::FunctionLevel);
        // In the capability's fourth byte: transactions pending, and function level reset.
        let advanced = || {
            let at = function.capability(ADVANCED_FEATURES);
            at.filter(|at| function.read(*at) >> 24 & 3 == 3)
                .map(Self::AdvancedFeatures)
        };
        let power = || {
            let at = function.capability(POWER_MANAGEMENT);
            at.filter(|at| !has(at, 4, 1 << 3)).map(Self::PowerState)
        };
        let bus = || {
            let at = function.address;
            let beside = |other: &&Identity| {
                other.address.segment == at.segment && other.address.bus == at.bus && other.address != at
            };
            let alone = !functions.iter().any(|other| beside(&other));
            let bridge = bridge_to(space, functions, at.segment, at.bus).filter(|_| alone);
            bridge.map(|bridge| Self::SecondaryBus(bridge.address))
        };
        express.or_else(advanced).or_else(power).or_else(bus)
    }

    /// Resets `function`, which must not master the bus. `pause` completes after so many milliseconds.
    pub async fn perform<P: Future<Output = ()>>(
        self,
        space: &dyn ConfigSpace,
        function: Function<'_>,
        pause: impl Fn(u64) -> P,
    ) -> Result<(), NoAnswer> {
        let kept = KEPT.map(|offset| function.read(offset));
        match self {
            Self::FunctionLevel(at) => {
                // What it has under way is to end first, if it will.
                let pending = || function.read(at + 8) >> 16 & 1 << 5 != 0;
                wait(&pause, || !pending()).await;
                let control = function.read(at + 8) & 0xffff;
                function.write(at + 8, control | 1 << 15);
                pause(SETTLE_MS).await;
                answers(&function, &pause).await?;
                function.write(at + 8, control);
            }
            Self::AdvancedFeatures(at) => {
                wait(&pause, || function.read(at + 4) >> 8 & 1 == 0).await;
                function.write(at + 4, 1);
                pause(SETTLE_MS).await;
            }
            Self::PowerState(at) => {
                let state = function.read(at + 4) & 0x7ffc;
                function.write(at + 4, state | 3);
                pause(POWER_MS).await;
                function.write(at + 4, state);
                pause(POWER_MS).await;
            }
            Self::SecondaryBus(bridge) => {
                const CONTROL: u16 = 0x3c;
                const RESET: u32 = 1 << 22;
                let control = space.read(bridge, CONTROL);
                space.write(bridge, CONTROL, control | RESET);
                pause(HOLD_MS).await;
                space.write(bridge, CONTROL, control & !RESET);
                pause(SETTLE_MS).await;
            }
        }
        answers(&function, &pause).await?;
        for (offset, value) in KEPT.into_iter().zip(kept) {
            function.write(offset, value);
        }
        Ok(())
    }
}

/// Waits until `done`, for a while. Returns whether it is.
async fn wait<P: Future<Output = ()>>(pause: &impl Fn(u64) -> P, done: impl Fn() -> bool) -> bool {
    for _ in 0..PATIENCE_MS / STEP_MS {
        if done() {
            return true;
        }
        pause(STEP_MS).await;
    }
    done()
}

async fn answers<P: Future<Output = ()>>(
    function: &Function<'_>,
    pause: &impl Fn(u64) -> P,
) -> Result<(), NoAnswer> {
    match wait(pause, || function.read(0) as u16 != NO_VENDOR).await {
        true => Ok(()),
        false => Err(NoAnswer(function.address)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::{Fake, address};
    use super::super::scan;
    use super::*;
    use core::future::ready;
    use embassy_futures::block_on;

    const AT: Address = address(1, 0, 0);
    const LIST: u32 = 1 << 20;

    /// A function behind a root port, with words of its own.
    fn space(words: &[(u16, u32)]) -> Fake {
        let mut own = vec![(0, 0x2222_8086), (4, LIST), (0x10, 0xfeb0_0000), (0x34, 0x40)];
        own.extend_from_slice(words);
        let port = [(0, 0x1111_8086), (0x0c, 1 << 16), (0x18, 0x0001_0100)];
        Fake::with(&[(address(0, 1, 0), &port), (AT, &own)])
    }

    fn method(space: &Fake) -> Option<Method> {
        Method::of(space, &scan::functions(space), Function::new(space, AT))
    }

    #[test]
    fn the_gentlest_way_is_taken() {
        let express = (0x40, 0x0010_0010 | 0x50 << 8);
        assert_eq!(
            method(&space(&[express, (0x44, 1 << 28), (0x50, 0x0001)])),
            Some(Method::FunctionLevel(0x40))
        );
        // Without the bit, by the power state, unless that keeps everything.
        let power = (0x50, 0x0001);
        assert_eq!(method(&space(&[express, power])), Some(Method::PowerState(0x50)));
        let bus = Some(Method::SecondaryBus(address(0, 1, 0)));
        assert_eq!(method(&space(&[express, power, (0x54, 1 << 3)])), bus);
        let advanced = (0x40, 0x0306_0013);
        assert_eq!(method(&space(&[advanced])), Some(Method::AdvancedFeatures(0x40)));
    }

    #[test]
    fn a_bus_that_others_are_on_is_not_reset() {
        let space = space(&[(0x40, 0x0005)]);
        let mut neighbour = [0; 64];
        neighbour[0] = 0x3333_8086;
        space.functions.lock().insert(address(1, 1, 0), neighbour);
        assert_eq!(method(&space), None);
    }

    #[test]
    fn registers_are_where_they_were_and_nothing_is_enabled() {
        let space = space(&[(0x40, 0x0010_0010), (0x44, 1 << 28), (0x48, 0x2810)]);
        let function = Function::new(&space, AT);
        let way = method(&space).unwrap();
        block_on(way.perform(&space, function, |_| ready(()))).unwrap();
        assert_eq!(function.read(0x10), 0xfeb0_0000);
        assert_eq!(function.read(0x48), 0x2810);
        assert_eq!(function.read(4) & 7, 0);
    }

    #[test]
    fn a_function_that_is_gone_is_told_of() {
        let space = space(&[(0x40, 0x0010_0010), (0x44, 1 << 28)]);
        let way = method(&space).unwrap();
        space.functions.lock().remove(&AT);
        let reset = way.perform(&space, Function::new(&space, AT), |_| ready(()));
        assert_eq!(block_on(reset), Err(NoAnswer(AT)));
    }
}
