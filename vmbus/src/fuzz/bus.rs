//! Both ends of the bus against a peer that sends what it likes, in any order.

use super::Input;
use crate::client::{Client, Event, Settings};
use crate::protocol::body::*;
use crate::protocol::gpadl::{self, GpaRange};
use crate::protocol::guid::{WireGuid, class};
use crate::protocol::id::{GpadlId, Relid, Status};
use crate::protocol::message::{ChannelMessage, MessageBytes, TABLE};
use crate::protocol::offer::{Offer, OfferFlags};
use crate::protocol::version::Version;
use crate::server::{Limits, OfferId, Server};
use crate::world::{Owner, World};
use alloc::vec::Vec;
use hypercall_api::id::VpIndex;
use uuid::Uuid;

/// A message with small numbers in it, sometimes cut short, sometimes not one at all.
fn message(input: &mut Input<'_>) -> MessageBytes {
    let (relid, gpadl) = (Relid(input.small(6)), GpadlId(input.small(6)));
    let status = Status(input.small(2));
    let message = match input.small(24) {
        0 | 1 => ChannelMessage::InitiateContact(InitiateContact {
            version: Version::ALL[input.small(9) as usize],
            target_vp: VpIndex(input.small(3)),
            interrupt_page_or_target: u64::from(input.small(4)),
            parent_to_child_monitor: 0,
            child_to_parent_monitor: 0,
        }),
        2 | 3 => ChannelMessage::RequestOffers(Empty {}),
        4 | 5 => ChannelMessage::OpenChannel(OpenChannel {
            relid,
            open_id: relid.0,
            gpadl,
            target_vp: VpIndex(input.small(3)),
            downstream_page_offset: input.small(6),
            user_data: [0; OPEN_USER_DATA],
        }),
        6 => ChannelMessage::CloseChannel(ChannelNamed { relid }),
        7 | 8 => {
            let range = GpaRange::whole((0..u64::from(input.small(60)) + 1).collect());
            let messages = gpadl::messages(relid, gpadl, &[range]).unwrap_or_default();
            let which = input.small(8) as usize % messages.len().max(1);
            return messages.get(which).cloned().unwrap_or_default();
        }
        9 => ChannelMessage::GpadlTeardown(GpadlTeardown { relid, gpadl }),
        10 => ChannelMessage::RelidReleased(ChannelNamed { relid }),
        11 => ChannelMessage::Unload(Empty {}),
        12 => ChannelMessage::ModifyChannel(ModifyChannel {
            relid,
            target_vp: VpIndex(input.small(3)),
        }),
        13 => ChannelMessage::VersionResponse(VersionResponse {
            supported: status.0 as u8 ^ 1,
            connection_state: 0,
            reserved: 0,
            message_connection: hypercall_api::port::ConnectionId(4),
        }),
        14 | 15 => {
            let offer = offer(input.byte());
            ChannelMessage::OfferChannel(offer.to_wire(relid, crate::server::event_connection(relid)))
        }
        16 => ChannelMessage::RescindChannelOffer(ChannelNamed { relid }),
        17 => ChannelMessage::OpenChannelResult(OpenResult {
            relid,
            open_id: relid.0,
            status,
        }),
        18 => ChannelMessage::GpadlCreated(GpadlCreated {
            relid,
            gpadl: GpadlId(gpadl.0 + 0xe1e10),
            status,
        }),
        19 => ChannelMessage::GpadlTorndown(GpadlTorndown {
            gpadl: GpadlId(gpadl.0 + 0xe1e10),
        }),
        20 => ChannelMessage::SocketConnect(SocketConnect {
            endpoint: WireGuid([input.byte(); 16]),
            service: WireGuid([0; 16]),
        }),
        21 => {
            // Any message of the table, with any contents.
            let row = TABLE[input.small(TABLE.len() as u32) as usize];
            let mut bytes = MessageBytes::new();
            bytes.extend(row.message_type.0.to_le_bytes());
            bytes.extend([0; 4]);
            let length = input.small(232) as usize;
            bytes.extend(input.bytes(length));
            return bytes;
        }
        22 => return input.bytes(16).into_iter().collect(),
        _ => ChannelMessage::ModifyChannelResponse(ModifyResponse { relid, status }),
    };
    let mut bytes = message.encode();
    if input.small(16) == 0 {
        bytes.truncate(input.byte().into());
    }
    bytes
}

