//! The bus of a child: its server, what is behind the server's actions, and the devices.
//!
//! A [`Device`] offers itself; each of its channels that the guest opens is served by a task of its own, which has the rings
//! mapped in a row and hears of the guest's signals. The task is dropped when the channel closes, and nothing of the guest's
//! memory is given back before the last that uses it is gone.
//!
//! | module | holds |
//! |---|---|
//! | [`calls`] | what a bus needs of kernel and hypervisor |
//! | [`channel`] | an open channel, as its device has it |
//! | [`device`] | what a device is, and which there are |
//! | [`echo`] | the device that sends back what it is sent |
//! | [`host`] | the bus of one child: the server's owner |
//! | [`integration`] | the services that ask the guest's system |
//! | [`mapping`] | GPADLs in a row |
//! | [`memory`] | the guest's memory as devices use it, and who does |
//! | [`network`] | network cards, plugged into the root's switches |
//! | [`port`] | ports of messages and events |
//! | [`storage`] | the SCSI controller, over the root's disks |
//! | [`view`] | what `bus list` shows |

pub mod calls;
pub mod channel;
pub mod device;
pub mod echo;
pub mod host;
pub mod integration;
pub mod mapping;
pub mod memory;
pub mod network;
pub mod port;
pub mod storage;
pub mod view;

#[cfg(test)]
#[allow(unsafe_code)] // it hands out memory
pub(crate) mod fake;
#[cfg(test)]
#[allow(unsafe_code)] // a guest's end of rings
mod tests;
