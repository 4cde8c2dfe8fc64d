//! The boot archive: a cpio file in the "newc" format, read in place. The hypervisor looks for the root image in it, the
//! root for everything else. A damaged archive gives an error that says what is wrong and where; nothing is allocated.

use core::str;

/// Bytes of a member's header: a magic of six characters and thirteen fields of eight hexadecimal digits.
const HEADER: usize = 110;
/// Name of the member that ends an archive.
const TRAILER: &str = "TRAILER!!!";
/// Longest name that a member may have, with its terminating zero.
const NAME_LIMIT: usize = 4096;

/// One file (or directory) of an archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member<'a> {
    /// Path inside the archive, without a leading `/` or `./`.
    pub name: &'a str,
    /// Contents; empty for a directory.
    pub data: &'a [u8],
    /// POSIX file mode: type in the upper bits, permissions in the lower nine.
    pub mode: u32,
}

impl Member<'_> {
    /// Whether it is a regular file.
    pub const fn is_file(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }
}

/// What is wrong with an archive. Offsets are in bytes from its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The archive ends inside a member, or before the member that ends it.
    #[error("the archive is cut off: byte {needed} is needed, but it has {length}")]
    Truncated {
        /// First byte past what the member needs.
        needed: usize,
        /// Bytes that there are.
        length: usize,
    },
    /// No member begins where one must.
    #[error("no cpio (newc) member at byte {offset}")]
    BadMagic {
        /// Where a header was expected.
        offset: usize,
    },
    /// A header field holds something else than hexadecimal digits.
    #[error("a header field at byte {offset} is not a hexadecimal number")]
    BadNumber {
        /// Where the field is.
        offset: usize,
    },
    /// A name is empty, too long, not zero-terminated or not UTF-8.
    #[error("the member at byte {offset} has no valid name")]
    BadName {
        /// Where the member begins.
        offset: usize,
    },
}

/// Iterates over the members of an archive; after an error it ends.
#[derive(Clone, Debug)]
pub struct Archive<'a> {
    bytes: &'a [u8],
    offset: usize,
    ended: bool,
}

impl<'a> Archive<'a> {
    /// An archive in `bytes`. Nothing is read yet.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            offset: 0,
            ended: false,
        }
    }

    /// The file called `name`, `None` where the archive is sound and has none.
    pub fn find(&self, name: &str) -> Result<Option<Member<'a>>, ArchiveError> {
        for member in Self::new(self.bytes) {
            let member = member?;
            if member.is_file() && member.name == name {
                return Ok(Some(member));
            }
        }
        Ok(None)
    }

    fn read_member(&mut self) -> Result<Option<Member<'a>>, ArchiveError> {
        let start = self.offset;
        let header = self.slice(start, HEADER)?;
        if !matches!(&header[..6], b"070701" | b"070702") {
            return Err(ArchiveError::BadMagic { offset: start });
        }
        let mode = field(header, 1, start)?;
        let data_length = field(header, 6, start)? as usize;
        let name_length = field(header, 11, start)? as usize;

        let bad_name = ArchiveError::BadName { offset: start };
        if name_length == 0 || name_length > NAME_LIMIT {
            return Err(bad_name);
        }
        let name = self.slice(start + HEADER, name_length)?;
        let (&terminator, name) = name.split_last().ok_or(bad_name)?;
        let name = str::from_utf8(name).map_err(|_| bad_name)?;
        if terminator != 0 || name.is_empty() || name.contains('\0') {
            return Err(bad_name);
        }
        if name == TRAILER {
            return Ok(None);
        }

        let data_start = (start + HEADER + name_length).next_multiple_of(4);
        let data = self.slice(data_start, data_length)?;
        self.offset = (data_start + data_length).next_multiple_of(4);
        Ok(Some(Member {
            name: name.trim_start_matches("./").trim_start_matches('/'),
            data,
            mode,
        }))
    }

    fn slice(&self, start: usize, length: usize) -> Result<&'a [u8], ArchiveError> {
        let needed = start.saturating_add(length);
        self.bytes.get(start..needed).ok_or(ArchiveError::Truncated {
            needed,
            length: self.bytes.len(),
        })
    }
}

impl<'a> Iterator for Archive<'a> {
    type Item = Result<Member<'a>, ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let member = self.read_member().transpose();
        self.ended = !matches!(member, Some(Ok(_)));
        member
    }
}

