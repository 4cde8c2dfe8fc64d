//! The privilege matrix (TLFS, "Partition Privilege Flags"): what a partition has no privilege for is refused, whatever its
//! parameters are.

use crate::Context;
use crate::access::{self, PAGES};
use crate::report::{equal, holds, skip};
use hypercall_api::code::HypercallCode as Code;
use hypercall_api::control::HypercallInput;
use hypercall_api::privilege::Privileges;
use hypercall_api::status::HvStatus;

const PARENT: Privileges = Privileges::CREATE_PARTITIONS;
const MANAGE: Privileges = Privileges::CPU_MANAGEMENT;
const POOL: Privileges = Privileges::ACCESS_MEMORY_POOL;

/// Calls and the privilege that each needs.
const CALLS: &[(Code, Privileges)] = &[
    (Code::GET_LOGICAL_PROCESSOR_RUN_TIME, MANAGE),
    (Code::CREATE_PARTITION, PARENT),
    (Code::INITIALIZE_PARTITION, PARENT),
    (Code::FINALIZE_PARTITION, PARENT),
    (Code::DELETE_PARTITION, PARENT),
    (Code::GET_PARTITION_PROPERTY, PARENT),
    (Code::SET_PARTITION_PROPERTY, PARENT),
    (Code::GET_PARTITION_ID, Privileges::ACCESS_PARTITION_ID),
    (Code::DEPOSIT_MEMORY, POOL),
    (Code::WITHDRAW_MEMORY, POOL),
    (Code::GET_MEMORY_BALANCE, POOL),
    (Code::MAP_GPA_PAGES, PARENT),
    (Code::UNMAP_GPA_PAGES, PARENT),
    (Code::INSTALL_INTERCEPT, PARENT),
    (Code::CREATE_VP, PARENT),
    (Code::DELETE_VP, PARENT),
    (Code::GET_VP_REGISTERS, Privileges::ACCESS_VP_REGISTERS),
    (Code::SET_VP_REGISTERS, Privileges::ACCESS_VP_REGISTERS),
    (Code::TRANSLATE_VIRTUAL_ADDRESS, PARENT),
    (Code::READ_GPA, PARENT),
    (Code::WRITE_GPA, PARENT),
    (Code::CLEAR_VIRTUAL_INTERRUPT, PARENT),
    (Code::DELETE_PORT, Privileges::CREATE_PORT),
    (Code::DISCONNECT_PORT, Privileges::CONNECT_PORT),
    (Code::MAP_STATS_PAGE, Privileges::ACCESS_STATS),
    (Code::UNMAP_STATS_PAGE, Privileges::ACCESS_STATS),
    (Code::SET_SYSTEM_PROPERTY, MANAGE),
    (Code::GET_SYSTEM_PROPERTY, MANAGE),
    (Code::MAP_DEVICE_INTERRUPT, MANAGE),
    (Code::UNMAP_DEVICE_INTERRUPT, MANAGE),
    (Code::ENTER_SLEEP_STATE, MANAGE),
    (Code::REGISTER_INTERCEPT_RESULT, PARENT),
    (Code::ASSERT_VIRTUAL_INTERRUPT, PARENT),
    (Code::CREATE_PORT, Privileges::CREATE_PORT),
    (Code::CONNECT_PORT, Privileges::CONNECT_PORT),
    (Code::START_VIRTUAL_PROCESSOR, Privileges::START_VIRTUAL_PROCESSOR),
    (Code::SIGNAL_EVENT_DIRECT, PARENT),
    (Code::POST_MESSAGE_DIRECT, PARENT),
    (Code::MAP_VP_STATE_PAGE, PARENT),
    (Code::UNMAP_VP_STATE_PAGE, PARENT),
    (Code::GET_VP_STATE, PARENT),
    (Code::SET_VP_STATE, PARENT),
    (Code::GET_VP_CPUID_VALUES, PARENT),
    (Code::PARTITA_QUERY_SYSTEM, MANAGE),
    (Code::PARTITA_READ_LOG, MANAGE),
];

/// Calls that every guest may make.
const FREE: [Code; 9] = [
    Code::FLUSH_VIRTUAL_ADDRESS_SPACE,
    Code::FLUSH_VIRTUAL_ADDRESS_LIST,
    Code::NOTIFY_LONG_SPIN_WAIT,
    Code::SEND_SYNTHETIC_CLUSTER_IPI,
    Code::FLUSH_VIRTUAL_ADDRESS_SPACE_EX,
    Code::FLUSH_VIRTUAL_ADDRESS_LIST_EX,
    Code::SEND_SYNTHETIC_CLUSTER_IPI_EX,
    Code::POST_MESSAGE,
    Code::SIGNAL_EVENT,
];

/// Checks each call.
pub(crate) fn check(context: &Context) {
    PAGES.fill(0, &[]);
    for &(code, privilege) in CALLS {
        let name = code.name().unwrap_or("a call");
        if context.offer.privileges.contains(privilege) {
            skip(name, "it needs a privilege", "this partition has it");
            continue;
        }
        let status = attempt(context, HypercallInput::simple(code));
        let again = attempt(context, HypercallInput::rep(code, 1));
        equal(
            name,
            "without the privilege it is refused",
            [status, again],
            [HvStatus::ACCESS_DENIED; 2],
        );
    }
    // What is not in the table does nothing either.
    let listed = |code: &Code| CALLS.iter().any(|(other, _)| other == code) || FREE.contains(code);
    for &code in Code::ALL.iter().filter(|&code| !listed(code)) {
        let status = attempt(context, HypercallInput::simple(code));
        holds(
            code.name().unwrap_or("a call"),
            "it is refused or unknown",
            matches!(
                status,
                HvStatus::ACCESS_DENIED
                    | HvStatus::INVALID_HYPERCALL_CODE
                    | HvStatus::INVALID_HYPERCALL_INPUT
            ),
        );
    }
}

fn attempt(context: &Context, control: HypercallInput) -> HvStatus {
    let input = PAGES.address();
    access::call(context.hypercalls, control, input, input + 4096).status()
}
