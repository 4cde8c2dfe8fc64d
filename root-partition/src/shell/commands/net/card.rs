//! `net attach`, `net detach`: network cards of machines that run.

use super::super::{
    Invocation, Outcome,
    arguments::{Argument, Flag},
    switch::{self, networks},
    vm,
};
use super::{
    port,
    port::{TRUNK, vlans},
    read,
};
use crate::net::DEFAULT_SWITCH;
use crate::shell::{
    output::{Report, Value},
    status::Failure,
    switches::PortName,
    system::Pending,
};
use crate::vm::description::{NAME_RULE, NetworkDescription, is_name};
use alloc::{boxed::Box, format};
use vmbus::protocol::network::Mac;
use vsp::switch::guard::Guards;
use vsp::switch::limit::Limit;
use vsp::switch::words::{GUARD_RULE, LIMIT_RULE};

pub(in super::super) const SWITCH: Argument = Argument {
    required: false,
    help: "The switch that it is plugged into; 'default' where not given",
    ..switch::SWITCH
};

pub(in super::super) const MAC: Flag = Flag {
    name: "--mac",
    value: Some("ADDRESS"),
    help: "Its address, as in 02:00:00:00:00:01; made up where not given",
};

pub(in super::super) const VLAN: Flag = Flag {
    name: "--vlan",
    value: Some("VLAN"),
    help: "Its VLAN, 1 to 4094",
};

pub(in super::super) const LIMIT: Flag = Flag {
    name: "--limit",
    value: Some("RATE"),
    help: "How much it may send, as in 100Mbit",
};

pub(in super::super) const GUARD: Flag = Flag {
    name: "--guard",
    value: Some("GUARDS"),
    help: "What it may not send: all (where not given), none, or some of mac,dhcp,router",
};

pub(in super::super) fn attach(invocation: &Invocation<'_>) -> Outcome {
    let arguments = invocation.arguments;
    let switch = arguments.word(1).unwrap_or(DEFAULT_SWITCH);
    if !is_name(switch) {
        return Err(Failure::Usage(format!(
            "net attach: '{switch}' is no name: {NAME_RULE}"
        )));
    }
    let mut card = NetworkDescription::on(switch);
    if let Some(text) = arguments.value(MAC.name) {
        let rule = "give a card's address, as in 02:00:00:00:00:01";
        let station = |text: &str| Mac::parse(text).filter(|address| address.is_station());
        card.address = Some(read("--mac", text, rule, station)?);
    }
    let trunk = arguments.value(TRUNK.name);
    if trunk.is_some() || arguments.value(VLAN.name).is_some() {
        card.vlan = vlans("--vlan", arguments.value(VLAN.name).unwrap_or("none"), trunk)?;
    }
    if let Some(text) = arguments.value(LIMIT.name) {
        card.limit = read("--limit", text, LIMIT_RULE, Limit::parse)?;
    }
    if let Some(text) = arguments.value(GUARD.name) {
        card.guard = read("--guard", text, GUARD_RULE, Guards::parse)?;
    }
    let index = networks(invocation)?.attach_card(vm::name(invocation), &card)?;
    let mut report = Report::new();
    report.push_fields("", [("card", "card", Value::Number(index as u64))]);
    Ok(report)
}

pub(in super::super) fn detach<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(async move {
        let PortName::Card(machine, index) = port(invocation)? else {
            return Err(Failure::Usage(
                "net detach: give a machine's card, as in 'web' or 'web/1'".into(),
            ));
        };
        networks(invocation)?.detach_card(&machine, index).await?;
        Ok(Report::new())
    })
}
