//! `vm regs`, `vm stats`, `vm dump`.

use alloc::{format, string::String, vec::Vec};

use super::{machines, name};
use crate::shell::{
    commands::{
        Invocation, Outcome,
        arguments::{Argument, Flag},
        stats,
    },
    output::{Report, Table, Value},
    status::Failure,
};
use hypercall_api::register::{RegisterName, RegisterValue};

pub(in super::super) const VP: Argument = Argument {
    name: "VP",
    help: "The VP's index; 0 without it",
    required: false,
    repeated: false,
    values: None,
};

pub(in super::super) const ALL: Flag = Flag {
    name: "--all",
    value: None,
    help: "Show every register, not only those of a program",
};

pub(in super::super) const ADDRESS: Argument = Argument {
    name: "GPA",
    help: "Guest physical address of the first byte, as in 0x100000",
    required: true,
    repeated: false,
    values: None,
};

pub(in super::super) const LENGTH: Argument = Argument {
    name: "LENGTH",
    help: "Bytes, as in 64 or 0x40",
    required: true,
    repeated: false,
    values: None,
};

/// Bytes in a line of `vm dump`.
const LINE: usize = 16;

pub(in super::super) fn registers(invocation: &Invocation<'_>) -> Outcome {
    let vp = match invocation.arguments.word(1) {
        Some(_) => number(invocation, 1, "VP")?,
        None => 0,
    };
    let vp = u32::try_from(vp).map_err(|_| Failure::Usage(format!("vm regs: there is no VP {vp}")))?;
    let all = invocation.arguments.flag(ALL.name);
    let mut table = Table::new("registers", &[("name", "register"), ("value", "value")]);
    for (register, value) in machines(invocation)?.registers(name(invocation), vp)? {
        if all || is_basic(register) {
            table.row([
                Value::Text(format!("{register:?}")),
                Value::Text(show(register, value)),
            ]);
        }
    }
    Ok(Report::table(table))
}

/// What a program works with, and why it stands still.
fn is_basic(register: RegisterName) -> bool {
    let between = |first: RegisterName, last: RegisterName| register >= first && register <= last;
    between(
        RegisterName::EXPLICIT_SUSPEND,
        RegisterName::INTERNAL_ACTIVITY_STATE,
    ) || between(RegisterName::RAX, RegisterName::RFLAGS)
        || between(RegisterName::CR0, RegisterName::CR8)
        || between(RegisterName::ES, RegisterName::GDTR)
        || register == RegisterName::EFER
}

fn show(register: RegisterName, value: RegisterValue) -> String {
    if register >= RegisterName::ES && register <= RegisterName::TR {
        let segment = value.segment();
        return format!(
            "{:#06x} base {:#x} limit {:#x} attributes {:#06x}",
            segment.selector, segment.base, segment.limit, segment.attributes
        );
    }
    match register {
        RegisterName::IDTR | RegisterName::GDTR => {
            let table = value.table();
            // The fields of a packed structure are copied before they are shown.
            let (base, limit) = (table.base, table.limit);
            format!("base {base:#x} limit {limit:#x}")
        }
        _ => format!("{:#x}", value.u128()),
    }
}

pub(in super::super) fn statistics(invocation: &Invocation<'_>) -> Outcome {
    let vps = machines(invocation)?.statistics(name(invocation))?;
    let mut intercepts = Table::new(
        "intercepts",
        &[("vp", "VP"), ("handled", "intercepts handled by the root")],
    );
    for vp in &vps {
        intercepts.row([Value::Number(vp.vp.into()), Value::Number(vp.intercepts)]);
    }
    let pages: Vec<_> = vps.into_iter().map(|vp| (vp.vp, vp.counters)).collect();
    let mut report = Report::table(stats::vp_table(&pages));
    report.push_table(stats::exit_table(&pages));
    report.push_table(intercepts);
    Ok(report)
}

pub(in super::super) fn memory(invocation: &Invocation<'_>) -> Outcome {
    let address = number(invocation, 1, "GPA")?;
    let length = number(invocation, 2, "LENGTH")?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let bytes = machines(invocation)?.memory(name(invocation), address, length)?;
    let mut table = Table::new(
        "lines",
        &[("address", "address"), ("bytes", "bytes"), ("", "text")],
    );
    for (index, line) in bytes.chunks(LINE).enumerate() {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = line.iter().map(|&byte| match byte {
            b' '..=b'~' => byte as char,
            _ => '.',
        });
        table.row([
            Value::Hex(address.saturating_add((index * LINE) as u64)),
            Value::Text(hex.join(" ")),
            Value::Text(text.collect()),
        ]);
    }
    Ok(Report::table(table))
}

/// The argument at `index`, decimal or `0x…`.
fn number(invocation: &Invocation<'_>, index: usize, what: &str) -> Result<u64, Failure> {
    let text = invocation.arguments.word(index).unwrap_or_default();
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| Failure::Usage(format!("'{text}' is no {what}: give a number, as in 64 or 0x40")))
}
