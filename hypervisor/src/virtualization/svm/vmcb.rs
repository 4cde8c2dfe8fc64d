//! The virtual machine control block (APM 2, appendix B).

use hypercall_api::processor::SegmentRegister;

/// A segment in the VMCB.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct VmcbSegment {
    /// Selector.
    pub selector: u16,
    /// Type 3:0, S 4, DPL 6:5, P 7, AVL 8, L 9, D/B 10, G 11.
    pub attributes: u16,
    /// Limit, in bytes.
    pub limit: u32,
    /// Base.
    pub base: u64,
}

impl From<SegmentRegister> for VmcbSegment {
    fn from(segment: SegmentRegister) -> Self {
        let SegmentRegister {
            base,
            limit,
            selector,
            attributes,
        } = segment;
        Self {
            selector,
            attributes: attributes & 0xff | attributes >> 4 & 0xf00,
            limit,
            base,
        }
    }
}

impl From<VmcbSegment> for SegmentRegister {
    fn from(segment: VmcbSegment) -> Self {
        let VmcbSegment {
            selector,
            attributes,
            limit,
            base,
        } = segment;
        Self {
            base,
            limit,
            selector,
            attributes: attributes & 0xff | (attributes & 0xf00) << 4,
        }
    }
}

/// The control area and the save area: one page.
#[repr(C, align(4096))]
#[allow(missing_docs)] // the names are the manual's
pub struct Vmcb {
    pub intercept_cr: u32,
    pub intercept_dr: u32,
    pub intercept_exceptions: u32,
    pub intercept_1: u32,
    pub intercept_2: u32,
    pub intercept_3: u32,
    reserved_1: [u8; 0x3c - 0x18],
    pub pause_filter_threshold: u16,
    pub pause_filter_count: u16,
    pub iopm_base: u64,
    pub msrpm_base: u64,
    pub tsc_offset: u64,
    pub asid: u32,
    pub tlb_control: u32,
    pub virtual_interrupt: u64,
    pub interrupt_shadow: u64,
    pub exit_code: u64,
    pub exit_info_1: u64,
    pub exit_info_2: u64,
    pub exit_interrupt_info: u64,
    pub nested_control: u64,
    pub avic_apic_bar: u64,
    pub ghcb: u64,
    pub event_injection: u64,
    pub nested_cr3: u64,
    pub lbr_control: u64,
    pub clean: u64,
    pub next_rip: u64,
    pub fetched_count: u8,
    pub fetched_bytes: [u8; 15],
    reserved_2: [u8; 0x400 - 0xe0],

    pub es: VmcbSegment,
    pub cs: VmcbSegment,
    pub ss: VmcbSegment,
    pub ds: VmcbSegment,
    pub fs: VmcbSegment,
    pub gs: VmcbSegment,
    pub gdtr: VmcbSegment,
    pub ldtr: VmcbSegment,
    pub idtr: VmcbSegment,
    pub tr: VmcbSegment,
    reserved_3: [u8; 0xcb - 0xa0],
    pub cpl: u8,
    reserved_4: [u8; 4],
    pub efer: u64,
    reserved_5: [u8; 0x148 - 0xd8],
    pub cr4: u64,
    pub cr3: u64,
    pub cr0: u64,
    pub dr7: u64,
    pub dr6: u64,
    pub rflags: u64,
    pub rip: u64,
    reserved_6: [u8; 0x1d8 - 0x180],
    pub rsp: u64,
    reserved_7: [u8; 0x1f8 - 0x1e0],
    pub rax: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub cr2: u64,
    reserved_8: [u8; 0x268 - 0x248],
    pub g_pat: u64,
    pub dbgctl: u64,
    reserved_9: [u8; 0x1000 - 0x400 - 0x278],
}
const _: () = assert!(size_of::<Vmcb>() == 4096);
const _: () = assert!(core::mem::offset_of!(Vmcb, exit_code) == 0x70);
const _: () = assert!(core::mem::offset_of!(Vmcb, next_rip) == 0xc8);
const _: () = assert!(core::mem::offset_of!(Vmcb, es) == 0x400);
const _: () = assert!(core::mem::offset_of!(Vmcb, cpl) == 0x4cb);
const _: () = assert!(core::mem::offset_of!(Vmcb, rip) == 0x578);
const _: () = assert!(core::mem::offset_of!(Vmcb, rax) == 0x5f8);
const _: () = assert!(core::mem::offset_of!(Vmcb, g_pat) == 0x668);

