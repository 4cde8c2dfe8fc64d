//! The storage consumer against the storage provider, and against hosts that lie.

mod disk;
mod world;
