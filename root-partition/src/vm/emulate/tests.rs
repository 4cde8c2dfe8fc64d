#![allow(unsafe_code)] // the processor itself is the judge of flags

use super::*;
use proptest::prelude::*;

#[derive(Default)]
struct Cell {
    value: u64,
    writes: Vec<(u8, u64)>,
}

impl Operand for Cell {
    fn read(&mut self, size: u8) -> u64 {
        self.value & mask(size)
    }
    fn write(&mut self, size: u8, value: u64) {
        self.writes.push((size, value));
        self.value = self.value & !mask(size) | value;
    }
}

fn registers(bits: u32) -> Registers {
    Registers {
        general: core::array::from_fn(|index| 0x1111_1111_1111_1111 * index as u64),
        rip: 0x1000,
        rflags: 2,
        bits,
    }
}

fn run(bytes: &[u8], bits: u32, value: u64) -> (Registers, Cell) {
    let mut registers = registers(bits);
    let mut cell = Cell {
        value,
        ..Cell::default()
    };
    step(bytes, &mut registers, &mut cell).unwrap();
    (registers, cell)
}

#[test]
fn moves_read_and_write_with_the_right_size() {
    // mov [rax], ecx
    let (after, cell) = run(&[0x89, 0x08], 64, 0);
    assert_eq!(cell.writes, [(4, 0x1111_1111)]);
    assert_eq!(after.rip, 0x1002);
    // mov edx, [rbx + 8]: clears the upper half
    let (after, _) = run(&[0x8b, 0x53, 0x08], 64, 0xffff_ffff_8765_4321);
    assert_eq!(after.general[2], 0x8765_4321);
    // mov dh, [rbx]
    let (after, _) = run(&[0x8a, 0x33], 32, 0xab);
    assert_eq!(after.general[2], 0x2222_2222_2222_ab22);
    // mov dword [rax], 0x12345678; mov qword [rax], -1
    assert_eq!(
        run(&[0xc7, 0, 0x78, 0x56, 0x34, 0x12], 64, 0).1.value,
        0x1234_5678
    );
    assert_eq!(
        run(&[0x48, 0xc7, 0, 255, 255, 255, 255], 64, 0).1.writes,
        [(8, u64::MAX)]
    );
    // movabs eax, [moffs]: in 32-bit code
    assert_eq!(run(&[0xa1, 0, 0, 0xc0, 0xfe], 32, 7).0.general[0], 7);
    // mov ax, [bx]: in 16-bit code
    assert_eq!(run(&[0x8b, 0x07], 16, 0xbeef).0.general[0], 0xbeef);
}

#[test]
fn extensions_extend() {
    // movzx ecx, byte [rax]; movsx rcx, word [rax]; movsxd rcx, dword [rax]
    assert_eq!(run(&[0x0f, 0xb6, 0x08], 64, 0xff).0.general[1], 0xff);
    assert_eq!(
        run(&[0x48, 0x0f, 0xbf, 0x08], 64, 0x8000).0.general[1],
        0xffff_ffff_ffff_8000
    );
    assert_eq!(
        run(&[0x48, 0x63, 0x08], 64, 0x8000_0000).0.general[1],
        0xffff_ffff_8000_0000
    );
}

#[test]
fn arithmetic_works_in_both_directions() {
    // or dword [rax], 0x10000; and ecx, [rax]; cmp dword [rax], 5; test [rax], ecx; inc dword [rax]; xchg [rax], ecx
    assert_eq!(run(&[0x81, 0x08, 0, 0, 1, 0], 64, 1).1.value, 0x1_0001);
    assert_eq!(run(&[0x23, 0x08], 64, 0x1110).0.general[1], 0x1110);
    let (after, cell) = run(&[0x83, 0x38, 5], 64, 5);
    assert!(cell.writes.is_empty() && after.rflags & 1 << 6 != 0);
    assert!(run(&[0x85, 0x08], 64, 0).1.writes.is_empty());
    assert_eq!(run(&[0xff, 0x00], 64, 0xffff_ffff).1.value, 0);
    let (after, cell) = run(&[0x87, 0x08], 64, 9);
    assert_eq!((after.general[1], cell.value), (9, 0x1111_1111));
}

