//! What a guest finds of its processor: feature masks, tables `[[cpuid]]`, and rules for MSRs, tables `[[msr]]`.

use super::Reader;
use crate::settings::{Entry, Item, SettingsError, item};
use alloc::vec::Vec;
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::intercept::{InterceptType, RegisterCpuidResult};

const CPUID_KEYS: &[&str] = &["leaf", "subleaf", "register", "clear", "set"];
const MSR_KEYS: &[&str] = &["number", "read", "write"];
/// Most masks of a machine; the hypervisor has room for a page of them, some of which the enlightenments take.
const MAX_MASKS: usize = 16;
/// Most rules of a machine.
const MAX_RULES: usize = 64;

/// A feature mask: bits of a register of CPUID that read otherwise than the hypervisor says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuidMask {
    /// EAX of CPUID.
    pub leaf: u32,
    /// ECX of CPUID; `None` for every one.
    pub subleaf: Option<u32>,
    /// EAX, EBX, ECX or EDX: 0 to 3.
    pub register: usize,
    /// Bits that read as zero.
    pub clear: u32,
    /// Bits that read as one.
    pub set: u32,
}

impl CpuidMask {
    /// Adds it to `policies`: one a leaf, since a second one for it would replace the first.
    pub fn add_to(&self, policies: &mut Vec<RegisterCpuidResult>, partition: PartitionId) {
        let (subleaf, specific) = (self.subleaf.unwrap_or(0), u8::from(self.subleaf.is_some()));
        let known = policies.iter().position(|policy| {
            (policy.leaf, policy.subleaf, policy.subleaf_specific) == (self.leaf, subleaf, specific)
        });
        let known = known.unwrap_or_else(|| {
            policies.push(RegisterCpuidResult {
                partition,
                vp: VpIndex::ANY,
                intercept: InterceptType::CPUID,
                leaf: self.leaf,
                subleaf,
                subleaf_specific: specific,
                always_override: 1,
                padding: 0,
                eax: [0; 2],
                ebx: [0; 2],
                ecx: [0; 2],
                edx: [0; 2],
                reserved: 0,
            });
            policies.len() - 1
        });
        let policy = &mut policies[known];
        let [bits, changed] = match self.register {
            0 => &mut policy.eax,
            1 => &mut policy.ebx,
            2 => &mut policy.ecx,
            _ => &mut policy.edx,
        };
        *bits = *bits & !self.clear | self.set;
        *changed |= self.clear | self.set;
    }
}

/// What becomes of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MsrAnswer {
    /// #GP.
    Fault,
    /// It reads this, or a write goes nowhere.
    Value(u64),
}

/// A rule for one MSR; what it does not say is as for all others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsrRule {
    /// The MSR.
    pub number: u32,
    /// What it reads as.
    pub read: Option<u64>,
    /// What becomes of a write.
    pub write: Option<MsrAnswer>,
}

/// What becomes of MSRs that the hypervisor does not give to a guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MsrPolicy {
    unknown: MsrAnswer,
    rules: Vec<MsrRule>,
}

impl MsrPolicy {
    /// Every access raises #GP.
    pub const FAULT: Self = Self {
        unknown: MsrAnswer::Fault,
        rules: Vec::new(),
    };

    /// Whether the hypervisor alone does what it says: then nobody need be asked.
    pub fn is_plain(&self) -> bool {
        *self == Self::FAULT
    }

    fn rule(&self, msr: u32) -> Option<&MsrRule> {
        self.rules.iter().find(|rule| rule.number == msr)
    }

    /// What a read of `msr` gives.
    pub fn read(&self, msr: u32) -> MsrAnswer {
        let value = self.rule(msr).and_then(|rule| rule.read);
        value.map_or(self.unknown, MsrAnswer::Value)
    }

    /// What becomes of a write to `msr`.
    pub fn write(&self, msr: u32) -> MsrAnswer {
        let answer = self.rule(msr).and_then(|rule| rule.write);
        answer.unwrap_or(self.unknown)
    }
}

