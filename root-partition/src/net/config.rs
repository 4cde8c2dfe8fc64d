//! The settings of the root's network: `network.toml` in the boot archive, all of it optional.
//!
//! | key | what | default |
//! |---|---|---|
//! | `uplink.mtu` | the largest IP packet of the uplink, 576 to 9000 | 1500 |
//! | `default.address` | the gateway's address on the switch `default`, with the bits of the network's part | `"192.168.86.1/24"` |
//! | `default.first`, `default.last` | the addresses that are given out by DHCP | the network's tenth to its last but five |
//!
//! Each table `[[lease]]` gives a virtual machine an address of its own, and each `[[forward]]` leads a port of the root to one:
//!
//! | key | what |
//! |---|---|
//! | `machine`, `address` | the virtual machine's name, the address of its first network card |
//! | `from`, `to` | the root's port, as in `"tcp:8080"`; the guest's, as in `"web:80"` |

use super::gateway::forwards::{self, PublicPort, Target};
use crate::drivers::e1000e::card::{DEFAULT_MTU, MAX_MTU, MIN_MTU};
use crate::settings::{Entry, Item, SettingsError, SettingsFile, item};
use crate::vm::description::{NAME_RULE, is_name};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::ops::RangeInclusive;
use toml::de::DeTable;

/// The file of the boot archive.
pub const FILE: &str = "network.toml";
/// The smallest network's part: 65,536 addresses are more than can be leased.
const MIN_PREFIX: u8 = 16;
/// The largest: the gateway and a few guests.
const MAX_PREFIX: u8 = 29;

/// The settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkConfig {
    /// The largest IP packet of the uplink.
    pub mtu: usize,
    /// The gateway's address on the default switch.
    pub gateway: Ipv4Addr,
    /// Bits of the network's part.
    pub prefix: u8,
    /// The addresses that are given out.
    pub pool: RangeInclusive<Ipv4Addr>,
    /// Addresses of virtual machines.
    pub leases: Vec<(String, Ipv4Addr)>,
    /// Port forwards.
    pub forwards: Vec<(PublicPort, Target, u16)>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        let gateway = Ipv4Addr::new(192, 168, 86, 1);
        Self {
            mtu: DEFAULT_MTU,
            gateway,
            prefix: 24,
            pool: pool(gateway, 24),
            leases: Vec::new(),
            forwards: Vec::new(),
        }
    }
}

/// The addresses of a network's hosts, as numbers.
fn hosts(address: Ipv4Addr, prefix: u8) -> RangeInclusive<u32> {
    let size = 1_u32 << (32 - u32::from(prefix));
    let network = address.to_bits() & !(size - 1);
    network + 1..=network + size - 2
}

/// What is given out where nobody says.
fn pool(gateway: Ipv4Addr, prefix: u8) -> RangeInclusive<Ipv4Addr> {
    let hosts = hosts(gateway, prefix);
    let room = hosts.end() - hosts.start();
    let first = hosts.start() + if room > 32 { 9 } else { 1 };
    let last = hosts.end() - if room > 32 { 4 } else { 0 };
    Ipv4Addr::from_bits(first)..=Ipv4Addr::from_bits(last)
}

impl NetworkConfig {
    /// Reads `text`, the contents of [`FILE`].
    pub fn read(text: &[u8]) -> Result<Self, SettingsError> {
        let file = SettingsFile::new(FILE, text);
        let table = file.parse()?;
        Reader { file }.config(table.get_ref())
    }
}

struct Reader<'a> {
    file: SettingsFile<'a>,
}

