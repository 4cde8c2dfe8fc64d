use super::super::super::memory::tests::memory;
use super::super::{Boot, LoadError, Mode, Module, load};
use super::header::{BootParameters, LinuxError, OFFSET, SetupHeader};
use crate::vm::memory::GuestMemory;
use hypercall_api::address::Gpa;
use proptest::prelude::*;
use zerocopy::{FromZeros, IntoBytes};

const MIB: usize = 1 << 20;
/// One sector of setup code behind the first.
const SETUP: usize = 1024;

fn header() -> SetupHeader {
    let mut header = SetupHeader::new_zeroed();
    header.setup_sectors = 1;
    header.system_size = (0x1000 / 16).into();
    header.boot_flag = 0xaa55.into();
    header.jump = (0xeb | (0x26c - 0x202) << 8).into();
    header.magic = super::header::MAGIC.into();
    header.version = 0x20f.into();
    header.entry_flags = 0x7f.into();
    header.initrd_max = 0x7fff_ffff.into();
    header.command_line_size = 2047.into();
    header.preferred_address = 0x20_0000.into();
    header.init_size = 0x10_0000.into();
    header
}

/// A kernel whose code is 0x1000 bytes of 0x90.
fn image(header: &SetupHeader) -> Vec<u8> {
    let mut file = vec![0; SETUP];
    file[OFFSET..OFFSET + size_of::<SetupHeader>()].copy_from_slice(header.as_bytes());
    file.extend([0x90; 0x1000]);
    file
}

fn boot<'a>(kernel: &'a [u8], modules: &'a [Module<'a>]) -> Boot<'a> {
    Boot {
        kernel,
        modules,
        command_line: "console=ttyS0",
        rsdp: 0xe_0000,
    }
}

fn bytes_at(memory: &GuestMemory, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    memory.read(Gpa(address), &mut bytes).unwrap();
    bytes
}

