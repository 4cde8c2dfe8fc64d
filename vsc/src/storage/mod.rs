//! Storage: a SCSI controller of the host's, and the disks behind it.
//!
//! ```ignore
//! let offer = bus.find(class::SCSI).ok_or(NoDisk)?;
//! let controller = storage::open(&bus, &offer, Settings::default()).await?;
//! let found = controller.scan().await?;
//! let disk = Disk::open(&controller, found[0].address).await?;
//! disk.read(0, &buffer).await?;
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `open` | opening a controller's channels, and its handshake |
//! | `controller` | commands to logical units, and what units there are |
//! | `disk` | a disk as a block device |
//! | `transfer` | reads and writes |
//! | `queue` | one channel: requests that wait for their completions |
//! | `request` | a request from when it is sent to its completion |
//! | `scsi` | command blocks, and what commands return |
//! | `error` | why a request failed |

mod controller;
mod disk;
mod error;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod open;
mod queue;
mod request;
mod scsi;
mod transfer;

pub use controller::{Address, Controller, Found};
pub use disk::Disk;
pub use error::StorageError;
pub use open::{Settings, connect, open};
pub use queue::Queue;
pub use scsi::{DeviceType, Sense};
