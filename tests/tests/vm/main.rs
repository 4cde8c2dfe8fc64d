//! Virtual machines: whole machines whose root partition runs children.
//!
//! | module | holds |
//! |---|---|
//! | [`assignment`] | physical devices of machines |
//! | [`bus`] | VMBus: a channel, and its end |
//! | [`crashes`] | guests that end in every way, and who is not harmed |
//! | [`faults`] | disks that fail, media that change, guests killed while their disks work |
//! | [`figures`] | what a child's exits and its start cost, in instructions |
//! | [`guests`] | the demo guests run to their ends |
//! | [`isolation`] | memory that is not a child's |
//! | [`lifecycle`] | orders in every state, leaks, many at once |
//! | [`load`] | the disk and the network card at once, with DMA translated |
//! | [`multiboot`] | a kernel that is started by multiboot 1 |
//! | [`network`] | machines that talk to each other, and one that is reached from outside |
//! | [`scheduling`] | weight, cap, and a root that stays responsive |
//! | [`storage`] | disks and their contents |
//! | [`switch`] | caps, captures, mirrors, links, floods, cards that come and go |
//! | [`tutorial`] | `vsc/README.md`, word by word |
//! | [`uplink`] | the network card on a wire whose other end looks at each frame |
//! | [`world`] | what they share |

mod assignment;
mod bus;
mod crashes;
mod faults;
mod figures;
mod guests;
mod isolation;
mod lifecycle;
mod load;
mod multiboot;
mod network;
mod scheduling;
mod storage;
mod switch;
mod tutorial;
mod uplink;
mod world;
