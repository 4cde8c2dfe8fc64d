//! The network cards of a machine: tables `[[network]]`.

use super::{NAME_RULE, Reader, is_name};
use crate::net::DEFAULT_SWITCH;
use crate::settings::{Item, SettingsError, item};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use toml::de::DeTable;
use vmbus::protocol::network::Mac;
use vsp::switch::guard::Guards;
use vsp::switch::limit::Limit;
use vsp::switch::port::Direction;
use vsp::switch::vlan::{VlanId, VlanMode, VlanSet};
use vsp::switch::words::{GUARD_RULE, LIMIT_RULE, MIRROR_RULE, Mirror, TRUNK_RULE};

const KEYS: &[&str] = &["switch", "mac", "vlan", "trunk", "limit", "guard", "mirror"];
/// Most cards of a machine.
pub const MAX_CARDS: usize = 8;

/// A network card as it was described.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkDescription {
    /// The switch that it is plugged into.
    pub switch: String,
    /// Its address; `None` for one that is made up.
    pub address: Option<Mac>,
    /// Its VLANs.
    pub vlan: VlanMode,
    /// How much it may send.
    pub limit: Option<Limit>,
    /// What it may not send.
    pub guard: Guards,
    /// Its part in mirroring.
    pub mirror: Mirror,
}

impl NetworkDescription {
    /// A card on `switch` of which nothing else is said: no VLAN, no cap, all guards.
    pub fn on(switch: &str) -> Self {
        Self {
            switch: switch.to_string(),
            address: None,
            vlan: VlanMode::default(),
            limit: None,
            guard: Guards::all(),
            mirror: Mirror::Of(Direction::empty()),
        }
    }
}

impl Reader<'_> {
    pub(super) fn networks(&self, item: &Item<'_, '_>) -> Result<Vec<NetworkDescription>, SettingsError> {
        let advice = "give tables, as in [[network]] and switch = \"default\"";
        let list = self.file.tables(item, KEYS, advice)?;
        if list.len() > MAX_CARDS {
            let most = format_args!("a machine has at most {MAX_CARDS} network cards");
            return Err(self.file.bad(item, most));
        }
        list.into_iter().map(|(table, _)| self.network(table)).collect()
    }

    fn network(&self, table: &DeTable<'_>) -> Result<NetworkDescription, SettingsError> {
        let item = |key| item(table, key);
        let switch = match item("switch") {
            Some(item) => {
                let name = self.file.text(&item)?;
                match is_name(name) {
                    true => name.to_string(),
                    false => return Err(self.file.bad(&item, NAME_RULE)),
                }
            }
            None => DEFAULT_SWITCH.to_string(),
        };
        let mut card = NetworkDescription::on(&switch);
        if let Some(item) = item("mac") {
            let address = Mac::parse(self.file.text(&item)?).filter(|address| address.is_station());
            let advice = "give a card's address, as in \"02:00:00:00:00:01\"";
            card.address = Some(address.ok_or_else(|| self.file.bad(&item, advice))?);
        }
        let mut native = VlanId(0);
        if let Some(item) = item("vlan") {
            let number = self.number(Some(item), 0, 1..=VlanId::MAX.into())?;
            native = VlanId::new(number as u16).unwrap_or(native);
            card.vlan = VlanMode::Access(native);
        }
        if let Some(item) = item("trunk") {
            let allowed =
                VlanSet::parse(self.file.text(&item)?).ok_or_else(|| self.file.bad(&item, TRUNK_RULE))?;
            card.vlan = VlanMode::Trunk { native, allowed };
        }
        if let Some(item) = item("limit") {
            card.limit =
                Limit::parse(self.file.text(&item)?).ok_or_else(|| self.file.bad(&item, LIMIT_RULE))?;
        }
        if let Some(item) = item("guard") {
            card.guard =
                Guards::parse(self.file.text(&item)?).ok_or_else(|| self.file.bad(&item, GUARD_RULE))?;
        }
        if let Some(item) = item("mirror") {
            card.mirror =
                Mirror::parse(self.file.text(&item)?).ok_or_else(|| self.file.bad(&item, MIRROR_RULE))?;
        }
        Ok(card)
    }
}
