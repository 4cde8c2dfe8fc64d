//! Memory that is shared with the host.
//!
//! | module | what it is |
//! |---|---|
//! | `pages` | pages in a row, as rings need them |
//! | `buffer` | the memory of a request, in pages anywhere |

mod buffer;
mod pages;

pub use buffer::{BadPages, Buffer, OutsideBuffer, SharedPage, of_heap};
pub use pages::Pages;

/// Bytes of a page.
pub const PAGE: usize = 4096;
