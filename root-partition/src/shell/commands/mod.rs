//! The table of commands. The dispatcher, `help`, completion and the suggestions for misspelt names all read it.
//!
//! | module | holds |
//! |---|---|
//! | [`arguments`] | what a row says of arguments and flags, and the words of a line bound to it |
//! | [`bench`] | `hv bench` |
//! | [`bus`] | `bus list` |
//! | [`check`] | `hv check` |
//! | [`complete`] | Tab |
//! | [`devices`] | `dev …` |
//! | [`disk`] | `disk …` |
//! | [`dispatch`] | a line to a row; suggestions |
//! | [`dma`] | `hv iommu`, `hv iommu faults` |
//! | [`forward`] | `net forward …`, `net leases`, `net gateway` |
//! | [`help`] | `help`, `--help` |
//! | [`info`] | `hv info`, `root info`, `version` |
//! | [`iommu`] | the IOMMU's capability registers |
//! | [`log`] | `hv log`, `root log` |
//! | [`net`] | `net …` |
//! | [`network`] | `root network`, `root ping` |
//! | [`own`] | the shell's own: `clear`, `echo`, `history` |
//! | [`power`] | `poweroff`, `reboot` |
//! | [`selftest`] | `hv selftest` |
//! | [`stats`] | `hv stats` |
//! | [`switch`] | `switch …` |
//! | [`vm`] | `vm …` |

pub mod arguments;
mod bench;
mod bus;
mod check;
pub mod complete;
mod devices;
mod disk;
pub mod dispatch;
mod dma;
mod forward;
pub(crate) mod help;
mod info;
mod iommu;
mod log;
mod net;
mod network;
mod own;
mod power;
mod selftest;
mod stats;
mod switch;
mod vm;

use alloc::{string::String, vec::Vec};

use self::arguments::{Argument, Arguments, Flag};
use super::{
    console::Console,
    editor::history::History,
    output::Report,
    status::Failure,
    system::{Pending, System},
};
use Run::{Later, Now};

