//! Ports, connections, and the messages and events that go over them.

use super::{TYPE, VP};
use crate::hypervisor::hypercalls;
use crate::selftest::report::{Report, text};
use crate::vm::pool::{self, with_deposits};
use crate::vm::root_host::RootHost;
use alloc::string::String;
use hypercall_api::call::{GuestCalls, PartitionCalls};
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::port::{ConnectionId, ConnectionInfo, PortId, PortInfo, PortType};
use hypercall_api::status::HvStatus;
use zerocopy::FromZeros;

/// Connections of the root's that nothing else uses.
pub(super) const CONNECTION: ConnectionId = ConnectionId(0xfe_0001);
const OTHER_CONNECTION: ConnectionId = ConnectionId(0xfe_0002);
/// Ports of the child's.
pub(super) const PORT: PortId = PortId(0xfe_0001);
const EVENT_PORT: PortId = PortId(0xfe_0002);
/// Messages that wait at a port.
const BUFFERS: usize = 16;

/// The root's tables of ports and connections keep the frames that they once had: they have had them then.
pub(super) fn use_tables() -> Result<(), String> {
    let (calls, own) = (hypercalls(), PartitionId::SELF);
    let info = PortInfo::message(14, VP);
    with_deposits(&RootHost, own, || calls.create_port(own, PORT, own, info)).map_err(text)?;
    let connected = with_deposits(&RootHost, own, || {
        connect(own, CONNECTION, own, PORT, PortType::MESSAGE)
    });
    calls.delete_port(own, PORT).map_err(text)?;
    connected.map_err(text)?;
    calls.disconnect_port(own, CONNECTION).map_err(text)?;
    pool::drain_own(&RootHost).map_err(text)
}

/// Connects a port, the connection's kind being the port's.
pub(super) fn connect(
    connector: PartitionId,
    connection: ConnectionId,
    owner: PartitionId,
    port: PortId,
    port_type: PortType,
) -> Result<(), HvStatus> {
    let mut info = ConnectionInfo::new_zeroed();
    info.port_type = port_type;
    hypercalls().connect_port(connector, connection, owner, port, info)
}

pub(super) fn ports(report: &mut Report, child: PartitionId) -> Result<(), String> {
    creating(report, child)?;
    connecting(report, child)?;
    traffic(report, child);
    ending(report, child);
    Ok(())
}

fn creating(report: &mut Report, child: PartitionId) -> Result<(), String> {
    let (calls, own) = (hypercalls(), PartitionId::SELF);
    let message = PortInfo::message(3, VP);
    let create = |id, info| calls.create_port(child, id, own, info);
    let name = "HvCallCreatePort";
    for id in [0, 0x100_0000, u32::MAX] {
        let done = create(PortId(id), message);
        report.refuses(
            name,
            format_args!("port id {id:#x} is refused"),
            done,
            HvStatus::INVALID_PARAMETER,
        );
    }
    for (rule, info) in [
        ("SINT 16 is refused", PortInfo::message(16, VP)),
        (
            "an event port without flags is refused",
            PortInfo::event(3, VP, 0, 0),
        ),
        ("flags past the last are refused", PortInfo::event(3, VP, 2047, 2)),
    ] {
        report.refuses(name, rule, create(PORT, info), HvStatus::INVALID_PARAMETER);
    }
    let done = create(PORT, PortInfo::message(3, VpIndex(7)));
    report.refuses(
        name,
        "a VP that is not there is refused",
        done,
        HvStatus::INVALID_VP_INDEX,
    );
    with_deposits(&RootHost, child, || create(PORT, message)).map_err(text)?;
    with_deposits(&RootHost, child, || {
        create(EVENT_PORT, PortInfo::event(3, VP, 8, 4))
    })
    .map_err(text)?;
    let again = create(PORT, message);
    report.refuses(name, "an id in use is refused", again, HvStatus::INVALID_PORT_ID);
    Ok(())
}

