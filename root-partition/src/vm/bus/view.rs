//! What `bus list` shows.

use super::channel::Open;
use super::host::Bus;
use crate::shell::machines::{ChannelInfo, Fill, OpenChannel};
use crate::vm::host::Host;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vmbus::protocol::guid::class_name;
use vmbus::server::{ChannelState, ChannelView};

/// The channels of a bus.
pub fn channels<H: Host>(bus: &Bus<H>) -> Vec<ChannelInfo> {
    let mut channels = Vec::new();
    bus.look(|view, device, open| {
        let class = view.offer.class;
        channels.push(ChannelInfo {
            relid: view.relid.map(|relid| relid.0),
            device: class_name(class).map_or_else(|| class.to_string(), String::from),
            instance: view.offer.instance.to_string(),
            backend: device.map_or_else(String::new, |device| device.backend()),
            sub_channel: view.offer.sub_channel_index,
            state: state(&view, open),
            open: open.map(work),
        });
    });
    channels
}

fn state(view: &ChannelView<'_>, open: Option<&Open>) -> &'static str {
    match view.state {
        ChannelState::Closing => "closing",
        _ if view.rescinded => "rescinded",
        ChannelState::Closed if view.relid.is_none() => "waiting",
        ChannelState::Closed => "offered",
        ChannelState::Opening => "opening",
        ChannelState::Open if open.is_some_and(|open| open.stopped.load(Ordering::Acquire)) => "stopped",
        ChannelState::Open => "open",
    }
}

fn work(open: &Open) -> OpenChannel {
    let count = |counter: &core::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    OpenChannel {
        vp: open.target_vp.load(Ordering::Relaxed),
        root_vp: open.root_vp,
        fill: open
            .fill()
            .map(|rings| rings.map(|(used, size)| Fill { used, size })),
        received: count(&open.counters.received),
        sent: count(&open.counters.sent),
        wakes: count(&open.counters.wakes),
        signals: count(&open.counters.signals),
    }
}
