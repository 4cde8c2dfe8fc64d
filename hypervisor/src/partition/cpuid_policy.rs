//! What a parent wants its child's CPUID to say (`HvCallRegisterInterceptResult`), on top of what the hypervisor says: bits of
//! leaves, in a frame of the child's pool.

use super::Partition;
use super::guest_memory::{read_frame, write_frame};
use crate::memory::address::Frame;
use crate::memory::frames::FrameSource;
use core::arch::x86_64::CpuidResult;
use hypercall_api::intercept::RegisterCpuidResult;
use hypercall_api::status::HvStatus;
use zerocopy::{FromBytes, IntoBytes};

const SIZE: usize = size_of::<RegisterCpuidResult>();
/// Leaves that can have a policy.
const ENTRIES: usize = 4096 / SIZE;

/// The policies of a partition.
#[derive(Default)]
pub struct CpuidPolicy {
    frame: Option<Frame>,
    count: usize,
}

impl CpuidPolicy {
    /// No policy.
    pub const fn new() -> Self {
        Self {
            frame: None,
            count: 0,
        }
    }

    fn entry(&self, index: usize) -> Option<RegisterCpuidResult> {
        let mut bytes = [0; SIZE];
        read_frame(self.frame?, index * SIZE, &mut bytes);
        RegisterCpuidResult::read_from_bytes(&bytes).ok()
    }

    fn entries(&self) -> impl Iterator<Item = RegisterCpuidResult> + '_ {
        (0..self.count).filter_map(|index| self.entry(index))
    }

    /// Adds a policy, or replaces the one for the same leaf, subleaf and VP.
    pub fn set(
        &mut self,
        policy: &RegisterCpuidResult,
        source: &mut dyn FrameSource,
    ) -> Result<(), HvStatus> {
        let same = |other: &RegisterCpuidResult| {
            let key = |policy: &RegisterCpuidResult| {
                let subleaf = if policy.subleaf_specific != 0 {
                    Some(policy.subleaf)
                } else {
                    None
                };
                (policy.vp, policy.leaf, subleaf)
            };
            key(other) == key(policy)
        };
        let place = self
            .entries()
            .position(|entry| same(&entry))
            .unwrap_or(self.count);
        if place == ENTRIES {
            return Err(HvStatus::NO_RESOURCES);
        }
        let frame = match self.frame {
            Some(frame) => frame,
            None => source.allocate().ok_or(HvStatus::INSUFFICIENT_MEMORY)?,
        };
        self.frame = Some(frame);
        write_frame(frame, place * SIZE, policy.as_bytes());
        self.count = self.count.max(place + 1);
        Ok(())
    }

    /// Gives its frame back.
    pub fn clear(&mut self, source: &mut dyn FrameSource) {
        self.count = 0;
        self.frame.take().into_iter().for_each(|frame| source.free(frame));
    }

    /// Applies the policies for a leaf to what the hypervisor would say.
    fn apply(&self, vp: u32, leaf: u32, subleaf: u32, result: &mut CpuidResult) {
        use hypercall_api::id::VpIndex;
        let applies = |policy: &RegisterCpuidResult| {
            policy.leaf == leaf
                && (policy.vp == VpIndex::ANY || policy.vp == VpIndex(vp))
                && (policy.subleaf_specific == 0 || policy.subleaf == subleaf)
        };
        for policy in self.entries().filter(applies) {
            let change = |value: &mut u32, [bits, mask]: [u32; 2]| *value = *value & !mask | bits & mask;
            change(&mut result.eax, policy.eax);
            change(&mut result.ebx, policy.ebx);
            change(&mut result.ecx, policy.ecx);
            change(&mut result.edx, policy.edx);
        }
    }
}

impl Partition {
    /// Applies the parent's policy to what CPUID would say.
    #[inline]
    pub fn apply_cpuid_policy(&self, vp: u32, leaf: u32, subleaf: u32, result: &mut CpuidResult) {
        if !self.is_root() {
            let policy = self.cpuid.lock();
            if policy.count != 0 {
                policy.apply(vp, leaf, subleaf, result);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::frames::tests::TestFrames;
    use hypercall_api::id::VpIndex;
    use zerocopy::FromZeros;

    fn policy(leaf: u32, subleaf: Option<u32>, ecx: [u32; 2]) -> RegisterCpuidResult {
        let mut policy = RegisterCpuidResult::new_zeroed();
        (policy.vp, policy.leaf, policy.ecx) = (VpIndex::ANY, leaf, ecx);
        (policy.subleaf, policy.subleaf_specific) = (subleaf.unwrap_or(0), u8::from(subleaf.is_some()));
        policy
    }

    fn ecx_of(policies: &CpuidPolicy, leaf: u32, subleaf: u32) -> u32 {
        let mut result = CpuidResult {
            eax: 0,
            ebx: 0,
            ecx: 0xff,
            edx: 0,
        };
        policies.apply(0, leaf, subleaf, &mut result);
        result.ecx
    }

    #[test]
    fn only_the_masked_bits_of_the_leaf_change() {
        let mut test = TestFrames::new(8);
        let mut policies = CpuidPolicy::new();
        policies
            .set(&policy(1, None, [0x1, 0xf]), &mut test.allocator)
            .unwrap();
        policies
            .set(&policy(7, Some(1), [0, 0xff]), &mut test.allocator)
            .unwrap();
        assert_eq!((ecx_of(&policies, 1, 5), ecx_of(&policies, 2, 0)), (0xf1, 0xff));
        assert_eq!((ecx_of(&policies, 7, 0), ecx_of(&policies, 7, 1)), (0xff, 0));
    }

    #[test]
    fn a_second_policy_for_a_leaf_replaces_the_first_and_the_number_is_bounded() {
        let mut test = TestFrames::new(8);
        let before = test.allocator.free_frames();
        let mut policies = CpuidPolicy::new();
        for bits in [1, 2] {
            policies
                .set(&policy(1, None, [bits, 0xff]), &mut test.allocator)
                .unwrap();
        }
        assert_eq!(ecx_of(&policies, 1, 0), 2);
        for leaf in 0..ENTRIES as u32 - 1 {
            policies
                .set(&policy(100 + leaf, None, [0, 0]), &mut test.allocator)
                .unwrap();
        }
        assert_eq!(
            policies.set(&policy(99, None, [0, 0]), &mut test.allocator),
            Err(HvStatus::NO_RESOURCES)
        );
        policies.clear(&mut test.allocator);
        assert_eq!(test.allocator.free_frames(), before);
    }
}
