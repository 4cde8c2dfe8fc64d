//! Storage: SCSI over VMBus, and the disks behind it.

pub mod disk;