/// Every command. One without a verb stands under its noun alone.
#[rustfmt::skip]
pub static COMMANDS: &[Command] = &[
    //      noun        verb        help                                                        handler
    command("hv",       "info",     "Show version, processors, memory, features and IOMMU",     Now(info::hypervisor)).json(),
    command("hv",       "log",      "Show the hypervisor's log",                                Later(log::hypervisor)).flags(&[log::FOLLOW]).json(),
    command("hv",       "stats",    "Show each VP's exits, hypercalls and run time",            Now(stats::run)).flags(&[stats::VP]).json(),
    command("hv",       "check",    "Check for hardware that is needed or useful",              Now(check::run)).json(),
    command("hv",       "iommu",    "Show what the IOMMU does, and what it cannot",             Now(dma::state)).json(),
    command("hv",       "iommu faults", "Show what devices tried and were refused",             Now(dma::faults)).json(),
    command("hv",       "bench",    "Measure exits, in TSC ticks",                              Later(bench::run)).arguments(&[bench::NAME]).json(),
    command("hv",       "selftest", "List the self-tests, or run one",                          Later(selftest::run)).arguments(&[selftest::NAME]).flags(&[selftest::ALL]).json(),
    command("switch",   "list",     "List the virtual switches",                                 Now(switch::list)).json(),
    command("switch",   "create",   "Make a virtual switch",                                     Now(switch::create)).arguments(&[switch::NEW]).flags(&[switch::KIND]).json(),
    command("switch",   "delete",   "Forget a switch that has no ports in use",                  Now(switch::delete)).arguments(&[switch::SWITCH]),
    command("net",      "list",     "List switches' ports, with what went through each",         Now(net::show::list)).json(),
    command("net",      "stats",    "Show a port's counters, and why frames were dropped",       Now(net::show::stats)).arguments(&[net::PORT]).json(),
    command("net",      "attach",   "Give a running virtual machine one more card",              Now(net::card::attach)).arguments(&[vm::MACHINE, net::card::SWITCH]).flags(&[net::card::MAC, net::card::VLAN, net::port::TRUNK, net::card::LIMIT, net::card::GUARD]).json(),
    command("net",      "detach",   "Take a card away from a running virtual machine",           Later(net::card::detach)).arguments(&[net::PORT]),
    command("net",      "link",     "Take the link of a card down, or up again",                 Now(net::port::link)).arguments(&[net::PORT, net::port::LINK]),
    command("net",      "vlan",     "Put a port into a VLAN, or into several",                   Now(net::port::vlan)).arguments(&[net::PORT, net::port::VLAN]).flags(&[net::port::TRUNK]),
    command("net",      "limit",    "Cap how much a port may send",                              Now(net::port::limit)).arguments(&[net::PORT, net::port::RATE]),
    command("net",      "guard",    "Say what a port may not send",                              Now(net::port::guard)).arguments(&[net::PORT, net::port::GUARDS]),
    command("net",      "mirror",   "Copy a port's frames to another port",                      Now(net::port::mirror)).arguments(&[net::PORT, net::port::MIRROR]),
    command("net",      "capture",  "Print a port's frames as a pcap file",                      Later(net::capture::run)).arguments(&[net::PORT]).flags(&[net::capture::FRAMES, net::capture::SECONDS]).json(),
    command("net",      "gateway",  "Show the guests' way out, and what it dropped",            Now(forward::gateway)).json(),
    command("net",      "leases",   "List the addresses that guests were given",                Now(forward::leases)).json(),
    command("net",      "forward list", "List the ports that lead to guests",                   Now(forward::list)).json(),
    command("net",      "forward add", "Have a port of the root lead to a guest",               Now(forward::add)).arguments(&[forward::FROM, forward::TO]),
    command("net",      "forward delete", "End a port forward and what goes by it",             Now(forward::delete)).arguments(&[forward::FORWARDED]),
    command("vm",       "list",     "List the virtual machines and the descriptions",            Now(vm::show::list)).json(),
    command("vm",       "create",   "Make a virtual machine of a description",                   Now(vm::control::create)).arguments(&[vm::DESCRIPTION]).flags(&[vm::control::NAME]).json(),
    command("vm",       "start",    "Start a virtual machine, made first if need be",            Later(vm::control::start)).arguments(&[vm::MACHINE]).flags(&[vm::control::WAIT, vm::control::CONSOLE]).json(),
    command("vm",       "stop",     "Have the guest end in good order",                          Later(vm::control::stop)).arguments(&[vm::MACHINE]).flags(&[vm::control::FORCE, vm::control::TIMEOUT]),
    command("vm",       "kill",     "End a virtual machine at once, whatever it does",           Later(vm::control::kill)).arguments(&[vm::MACHINE]),
    command("vm",       "reset",    "Start a virtual machine anew, as by its reset button",      Later(vm::control::reset)).arguments(&[vm::MACHINE]),
    command("vm",       "pause",    "Suspend a virtual machine's VPs",                           Later(vm::control::pause)).arguments(&[vm::MACHINE]),
    command("vm",       "resume",   "Let a paused virtual machine go on",                        Later(vm::control::resume)).arguments(&[vm::MACHINE]),
    command("vm",       "wait",     "Wait until a virtual machine is off or has crashed",        Later(vm::control::wait)).arguments(&[vm::MACHINE]).flags(&[vm::control::STATE, vm::control::TEXT, vm::control::PATIENCE]).json(),
    command("vm",       "delete",   "Forget a virtual machine that is off",                      Later(vm::control::delete)).arguments(&[vm::MACHINE]),
    command("vm",       "show",     "Show a virtual machine's description and state",            Now(vm::show::run)).arguments(&[vm::MACHINE]).json(),
    command("vm",       "console",  "Attach to a console; Ctrl-] leaves",                        Later(vm::console::run)).arguments(&[vm::MACHINE]).flags(&[vm::console::DUMP]).json(),
    command("vm",       "regs",     "Show a VP's registers",                                     Now(vm::inspect::registers)).arguments(&[vm::MACHINE, vm::inspect::VP]).flags(&[vm::inspect::ALL]).json(),
    command("vm",       "log",      "Show what happened to a virtual machine",                   Now(vm::show::log)).arguments(&[vm::MACHINE]).json(),
    command("vm",       "stats",    "Show each VP's run time, exits and intercepts",             Now(vm::inspect::statistics)).arguments(&[vm::MACHINE]).json(),
    command("vm",       "dump",     "Show a piece of a virtual machine's memory",                Now(vm::inspect::memory)).arguments(&[vm::MACHINE, vm::inspect::ADDRESS, vm::inspect::LENGTH]).json(),
    command("bus",      "list",     "List the channels of virtual machines",                    Now(bus::list)).arguments(&[bus::MACHINE]).json(),
    command("disk",     "list",     "List the disks and partitions",                            Later(disk::show::list)).json(),
    command("disk",     "create",   "Make a disk of memory",                                    Now(disk::control::create)).arguments(&[disk::control::NEW]).flags(&[disk::control::SIZE]).json(),
    command("disk",     "delete",   "Forget a disk of memory, and all that is on it",           Now(disk::control::delete)).arguments(&[disk::DISK]),
    command("disk",     "check",    "Read all of a disk and tell what cannot be read",          Later(disk::check::run)).arguments(&[disk::DISK]).flags(&[disk::check::CHECKSUM, disk::check::WRITE, disk::YES]).json(),
    command("disk",     "erase",    "Write zeros over a disk, or give its sectors up",          Later(disk::erase::run)).arguments(&[disk::DISK]).flags(&[disk::erase::DISCARD, disk::YES]).json(),
    command("disk",     "scan",     "Read a disk's partition table again",                      Later(disk::control::scan)).arguments(&[disk::DISK]).json(),
    command("disk",     "reset",    "Reset a disk's controller; nothing under way is lost",     Later(disk::control::reset)).arguments(&[disk::DISK]),
    command("disk",     "attach",   "Give a running virtual machine one more disk",             Later(disk::machine::attach)).arguments(&[vm::MACHINE, disk::machine::SOURCE]).flags(&[disk::machine::LUN, disk::machine::READ_ONLY, disk::machine::DVD]).json(),
    command("disk",     "detach",   "Take a disk away from a running virtual machine",          Now(disk::machine::detach)).arguments(&[vm::MACHINE, disk::machine::UNIT]),
    command("disk",     "insert",   "Put a medium in a virtual machine's DVD drive",             Later(disk::machine::insert)).arguments(&[vm::MACHINE, disk::machine::UNIT, disk::machine::MEDIUM]),
    command("disk",     "eject",    "Take the medium out of a virtual machine's DVD drive",      Now(disk::machine::eject)).arguments(&[vm::MACHINE, disk::machine::UNIT]),
    command("disk",     "bench",    "Measure what reading 4 KiB costs",                         Later(disk::measure::run)).arguments(&[disk::DISK]).json(),
    command("dev",      "list",     "List the PCI devices and their drivers",                   Now(devices::list)).json(),
    command("dev",      "assign",   "Give a virtual machine a device of its own",                Later(devices::assign)).arguments(&[devices::DEVICE, vm::MACHINE]).flags(&[devices::NO_RESET]).json(),
    command("dev",      "release",  "Take a device back from a machine that is off",             Later(devices::release)).arguments(&[devices::DEVICE]),
    command("root",     "info",     "Show the root partition's heap, tasks and uptime",         Now(info::root)).json(),
    command("root",     "log",      "Show the root partition's log",                            Later(log::root)).flags(&[log::FOLLOW]).json(),
    command("root",     "network",  "Show the root's network card, address and gateway",        Later(network::show)).flags(&[network::WAIT]).json(),
    command("root",     "ping",     "Ask a host of the network for an answer",                  Later(network::ping)).arguments(&[network::TARGET]).flags(&[network::COUNT, network::TIMEOUT, network::INTERVAL]).json(),
    command("version",  "",         "Show the version",                                         Now(info::version)).json(),
    command("help",     "",         "Show all commands, or how one is used",                    Now(help::run)).arguments(&[help::COMMAND]).json(),
    command("history",  "",         "Show the lines typed before",                              Now(own::history)).json(),
    command("echo",     "",         "Print its arguments",                                      Now(own::echo)).arguments(&[own::TEXT]),
    command("clear",    "",         "Clear the screen",                                         Now(own::clear)),
    command("poweroff", "",         "Power the machine off",                                    Now(power::off)).ends_session(),
    command("reboot",   "",         "Reset the machine",                                        Now(power::reboot)).ends_session(),
];

