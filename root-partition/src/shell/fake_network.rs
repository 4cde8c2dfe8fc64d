//! A network for tests of the shell: an uplink with an address, a gateway with one lease and one forward.

use alloc::{boxed::Box, string::String, vec, vec::Vec};
use core::future::ready;
use core::net::Ipv4Addr;
use core::time::Duration;

use vmbus::protocol::network::Mac;

use super::{
    network::{CardCounter, ForwardInfo, GatewayInfo, LeaseInfo, RootNetwork, UplinkInfo},
    system::{Pending, SystemError},
};

const GUEST: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 17);

pub(crate) struct FakeNetwork;

impl RootNetwork for FakeNetwork {
    fn uplink(&self) -> Option<UplinkInfo> {
        Some(UplinkInfo {
            card: "e1000e0".into(),
            hardware_address: Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]),
            mtu: 1500,
            link: Some(1000),
            address: Some((Ipv4Addr::new(10, 0, 2, 15), 24)),
            router: Some(Ipv4Addr::new(10, 0, 2, 2)),
            name_servers: vec![Ipv4Addr::new(10, 0, 2, 3)],
            counters: vec![CardCounter {
                key: "sent",
                label: "frames sent",
                value: 7,
            }],
        })
    }

    fn gateway(&self) -> GatewayInfo {
        GatewayInfo {
            address: (Ipv4Addr::new(192, 168, 100, 1), 24),
            pool: (
                Ipv4Addr::new(192, 168, 100, 16),
                Ipv4Addr::new(192, 168, 100, 254),
            ),
            leases: 1,
            flows: 2,
            max_flows: 4096,
            outward: 30,
            inward: 20,
            dropped: vec![("no flow", 3)],
        }
    }

    fn leases(&self) -> Vec<LeaseInfo> {
        vec![LeaseInfo {
            address: GUEST,
            mac: Mac([0x00, 0x15, 0x5d, 0, 0, 1]),
            machine: Some("web".into()),
            host_name: "partita-guest".into(),
            left: Duration::from_secs(3600),
        }]
    }

    fn forwards(&self) -> Vec<ForwardInfo> {
        vec![ForwardInfo {
            from: "tcp:8080".into(),
            to: "web:80".into(),
            address: Some(GUEST),
            flows: 1,
        }]
    }

    fn add_forward(&self, from: &str, _: &str) -> Result<(), SystemError> {
        Err(SystemError(String::from(from) + " is forwarded already"))
    }

    fn delete_forward(&self, _: &str) -> Result<(), SystemError> {
        Ok(())
    }

    fn wait(&self, _: Duration) -> Pending<'_, ()> {
        Box::pin(ready(()))
    }

    fn resolve<'a>(&'a self, name: &'a str) -> Pending<'a, Result<Ipv4Addr, SystemError>> {
        let address = name.parse().map_err(|_| SystemError::new("no such name"));
        Box::pin(ready(address))
    }

    fn ping(
        &self,
        _: Ipv4Addr,
        _: Duration,
    ) -> Pending<'_, Result<Result<Duration, SystemError>, SystemError>> {
        Box::pin(ready(Ok(Ok(Duration::from_micros(250)))))
    }
}