fn refused(header: &SetupHeader) -> LinuxError {
    let memory = memory(&[8 * MIB]);
    match load(&boot(&image(header), &[]), &memory) {
        Err(LoadError::Linux(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_kernel_finds_its_zero_page_in_64_bit_mode() {
    let memory = memory(&[8 * MIB]);
    let kernel = image(&header());
    let entry = load(&boot(&kernel, &[]), &memory).unwrap();
    assert_eq!((entry.rip, entry.rbx), (0x20_0200, 0));
    assert_eq!(bytes_at(&memory, 0x20_0000, 0x1000), [0x90; 0x1000]);
    let page: BootParameters = memory.read_value(Gpa(entry.rsi)).unwrap();
    assert_eq!(page.rsdp.get(), 0xe_0000);
    assert_eq!((page.header.loader, page.header.load_flags), (0xff, 1));
    assert_eq!((page.header.initrd.get(), page.header.initrd_size.get()), (0, 0));
    assert_eq!(page.header.magic.get(), super::header::MAGIC);
    let command_line = bytes_at(&memory, page.header.command_line.get().into(), 14);
    assert_eq!(command_line, b"console=ttyS0\0");
    let map: Vec<_> = page.map[..usize::from(page.map_entries)]
        .iter()
        .map(|entry| (entry.address.get(), entry.size.get(), entry.kind.get()))
        .collect();
    assert_eq!(
        map,
        [(0, 0xa_0000, 1), (0xa_0000, 0x6_0000, 2), (0x10_0000, 7 << 20, 1)]
    );
}

#[test]
fn the_first_4_gib_are_mapped_to_themselves() {
    let memory = memory(&[8 * MIB]);
    let entry = load(&boot(&image(&header()), &[]), &memory).unwrap();
    let Mode::Long {
        page_table,
        descriptors,
        descriptors_limit,
    } = entry.mode
    else {
        panic!("{:?}", entry.mode);
    };
    let entry_of =
        |table: u64, index: u64| -> u64 { memory.read_value(Gpa((table & !0xfff) + index * 8)).unwrap() };
    for address in [0u64, 0x20_0000, 0x7fff_ffff, 0xffff_ffff] {
        let pointers = entry_of(page_table, address >> 39 & 0x1ff);
        let directory = entry_of(pointers, address >> 30 & 0x1ff);
        let page = entry_of(directory, address >> 21 & 0x1ff);
        assert_eq!((pointers & 1, directory & 1, page & 0x81), (1, 1, 0x81));
        assert_eq!(page & !0x1f_ffff, address & !0x1f_ffff);
    }
    assert_eq!(descriptors_limit, 31);
    // Code with the L bit at 0x10, data at 0x18.
    assert_eq!(entry_of(descriptors, 2), 0x00af_9b00_0000_ffff);
}

#[test]
fn initial_ram_disks_lie_one_behind_the_other() {
    let memory = memory(&[8 * MIB]);
    let modules = [b"first".as_slice(), b"second"].map(|bytes| Module {
        bytes,
        command_line: "",
    });
    let entry = load(&boot(&image(&header()), &modules), &memory).unwrap();
    let page: BootParameters = memory.read_value(Gpa(entry.rsi)).unwrap();
    let size = page.header.initrd_size.get() as usize;
    assert_eq!(size, 16);
    let disk = bytes_at(&memory, page.header.initrd.get().into(), size);
    assert_eq!(disk, b"first\0\0\0second\0\0");
}

#[test]
fn an_initial_ram_disk_stays_where_the_kernel_can_reach_it() {
    let memory = memory(&[8 * MIB]);
    let mut header = header();
    header.initrd_max = (6 * MIB as u32 - 1).into();
    let module = Module {
        bytes: &[1; 0x1800],
        command_line: "",
    };
    let entry = load(&boot(&image(&header), &[module]), &memory).unwrap();
    let page: BootParameters = memory.read_value(Gpa(entry.rsi)).unwrap();
    let end = page.header.initrd.get() + page.header.initrd_size.get();
    assert!(end <= 6 * MIB as u32 && page.header.initrd.get() >= 0x30_0000);
}

#[test]
fn each_unusable_kernel_is_told_why() {
    let mut old = header();
    old.version = 0x206.into();
    assert_eq!(
        refused(&old).to_string(),
        "it is a Linux kernel of boot protocol 2.06; 2.12 is the oldest that can be started"
    );
    let mut narrow = header();
    narrow.entry_flags = 2.into();
    assert!(refused(&narrow).to_string().contains("for 32-bit processors"));
    let mut large = header();
    large.init_size = 0x70_0000.into();
    assert_eq!(
        refused(&large).to_string(),
        "it is a Linux kernel that needs 9 MiB of memory at the least, and the virtual machine has 8"
    );
    let mut cut = header();
    cut.system_size = (0x1010 / 16).into();
    assert_eq!(
        refused(&cut),
        LinuxError::CutOff {
            has: SETUP + 0x1000,
            needed: SETUP + 0x1010
        }
    );
    let mut short = header();
    short.command_line_size = 5.into();
    assert_eq!(refused(&short), LinuxError::LongCommandLine { most: 5, has: 13 });
    let mut low = header();
    low.preferred_address = 0x9_0000.into();
    assert!(matches!(refused(&low), LinuxError::DamagedHeader(_)));
    let mut far = header();
    far.preferred_address = u64::MAX.into();
    assert!(matches!(refused(&far), LinuxError::DamagedHeader(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_damaged_header_makes_it_panic_or_begin_outside(
        damage in prop::collection::vec((OFFSET..0x270, any::<u8>()), 1..6),
        length in 0x206usize..SETUP + 0x1000,
        cut: bool,
    ) {
        let memory = memory(&[8 * MIB]);
        let mut kernel = image(&header());
        for (at, value) in damage {
            kernel[at] = value;
        }
        if cut {
            kernel.truncate(length);
        }
        if let Ok(entry) = load(&boot(&kernel, &[]), &memory) {
            prop_assert!(entry.rip < 8 * MIB as u64 && entry.rsi < 8 * MIB as u64);
        }
    }
}
