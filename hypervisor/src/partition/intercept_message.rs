//! Intercepts on their way to the parent: the message goes into the VP's intercept page, the VP is suspended, and the
//! parent hears of it by an opaque message in SINT 0 of its VP on the same LP.

use super::guest_memory::write_frame;
use super::vp::{Resume, Vp};
use super::{Partition, instruction};
use crate::partition::shared::suspension;
use crate::virtualization::{Access, Exception, IoAccess, NestedFault, VirtualProcessor, general};
use core::arch::x86_64::CpuidResult;
use hypercall_api::address::Gva;
use hypercall_api::id::VpIndex;
use hypercall_api::intercept::{
    AccessType, CpuidIntercept, ExceptionInfo, ExceptionIntercept, ExecutionState, HaltIntercept,
    InterceptHeader, InvalidVpRegister, IoPortAccess, IoPortIntercept, MemoryAccess, MemoryIntercept,
    MsrIntercept, UnrecoverableException,
};
use hypercall_api::message::{MESSAGE_PAYLOAD, Message, MessageType};
use zerocopy::{FromZeros, Immutable, IntoBytes};

impl Vp {
    /// What each message begins with. `length` is the instruction's, 0 where it is not known.
    fn intercept_header(&self, access: AccessType, length: u8) -> InterceptHeader {
        let context = self.hardware.context(&self.registers);
        let mut state = u16::from(self.hardware.privilege_level());
        for (is_set, bit) in [
            (context.cr0 & 1 != 0, ExecutionState::CR0_PE),
            (context.cr0 & 1 << 18 != 0, ExecutionState::CR0_AM),
            (context.efer & 1 << 10 != 0, ExecutionState::EFER_LMA),
            (
                self.hardware.interrupted_event().is_some(),
                ExecutionState::INTERRUPTION_PENDING,
            ),
            (self.hardware.interrupt_shadow(), ExecutionState::INTERRUPT_SHADOW),
        ] {
            state |= if is_set { bit } else { 0 };
        }
        InterceptHeader {
            vp: self.shared.index,
            length_and_cr8: InterceptHeader::pack(length, self.hardware.task_priority()),
            access,
            state: ExecutionState(state),
            cs: context.cs,
            rip: context.rip,
            rflags: context.rflags,
        }
    }

    /// Sends a message to the parent and suspends the VP until it answers.
    fn send_intercept<M: IntoBytes + Immutable>(&mut self, message_type: MessageType, payload: &M) -> Resume {
        const { assert!(size_of::<M>() <= MESSAGE_PAYLOAD) };
        let (Some(page), Some(root)) = (self.shared.intercept_page, Partition::root()) else {
            return Resume::Leave;
        };
        let mut message = Message::new_zeroed();
        message.message_type = message_type;
        message.payload_size = size_of::<M>() as u8;
        message.origin = self.partition.id.0;
        message.payload[..size_of::<M>()].copy_from_slice(payload.as_bytes());
        write_frame(page, 0, message.as_bytes());
        self.shared.suspend(suspension::INTERCEPT);
        // The root has a VP on each LP.
        if let Some(root_vp) = root.vp(VpIndex(self.shared.home.0)) {
            self.slot.announce(&root_vp.shared, true);
        }
        Resume::Leave
    }

    /// The instruction's bytes, as many as can be read.
    fn instruction_bytes(&self) -> (u8, [u8; 16]) {
        let mut bytes = [0; 16];
        let rip = self.hardware.rip();
        let linear = match self.hardware.is_64_bit() {
            true => rip,
            false => self.hardware.code_base().wrapping_add(rip) & 0xffff_ffff,
        };
        let paging = self.hardware.paging();
        let length = self
            .partition
            .fetch(&paging, Gva(linear), &mut bytes[..instruction::LONGEST]);
        (length as u8, bytes)
    }

    /// An access to an I/O port.
    pub fn intercept_io_port(&mut self, access: IoAccess) -> Resume {
        let kind = if access.write {
            AccessType::WRITE
        } else {
            AccessType::READ
        };
        let length = access.next_rip.wrapping_sub(self.hardware.rip());
        let length = if (1..=15).contains(&length) {
            length as u8
        } else {
            0
        };
        let (count, instruction) = if access.string {
            self.instruction_bytes()
        } else {
            (0, [0; 16])
        };
        let context = self.hardware.context(&self.registers);
        let general = &self.registers.general;
        let message = IoPortIntercept {
            header: self.intercept_header(kind, length),
            port: access.port,
            access: IoPortAccess::new(access.size, access.string, access.repeated),
            instruction_byte_count: count,
            reserved: 0,
            rax: general[general::RAX],
            instruction,
            ds: context.ds,
            es: context.es,
            rcx: general[general::RCX],
            rsi: general[general::RSI],
            rdi: general[general::RDI],
        };
        self.send_intercept(MessageType::IO_PORT_INTERCEPT, &message)
    }