#[test]
fn strings_go_one_step_and_stay_while_a_count_is_left() {
    let mut registers = registers(64);
    registers.general[1] = 2;
    let mut cell = Cell::default();
    // rep stosd
    for (rip, left, rdi) in [
        (0x1000, 1, 0x7777_7777_7777_777b),
        (0x1002, 0, 0x7777_7777_7777_777f),
    ] {
        step(&[0xf3, 0xab], &mut registers, &mut cell).unwrap();
        assert_eq!(
            (registers.rip, registers.general[1], registers.general[7]),
            (rip, left, rdi)
        );
    }
    registers.rip = 0x1000;
    step(&[0xf3, 0xab], &mut registers, &mut cell).unwrap();
    assert_eq!(
        (registers.rip, cell.writes.len()),
        (0x1002, 2),
        "a count of 0 does nothing"
    );
    // std; lodsb
    registers.rflags |= 1 << 10;
    cell.value = 0x5a;
    step(&[0xac], &mut registers, &mut cell).unwrap();
    assert_eq!(registers.general[0] & 0xff, 0x5a);
    assert_eq!(registers.general[6], 0x6666_6666_6666_6665);
}

#[test]
fn what_is_not_emulated_is_named_and_changes_nothing() {
    for (bytes, error) in [
        (
            &[0x0f, 0xc7, 0x08][..],
            EmulationError::Unsupported(Mnemonic::Cmpxchg8b),
        ),
        (&[0xa4], EmulationError::Unsupported(Mnemonic::Movsb)),
        (&[0x0f, 0x28, 0x00], EmulationError::Unsupported(Mnemonic::Movaps)),
        (&[0x8c, 0x18], EmulationError::Unsupported(Mnemonic::Mov)),
        (&[0x90], EmulationError::Unsupported(Mnemonic::Nop)),
        (&[0x8b], EmulationError::Undecodable),
        (&[], EmulationError::Undecodable),
    ] {
        let mut after = registers(64);
        let mut cell = Cell::default();
        assert_eq!(step(bytes, &mut after, &mut cell), Err(error));
        assert!(after == registers(64) && cell.writes.is_empty());
    }
}

macro_rules! on_the_processor {
    ($name:literal, $first:expr, $second:expr, $register:tt) => {{
        let (mut first, flags): (u64, u64) = ($first, 0);
        let mut flags = flags;
        // SAFETY: one instruction on two registers; the flags are read by LAHF's wider sibling, on the own stack.
        unsafe {
            core::arch::asm!(
                concat!($name, " {0:", $register, "}, {1:", $register, "}"),
                "pushfq", "pop {2}",
                inout(reg) first, in(reg) $second, inout(reg) flags,
            );
        }
        (first, flags)
    }};
}

proptest! {
    #[test]
    fn flags_are_those_of_the_processor(first: u64, second: u64, same: bool) {
        const COUNTED: u64 = ALL_FLAGS & !(1 << 4);
        const ALL_FLAGS: u64 = 0x8d5;
        let second = if same { first } else { second };
        let check = |operation: Operation, size, (result, flags): (u64, u64), arithmetic: bool| {
            let ours = operation.apply(first, second, size, 2);
            let counted = if arithmetic { ALL_FLAGS } else { COUNTED };
            (ours.0, ours.1 & counted) == (result & mask(size), flags & counted)
        };
        prop_assert!(check(Operation::Add, 8, on_the_processor!("add", first, second, "r"), true));
        prop_assert!(check(Operation::Add, 4, on_the_processor!("add", first, second, "e"), true));
        prop_assert!(check(Operation::Sub, 2, on_the_processor!("sub", first, second, "x"), true));
        prop_assert!(check(Operation::Sub, 8, on_the_processor!("sub", first, second, "r"), true));
        prop_assert!(check(Operation::And, 4, on_the_processor!("and", first, second, "e"), false));
        prop_assert!(check(Operation::Or, 1, on_the_processor!("or", first, second, "l"), false));
        prop_assert!(check(Operation::Xor, 8, on_the_processor!("xor", first, second, "r"), false));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..16), bits in 0usize..3, value: u64) {
        let mut registers = registers([16, 32, 64][bits]);
        let mut cell = Cell { value, ..Cell::default() };
        let before = registers;
        if step(&bytes, &mut registers, &mut cell).is_err() {
            prop_assert!(registers == before && cell.writes.is_empty());
        }
    }
}
