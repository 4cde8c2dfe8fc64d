//! The network cards of a machine: tables `[[network]]`.

use super::{DescriptionError, Item, NAME_RULE, Reader, is_name};
use crate::net::DEFAULT_SWITCH;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use toml::de::DeTable;
use vmbus::protocol::network::Mac;
use vsp::switch::vlan::VlanId;

const KEYS: &[&str] = &["switch", "mac", "vlan"];
/// Most cards of a machine.
const MAX_CARDS: usize = 8;

/// A network card as it was described.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkDescription {
    /// The switch that it is plugged into.
    pub switch: String,
    /// Its address; `None` for one that is made up.
    pub address: Option<Mac>,
    /// The VLAN that it is in, without knowing.
    pub vlan: Option<VlanId>,
}

impl Reader<'_> {
    pub(super) fn networks(&self, item: &Item<'_, '_>) -> Result<Vec<NetworkDescription>, DescriptionError> {
        let advice = || self.bad(item, "give tables, as in [[network]] and switch = \"default\"");
        let list = item.value.get_ref().as_array().ok_or_else(advice)?;
        if list.len() > MAX_CARDS {
            return Err(self.bad(
                item,
                format_args!("a machine has at most {MAX_CARDS} network cards"),
            ));
        }
        list.iter()
            .map(|entry| self.network(entry.get_ref().as_table().ok_or_else(advice)?))
            .collect()
    }

    fn network(&self, table: &DeTable<'_>) -> Result<NetworkDescription, DescriptionError> {
        for key in table.keys() {
            self.known(key.get_ref(), key.span().start, KEYS)?;
        }
        let item = |key| table.get(key).map(|value| Item { key, value });
        let switch = match item("switch") {
            Some(item) => {
                let name = self.text(&item)?;
                match is_name(name) {
                    true => name.to_string(),
                    false => return Err(self.bad(&item, NAME_RULE)),
                }
            }
            None => DEFAULT_SWITCH.to_string(),
        };
        let address = match item("mac") {
            Some(item) => {
                let address = Mac::parse(self.text(&item)?).filter(|address| address.is_station());
                let advice = "give a card's address, as in \"02:00:00:00:00:01\"";
                Some(address.ok_or_else(|| self.bad(&item, advice))?)
            }
            None => None,
        };
        let vlan = match item("vlan") {
            Some(item) => {
                let number = self.number(Some(item), 0, 1..=VlanId::MAX.into())?;
                VlanId::new(number as u16)
            }
            None => None,
        };
        Ok(NetworkDescription {
            switch,
            address,
            vlan,
        })
    }
}