    /// An access to a GPA where nothing is mapped, or something that forbids it.
    pub fn intercept_memory(&mut self, fault: NestedFault) -> Resume {
        let kind = match fault.access {
            Access::Read => AccessType::READ,
            Access::Write => AccessType::WRITE,
            Access::Execute => AccessType::EXECUTE,
        };
        let (count, instruction) = if kind == AccessType::EXECUTE {
            (0, [0; 16])
        } else {
            self.instruction_bytes()
        };
        let message = MemoryIntercept {
            header: self.intercept_header(kind, 0),
            cache_type: 0,
            instruction_byte_count: count,
            access: MemoryAccess(if fault.gva.is_some() {
                MemoryAccess::GVA_VALID
            } else {
                0
            }),
            tpr_priority: self.hardware.task_priority(),
            reserved: 0,
            gva: fault.gva.unwrap_or(Gva(0)),
            gpa: fault.gpa,
            instruction,
        };
        let message_type = if fault.present {
            MessageType::GPA_INTERCEPT
        } else {
            MessageType::UNMAPPED_GPA
        };
        self.send_intercept(message_type, &message)
    }

    /// An access to an MSR: a write of that value, or a read. `length` is the instruction's where the parent is to skip it, 0
    /// where it is over.
    pub fn intercept_msr(&mut self, msr: u32, write: Option<u64>, length: u8) -> Resume {
        let access = if write.is_some() {
            AccessType::WRITE
        } else {
            AccessType::READ
        };
        let value = write.unwrap_or(0);
        let message = MsrIntercept {
            header: self.intercept_header(access, length),
            msr,
            reserved: 0,
            rdx: value >> 32,
            rax: value & 0xffff_ffff,
        };
        self.send_intercept(MessageType::MSR_INTERCEPT, &message)
    }

    /// CPUID of a leaf that the parent wants to answer; `default` is what it would say.
    pub fn intercept_cpuid(&mut self, default: CpuidResult) -> Resume {
        let general = &self.registers.general;
        let message = CpuidIntercept {
            header: self.intercept_header(AccessType::EXECUTE, 2),
            rax: general[general::RAX],
            rcx: general[general::RCX],
            rdx: general[general::RDX],
            rbx: general[general::RBX],
            default_rax: default.eax as u64,
            default_rcx: default.ecx as u64,
            default_rdx: default.edx as u64,
            default_rbx: default.ebx as u64,
        };
        self.send_intercept(MessageType::CPUID_INTERCEPT, &message)
    }

    /// An exception that the parent wants to hear of.
    pub fn intercept_exception(&mut self, exception: Exception, parameter: u64) -> Resume {
        let (count, instruction) = self.instruction_bytes();
        let context = self.hardware.context(&self.registers);
        let has_code = exception.error_code.is_some();
        let message = ExceptionIntercept {
            header: self.intercept_header(AccessType::EXECUTE, 0),
            vector: exception.vector as u16,
            info: ExceptionInfo(if has_code {
                ExceptionInfo::ERROR_CODE_VALID
            } else {
                0
            }),
            instruction_byte_count: count,
            error_code: exception.error_code.unwrap_or(0),
            parameter,
            reserved: 0,
            instruction,
            ds: context.ds,
            ss: context.ss,
            general: self.registers.general,
        };
        self.send_intercept(MessageType::EXCEPTION_INTERCEPT, &message)
    }

    /// A halt that no interrupt ends. The VP is halted, and stays so when it is resumed: an NMI or an INIT may still come.
    pub fn intercept_halt(&mut self) -> Resume {
        let message = HaltIntercept {
            header: self.intercept_header(AccessType::EXECUTE, 0),
        };
        self.send_intercept(MessageType::HALT, &message)
    }

    /// A triple fault.
    pub fn intercept_shutdown(&mut self) -> Resume {
        // What it could not deliver is not tried again where the parent lets it run on.
        self.hardware.forget_interrupted_event();
        let message = UnrecoverableException {
            header: self.intercept_header(AccessType::EXECUTE, 0),
        };
        self.send_intercept(MessageType::UNRECOVERABLE_EXCEPTION, &message)
    }

    /// A state that the processor refuses.
    pub fn intercept_invalid_state(&mut self) -> Resume {
        let message = InvalidVpRegister {
            vp: self.shared.index,
            reserved: 0,
        };
        self.send_intercept(MessageType::INVALID_VP_REGISTER_VALUE, &message)
    }
}