fn connecting(report: &mut Report, child: PartitionId) -> Result<(), String> {
    let (calls, own) = (hypercalls(), PartitionId::SELF);
    let (port_id, connection_id) = (HvStatus::INVALID_PORT_ID, HvStatus::INVALID_CONNECTION_ID);
    let name = "HvCallConnectPort";
    for id in [3, 0x100_0000, u32::MAX] {
        let done = connect(own, CONNECTION, child, PortId(id), PortType::MESSAGE);
        report.refuses(
            name,
            format_args!("port {id:#x}, which is not there, is refused"),
            done,
            port_id,
        );
        let done = calls.delete_port(child, PortId(id));
        let rule = format_args!("port {id:#x}, which is not there, is refused");
        report.refuses("HvCallDeletePort", rule, done, port_id);
    }
    let done = connect(own, CONNECTION, child, PORT, PortType::EVENT);
    report.refuses(
        name,
        "a port of another type is refused",
        done,
        HvStatus::ACCESS_DENIED,
    );
    let done = connect(child, CONNECTION, child, PORT, PortType::MESSAGE);
    report.refuses(
        name,
        "another than the port is for is refused",
        done,
        HvStatus::ACCESS_DENIED,
    );
    for id in [0, 0x100_0000, u32::MAX] {
        let done = connect(own, ConnectionId(id), child, PORT, PortType::MESSAGE);
        report.refuses(
            name,
            format_args!("connection id {id:#x} is refused"),
            done,
            connection_id,
        );
        let done = calls.disconnect_port(own, ConnectionId(id));
        report.refuses(
            "HvCallDisconnectPort",
            format_args!("connection {id:#x} is refused"),
            done,
            connection_id,
        );
    }
    for (connection, port, port_type) in [
        (CONNECTION, PORT, PortType::MESSAGE),
        (OTHER_CONNECTION, EVENT_PORT, PortType::EVENT),
    ] {
        with_deposits(&RootHost, own, || {
            connect(own, connection, child, port, port_type)
        })
        .map_err(text)?;
    }
    let done = connect(own, CONNECTION, child, PORT, PortType::MESSAGE);
    report.refuses(name, "a connection id in use is refused", done, connection_id);
    Ok(())
}

/// A port that goes takes its messages with it; the connection leads nowhere.
fn ending(report: &mut Report, child: PartitionId) {
    let (calls, own) = (hypercalls(), PartitionId::SELF);
    let (port_id, connection_id) = (HvStatus::INVALID_PORT_ID, HvStatus::INVALID_CONNECTION_ID);
    report.equal(
        "HvCallDeletePort",
        "a port with messages goes",
        calls.delete_port(child, PORT),
        Ok(()),
    );
    report.refuses(
        "HvCallDeletePort",
        "once",
        calls.delete_port(child, PORT),
        port_id,
    );
    let done = calls.post_message(CONNECTION, TYPE, &[]);
    report.refuses("HvCallPostMessage", "a stale port is refused", done, port_id);
    for connection in [CONNECTION, OTHER_CONNECTION] {
        let done = calls.disconnect_port(own, connection);
        report.equal("HvCallDisconnectPort", "a connection ends", done, Ok(()));
        let done = calls.disconnect_port(own, connection);
        report.refuses("HvCallDisconnectPort", "once", done, connection_id);
    }
    let done = calls.post_message(CONNECTION, TYPE, &[]);
    report.refuses(
        "HvCallPostMessage",
        "a stale connection is refused",
        done,
        connection_id,
    );
    let done = calls.signal_event(OTHER_CONNECTION, 0);
    report.refuses(
        "HvCallSignalEvent",
        "a stale connection is refused",
        done,
        connection_id,
    );
}

/// Messages and events to a VP that takes none: its SynIC is off.
fn traffic(report: &mut Report, child: PartitionId) {
    let calls = hypercalls();
    let name = "HvCallPostMessage";
    let post = || calls.post_message(CONNECTION, TYPE, b"waits");
    let taken = (0..BUFFERS).filter(|_| post().is_ok()).count();
    report.equal(name, "16 messages wait at a port", taken, BUFFERS);
    let balance = || calls.memory_balance(child).map(|balance| balance.in_use);
    let before = balance();
    for number in [17, 18] {
        let rule = format_args!("message {number} is refused");
        report.refuses(name, rule, post(), HvStatus::INSUFFICIENT_BUFFERS);
    }
    report.equal(name, "and takes no memory", balance(), before);
    let done = calls.post_message(OTHER_CONNECTION, TYPE, &[]);
    report.refuses(
        name,
        "a port of events is refused",
        done,
        HvStatus::INVALID_PORT_ID,
    );
    let name = "HvCallSignalEvent";
    let done = calls.signal_event(CONNECTION, 0);
    report.refuses(
        name,
        "a port of messages is refused",
        done,
        HvStatus::INVALID_PORT_ID,
    );
    let done = calls.signal_event(OTHER_CONNECTION, 4);
    report.refuses(
        name,
        "a flag past the port's is refused",
        done,
        HvStatus::INVALID_PARAMETER,
    );
    let done = calls.signal_event(OTHER_CONNECTION, 0);
    report.refuses(
        name,
        "a VP without an event page takes none",
        done,
        HvStatus::OPERATION_DENIED,
    );
}
