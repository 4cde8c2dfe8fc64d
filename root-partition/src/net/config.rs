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
use crate::shell::commands::dispatch::closest;
use crate::vm::description::{NAME_RULE, is_name};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::net::Ipv4Addr;
use core::ops::RangeInclusive;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

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

/// What is wrong with the file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{FILE}:{line}: {what}")]
pub struct ConfigError {
    /// Line, from 1.
    pub line: usize,
    /// A sentence.
    pub what: String,
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
    pub fn read(text: &[u8]) -> Result<Self, ConfigError> {
        let reader = Reader { text };
        let source = core::str::from_utf8(text)
            .map_err(|error| reader.error(error.valid_up_to(), "the file is not UTF-8 text"))?;
        let table = DeTable::parse(source).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            reader.error(at, error.message().lines().next().unwrap_or_default())
        })?;
        reader.config(table.get_ref())
    }
}

struct Reader<'a> {
    text: &'a [u8],
}

type Value<'i> = Spanned<DeValue<'i>>;

impl Reader<'_> {
    fn error(&self, at: usize, what: impl fmt::Display) -> ConfigError {
        let before = &self.text[..at.min(self.text.len())];
        ConfigError {
            line: before.iter().filter(|&&byte| byte == b'\n').count() + 1,
            what: what.to_string(),
        }
    }

    /// An error about a value: the setting as it stands, and what would be right.
    fn bad(&self, key: &str, value: &Value<'_>, advice: impl fmt::Display) -> ConfigError {
        let span = value.span();
        let shown = String::from_utf8_lossy(self.text.get(span.clone()).unwrap_or_default());
        let shown = shown.lines().next().unwrap_or_default();
        self.error(span.start, format_args!("{key} = {shown}: {advice}"))
    }

    fn config(&self, table: &DeTable<'_>) -> Result<NetworkConfig, ConfigError> {
        self.known(table, &["uplink", "default", "lease", "forward"])?;
        let mut config = NetworkConfig::default();
        if let Some(uplink) = self.table(table, "uplink", &["mtu"])?
            && let Some(value) = uplink.get("mtu")
        {
            config.mtu = self.mtu(value)?;
        }
        if let Some(network) = self.table(table, "default", &["address", "first", "last"])? {
            self.network(network, &mut config)?;
        }
        for lease in self.tables(table, "lease", &["machine", "address"])? {
            let (machine, at) = self.text(lease, "machine", "web")?;
            if !is_name(machine) {
                return Err(self.bad("machine", at, NAME_RULE));
            }
            let (text, at) = self.text(lease, "address", "192.168.86.20")?;
            let address = self.host(&config, "address", text, at)?;
            if config
                .leases
                .iter()
                .any(|(other, taken)| other == machine || *taken == address)
            {
                return Err(self.bad("address", at, "another lease has this machine or this address"));
            }
            config.leases.push((machine.to_string(), address));
        }
        for forward in self.tables(table, "forward", &["from", "to"])? {
            let (text, at) = self.text(forward, "from", "tcp:8080")?;
            let from = forwards::read_from(text).map_err(|error| self.bad("from", at, error))?;
            if config.forwards.iter().any(|(other, ..)| *other == from) {
                return Err(self.bad("from", at, "another forward has this port"));
            }
            let (text, at) = self.text(forward, "to", "web:80")?;
            let (target, port) = forwards::read_to(text).map_err(|error| self.bad("to", at, error))?;
            config.forwards.push((from, target, port));
        }
        Ok(config)
    }

    fn mtu(&self, value: &Value<'_>) -> Result<usize, ConfigError> {
        let number = value.get_ref().as_integer();
        let number = number.and_then(|number| usize::from_str_radix(number.as_str(), number.radix()).ok());
        number
            .filter(|mtu| (MIN_MTU..=MAX_MTU).contains(mtu))
            .ok_or_else(|| {
                self.bad(
                    "mtu",
                    value,
                    format_args!("give a number from {MIN_MTU} to {MAX_MTU}"),
                )
            })
    }

    fn network(&self, table: &DeTable<'_>, config: &mut NetworkConfig) -> Result<(), ConfigError> {
        if let Some(value) = table.get("address") {
            let advice = || {
                self.bad(
                    "address",
                    value,
                    format_args!(
                        "give the gateway's address with {MIN_PREFIX} to {MAX_PREFIX} bits of network, as in \"192.168.86.1/24\""
                    ),
                )
            };
            let text = value.get_ref().as_str().ok_or_else(advice)?;
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
        for (key, end) in [("first", &mut first), ("last", &mut last)] {
            if table.contains_key(key) {
                let (text, at) = self.text(table, key, "192.168.86.10")?;
                *end = self.host(config, key, text, at)?;
            }
        }
        if first > last {
            let at = table
                .get("last")
                .or(table.get("first"))
                .map_or(0, |value| value.span().start);
            return Err(self.error(
                at,
                format_args!("the addresses end at {last}, before they begin at {first}"),
            ));
        }
        config.pool = first..=last;
        Ok(())
    }

    /// The address of a host on the default switch that is not the gateway.
    fn host(
        &self,
        config: &NetworkConfig,
        key: &str,
        text: &str,
        at: &Value<'_>,
    ) -> Result<Ipv4Addr, ConfigError> {
        let (gateway, prefix) = (config.gateway, config.prefix);
        let address = text.parse().ok().filter(|address: &Ipv4Addr| {
            hosts(gateway, prefix).contains(&address.to_bits()) && *address != gateway
        });
        address.ok_or_else(|| {
            let advice = format_args!(
                "give an address of the network of {gateway}/{prefix} that is not the gateway's"
            );
            self.bad(key, at, advice)
        })
    }

    fn known(&self, table: &DeTable<'_>, keys: &[&str]) -> Result<(), ConfigError> {
        for key in table.keys() {
            let name: &str = key.get_ref();
            if !keys.contains(&name) {
                let advice = match closest(name, keys) {
                    Some(near) => format!("did you mean '{near}'?"),
                    None => format!("there are {}", keys.join(", ")),
                };
                return Err(self.error(key.span().start, format_args!("unknown key '{name}': {advice}")));
            }
        }
        Ok(())
    }

    fn table<'t, 'i>(
        &self,
        table: &'t DeTable<'i>,
        key: &str,
        keys: &[&str],
    ) -> Result<Option<&'t DeTable<'i>>, ConfigError> {
        let Some(value) = table.get(key) else {
            return Ok(None);
        };
        let advice = format_args!("give a table, as in [{key}]");
        let found = value
            .get_ref()
            .as_table()
            .ok_or_else(|| self.bad(key, value, advice))?;
        self.known(found, keys)?;
        Ok(Some(found))
    }

    fn tables<'t, 'i>(
        &self,
        table: &'t DeTable<'i>,
        key: &str,
        keys: &[&str],
    ) -> Result<Vec<&'t DeTable<'i>>, ConfigError> {
        let Some(value) = table.get(key) else {
            return Ok(Vec::new());
        };
        let advice = || self.bad(key, value, format_args!("give tables, as in [[{key}]]"));
        let list = value.get_ref().as_array().ok_or_else(advice)?;
        let tables = list.iter().map(|entry| {
            let found = entry.get_ref().as_table().ok_or_else(advice)?;
            self.known(found, keys)?;
            Ok(found)
        });
        tables.collect()
    }

    fn text<'t, 'i>(
        &self,
        table: &'t DeTable<'i>,
        key: &str,
        example: &str,
    ) -> Result<(&'t str, &'t Value<'i>), ConfigError> {
        let start = table.keys().map(|key| key.span().start).min().unwrap_or(0);
        let value = table.get(key).ok_or_else(|| {
            self.error(
                start,
                format_args!("{key} is missing: give one, as in {key} = \"{example}\""),
            )
        })?;
        match value.get_ref().as_str() {
            Some(text) => Ok((text, value)),
            None => {
                let advice = format_args!("give a text in quotes, as in {key} = \"{example}\"");
                Err(self.bad(key, value, advice))
            }
        }
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
