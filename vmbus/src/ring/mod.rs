//! The ring buffers of a channel, and the packets in them.
