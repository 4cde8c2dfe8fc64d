//! A network card and a TCP/IP stack on it, as the demo guests have them. Words on a guest's command line:
//!
//! | word | what it does |
//! |---|---|
//! | `ip=10.0.0.2/24` | the address; without it, the guest asks for one by DHCP |
//! | `gateway=10.0.0.1` | where other networks are |
//! | `mtu=9000` | largest payload of a frame |
//! | `vlan=100` | frames are tagged; the card's port must be a trunk |
//! | `as=02:00:00:00:00:66` | pretends to have another hardware address than the card's |
//! | `ask=example.org` | asks the name server for the address of a name, and says it |
//! | `plain` | leaves no work to the host: no checksums, no segments |

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::dhcpv4;
use smoltcp::socket::dns::{self, GetQueryResultError};
use smoltcp::time::Instant;
use smoltcp::wire::{DnsQueryType, EthernetAddress, IpAddress, IpCidr, Ipv4Address, Ipv4Cidr};
use vmbus::protocol::guid::class;
use vsc::bus::{Bus, BusError};
use vsc::hal::Hal;
use vsc::network::station::{Station, poll};
use vsc::network::{Card, Mac, NetworkError, Settings};
use vsc_runtime::boot::BootInfo;
use vsc_runtime::hal::Kernel;
use vsc_runtime::println;
use vsc_runtime::processor::instruction::tsc;

