//! A guest's report of its own crash (TLFS, "Guest Crash Enlightenment"): five parameters, of which the last two may be
//! address and length of a text.

use super::super::child::{Child, Event};
use super::super::host::Host;
use super::Answer;
use alloc::string::String;
use hypercall_api::address::Gpa;
use hypercall_api::id::VpIndex;
use hypercall_api::msr::crash::NOTIFY_MESSAGE;
use hypercall_api::register::{RegisterName, RegisterValue};
use hypercall_api::status::HvStatus;

/// Longest text.
const MOST_TEXT: usize = 4096;

/// Parameters, in order.
const PARAMETERS: [RegisterName; 5] = [
    RegisterName::GUEST_CRASH_P0,
    RegisterName::GUEST_CRASH_P1,
    RegisterName::GUEST_CRASH_P2,
    RegisterName::GUEST_CRASH_P3,
    RegisterName::GUEST_CRASH_P4,
];

/// What a guest says of its crash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// P0 to P4.
    pub parameters: [u64; 5],
    /// The text, if there is one; what is no UTF-8 in it has been replaced.
    pub text: Option<String>,
}

/// Takes the report that VP `vp` makes by writing `control`.
pub fn report<H: Host>(child: &Child<H>, vp: VpIndex, control: u64) -> Result<Answer, HvStatus> {
    let mut values = [RegisterValue::default(); PARAMETERS.len()];
    child.host.get_registers(child.id, vp, &PARAMETERS, &mut values)?;
    let parameters = values.map(RegisterValue::u64);
    let text = (control & NOTIFY_MESSAGE != 0).then(|| text(child, parameters[3], parameters[4]));
    Ok(Answer::Event(Event::GuestCrash(Report { parameters, text })))
}

/// The text at `address`, or why there is none.
fn text<H: Host>(child: &Child<H>, address: u64, length: u64) -> String {
    let length = usize::try_from(length).map_or(MOST_TEXT, |length| length.min(MOST_TEXT));
    let mut bytes = alloc::vec![0; length];
    match child.memory.lock().read(Gpa(address), &mut bytes) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => alloc::format!("(its text cannot be read: {error})"),
    }
}
