//! The table of all entries for fuzzers: code that reads what a guest, a host, a disk or an operator wrote. `tests/fuzz` makes a target of
//! each for cargo-fuzz; the test of this crate runs each for a fixed number of cases on stable Rust.

use hypercall_api::archive::Archive;

/// One entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name, which is its target's as well.
    pub name: &'static str,
    /// Who lies to whom.
    pub what: &'static str,
    /// Takes the fuzzer's bytes; panics where a rule is broken.
    pub run: fn(&[u8]),
    /// Bytes of its longest input.
    pub longest: usize,
    /// Cases that the test runs.
    pub cases: u32,
}

macro_rules! entries {
    ($($name:ident, $what:literal, $longest:literal, $cases:literal, $run:expr;)*) => {
        /// All entries.
        pub static ENTRIES: &[Entry] = &[$(Entry {
            name: stringify!($name),
            what: $what,
            run: $run,
            longest: $longest,
            cases: $cases,
        },)*];
    };
}

entries! {
    // name            who lies to whom                                                        bytes   cases  entry
    ring,              "a peer that writes to rings at any moment, to both of their ends",     2000,   4000,  |data| { let _ = vmbus::fuzz::ring::ring(data); };
    bus_server,        "a guest, to the root's end of the bus: channels, GPADLs, sockets",     2000,   2000,  vmbus::fuzz::bus::server;
    bus_client,        "a host, to a guest's end of the bus",                                  2000,   2000,  vmbus::fuzz::bus::client;
    messages,          "anybody, to the parsers of channel messages and page lists",           300,    20000, vmbus::fuzz::parsers::messages;
    device_messages,   "anybody, to the parsers of NVSP, RNDIS and integration messages",      300,    20000, vmbus::fuzz::parsers::devices;
    storage_provider,  "a guest, to a SCSI controller whose disks fail: vstor packets, CDBs",  4000,   1000,  |data| { let _ = vsp::storage::fuzz::guest(data); };
    storage_consumer,  "a host, to a guest's driver of SCSI disks",                            4000,   300,   |data| { let _ = vsc::storage::fuzz::host(data); };
    integration,       "a guest, to heartbeat, shutdown, time and key/value services",         1500,   4000,  vsp::integration::fuzz::services;
    network_consumer,  "a host, to a guest's driver of network cards",                         4000,   300,   |data| { let _ = vsc::network::fuzz::host(data); };
    network_switch,    "machines, to the virtual switch",                                      2000,   2000,  vsp::switch::fuzz::switch;
    network_provider,  "a guest, to a network card: NVSP and RNDIS, rings and buffers",        2000,   1000,  |data| { let _ = vsp::network::fuzz::provider(data); };
    partition_table,   "a disk, to the reader of GUID partition tables",                       2000,   4000,  vsc::partition::fuzz::table;
    description,       "an operator, to the reader of machines' descriptions",                 600,    4000,  root_partition::fuzz::description;
    kernel,            "a file, to the loaders: ELF with PVH or multiboot, bzImage",           9000,   1500,  root_partition::fuzz::kernel;
    gateway,           "machines and the world, to the root's address translation",            2000,   1000,  |data| { let _ = root_partition::net::gateway::fuzz::gateway_frames(data); };
    hypercalls,        "a guest, to the dispatcher of hypercalls",                             2000,   2000,  hypervisor::fuzz::hypercalls;
    hypercall_parameters, "a guest, to what handlers of hypercalls and exits parse",            600,    4000,  hypervisor::fuzz::parameters;
    remapping_table,   "firmware, to the reader of the DMAR table",                            600,    20000, hypervisor::platform::dmar::fuzz;
    archive,           "a file, to the reader of the boot archive",                            4000,   10000, archive;
}

/// The entry called `name`.
pub fn find(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name)
}

/// Runs the entry called `name`.
///
/// # Panics
/// Where there is none, or a rule is broken.
pub fn run(name: &str, data: &[u8]) {
    let entry = find(name).unwrap_or_else(|| panic!("there is no entry {name}"));
    (entry.run)(data);
}

/// Two archives: the bytes as they are, and behind a header that makes sense.
fn archive(data: &[u8]) {
    /// Bytes of a header.
    const HEADER: usize = 110;
    let walk = |bytes: &[u8]| {
        let most = bytes.len() / HEADER + 1;
        assert!(Archive::new(bytes).count() <= most, "more members than fit");
        let _ = Archive::new(bytes).find("root");
    };
    walk(data);
    if let Some(([name, size], rest)) = data.split_first_chunk::<2>() {
        let mut bytes = b"070701".to_vec();
        for field in 0..13 {
            let value = match field {
                1 => 0o100_644,
                6 => u32::from(*size),
                11 => u32::from(*name),
                _ => 0,
            };
            bytes.extend(format!("{value:08x}").bytes());
        }
        bytes.extend(rest);
        walk(&bytes);
    }
}
