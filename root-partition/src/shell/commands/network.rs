//! `root network`, `root ping`: the root's own network.

use alloc::{boxed::Box, format};
use core::ops::RangeInclusive;
use core::time::Duration;

use super::{
    Invocation, Outcome,
    arguments::{Argument, Flag},
    stats,
};
use crate::shell::{
    network::RootNetwork,
    output::{Report, Table, Value},
    status::Failure,
    system::{Pending, SystemError},
};

pub(super) const TARGET: Argument = Argument {
    name: "ADDRESS",
    help: "An IPv4 address, or a name that the name servers know",
    required: true,
    repeated: false,
    values: None,
};

pub(super) const COUNT: Flag = Flag {
    name: "--count",
    value: Some("N"),
    help: "How many requests are sent; 4 where not given",
};

pub(super) const TIMEOUT: Flag = Flag {
    name: "--timeout",
    value: Some("SECONDS"),
    help: "How long an answer may take; 5 where not given",
};

pub(super) const INTERVAL: Flag = Flag {
    name: "--interval",
    value: Some("MILLISECONDS"),
    help: "How long to wait between two requests; 200 where not given",
};

/// Requests where nobody says how many.
const DEFAULT_COUNT: u64 = 4;
/// Most requests.
const MAX_COUNT: u64 = 1000;
/// Seconds that an answer may take where nobody says how many: the machine may be emulated on a busy host.
const DEFAULT_TIMEOUT: u64 = 5;
/// Most seconds.
const MAX_TIMEOUT: u64 = 3600;
/// Milliseconds between two requests where nobody says how many.
const DEFAULT_INTERVAL: u64 = 200;
/// Most milliseconds.
const MAX_INTERVAL: u64 = 3_600_000;

pub(super) fn network<'a>(invocation: &Invocation<'a>) -> Result<&'a dyn RootNetwork, SystemError> {
    let network = invocation.system.network();
    network.ok_or_else(|| SystemError::new("this system has no network"))
}

pub(super) const WAIT: Flag = Flag {
    name: "--wait",
    value: None,
    help: "Wait until there is an address, a minute at most",
};

/// How long an address may take that is waited for.
const ADDRESS_LIMIT: Duration = Duration::from_secs(60);

pub(super) fn show<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(async move {
        if invocation.arguments.flag(WAIT.name) {
            network(invocation)?.wait(ADDRESS_LIMIT).await;
        }
        describe(invocation)
    })
}

fn describe(invocation: &Invocation<'_>) -> Outcome {
    let Some(uplink) = network(invocation)?.uplink() else {
        return Err(Failure::from(SystemError::new(
            "the root has no network card that it can use: 'dev list' shows what the machine has, 'root log' why one is not used",
        )));
    };
    let mut report = Report::new();
    let address = uplink
        .address
        .map(|(address, prefix)| format!("{address}/{prefix}"));
    report.push_fields(
        "",
        [
            ("card", "card", Value::text(&uplink.card)),
            ("mac", "MAC address", Value::text(uplink.hardware_address)),
            ("mtu", "MTU", Value::Number(uplink.mtu)),
            (
                "link",
                "link",
                Value::text(if uplink.link.is_some() { "up" } else { "down" }),
            ),
            (
                "speed_mbit",
                "Mbit/s",
                uplink
                    .link
                    .map_or(Value::None, |speed| Value::Number(speed.into())),
            ),
            ("address", "address", Value::optional(address)),
            ("gateway", "gateway", Value::optional(uplink.router)),
            ("dns", "name servers", Value::texts(&uplink.name_servers)),
        ],
    );
    let counters = uplink.counters.iter();
    report.push_fields(
        "counters",
        counters.map(|counter| (counter.key, counter.label, Value::Number(counter.value))),
    );
    if uplink.address.is_none() {
        report.push_remark(match uplink.link {
            Some(_) => "no DHCP server has given an address yet",
            None => "there is no link: is the cable plugged in?",
        });
    }
    Ok(report)
}

pub(super) fn ping<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(async move {
        let arguments = invocation.arguments;
        let within = |flag: &Flag, default: u64, allowed: RangeInclusive<u64>| -> Result<u64, Failure> {
            let number = arguments.number(flag.name)?.unwrap_or(default);
            match allowed.contains(&number) {
                true => Ok(number),
                false => Err(Failure::Usage(format!(
                    "root ping: {} {number}: give a number from {} to {}",
                    flag.name,
                    allowed.start(),
                    allowed.end()
                ))),
            }
        };
        let count = within(&COUNT, DEFAULT_COUNT, 1..=MAX_COUNT)?;
        let limit = Duration::from_secs(within(&TIMEOUT, DEFAULT_TIMEOUT, 1..=MAX_TIMEOUT)?);
        let interval = Duration::from_millis(within(&INTERVAL, DEFAULT_INTERVAL, 0..=MAX_INTERVAL)?);
        let name = arguments.word(0).unwrap_or_default();
        let network = network(invocation)?;
        // Right after the start there may be no address yet.
        network.wait(limit).await;
        let target = network.resolve(name).await?;
        let mut table = Table::new(
            "answers",
            &[("sequence", "sequence"), ("time_ns", "time"), ("error", "error")],
        );
        let mut answered = 0;
        let before = stats::run_time(invocation.system)?;
        for sequence in 1..=count {
            if sequence > 1 && !interval.is_zero() {
                invocation.system.sleep(interval).await;
            }
            let sequence = Value::Number(sequence);
            match network.ping(target, limit).await? {
                Ok(time) => {
                    answered += 1;
                    table.row([sequence, Value::Nanoseconds(time.as_nanos() as u64), Value::None]);
                }
                Err(error) => table.row([sequence, Value::None, Value::text(error)]),
            }
        }
        let after = stats::run_time(invocation.system)?;
        let each = |after: u64, before: u64| Value::Nanoseconds(after.saturating_sub(before) / count);
        let mut report = Report::new();
        report.push_fields(
            "",
            [
                ("address", "address", Value::text(target)),
                ("sent", "sent", Value::Number(count)),
                ("answered", "answered", Value::Number(answered)),
                ("run_time_ns", "run time a request", each(after.root, before.root)),
                (
                    "hypervisor_time_ns",
                    "  in hypervisor",
                    each(after.hypervisor, before.hypervisor),
                ),
            ],
        );
        report.push_table(table);
        report.failed = answered == 0;
        Ok(report)
    })
}
