//! The root's TCP/IP stack on its port of the external switch: `embassy-net`, with an address by DHCP.

use super::host_port::{HostPort, StackDriver};
use super::ping::ping;
use crate::executor;
use crate::processor::random;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use embassy_futures::join::join;
use embassy_futures::select::select;
use embassy_net::dns::DnsQueryType;
use embassy_net::{Config, DhcpConfig, IpAddress, Stack, StackResources};
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::channel::Channel;
use embassy_sync::signal::Signal;
use embassy_time::{Duration, Timer, with_timeout};
use spin::Mutex;

/// Sockets of the stack.
const SOCKETS: usize = 16;
/// How the root calls itself to a DHCP server.
const HOST_NAME: &str = "partita";
/// How often a changed address is looked for that came without the old one being given up.
const LOOK: Duration = Duration::from_secs(5);
/// Requests that wait for the stack at most.
const REQUESTS: usize = 4;
/// How long a name server may take.
const NAME_LIMIT: Duration = Duration::from_secs(15);

/// The address that the stack has now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StackAddress {
    /// The address.
    pub address: Ipv4Addr,
    /// Bits of the network's part.
    pub prefix: u8,
    /// The way to other networks.
    pub router: Option<Ipv4Addr>,
    /// Name servers.
    pub name_servers: Vec<Ipv4Addr>,
}

/// Why there was no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PingFailure {
    /// The stack has no address.
    #[error("the root has no address yet: 'root network' tells more")]
    NoAddress,
    /// Nobody answered.
    #[error("no answer")]
    NoAnswer,
    /// There is no way there.
    #[error("there is no route to it")]
    NoRoute,
    /// The stack has no socket for it.
    #[error("the request could not be sent")]
    NotSent,
    /// The name servers do not know the name.
    #[error("the name servers do not know this name")]
    UnknownName,
    /// The name servers do not answer.
    #[error("no name server answers")]
    NoNameServer,
}

type Reply<T> = Arc<Signal<CriticalSectionRawMutex, T>>;

enum Request {
    Ping(Ipv4Addr, Duration, Reply<Result<Duration, PingFailure>>),
    Resolve(Box<str>, Reply<Result<Ipv4Addr, PingFailure>>),
}

/// The stack, for tasks of any processor.
pub struct RootStack {
    /// The port that it is in.
    pub port: Arc<HostPort>,
    address: Mutex<Option<StackAddress>>,
    requests: Channel<CriticalSectionRawMutex, Request, REQUESTS>,
}

/// Who is told when the stack's address changes.
pub type Watcher = Box<dyn Fn(Option<&StackAddress>) + Send>;

impl RootStack {
    /// Starts the stack, as a task of VP 0.
    pub fn start(port: Arc<HostPort>, watcher: Watcher) -> Arc<Self> {
        let stack = Arc::new(Self {
            port,
            address: Mutex::new(None),
            requests: Channel::new(),
        });
        let own = stack.clone();
        executor::spawn_local(0, move || own.run(watcher)).detach();
        stack
    }

    /// The address that the stack has now.
    pub fn address(&self) -> Option<StackAddress> {
        self.address.lock().clone()
    }

    /// Sends an ICMP echo request, and waits for the answer.
    pub async fn ping(&self, target: Ipv4Addr, limit: Duration) -> Result<Duration, PingFailure> {
        if self.address.lock().is_none() {
            return Err(PingFailure::NoAddress);
        }
        let reply: Reply<_> = Arc::default();
        self.requests
            .send(Request::Ping(target, limit, reply.clone()))
            .await;
        reply.wait().await
    }

    /// The address of `name`, which may be one.
    pub async fn resolve(&self, name: &str) -> Result<Ipv4Addr, PingFailure> {
        if let Ok(address) = name.parse() {
            return Ok(address);
        }
        match self.address() {
            None => return Err(PingFailure::NoAddress),
            Some(own) if own.name_servers.is_empty() => return Err(PingFailure::NoNameServer),
            Some(_) => {}
        }
        let reply: Reply<_> = Arc::default();
        self.requests
            .send(Request::Resolve(name.into(), reply.clone()))
            .await;
        reply.wait().await
    }

    async fn run(self: Arc<Self>, watcher: Watcher) {
        let mut seed = [0; 8];
        if !random::fill(&mut seed) {
            log::warn!("the processor has no random numbers: the root's sequence numbers can be guessed");
        }
        let mut dhcp = DhcpConfig::default();
        dhcp.hostname = HOST_NAME.try_into().ok();
        let resources = Box::leak(Box::new(StackResources::<SOCKETS>::new()));
        let (stack, mut runner) = embassy_net::new(
            StackDriver(self.port.clone()),
            Config::dhcpv4(dhcp),
            resources,
            u64::from_le_bytes(seed),
        );
        // Whoever uses a socket wakes the runner: in one task they would wake each other for ever.
        executor::spawn_here(async move { runner.run().await }).detach();
        join(self.watch_address(stack, watcher), self.serve(stack)).await;
    }

    async fn watch_address(&self, stack: Stack<'static>, watcher: Watcher) {
        loop {
            let now = stack.config_v4().map(|config| StackAddress {
                address: config.address.address(),
                prefix: config.address.prefix_len(),
                router: config.gateway,
                name_servers: config.dns_servers.iter().copied().collect(),
            });
            let changed = *self.address.lock() != now;
            if changed {
                match &now {
                    Some(now) => log::info!("the root has the address {}/{}", now.address, now.prefix),
                    None => log::warn!("the root has no address any more"),
                }
                watcher(now.as_ref());
                *self.address.lock() = now.clone();
            }
            match now {
                Some(_) => _ = select(stack.wait_config_down(), Timer::after(LOOK)).await,
                None => stack.wait_config_up().await,
            }
        }
    }

    async fn serve(&self, stack: Stack<'static>) {
        let mut ident = 0_u16;
        loop {
            match self.requests.receive().await {
                Request::Ping(target, limit, reply) => {
                    ident = ident.wrapping_add(1);
                    reply.signal(ping(stack, ident, target, limit).await);
                }
                Request::Resolve(name, reply) => reply.signal(resolve(stack, &name).await),
            }
        }
    }
}

async fn resolve(stack: Stack<'_>, name: &str) -> Result<Ipv4Addr, PingFailure> {
    match with_timeout(NAME_LIMIT, stack.dns_query(name, DnsQueryType::A)).await {
        Err(_) => Err(PingFailure::NoNameServer),
        Ok(Err(_)) => Err(PingFailure::UnknownName),
        Ok(Ok(found)) => match found.first() {
            Some(IpAddress::Ipv4(address)) => Ok(*address),
            _ => Err(PingFailure::UnknownName),
        },
    }
}
