//! Channel messages, and the messages of each device.

pub mod storage;
