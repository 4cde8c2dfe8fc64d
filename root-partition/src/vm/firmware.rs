//! What a guest has of firmware: the place where a PC begins, to which guests jump that want a reset.
//!
//! Linux does so on a machine with hardware-reduced ACPI and without EFI: it takes EFI's reset for the only one, finds
//! none, and jumps to the BIOS (arch/x86/kernel/reboot.c, `reboot_init` and `native_machine_emergency_restart`).

use super::chipset::{RESET, RESET_VALUE};
use super::memory::{GuestMemory, LEGACY_HOLE, OutsideRam};
use hypercall_api::address::Gpa;

/// Address of the first instruction, F000:FFF0 in real mode.
pub const START: u64 = 0xf_fff0;
const _: () = assert!(START >= LEGACY_HOLE.start && START + CODE.len() as u64 <= LEGACY_HOLE.end);

/// `mov dx, RESET; mov al, RESET_VALUE; out dx, al; hlt; jmp` to the `hlt`.
const CODE: [u8; 9] = [
    0xba,
    RESET.to_le_bytes()[0],
    RESET.to_le_bytes()[1],
    0xb0,
    RESET_VALUE,
    0xee,
    0xf4,
    0xeb,
    0xfd,
];

/// Writes it into `memory`.
pub fn place(memory: &GuestMemory) -> Result<(), OutsideRam> {
    memory.write(Gpa(START), &CODE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, Mnemonic};

    #[test]
    fn it_writes_the_reset_register_and_stops() {
        let mut decoder = Decoder::with_ip(16, &CODE, 0xfff0, DecoderOptions::NONE);
        let instructions: Vec<_> = decoder.iter().collect();
        let mnemonics: Vec<_> = instructions
            .iter()
            .map(|instruction| instruction.mnemonic())
            .collect();
        assert_eq!(
            mnemonics,
            [
                Mnemonic::Mov,
                Mnemonic::Mov,
                Mnemonic::Out,
                Mnemonic::Hlt,
                Mnemonic::Jmp
            ]
        );
        assert_eq!(instructions[0].immediate16(), 0x602);
        assert_eq!(instructions[1].immediate8(), 1);
        assert_eq!(instructions[4].near_branch_target(), instructions[3].ip());
    }
}