/// Units of the clock in a microsecond.
const TICKS: u64 = 10;

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetError {
    #[error("not under Partita")]
    NoHypervisor,
    #[error("there is no network card")]
    NoCard,
    #[error("'{0}' on the command line makes no sense")]
    BadOption(&'static str),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// A question for the address of a name.
struct Question {
    name: String,
    socket: SocketHandle,
    query: dns::QueryHandle,
}

/// A stack with its card.
pub(crate) struct Net {
    name: &'static str,
    bus: Bus<Kernel>,
    station: Station,
    pub(crate) interface: Interface,
    pub(crate) sockets: SocketSet<'static>,
    dhcp: Option<SocketHandle>,
    /// The name that is to be asked for, until a name server is known; then the question.
    name_to_ask: Option<String>,
    question: Option<Question>,
    pub(crate) address: Option<Ipv4Cidr>,
}

impl Net {
    /// Opens the first card. With DHCP, there is no address yet. `name` begins each line that is printed.
    pub(crate) fn open(name: &'static str, boot: &BootInfo) -> Result<Self, NetError> {
        let bus = Bus::new(Kernel::new().ok_or(NetError::NoHypervisor)?)?;
        bus.block_on(bus.connect())?;
        let offered = bus.find(class::NETWORK).ok_or(NetError::NoCard)?;
        let mut settings = Settings {
            offloads: !boot.has_option("plain"),
            ..Settings::default()
        };
        if let Some(mtu) = boot.option("mtu") {
            settings.mtu = mtu.parse().map_err(|_| NetError::BadOption("mtu"))?;
        }
        let card = bus.block_on(vsc::network::open(&bus, &offered, settings))?;
        println!(
            "{name}: card {}, MTU {}, version {:#x}",
            card.address(),
            card.mtu(),
            card.version().0
        );
        let mut station = Station::new(card.clone());
        if let Some(vlan) = boot.option("vlan") {
            station = station.in_vlan(vlan.parse().map_err(|_| NetError::BadOption("vlan"))?);
        }
        let own = match boot.option("as") {
            Some(text) => Mac::parse(text).ok_or(NetError::BadOption("as"))?,
            None => card.address(),
        };
        let mut config = Config::new(EthernetAddress(own.0).into());
        config.random_seed = tsc();
        let interface = Interface::new(config, &mut station, now(&bus));
        let mut net = Self {
            name,
            bus,
            station,
            interface,
            sockets: SocketSet::new(Vec::new()),
            dhcp: None,
            name_to_ask: boot.option("ask").map(String::from),
            question: None,
            address: None,
        };
        match boot.option("ip") {
            Some(address) => {
                let address = address.parse().map_err(|_| NetError::BadOption("ip"))?;
                let gateway = boot.option("gateway").map(|text| text.parse::<Ipv4Address>());
                let gateway = gateway.transpose().map_err(|_| NetError::BadOption("gateway"))?;
                net.configure(Some(address), gateway, "as told");
            }
            None => net.dhcp = Some(net.sockets.add(dhcpv4::Socket::new())),
        }
        Ok(net)
    }

    /// The card.
    pub(crate) fn card(&self) -> &Arc<Card> {
        self.station.card()
    }

    /// Time that has passed since some moment, in microseconds.
    pub(crate) fn now(&self) -> u64 {
        self.bus.hal().now() / TICKS
    }

    /// Lets the network work until `check` has an answer.
    pub(crate) fn until<T>(&mut self, mut check: impl FnMut(&mut Self) -> Option<T>) -> T {
        loop {
            self.bus.poll();
            let changed = poll(
                &mut self.interface,
                now(&self.bus),
                &mut self.station,
                &mut self.sockets,
            );
            self.ask_for_address();
            self.hear_address_of_name();
            if let Some(value) = check(self) {
                return value;
            }
            // What `check` has put into sockets goes at once; only who has nothing to do waits.
            let sent = poll(
                &mut self.interface,
                now(&self.bus),
                &mut self.station,
                &mut self.sockets,
            );
            if changed == PollResult::None && sent == PollResult::None {
                self.bus.hal().wait();
            }
        }
    }

    /// As [`until`](Self::until), for so many microseconds at most.
    pub(crate) fn until_for<T>(
        &mut self,
        limit: u64,
        mut check: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let start = self.now();
        self.until(|net| match check(net) {
            Some(value) => Some(Some(value)),
            None => (net.now().saturating_sub(start) >= limit).then_some(None),
        })
    }

    fn ask_for_address(&mut self) {
        let Some(dhcp) = self.dhcp else { return };
        match self.sockets.get_mut::<dhcpv4::Socket<'_>>(dhcp).poll() {
            Some(dhcpv4::Event::Configured(told)) => {
                let (address, gateway) = (told.address, told.router);
                let servers: Vec<_> = told.dns_servers.iter().copied().map(IpAddress::Ipv4).collect();
                if self.address != Some(address) {
                    self.configure(Some(address), gateway, "by DHCP");
                }
                self.ask_for_name(&servers);
            }
            Some(dhcpv4::Event::Deconfigured) if self.address.is_some() => self.configure(None, None, ""),
            _ => {}
        }
    }

    /// Asks for the name that is to be asked for, once.
    fn ask_for_name(&mut self, servers: &[IpAddress]) {
        let Some(name) = self.name_to_ask.take() else {
            return;
        };
        let mut socket = dns::Socket::new(servers, vec![]);
        match socket.start_query(self.interface.context(), &name, DnsQueryType::A) {
            Ok(query) => {
                let socket = self.sockets.add(socket);
                self.question = Some(Question { name, socket, query });
            }
            Err(error) => println!("{}: {name} cannot be asked for: {error}", self.name),
        }
    }

    fn hear_address_of_name(&mut self) {
        let Some(Question { name, socket, query }) = &self.question else {
            return;
        };
        let asked = self.sockets.get_mut::<dns::Socket<'_>>(*socket);
        match asked.get_query_result(*query) {
            Err(GetQueryResultError::Pending) => return,
            Err(error) => println!("{}: {name} has no address: {error}", self.name),
            Ok(addresses) => {
                for address in addresses {
                    println!("{}: {name} has the address {address}", self.name);
                }
            }
        }
        self.sockets.remove(*socket);
        self.question = None;
    }

    fn configure(&mut self, address: Option<Ipv4Cidr>, gateway: Option<Ipv4Address>, how: &str) {
        self.address = address;
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            // There is room, as there is no other.
            let _ = address.map(|address| addresses.push(IpCidr::Ipv4(address)));
        });
        let routes = self.interface.routes_mut();
        routes.remove_default_ipv4_route();
        if let Some(gateway) = gateway {
            let _ = routes.add_default_ipv4_route(gateway);
        }
        match (address, gateway) {
            (Some(address), Some(gateway)) => {
                println!("{}: address {address} {how}, gateway {gateway}", self.name);
            }
            (Some(address), None) => println!("{}: address {address} {how}", self.name),
            (None, _) => println!("{}: the address is gone", self.name),
        }
    }
}

fn now(bus: &Bus<Kernel>) -> Instant {
    Instant::from_micros((bus.hal().now() / TICKS) as i64)
}
