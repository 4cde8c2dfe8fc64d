//! Physical memory, page tables, the heap.
//!
//! | module | holds |
//! |---|---|
//! | [`address_space`] | the live page tables and frames |
//! | [`dma`] | memory that devices read and write |
//! | [`frames`] | which frames are free |
//! | [`heap`] | the global allocator |
//! | [`layout`] | which RAM becomes what |
//! | [`mmio`] | device registers |
//! | [`pages`] | pages as a value |
//! | [`paging`] | page tables as such |
//! | [`stack`] | stacks with guard pages |
//! | [`window`] | frames from anywhere, in a row |

pub mod address_space;
pub mod dma;
pub mod frames;
pub mod heap;
pub mod layout;
pub mod mmio;
pub mod pages;
pub mod paging;
pub mod stack;
pub mod window;
