//! Messages of the storage device: vstor packets and SCSI requests.
