//! Debian's own drivers for disks and services: a system on a SCSI disk of the host, which an NVMe disk is behind.

use anyhow::{Context, Result, ensure};

use crate::world::{Guest, World, complaints};

/// Writes a file and starts its own kernel anew by `kexec`, then reboots, then finds the file; `/root` knows how far it is.
const THREE_BOOTS: &str = "if [ -e /root/rebooted ]; then \
    md5sum -c /root/sum; echo root_$((1))=$(findmnt -n -o SOURCE,FSTYPE /); \
    elif [ -e /root/sum ]; then \
    echo devices_$((2))=$(ls /sys/bus/vmbus/devices | wc -l); echo contacts_$((2))=$(dmesg | grep -c 'Vmbus[ ]version'); \
    touch /root/rebooted; sync; reboot; sleep 600; \
    else dd if=/dev/urandom of=/root/data bs=64k count=32; md5sum /root/data > /root/sum; sync; \
    echo devices_$((1))=$(ls /sys/bus/vmbus/devices | wc -l); \
    kexec -s -l /boot/vmlinuz --initrd=/boot/initrd.img --reuse-cmdline && kexec -e; fi";

#[test]
fn its_system_on_a_disk_outlives_kexec_and_reboot() -> Result<()> {
    let guest = Guest {
        ..Guest::on_disk("disk", 2, THREE_BOOTS)
    };
    World::with(&guest, |world| {
        world.until_said("disk", "contacts_2=1")?;
        ensure!(
            world.json("vm show disk")?["starts"] == 1,
            "kexec did not keep to itself"
        );
        world.wait("disk", "off")?;
        let console = world.console_of("disk")?;
        for mark in ["/root/data: OK", "root_1=/dev/sda ext4"] {
            ensure!(console.lines().any(|line| line == mark), "'{mark}' is not there");
        }
        let devices = |name: &str| -> Result<u32> {
            let line = console.lines().find_map(|line| line.strip_prefix(name));
            Ok(line.with_context(|| format!("{name} is not there"))?.parse()?)
        };
        let before = devices("devices_1=")?;
        ensure!(before >= 5, "devices are missing: {before}");
        ensure!(
            devices("devices_2=")? == before,
            "devices are missing after kexec"
        );
        ensure!(
            world.json("vm show disk")?["starts"] == 2,
            "it has not rebooted once"
        );
        ensure!(complaints(&console).is_empty(), "{:#?}", complaints(&console));
        Ok(())
    })
}

/// Its `poweroff` hears the first time, and does nothing.
const DEAF_ONCE: &str = "rm /sbin/poweroff; echo 'if [ -e /run/asked ]; then exec busybox poweroff; fi; touch /run/asked' > /sbin/poweroff; \
    sed -i '1i #!/bin/sh' /sbin/poweroff; chmod +x /sbin/poweroff; rm -f /run/asked; echo ready_$((1)); sleep 3000";

#[test]
fn it_tells_what_it_is_and_ends_when_it_is_asked_to_and_else_that_is_told() -> Result<()> {
    World::with(&Guest::on_disk("polite", 1, DEAF_ONCE), |world| {
        world.until("the guest's daemon has told what it is", |world| {
            let shown = world.json("vm show polite")?;
            let told = shown["guest"].as_array().map_or(0, Vec::len);
            Ok(told > 0 && shown["heartbeat"] == "alive")
        })?;
        let shown = world.json("vm show polite")?;
        let guest = shown["guest"].as_array().cloned().unwrap_or_default();
        let value = |name: &str| {
            let mut pairs = guest.iter();
            pairs
                .find(|pair| pair["name"] == name)
                .map(|pair| pair["value"].clone())
        };
        let system = value("OSName").context("OSName is not told")?;
        ensure!(
            system.as_str().is_some_and(|name| name.contains("Debian")),
            "{system}"
        );
        ensure!(shown["disks"][0]["source"] == "nvme1", "{}", shown["disks"]);
        world.until_said("polite", "ready_1")?;
        let reply = world.run("vm stop polite --timeout 5")?;
        ensure!(reply.status != 0, "it claims to have ended");
        ensure!(reply.text.contains("has not ended within 5 s"), "{}", reply.text);
        world.text("vm stop polite --timeout 600")?;
        ensure!(world.json("vm show polite")?["state"] == "off");
        let console = world.console_of("polite")?;
        ensure!(
            console.contains("reboot: Power down"),
            "it was not powered off by itself"
        );
        Ok(())
    })
}
