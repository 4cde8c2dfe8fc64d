//! The root's own network: its card, its address by QEMU's DHCP server, its link.

use anyhow::Result;
use serde_json::Value;
use std::time::Duration;
use tests::{Shell, machine, number, row};

/// What the root says of its network, once `wanted` holds of it.
fn network_once(shell: &mut Shell, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    for _ in 0..600 {
        let seen = shell.json("root network")?;
        if wanted(&seen) {
            return Ok(seen);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("it never came about: {}", shell.json("root network")?)
}

#[test]
fn the_root_has_an_address_by_dhcp_and_its_gateway_answers_with_dma_translated() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    let network = shell.json("root network --wait")?;
    assert_eq!(
        (
            &network["address"],
            &network["gateway"],
            &network["dns"],
            &network["link"]
        ),
        (
            &"10.0.2.15/24".into(),
            &"10.0.2.2".into(),
            &serde_json::json!(["10.0.2.3"]),
            &"up".into()
        )
    );
    let answers = shell.json("root ping 10.0.2.2 --count 3 --timeout 60")?;
    assert_eq!(number(&answers, "/answered"), 3, "{answers}");
    // Nobody is there.
    assert_eq!(shell.run("root ping 10.0.2.77 --count 1 --timeout 1")?.status, 1);
    let counters = &shell.json("root network")?["counters"];
    assert!(
        number(counters, "/received") >= 5 && number(counters, "/sent") >= 5,
        "{counters}"
    );
    for trouble in ["damaged", "malformed", "missed", "unsendable", "resets"] {
        assert_eq!(counters[trouble], 0, "{counters}");
    }
    let devices = shell.json("dev list")?;
    assert_eq!(
        row(&devices, "devices", "class", "Ethernet controller")["driver"],
        "e1000e"
    );
    assert_eq!(number(&shell.json("hv iommu faults")?, "/total"), 0);
    Ok(())
}

#[test]
fn the_address_goes_with_the_link_and_comes_back_with_it() -> Result<()> {
    let mut shell = Shell::boot(&machine())?;
    shell.text("root network --wait")?;
    shell.console().monitor("set_link net0 off")?;
    let down = network_once(&mut shell, |seen| seen["address"].is_null())?;
    assert_eq!(
        (&down["link"], &down["speed_mbit"]),
        (&"down".into(), &Value::Null)
    );
    let reply = shell.run("root ping 10.0.2.2 --timeout 1")?;
    assert!(
        reply.status == 1 && reply.text.contains("no address yet"),
        "{reply:?}"
    );
    shell.console().monitor("set_link net0 on")?;
    let up = network_once(&mut shell, |seen| !seen["address"].is_null())?;
    assert_eq!(
        (&up["link"], &up["address"]),
        (&"up".into(), &"10.0.2.15/24".into())
    );
    let answers = shell.json("root ping 10.0.2.2 --count 1 --timeout 60")?;
    assert_eq!(number(&answers, "/answered"), 1, "{answers}");
    Ok(())
}