/// Field `index` of `header`, which begins at byte `start` of the archive.
fn field(header: &[u8], index: usize, start: usize) -> Result<u32, ArchiveError> {
    let at = 6 + 8 * index;
    header[at..at + 8]
        .iter()
        .try_fold(0, |value, &digit| {
            (digit as char).to_digit(16).map(|digit| value << 4 | digit)
        })
        .ok_or(ArchiveError::BadNumber { offset: start + at })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::format;
    use std::vec::Vec;

    /// A well-formed archive of regular files.
    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &(name, data) in files {
            append(&mut bytes, name, data, 0o100_644);
        }
        append(&mut bytes, TRAILER, &[], 0);
        bytes
    }

    fn append(bytes: &mut Vec<u8>, name: &str, data: &[u8], mode: u32) {
        let fields = [
            1,
            mode,
            0,
            0,
            1,
            0,
            data.len() as u32,
            0,
            0,
            0,
            0,
            name.len() as u32 + 1,
            0,
        ];
        bytes.extend(b"070701");
        for field in fields {
            bytes.extend(format!("{field:08x}").bytes());
        }
        bytes.extend(name.bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }

    fn first_error(bytes: &[u8]) -> ArchiveError {
        Archive::new(bytes)
            .find_map(Result::err)
            .expect("the archive is damaged")
    }

    #[test]
    fn members_come_in_order_with_their_contents() {
        let bytes = archive(&[
            ("root", b"\x7fELF"),
            ("./vms/web.toml", b"x = 1\n"),
            ("empty", b""),
        ]);
        let names: Vec<_> = Archive::new(&bytes)
            .map(|member| member.map(|member| (member.name, member.data)))
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(
            names,
            [
                ("root", &b"\x7fELF"[..]),
                ("vms/web.toml", b"x = 1\n"),
                ("empty", b"")
            ]
        );
    }

    #[test]
    fn a_file_is_found_by_name_and_a_directory_is_not() {
        let mut bytes = Vec::new();
        append(&mut bytes, "vms", &[], 0o040_755);
        bytes.extend(archive(&[("vms/a", b"1")]));
        let archive = Archive::new(&bytes);
        assert_eq!(archive.find("vms/a").unwrap().unwrap().data, b"1");
        assert_eq!(archive.find("vms").unwrap(), None);
        assert_eq!(archive.find("exec").unwrap(), None);
    }

    #[test]
    fn bytes_after_the_trailer_do_not_matter() {
        let mut bytes = archive(&[("root", b"1")]);
        bytes.extend([0xff; 512]);
        assert_eq!(Archive::new(&bytes).count(), 1);
    }

    #[test]
    fn an_archive_cut_off_anywhere_is_an_error_and_then_ends() {
        let bytes = archive(&[("root", b"12345"), ("exec", b"hv info")]);
        for length in 0..bytes.len() - 1 {
            let mut members = Archive::new(&bytes[..length]).skip_while(Result::is_ok);
            if let Some(error) = members.next() {
                assert!(
                    matches!(error, Err(ArchiveError::Truncated { .. })),
                    "at {length}"
                );
                assert_eq!(members.next(), None);
            } else {
                assert!(length > bytes.len() - 4, "at {length} of {}", bytes.len());
            }
        }
    }

    #[test]
    fn something_else_than_an_archive_is_named_as_such() {
        assert_eq!(first_error(&[0x1f; 512]), ArchiveError::BadMagic { offset: 0 });
    }

    #[test]
    fn a_damaged_number_is_found_where_it_is() {
        let mut bytes = archive(&[("root", b"1")]);
        bytes[6 + 8 * 6 + 3] = b'g';
        assert_eq!(first_error(&bytes), ArchiveError::BadNumber { offset: 54 });
    }

    #[test]
    fn lengths_past_the_end_are_refused() {
        let mut bytes = archive(&[("root", b"1")]);
        bytes[54..62].copy_from_slice(b"ffffffff");
        assert!(matches!(first_error(&bytes), ArchiveError::Truncated { .. }));
        let mut bytes = archive(&[("root", b"1")]);
        bytes[94..102].copy_from_slice(b"ffffffff");
        assert_eq!(first_error(&bytes), ArchiveError::BadName { offset: 0 });
    }

    #[test]
    fn a_name_must_be_text_and_end_in_zero() {
        for damage in [(110, 0xff), (110, 0), (114, b'x')] {
            let mut bytes = archive(&[("root", b"1")]);
            bytes[damage.0] = damage.1;
            assert_eq!(first_error(&bytes), ArchiveError::BadName { offset: 0 });
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_or_run_on(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(Archive::new(&bytes).count() <= bytes.len() / HEADER + 1);
        }

        #[test]
        fn no_damaged_byte_makes_the_reader_panic(at in 0usize..400, value: u8) {
            let mut bytes = archive(&[("root", &[7; 90]), ("vms/web.toml", b"memory"), ("exec", b"hv info\n")]);
            let at = at % bytes.len();
            bytes[at] = value;
            prop_assert!(Archive::new(&bytes).count() <= 4);
        }
    }
}