impl Reader<'_> {
    fn config(&self, table: &DeTable<'_>) -> Result<NetworkConfig, SettingsError> {
        self.file
            .known(table, &["uplink", "default", "lease", "forward"])?;
        let mut config = NetworkConfig::default();
        if let Some(uplink) = self.file.table(table, "uplink", &["mtu"])?
            && let Some(mtu) = item(uplink, "mtu")
        {
            config.mtu = self.file.number(&mtu, MIN_MTU as u64..=MAX_MTU as u64)? as usize;
        }
        if let Some(network) = self.file.table(table, "default", &["address", "first", "last"])? {
            self.network(network, &mut config)?;
        }
        for lease in self.tables(table, "lease", &["machine", "address"])? {
            let (machine, item) = self.text(lease, "machine", "web")?;
            if !is_name(machine) {
                return Err(self.file.bad(&item, NAME_RULE));
            }
            let (text, item) = self.text(lease, "address", "192.168.86.20")?;
            let address = self.host(&config, text, &item)?;
            let mut known = config.leases.iter();
            if known.any(|(other, taken)| other == machine || *taken == address) {
                let advice = "another lease has this machine or this address";
                return Err(self.file.bad(&item, advice));
            }
            config.leases.push((machine.to_string(), address));
        }
        for forward in self.tables(table, "forward", &["from", "to"])? {
            let (text, item) = self.text(forward, "from", "tcp:8080")?;
            let from = forwards::read_from(text).map_err(|error| self.file.bad(&item, error))?;
            if config.forwards.iter().any(|(other, ..)| *other == from) {
                return Err(self.file.bad(&item, "another forward has this port"));
            }
            let (text, item) = self.text(forward, "to", "web:80")?;
            let to = forwards::read_to(text).map_err(|error| self.file.bad(&item, error));
            let (target, port) = to?;
            config.forwards.push((from, target, port));
        }
        Ok(config)
    }

    fn network(&self, table: &DeTable<'_>, config: &mut NetworkConfig) -> Result<(), SettingsError> {
        if let Some(item) = item(table, "address") {
            let advice = || {
                let advice = format_args!(
                    "give the gateway's address with {MIN_PREFIX} to {MAX_PREFIX} bits of network, as in \"192.168.86.1/24\""
                );
                self.file.bad(&item, advice)
            };
            let text = item.value.get_ref().as_str().ok_or_else(advice)?;
            let (address, prefix) = text.split_once('/').ok_or_else(advice)?;
            let prefix: u8 = prefix.parse().map_err(|_| advice())?;
            let address: Ipv4Addr = address.parse().map_err(|_| advice())?;
            let is_host = (MIN_PREFIX..=MAX_PREFIX).contains(&prefix)
                && hosts(address, prefix).contains(&address.to_bits())
                && !address.is_multicast()
                && !address.is_loopback();
            if !is_host {
                return Err(advice());
            }
            (config.gateway, config.prefix) = (address, prefix);
            config.pool = pool(address, prefix);
        }
        let (mut first, mut last) = (*config.pool.start(), *config.pool.end());
        let mut at = 0;
        for (key, end) in [("first", &mut first), ("last", &mut last)] {
            if let Some(item) = item(table, key) {
                let text = self.file.text_like(&item, "192.168.86.10")?;
                *end = self.host(config, text, &item)?;
                at = item.value.span().start;
            }
        }
        if first > last {
            let what = format_args!("the addresses end at {last}, before they begin at {first}");
            return Err(self.file.error(at, what));
        }
        config.pool = first..=last;
        Ok(())
    }

    /// The address of a host on the default switch that is not the gateway.
    fn host(
        &self,
        config: &NetworkConfig,
        text: &str,
        item: &Item<'_, '_>,
    ) -> Result<Ipv4Addr, SettingsError> {
        let (gateway, prefix) = (config.gateway, config.prefix);
        let address = text.parse().ok().filter(|address: &Ipv4Addr| {
            hosts(gateway, prefix).contains(&address.to_bits()) && *address != gateway
        });
        address.ok_or_else(|| {
            let advice = format_args!(
                "give an address of the network of {gateway}/{prefix} that is not the gateway's"
            );
            self.file.bad(item, advice)
        })
    }

    /// The tables `[[key]]`.
    fn tables<'t, 'i>(
        &self,
        table: &'t DeTable<'i>,
        key: &'t str,
        keys: &[&str],
    ) -> Result<Vec<Entry<'t, 'i>>, SettingsError> {
        let advice = format_args!("give tables, as in [[{key}]]");
        item(table, key).map_or(Ok(Vec::new()), |item| self.file.tables(&item, keys, advice))
    }

    /// A text that must be there, and its item.
    fn text<'t, 'i>(
        &self,
        (table, at): Entry<'t, 'i>,
        key: &'t str,
        example: &str,
    ) -> Result<(&'t str, Item<'t, 'i>), SettingsError> {
        let start = table.keys().map(|key| key.span().start).min().unwrap_or(at);
        let item = item(table, key).ok_or_else(|| {
            let what = format_args!("{key} is missing: give one, as in {key} = \"{example}\"");
            self.file.error(start, what)
        })?;
        Ok((self.file.text_like(&item, example)?, item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::gateway::packet::Protocol;

    #[test]
    fn an_empty_file_says_nothing_new() {
        let config = NetworkConfig::read(b"").unwrap();
        assert_eq!(config, NetworkConfig::default());
        let pool = Ipv4Addr::new(192, 168, 86, 10)..=Ipv4Addr::new(192, 168, 86, 250);
        assert_eq!(config.pool, pool);
    }

    #[test]
    fn all_of_it_can_be_set() {
        let text = br#"
[uplink]
mtu = 9000

[default]
address = "10.1.0.254/16"
first = "10.1.1.1"
last = "10.1.1.9"

[[lease]]
machine = "web"
address = "10.1.0.80"

[[forward]]
from = "tcp:8080"
to = "web:80"
"#;
        let config = NetworkConfig::read(text).unwrap();
        let expected = NetworkConfig {
            mtu: 9000,
            gateway: Ipv4Addr::new(10, 1, 0, 254),
            prefix: 16,
            pool: Ipv4Addr::new(10, 1, 1, 1)..=Ipv4Addr::new(10, 1, 1, 9),
            leases: vec![("web".to_string(), Ipv4Addr::new(10, 1, 0, 80))],
            forwards: vec![(
                PublicPort {
                    protocol: Protocol::Tcp,
                    port: 8080,
                },
                Target::Machine("web".to_string()),
                80,
            )],
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn errors_name_the_line_and_what_is_right() {
        for (text, error) in [
            (
                "\n[uplink]\nmtu = 9001\n",
                "network.toml:3: mtu = 9001: give a number from 576 to 9000",
            ),
            (
                "[uplnk]\n",
                "network.toml:1: unknown key 'uplnk': did you mean 'uplink'?",
            ),
            (
                "uplink = 3\n",
                "network.toml:1: uplink = 3: give a table, as in [uplink]",
            ),
            (
                "[default]\naddress = \"10.0.0.0/24\"\n",
                "network.toml:2: address = \"10.0.0.0/24\": give the gateway's address with 16 to 29 bits of network, as in \
                 \"192.168.86.1/24\"",
            ),
            (
                "[default]\nfirst = \"10.0.0.1\"\n",
                "network.toml:2: first = \"10.0.0.1\": give an address of the network of 192.168.86.1/24 that is not the \
                 gateway's",
            ),
            (
                "[default]\nfirst = \"192.168.86.9\"\nlast = \"192.168.86.8\"",
                "network.toml:3: the addresses end at 192.168.86.8, before they begin at 192.168.86.9",
            ),
            (
                "[[lease]]\naddress = \"192.168.86.9\"\n",
                "network.toml:2: machine is missing: give one, as in machine = \"web\"",
            ),
            (
                "[[forward]]\nfrom = \"8080\"\nto = \"web:80\"\n",
                "network.toml:2: from = \"8080\": '8080' is no port of the root: give a protocol and a port from 1 to 65535, \
                 as in tcp:8080",
            ),
            (
                "[[forward]]\nfrom = 8080\n",
                "network.toml:2: from = 8080: give a text in quotes, as in from = \"tcp:8080\"",
            ),
        ] {
            assert_eq!(
                NetworkConfig::read(text.as_bytes()).unwrap_err().to_string(),
                error
            );
        }
        assert!(NetworkConfig::read(b"a\xff").is_err() && NetworkConfig::read(b"[").is_err());
    }

    #[test]
    fn small_networks_have_a_pool_too() {
        let config = NetworkConfig::read(b"[default]\naddress = \"10.0.0.1/29\"").unwrap();
        assert_eq!(
            config.pool,
            Ipv4Addr::new(10, 0, 0, 2)..=Ipv4Addr::new(10, 0, 0, 6)
        );
    }
}