impl Reader<'_> {
    fn entries<'t, 'i>(
        &self,
        item: &Item<'t, 'i>,
        keys: &[&str],
        advice: &str,
        most: usize,
    ) -> Result<Vec<Entry<'t, 'i>>, SettingsError> {
        let list = self.file.tables(item, keys, advice)?;
        if list.len() > most {
            let what = format_args!("a machine has at most {most} tables [[{}]]", item.key);
            return Err(self.file.error(item.value.span().start, what));
        }
        Ok(list)
    }

    /// The number of a key, of up to 32 bits.
    fn word(&self, item: Option<Item<'_, '_>>) -> Result<Option<u32>, SettingsError> {
        match item {
            Some(item) => Ok(Some(self.number(Some(item), 0, 0..=u32::MAX.into())? as u32)),
            None => Ok(None),
        }
    }

    pub(super) fn cpuid_masks(&self, item: &Item<'_, '_>) -> Result<Vec<CpuidMask>, SettingsError> {
        self.entries(
            item,
            CPUID_KEYS,
            "give tables, as in [[cpuid]] and leaf = 7",
            MAX_MASKS,
        )?
        .into_iter()
        .map(|entry| self.cpuid_mask(entry))
        .collect()
    }

    fn cpuid_mask(&self, (table, at): Entry<'_, '_>) -> Result<CpuidMask, SettingsError> {
        let item = |key| item(table, key);
        let without = |what| self.file.error(at, format_args!("a [[cpuid]] without {what}"));
        let leaf = self.word(item("leaf"))?;
        let register = item("register");
        let register = register.ok_or_else(|| without("register: give one, as in register = \"ebx\""))?;
        let names = [("eax", 0), ("ebx", 1), ("ecx", 2), ("edx", 3)];
        let mask = CpuidMask {
            leaf: leaf.ok_or_else(|| without("leaf: give one, as in leaf = 7"))?,
            subleaf: self.word(item("subleaf"))?,
            register: self.choice(Some(register), &names)?,
            clear: self.word(item("clear"))?.unwrap_or(0),
            set: self.word(item("set"))?.unwrap_or(0),
        };
        match (mask.clear & mask.set, item("set")) {
            (both, Some(item)) if both != 0 => Err(self.file.bad(
                &item,
                format_args!("bits {both:#x} cannot be cleared and set at once"),
            )),
            _ => Ok(mask),
        }
    }

    pub(super) fn msrs(
        &self,
        unknown: Option<Item<'_, '_>>,
        list: Option<Item<'_, '_>>,
    ) -> Result<MsrPolicy, SettingsError> {
        let mut policy = MsrPolicy {
            unknown: self.choice(unknown, &ANSWERS)?,
            rules: Vec::new(),
        };
        let Some(item) = list else { return Ok(policy) };
        for entry in self.entries(
            &item,
            MSR_KEYS,
            "give tables, as in [[msr]] and number = 0x35",
            MAX_RULES,
        )? {
            let rule = self.msr_rule(entry)?;
            if policy.rule(rule.number).is_some() {
                let what = format_args!("MSR {:#x} has a rule already", rule.number);
                return Err(self.file.error(entry.1, what));
            }
            policy.rules.push(rule);
        }
        Ok(policy)
    }

    fn msr_rule(&self, (table, at): Entry<'_, '_>) -> Result<MsrRule, SettingsError> {
        let item = |key| item(table, key);
        let number = self.word(item("number"))?;
        Ok(MsrRule {
            number: number.ok_or_else(|| {
                self.file
                    .error(at, "an [[msr]] without number: give one, as in number = 0x35")
            })?,
            read: match item("read") {
                Some(item) => Some(self.number(Some(item), 0, 0..=u64::MAX)?),
                None => None,
            },
            write: match item("write") {
                Some(item) => Some(self.choice(Some(item), &ANSWERS)?),
                None => None,
            },
        })
    }
}

const ANSWERS: [(&str, MsrAnswer); 2] = [("fault", MsrAnswer::Fault), ("ignore", MsrAnswer::Value(0))];
