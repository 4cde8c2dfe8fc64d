//! Placeholder.
#![no_std]
#![no_main]
vsc_runtime::guest_main!(main);
fn main(_boot: &vsc_runtime::boot::BootInfo) {}
