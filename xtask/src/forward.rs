//! Ports of this host that lead to the machine's network card.

use std::str::FromStr;

/// A port of this host, on its loopback address, and the machine's port that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// TCP, or UDP.
    pub tcp: bool,
    /// The port of this host.
    pub host: u16,
    /// The machine's.
    pub machine: u16,
}

impl Forward {
    /// A TCP port.
    pub const fn tcp(host: u16, machine: u16) -> Self {
        Self {
            tcp: true,
            host,
            machine,
        }
    }

    /// As a part of QEMU's option `-netdev user`.
    pub(crate) fn option(&self) -> String {
        let protocol = if self.tcp { "tcp" } else { "udp" };
        format!(",hostfwd={protocol}:127.0.0.1:{}-:{}", self.host, self.machine)
    }
}

impl FromStr for Forward {
    type Err = String;

    /// Reads `tcp:8080:80`, or `tcp:80` for the same port on both sides.
    fn from_str(text: &str) -> Result<Self, String> {
        let advice = || format!("'{text}': give a protocol and ports from 1 to 65535, as in tcp:8080:80");
        let port = |text: &str| {
            text.parse()
                .ok()
                .filter(|&port: &u16| port > 0)
                .ok_or_else(advice)
        };
        let words: Vec<&str> = text.split(':').collect();
        let (protocol, host, machine) = match words[..] {
            [protocol, port] => (protocol, port, port),
            [protocol, host, machine] => (protocol, host, machine),
            _ => return Err(advice()),
        };
        let tcp = match protocol {
            "tcp" => true,
            "udp" => false,
            _ => return Err(advice()),
        };
        Ok(Self {
            tcp,
            host: port(host)?,
            machine: port(machine)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_forward_is_told_how_one_looks() {
        assert_eq!("tcp:8080:80".parse(), Ok(Forward::tcp(8080, 80)));
        for text in ["", "tcp", "icmp:1:2", "tcp:0:80", "tcp:80:65536", "tcp:1:2:3"] {
            assert!(text.parse::<Forward>().unwrap_err().contains("as in tcp:8080:80"));
        }
    }
}
