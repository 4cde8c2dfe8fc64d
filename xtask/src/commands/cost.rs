//! Where the instructions of a guest's work went: to the guest, the root, or the hypervisor for either, and how often each was left.
//!
//! On a machine that counts instructions the statistics pages' times are numbers of instructions. What is the same in two runs, such as
//! a guest's start and the commands that ask for the counters, is not in their difference.

use serde_json::Value;

/// What VPs have used up: those of a child, and the root's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cost {
    /// The child's.
    pub guest: Side,
    /// The root's.
    pub root: Side,
}

/// What the VPs of one partition have used up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Side {
    /// Instructions of its own.
    pub own: f64,
    /// Instructions of the hypervisor for it.
    pub hypervisor: f64,
    /// Exits by reason; those that there were.
    pub exits: Vec<(String, f64)>,
}

impl Side {
    /// What `hv stats --json` or `vm stats --json` says of a partition.
    pub fn read(statistics: &Value) -> Option<Self> {
        let (mut total, mut hypervisor) = (0.0, 0.0);
        for vp in statistics["vps"].as_array()? {
            total += vp["run_time_ns"].as_f64()?;
            hypervisor += vp["hypervisor_time_ns"].as_f64()?;
        }
        let mut exits = Vec::new();
        for row in statistics["exits"].as_array()? {
            let (reason, count) = (row["reason"].as_str()?, row["total"].as_f64()?);
            if reason != "total" && count > 0.0 {
                exits.push((reason.to_owned(), count));
            }
        }
        Some(Self {
            own: total - hypervisor,
            hypervisor,
            exits,
        })
    }

    /// What came since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let count = |exits: &[(String, f64)], reason: &str| {
            let mut found = exits.iter().filter(|(name, _)| name == reason);
            found.next().map_or(0.0, |(_, count)| *count)
        };
        let exits = self.exits.iter().map(|(reason, now)| {
            let then = count(&before.exits, reason);
            (reason.clone(), now - then)
        });
        Self {
            own: self.own - before.own,
            hypervisor: self.hypervisor - before.hypervisor,
            exits: exits.filter(|(_, count)| *count != 0.0).collect(),
        }
    }

    /// Two of them together.
    pub fn and(&self, other: &Self) -> Self {
        let mut exits = self.exits.clone();
        for (reason, count) in &other.exits {
            match exits.iter_mut().find(|(own, _)| own == reason) {
                Some((_, own)) => *own += count,
                None => exits.push((reason.clone(), *count)),
            }
        }
        Self {
            own: self.own + other.own,
            hypervisor: self.hypervisor + other.hypervisor,
            exits,
        }
    }

    /// All exits.
    pub fn all_exits(&self) -> f64 {
        self.exits.iter().map(|(_, count)| count).sum()
    }

    fn each(&self, of: f64) -> Self {
        Self {
            own: self.own / of,
            hypervisor: self.hypervisor / of,
            exits: self
                .exits
                .iter()
                .map(|(reason, count)| (reason.clone(), count / of))
                .collect(),
        }
    }

    fn text(&self, whose: &str) -> String {
        let mut text = format!(
            "  {whose:6} {:>12.0} of its own, {:>10.0} of the hypervisor, {:.2} exits:",
            self.own,
            self.hypervisor,
            self.all_exits()
        );
        for (reason, count) in self.exits.iter().filter(|(_, count)| count.abs() >= 0.005) {
            text.push_str(&format!(" {reason} {count:.2}"));
        }
        text.push('\n');
        text
    }
}

impl Cost {
    /// What came since `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            guest: self.guest.since(&before.guest),
            root: self.root.since(&before.root),
        }
    }

    /// Of one of `count` pieces of work.
    pub fn each(&self, count: f64) -> Self {
        Self {
            guest: self.guest.each(count),
            root: self.root.each(count),
        }
    }

    /// All instructions that were counted.
    pub fn spent(&self) -> f64 {
        self.guest.own + self.guest.hypervisor + self.root.own + self.root.hypervisor
    }

    /// Lines for a person, under `title`.
    pub fn text(&self, title: &str) -> String {
        format!("{title}\n{}{}", self.guest.text("guest"), self.root.text("root"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_two_runs_have_in_common_is_not_in_their_difference() {
        let statistics = |run: u64, exits: u64| {
            Side::read(&json!({
                "vps": [{"vp": 0, "run_time_ns": run, "hypervisor_time_ns": 100}, {"vp": 1, "run_time_ns": 0, "hypervisor_time_ns": 0}],
                "exits": [{"reason": "halt", "vp0": exits, "total": exits}, {"reason": "nmi", "total": 0}, {"reason": "total", "total": 9}],
            }))
            .unwrap()
        };
        let (short, long) = (statistics(1100, 10), statistics(2100, 30));
        assert_eq!(short.exits, [("halt".to_owned(), 10.0)]);
        let cost = |side: &Side| Cost {
            guest: side.clone(),
            root: Side::default(),
        };
        let each = cost(&long).since(&cost(&short)).each(10.0);
        assert_eq!((each.guest.own, each.guest.hypervisor), (100.0, 0.0));
        assert_eq!(each.guest.all_exits(), 2.0);
        assert!(each.text("a read").contains("halt 2.00"));
        let both = short.and(&long);
        assert_eq!((both.own, both.hypervisor), (3000.0, 200.0));
        assert_eq!(both.exits, [("halt".to_owned(), 40.0)]);
    }
}