fn offer(byte: u8) -> Offer {
    let mut offer = Offer::new(class::ECHO, Uuid::from_u128(u128::from(byte & 3)));
    offer.sub_channel_index = u16::from(byte >> 2 & 1);
    if byte & 0x80 != 0 {
        offer.flags |= OfferFlags::TLNPI_PROVIDER;
    }
    offer
}

/// A guest that lies, against the server: nothing panics, the owner is asked nothing senseless, and nothing is left when the
/// guest and the devices are gone.
pub fn server(data: &[u8]) {
    let mut input = Input::new(data);
    let mut server = Server::new(Limits {
        channels: 8,
        gpadls: 8,
        gpadl_pages: 128,
        sockets: 2,
    });
    let mut owner = Owner::default();
    let mut offers: Vec<OfferId> = Vec::new();
    while !input.is_empty() {
        match input.small(12) {
            0..7 => server.receive(&message(&mut input), &mut owner),
            7 => offers.extend(server.offer(offer(input.byte()), &mut owner)),
            8 => {
                let which = input.byte() as usize;
                if let Some(id) = offers.get(which % offers.len().max(1)) {
                    server.rescind(*id, &mut owner);
                }
            }
            9 => drop(owner.confirm(&mut server, false)),
            10 => {
                if let Ok(saved) = server.save() {
                    server = Server::restore(
                        Limits {
                            channels: 8,
                            gpadls: 8,
                            gpadl_pages: 128,
                            sockets: 2,
                        },
                        &saved,
                    );
                    assert_eq!(server.save().as_ref(), Ok(&saved));
                }
            }
            _ => drop(owner.confirm(&mut server, true)),
        }
        assert!(server.channels().count() <= 8);
    }
    server.disconnect(&mut owner);
    owner.confirm_all(&mut server);
    assert!(server.is_idle(), "{server:?} {owner:?}");
    assert!(owner.open.is_empty() && owner.mapped.is_empty() && owner.waiting.is_empty());
    for id in offers {
        server.rescind(id, &mut owner);
    }
    assert_eq!(server.channels().count(), 0);
    assert!(owner.waiting.is_empty());
}

/// A host that lies, against the client: nothing panics, and memory is never said to be the guest's own before the guest has
/// asked for it back.
pub fn client(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(Limits::default(), Settings::default());
    let mut given_back: Vec<GpadlId> = Vec::new();
    let _ = connect(&mut world);
    while !input.is_empty() {
        let (relid, gpadl) = (Relid(input.small(6)), GpadlId(input.small(6) + 0xe1e10));
        let choice = input.small(12);
        let bytes = message(&mut input);
        let (client, mut out) = world.guest();
        let _ = match choice {
            0..6 => {
                client.receive(&bytes, &mut out);
                Ok(())
            }
            6 => client
                .create_gpadl(relid, &[GpaRange::whole([1, 2, 3, 4].to_vec())], &mut out)
                .map(drop),
            7 => client.open(relid, gpadl, 2, VpIndex(0), &[0; OPEN_USER_DATA], &mut out),
            8 => client.close(relid, &mut out),
            9 => client
                .teardown_gpadl(gpadl, &mut out)
                .map(|()| given_back.push(gpadl)),
            10 => client.release(relid, &mut out),
            _ => match relid.0 {
                0 => client.unload(&mut out),
                1 => connect(&mut world),
                2 => client.modify(relid, VpIndex(1), &mut out),
                _ => client.request_offers(&mut out),
            },
        };
        for event in world.heard() {
            if let Event::GpadlTornDown(gpadl) = event {
                assert!(given_back.contains(&gpadl));
            }
        }
        world.posted.clear();
    }
}

fn connect(world: &mut World) -> Result<(), crate::client::ClientError> {
    let (client, mut out): (&mut Client, _) = world.guest();
    client.connect(&mut out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_guest_that_lies_leaves_nothing_behind(data in prop::collection::vec(any::<u8>(), 0..1500)) {
            super::server(&data);
        }

        #[test]
        fn a_host_that_lies_is_harmless(data in prop::collection::vec(any::<u8>(), 0..1500)) {
            super::client(&data);
        }
    }
}
