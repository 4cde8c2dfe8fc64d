//! Channel messages, and the messages of each device.
//!
//! | module | what it is |
//! |---|---|
//! | [`version`] | versions of the protocol, and what each can do |
//! | [`guid`] | GUIDs on the wire, and the classes of devices |
//! | [`id`] | the numbers that name channels, GPADLs and where messages go |
//! | [`offer`] | what a host offers |
//! | [`body`] | the layouts of the other channel messages |
//! | [`message`] | the table of channel messages: enum, parser, sizes and versions |
//! | [`gpadl`] | lists of guest pages, in one message or several |
//! | [`network`] | the network card |
//! | [`scsi`] | numbers of SCSI, for storage |
//! | [`storage`] | the storage device |
//! | [`integration`] | heartbeat, shutdown, time and key/value exchange |

pub mod body;
pub mod gpadl;
pub mod guid;
pub mod id;
pub mod integration;
pub mod message;
pub mod network;
pub mod offer;
pub mod scsi;
pub mod storage;
pub mod version;