/// The nouns that have verbs, in the order of the help, with what they are about.
pub static NOUNS: &[(&str, &str)] = &[
    ("hv", "the hypervisor"),
    ("vm", "virtual machines"),
    ("bus", "VMBus, by which virtual machines reach their devices"),
    ("disk", "disks and partitions"),
    ("dev", "devices"),
    ("root", "the root partition"),
    ("net", "network cards and the ports that they are in"),
    ("switch", "virtual switches"),
];

/// A row of the table.
pub struct Command {
    /// What it is about, or its only word.
    pub noun: &'static str,
    /// What it does; empty where the noun says it, more than one word where one is not enough (`forward add`).
    pub verb: &'static str,
    /// Its arguments, in their order.
    pub arguments: &'static [Argument],
    /// Its flags beside `--help` and `--json`.
    pub flags: &'static [Flag],
    /// One line, without a full stop.
    pub help: &'static str,
    /// What runs.
    pub run: Run,
    /// It prints data, so that it takes `--json`.
    pub prints_data: bool,
    /// When it succeeds there is no next prompt.
    pub ends_session: bool,
}

/// What a handler returns.
pub type Outcome = Result<Report, Failure>;

/// A handler.
pub enum Run {
    /// One that is done at once.
    Now(for<'a> fn(&'a Invocation<'a>) -> Outcome),
    /// One that takes time. Ctrl-C drops its future.
    Later(for<'a> fn(&'a Invocation<'a>) -> Pending<'a, Outcome>),
}

/// What a handler works with.
pub struct Invocation<'a> {
    /// The world.
    pub system: &'a dyn System,
    /// What stood behind the command's name.
    pub arguments: &'a Arguments,
    /// For output before the report, and input.
    pub console: &'a Console,
    /// The lines typed before.
    pub history: &'a History,
}

