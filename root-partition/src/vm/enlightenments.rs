//! Which parts of the hypervisor's interface a guest is told of: switches, so that what each is worth can be measured, and
//! so that a guest can be kept from one. A switch hides a part in CPUID; it takes nothing away from a guest that uses it
//! unasked.

use alloc::vec::Vec;
use hypercall_api::cpuid::{
    Features, LEAF_FEATURES, LEAF_LAST, LEAF_RECOMMENDATIONS, LEAF_VENDOR, Recommendations,
};
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::intercept::{InterceptType, RegisterCpuidResult};
use hypercall_api::privilege::Privileges;

/// CPUID leaf 1, ECX: there is a hypervisor.
const HYPERVISOR_PRESENT: u32 = 1 << 31;

/// A switch.
#[derive(Clone, Copy, Debug)]
pub struct Switch {
    /// Its key in the description.
    pub key: &'static str,
    /// Bits of the features leaf: EAX with EBX above it, EDX.
    features: (u64, u32),
    /// Bits of the recommendations leaf, EAX.
    recommendations: u32,
}

const fn privilege(key: &'static str, privileges: Privileges, features: u32) -> Switch {
    Switch {
        key,
        features: (privileges.bits(), features),
        recommendations: 0,
    }
}

const fn recommendation(key: &'static str, recommendations: Recommendations) -> Switch {
    Switch {
        key,
        features: (0, 0),
        recommendations: recommendations.bits(),
    }
}

/// Key of the switch that hides the hypervisor whole.
pub const HYPERVISOR: &str = "hypervisor";
/// Key of the switch for the VMBus device in the ACPI tables.
pub const VMBUS: &str = "vmbus";

/// The switches, all on at first.
pub const SWITCHES: &[Switch] = &[
    privilege(HYPERVISOR, Privileges::empty(), 0),
    privilege(VMBUS, Privileges::empty(), 0),
    privilege("reference_tsc", Privileges::ACCESS_PARTITION_REFERENCE_TSC, 0),
    privilege("invariant_tsc", Privileges::ACCESS_TSC_INVARIANT_CONTROLS, 0),
    privilege("synthetic_timers", Privileges::ACCESS_SYNTHETIC_TIMER_REGS, 0),
    privilege(
        "direct_timers",
        Privileges::empty(),
        Features::DIRECT_SYNTHETIC_TIMERS.bits(),
    ),
    privilege(
        "frequencies",
        Privileges::ACCESS_FREQUENCY_REGS,
        Features::FREQUENCY_MSRS.bits(),
    ),
    privilege(
        "crash_report",
        Privileges::empty(),
        Features::GUEST_CRASH_MSRS.bits(),
    ),
    privilege("guest_idle", Privileges::ACCESS_GUEST_IDLE_REG, 0),
    recommendation("tlb_flush", Recommendations::REMOTE_TLB_FLUSH),
    recommendation("ipi", Recommendations::CLUSTER_IPI),
    recommendation("processor_sets", Recommendations::EX_PROCESSOR_MASKS),
    recommendation("lazy_eoi", Recommendations::APIC_MSRS),
];
const _: () = assert!(SWITCHES.len() <= 32);

/// Which switches are on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Enlightenments {
    off: u32,
}

impl Default for Enlightenments {
    fn default() -> Self {
        Self::ALL
    }
}

impl Enlightenments {
    /// All on.
    pub const ALL: Self = Self { off: 0 };

    /// Turns the switch `key` on or off; false where there is none.
    pub fn set(&mut self, key: &str, on: bool) -> bool {
        let Some(index) = SWITCHES.iter().position(|switch| switch.key == key) else {
            return false;
        };
        self.off = self.off & !(1 << index) | u32::from(!on) << index;
        true
    }

    /// Whether the switch `key` is on.
    pub fn is_on(&self, key: &str) -> bool {
        !self.off().any(|switch| switch.key == key)
    }

    /// The switches that are off.
    pub fn off(&self) -> impl Iterator<Item = &'static Switch> + '_ {
        let switches = SWITCHES.iter().enumerate();
        switches
            .filter(|(index, _)| self.off & 1 << index != 0)
            .map(|(_, switch)| switch)
    }

    /// What CPUID is to say to the VPs of `partition` in place of what the hypervisor would.
    pub fn cpuid(&self, partition: PartitionId) -> Vec<RegisterCpuidResult> {
        let mut policies = Vec::new();
        if !self.is_on(HYPERVISOR) {
            policies.push(hide(partition, 1, [0, 0, HYPERVISOR_PRESENT, 0]));
            let leaves = LEAF_VENDOR..=LEAF_LAST;
            policies.extend(leaves.map(|leaf| hide(partition, leaf, [u32::MAX; 4])));
            return policies;
        }
        let (mut features, mut recommendations) = ([0; 4], 0);
        for switch in self.off() {
            let (privileges, more) = switch.features;
            features[0] |= privileges as u32;
            features[1] |= (privileges >> 32) as u32;
            features[3] |= more;
            recommendations |= switch.recommendations;
        }
        if features != [0; 4] {
            policies.push(hide(partition, LEAF_FEATURES, features));
        }
        if recommendations != 0 {
            policies.push(hide(partition, LEAF_RECOMMENDATIONS, [recommendations, 0, 0, 0]));
        }
        policies
    }
}

/// A policy that clears bits of a leaf.
fn hide(partition: PartitionId, leaf: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> RegisterCpuidResult {
    RegisterCpuidResult {
        partition,
        vp: VpIndex::ANY,
        intercept: InterceptType::CPUID,
        leaf,
        subleaf: 0,
        subleaf_specific: 0,
        always_override: 1,
        padding: 0,
        eax: [0, eax],
        ebx: [0, ebx],
        ecx: [0, ecx],
        edx: [0, edx],
        reserved: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(keys: &[&str]) -> Vec<RegisterCpuidResult> {
        let mut enlightenments = Enlightenments::ALL;
        for key in keys {
            assert!(enlightenments.set(key, false), "{key}");
        }
        enlightenments.cpuid(PartitionId(7))
    }

    #[test]
    fn what_is_on_needs_no_policy() {
        assert!(without(&[]).is_empty());
        assert!(without(&["vmbus"]).is_empty(), "ACPI's, not CPUID's");
        let mut all = Enlightenments::ALL;
        assert!(all.set("ipi", false) && !all.is_on("ipi") && all.set("ipi", true));
        assert_eq!(all, Enlightenments::ALL);
        assert!(!all.set("ipis", false));
    }

    #[test]
    fn switches_that_are_off_hide_their_bits() {
        let policies = without(&["reference_tsc", "direct_timers", "tlb_flush", "ipi"]);
        assert_eq!(policies.len(), 2);
        assert_eq!(
            (policies[0].leaf, policies[0].eax, policies[0].edx),
            (0x4000_0003, [0, 1 << 9], [0, 1 << 19])
        );
        assert_eq!(
            (policies[1].leaf, policies[1].eax),
            (0x4000_0004, [0, 1 << 2 | 1 << 10])
        );
    }

    #[test]
    fn a_hidden_hypervisor_shows_nothing() {
        let policies = without(&["hypervisor"]);
        assert_eq!((policies[0].leaf, policies[0].ecx), (1, [0, 1 << 31]));
        let leaves: Vec<u32> = policies[1..].iter().map(|policy| policy.leaf).collect();
        assert_eq!(leaves, (0x4000_0000..=LEAF_LAST).collect::<Vec<_>>());
        assert!(policies[1..].iter().all(|policy| policy.ebx == [0, u32::MAX]));
    }
}
