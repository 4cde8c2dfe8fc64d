//! Drives and their media.

use super::*;

#[test]
fn a_drive_tells_of_its_medium() {
    let controller = Controller::new(0);
    let drive = LogicalUnit::optical(None, id(), "1".to_string());
    controller.attach(Some(2), drive).unwrap();
    let bus = bus();
    let mut world = World::ready(&controller, &bus);
    assert_eq!(world.command(2, &[0; 6]), sense(Sense::NO_MEDIUM));
    let iso = RamDisk::new(40, SectorSize::Bytes512)
        .with_contents(&[5; 20480])
        .read_only();
    controller.unit(2).unwrap().change_medium(Some(iso));
    assert_eq!(world.command(2, &[0; 6]), sense(Sense::MEDIUM_CHANGED));
    assert_eq!(world.command(2, &[0; 6]), Ok(()));
    assert_eq!(
        world.read(2, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8).unwrap(),
        [0, 0, 0, 9, 0, 0, 8, 0]
    );
    assert_eq!(
        world.read(2, &[0x28, 0, 0, 0, 0, 9, 0, 0, 1, 0], 2048),
        Ok(vec![5; 2048])
    );
    assert_eq!(
        world
            .read(2, &[0x43, 0, 0, 0, 0, 0, 0, 0, 20, 0], 20)
            .unwrap()
            .len(),
        20
    );
    assert_eq!(world.command(2, &[0x1e, 0, 0, 0, 1, 0]), Ok(()));
    assert_eq!(
        world.command(2, &[0x1b, 0, 0, 0, 2, 0]),
        sense(Sense::REMOVAL_PREVENTED)
    );
    assert_eq!(world.command(2, &[0x1e, 0, 0, 0, 0, 0]), Ok(()));
    assert_eq!(world.command(2, &[0x1b, 0, 0, 0, 2, 0]), Ok(()));
    assert_eq!(world.command(2, &[0; 6]), sense(Sense::NO_MEDIUM));
}