const fn command(noun: &'static str, verb: &'static str, help: &'static str, run: Run) -> Command {
    Command {
        noun,
        verb,
        arguments: &[],
        flags: &[],
        help,
        run,
        prints_data: false,
        ends_session: false,
    }
}

impl Command {
    const fn arguments(mut self, arguments: &'static [Argument]) -> Self {
        self.arguments = arguments;
        self
    }

    const fn flags(mut self, flags: &'static [Flag]) -> Self {
        self.flags = flags;
        self
    }

    const fn json(mut self) -> Self {
        self.prints_data = true;
        self
    }

    const fn ends_session(mut self) -> Self {
        self.ends_session = true;
        self
    }

    /// Its name: `hv info`, `version`.
    pub fn name(&self) -> String {
        self.words().collect::<Vec<_>>().join(" ")
    }

    /// The words of its name.
    pub fn words(&self) -> impl Iterator<Item = &'static str> + use<> {
        let verbs = self.verb.split(' ').filter(|verb| !verb.is_empty());
        core::iter::once(self.noun).chain(verbs)
    }

    /// How many words of its name `words` begin with.
    pub fn match_words(&self, words: &[&str]) -> usize {
        let same = self.words().zip(words).take_while(|(own, word)| own == *word);
        same.count()
    }

    /// All flags that it takes.
    pub fn all_flags(&self) -> impl Iterator<Item = &'static Flag> {
        let json = self.prints_data.then_some(&arguments::JSON);
        self.flags.iter().chain(json).chain([&arguments::HELP])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_nouns_are_described() {
        for (index, row) in COMMANDS.iter().enumerate() {
            let name = row.name();
            assert!(
                COMMANDS[..index].iter().all(|other| other.name() != name),
                "{name}"
            );
            assert_eq!(
                row.verb.is_empty(),
                !NOUNS.iter().any(|(noun, _)| *noun == row.noun),
                "{name}"
            );
        }
        for (noun, _) in NOUNS {
            assert!(
                COMMANDS.iter().any(|row| row.noun == *noun),
                "{noun} has no commands"
            );
        }
    }

    #[test]
    fn rows_are_well_formed() {
        for row in COMMANDS {
            let name = row.name();
            assert!(
                !row.help.is_empty() && !row.help.ends_with('.') && row.help.len() <= 52,
                "{name}"
            );
            assert!(row.all_flags().all(|flag| flag.name.starts_with("--")), "{name}");
            let optional: Vec<bool> = row.arguments.iter().map(|argument| !argument.required).collect();
            assert!(
                optional.is_sorted(),
                "{name}: a required argument behind an optional one"
            );
            let repeated = row
                .arguments
                .iter()
                .rev()
                .skip(1)
                .any(|argument| argument.repeated);
            assert!(!repeated, "{name}: only the last argument may be repeated");
        }
    }
}
