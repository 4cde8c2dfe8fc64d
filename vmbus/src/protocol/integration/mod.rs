//! Integration services: small request and answer protocols of one framing, a channel each.
//!
//! The host asks, the guest answers in the packet that it got. First of all versions are [negotiated](negotiate).
//!
//! | module | what it is |
//! |---|---|
//! | [`frame`] | the header of every packet |
//! | [`negotiate`] | versions of the framing and of the service |
//! | [`heartbeat`] | whether the guest lives |
//! | [`shutdown`] | power off and reboot in good order |
//! | [`time_sync`] | the wall clock |
//! | [`key_value`] | what the guest tells of itself |

pub mod frame;
pub mod heartbeat;
pub mod key_value;
pub mod negotiate;
pub mod shutdown;
pub mod time_sync;