/// Bits of [`Vmcb::intercept_1`].
#[allow(missing_docs)] // the names are the manual's
pub mod intercept_1 {
    pub const INTR: u32 = 1 << 0;
    pub const NMI: u32 = 1 << 1;
    pub const INIT: u32 = 1 << 3;
    pub const VINTR: u32 = 1 << 4;
    pub const CPUID: u32 = 1 << 18;
    pub const INVD: u32 = 1 << 22;
    pub const HLT: u32 = 1 << 24;
    pub const INVLPGA: u32 = 1 << 26;
    pub const IOIO: u32 = 1 << 27;
    pub const MSR: u32 = 1 << 28;
    pub const SHUTDOWN: u32 = 1 << 31;
}

/// Bits of [`Vmcb::intercept_2`].
#[allow(missing_docs)] // the names are the manual's
pub mod intercept_2 {
    pub const VMRUN: u32 = 1 << 0;
    pub const VMMCALL: u32 = 1 << 1;
    pub const VMLOAD: u32 = 1 << 2;
    pub const VMSAVE: u32 = 1 << 3;
    pub const STGI: u32 = 1 << 4;
    pub const CLGI: u32 = 1 << 5;
    pub const SKINIT: u32 = 1 << 6;
    pub const MONITOR: u32 = 1 << 10;
    pub const MWAIT: u32 = 1 << 11;
    pub const MWAIT_ARMED: u32 = 1 << 12;
    pub const XSETBV: u32 = 1 << 13;
}

/// Bits of [`Vmcb::virtual_interrupt`].
#[allow(missing_docs)] // the names are the manual's
pub mod virtual_interrupt {
    pub const V_TPR: u64 = 0xff;
    pub const V_IRQ: u64 = 1 << 8;
    pub const V_PRIORITY: u64 = 0xf << 16;
    pub const V_PRIORITY_SHIFT: u32 = 16;
    pub const V_INTR_MASKING: u64 = 1 << 24;
}

/// Values of [`Vmcb::exit_code`].
#[allow(missing_docs)] // the names are the manual's
pub mod exit_code {
    pub const EXCEPTION: u64 = 0x40;
    pub const EXCEPTION_LAST: u64 = 0x5f;
    pub const INTR: u64 = 0x60;
    pub const NMI: u64 = 0x61;
    pub const INIT: u64 = 0x63;
    pub const VINTR: u64 = 0x64;
    pub const CPUID: u64 = 0x72;
    pub const INVD: u64 = 0x76;
    pub const HLT: u64 = 0x78;
    pub const INVLPGA: u64 = 0x7a;
    pub const IOIO: u64 = 0x7b;
    pub const MSR: u64 = 0x7c;
    pub const SHUTDOWN: u64 = 0x7f;
    pub const VMRUN: u64 = 0x80;
    pub const VMMCALL: u64 = 0x81;
    pub const VMLOAD: u64 = 0x82;
    pub const SKINIT: u64 = 0x86;
    pub const MONITOR: u64 = 0x8a;
    pub const MWAIT: u64 = 0x8b;
    pub const MWAIT_ARMED: u64 = 0x8c;
    pub const XSETBV: u64 = 0x8d;
    pub const NESTED_PAGE_FAULT: u64 = 0x400;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_attributes_keep_their_meaning_in_both_forms() {
        let code = SegmentRegister {
            base: 1,
            limit: 2,
            selector: 3,
            attributes: 0xa09b,
        };
        let vmcb = VmcbSegment::from(code);
        assert_eq!(vmcb.attributes, 0xa9b);
        assert_eq!(SegmentRegister::from(vmcb), code);
    }
}
