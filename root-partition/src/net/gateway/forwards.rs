//! Port forwards: what comes to a port of the root goes on to a guest.

use super::packet::Protocol;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::net::Ipv4Addr;

/// Most forwards.
pub const MAX_FORWARDS: usize = 1024;

/// The guest that a forward leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// By its address.
    Address(Ipv4Addr),
    /// By the name of its virtual machine, whose first network card's address is meant.
    Machine(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => fmt::Display::fmt(address, f),
            Self::Machine(name) => f.write_str(name),
        }
    }
}

/// A port of the root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PublicPort {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

impl fmt::Display for PublicPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.protocol == Protocol::Tcp {
            "tcp"
        } else {
            "udp"
        };
        write!(f, "{protocol}:{}", self.port)
    }
}

/// What is wrong with the text of a forward.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadForward {
    /// The root's port.
    #[error("'{0}' is no port of the root: give a protocol and a port from 1 to 65535, as in tcp:8080")]
    From(String),
    /// The guest.
    #[error(
        "'{0}' is no port of a guest: give a virtual machine or an address and a port, as in web:80 or 192.168.86.10:80"
    )]
    To(String),
    /// The port is taken.
    #[error("{0} is forwarded already: 'net forward delete {0}' ends that")]
    Taken(PublicPort),
    /// There is no such forward.
    #[error("{0} is not forwarded: 'net forward list' shows what is")]
    Unknown(PublicPort),
    /// There are too many.
    #[error("there are {MAX_FORWARDS} forwards, and no more are possible")]
    TooMany,
}

/// Reads `tcp:8080`.
pub fn read_from(text: &str) -> Result<PublicPort, BadForward> {
    let bad = || BadForward::From(text.to_string());
    let (protocol, port) = text.split_once(':').ok_or_else(bad)?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(bad()),
    };
    let port = port.parse().ok().filter(|&port| port > 0).ok_or_else(bad)?;
    Ok(PublicPort { protocol, port })
}

/// Reads `web:80` or `192.168.86.10:80`.
pub fn read_to(text: &str) -> Result<(Target, u16), BadForward> {
    let bad = || BadForward::To(text.to_string());
    let (target, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let port = port.parse().ok().filter(|&port| port > 0).ok_or_else(bad)?;
    let target = match target.parse() {
        Ok(address) => Target::Address(address),
        Err(_) if crate::vm::description::is_name(target) => Target::Machine(target.to_string()),
        Err(_) => return Err(bad()),
    };
    Ok((target, port))
}

/// The forwards.
#[derive(Default)]
pub struct Forwards(BTreeMap<PublicPort, (Target, u16)>);

impl Forwards {
    /// Adds one.
    pub fn add(&mut self, from: PublicPort, target: Target, port: u16) -> Result<(), BadForward> {
        if self.0.contains_key(&from) {
            return Err(BadForward::Taken(from));
        }
        if self.0.len() >= MAX_FORWARDS {
            return Err(BadForward::TooMany);
        }
        self.0.insert(from, (target, port));
        Ok(())
    }

    /// Removes one.
    pub fn delete(&mut self, from: PublicPort) -> Result<(), BadForward> {
        self.0.remove(&from).map(|_| ()).ok_or(BadForward::Unknown(from))
    }

    /// Where `from` leads.
    pub fn find(&self, from: PublicPort) -> Option<&(Target, u16)> {
        self.0.get(&from)
    }

    /// All.
    pub fn list(&self) -> Vec<(PublicPort, Target, u16)> {
        let all = self.0.iter();
        all.map(|(from, (target, port))| (*from, target.clone(), *port))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_read_and_errors_say_how() {
        assert_eq!(
            read_from("udp:53"),
            Ok(PublicPort {
                protocol: Protocol::Udp,
                port: 53
            })
        );
        assert_eq!(
            read_to("web-1:80"),
            Ok((Target::Machine("web-1".to_string()), 80))
        );
        let address = Ipv4Addr::new(10, 0, 0, 9);
        assert_eq!(read_to("10.0.0.9:22"), Ok((Target::Address(address), 22)));
        for text in ["", "tcp", "tcp:0", "tcp:70000", "icmp:1", "8080"] {
            assert!(
                read_from(text)
                    .unwrap_err()
                    .to_string()
                    .contains("as in tcp:8080")
            );
        }
        for text in ["", "web", "web:", ":80", "web:0", "a b:80"] {
            assert!(read_to(text).unwrap_err().to_string().contains("as in web:80"));
        }
    }
}
