//! What is agreed with the host before the first frame: version, MTU, shared buffers, address, and work that is left to the host.

use super::error::NetworkError;
use super::offload::Offloads;
use super::open::{Settings, Shared};
use super::queue::Queue;
use alloc::vec::Vec;
use vmbus::protocol::network::nvsp::{
    self, Capabilities, MessageType, RECEIVE_BUFFER_ID, SEND_BUFFER_ID, Status, Version,
};
use vmbus::protocol::network::offload::{OBJECT_OFFLOAD, Offload, OffloadParameters};
use vmbus::protocol::network::oid::{MEDIA_CONNECTED, Oid};
use vmbus::protocol::network::rndis::{self, Message};
use vmbus::protocol::network::scale::{OBJECT_CAPABILITIES, ReceiveScaleCapabilities};
use vmbus::protocol::network::{DEFAULT_MTU, ETHERNET_HEADER, MAX_MTU, Mac};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// The least that a part of the send buffer may hold: any header and a short frame.
const MIN_SEND_PART: usize = 256;
/// The least payload of a frame.
const MIN_MTU: u32 = 68;
/// Bytes of an RNDIS message to the guest at most, as Linux tells.
const MAX_TRANSFER: u32 = 0x4000;

/// What was agreed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agreed {
    pub(super) version: Version,
    pub(super) mtu: u32,
    pub(super) address: Mac,
    pub(super) offloads: Offloads,
    /// Channels that the host would serve.
    pub(super) channels: u16,
    pub(super) receive_parts: u32,
    pub(super) send_part: usize,
    pub(super) send_parts: u32,
}

/// Agrees with the host of the first channel.
pub(super) async fn agree(
    queue: &Queue,
    shared: &Shared,
    settings: &Settings,
) -> Result<Agreed, NetworkError> {
    let version = version(queue, settings.newest).await?;
    let mut mtu = match version {
        Version::V1 => settings.mtu.min(DEFAULT_MTU),
        _ => settings.mtu,
    };
    configure(queue, version, mtu).await?;
    let receive_parts = receive_buffer(queue, shared).await?;
    let (send_part, send_parts) = send_buffer(queue, shared).await?;
    initialize(queue).await?;
    if let Some(most) = optional(query_number(queue, Oid::MAXIMUM_FRAME_SIZE).await)? {
        mtu = mtu.min(most.max(MIN_MTU));
    }
    let address = query(queue, Oid::PERMANENT_ADDRESS, &[]).await?;
    let address = Mac(*address.first_chunk().ok_or(NetworkError::Protocol)?);
    if !address.is_station() {
        return Err(NetworkError::Protocol);
    }
    let offloads = offloads(queue, version, settings).await?;
    // A host that does not say has a link, or will tell.
    let media = optional(query_number(queue, Oid::MEDIA_CONNECT_STATUS).await)?;
    queue
        .line
        .set_link(media.is_none_or(|media| media == MEDIA_CONNECTED));
    let channels = match version.has_queues() && settings.channels > 1 {
        true => channels(queue).await?,
        false => 1,
    };
    Ok(Agreed {
        version,
        mtu,
        address,
        offloads,
        channels,
        receive_parts,
        send_part,
        send_parts,
    })
}

async fn version(queue: &Queue, newest: Version) -> Result<Version, NetworkError> {
    for version in Version::ALL.into_iter().filter(|version| *version <= newest) {
        let asked = nvsp::Init {
            min: version,
            max: version,
        };
        let answer = queue.ask(MessageType::INIT, &asked).await?;
        let answer: nvsp::InitComplete = body(&answer, MessageType::INIT_COMPLETE)?;
        if answer.status == Status::SUCCESS {
            return Ok(version);
        }
    }
    Err(NetworkError::NoVersion)
}

async fn configure(queue: &Queue, version: Version, mtu: u32) -> Result<(), NetworkError> {
    if version > Version::V1 {
        let mut capabilities = Capabilities::IEEE_8021Q;
        if version >= Version::V6_1 {
            capabilities |= Capabilities::RSC;
        }
        let configuration = nvsp::NdisConfiguration {
            frame_size: mtu + ETHERNET_HEADER as u32,
            reserved: 0,
            capabilities: capabilities.bits(),
            capabilities_high: 0,
        };
        queue
            .tell(MessageType::SEND_NDIS_CONFIGURATION, &configuration)
            .await?;
    }
    let minor = if version > Version::V4 { 30 } else { 1 };
    let ndis = nvsp::NdisVersion { major: 6, minor };
    queue.tell(MessageType::SEND_NDIS_VERSION, &ndis).await
}

async fn receive_buffer(queue: &Queue, shared: &Shared) -> Result<u32, NetworkError> {
    let named = nvsp::SharedBuffer {
        gpadl: shared.receive_gpadl,
        id: RECEIVE_BUFFER_ID,
        padding: 0,
    };
    let answer = queue.ask(MessageType::SEND_RECEIVE_BUFFER, &named).await?;
    let answer: nvsp::ReceiveBufferComplete = body(&answer, MessageType::SEND_RECEIVE_BUFFER_COMPLETE)?;
    if answer.status != Status::SUCCESS {
        return Err(NetworkError::Refused(answer.status));
    }
    let bytes = u64::from(answer.part_size) * u64::from(answer.parts);
    let whole = answer.sections == 1 && answer.offset == 0 && answer.part_size != 0;
    if !whole || answer.parts == 0 || bytes > shared.receive.size() as u64 {
        return Err(NetworkError::Protocol);
    }
    // Answers to requests come here from now on.
    queue.set_receive_buffer(shared.receive.clone(), answer.parts as usize / 8);
    Ok(answer.parts)
}

async fn send_buffer(queue: &Queue, shared: &Shared) -> Result<(usize, u32), NetworkError> {
    let named = nvsp::SharedBuffer {
        gpadl: shared.send_gpadl,
        id: SEND_BUFFER_ID,
        padding: 0,
    };
    let answer = queue.ask(MessageType::SEND_SEND_BUFFER, &named).await?;
    let answer: nvsp::SendBufferComplete = body(&answer, MessageType::SEND_SEND_BUFFER_COMPLETE)?;
    if answer.status != Status::SUCCESS {
        return Err(NetworkError::Refused(answer.status));
    }
    let part = answer.part_size as usize;
    match part >= MIN_SEND_PART && part <= shared.send.size() {
        true => Ok((part, (shared.send.size() / part) as u32)),
        false => Err(NetworkError::Protocol),
    }
}

async fn initialize(queue: &Queue) -> Result<(), NetworkError> {
    let begin = |request| {
        let body = rndis::Initialize {
            request,
            major: 1,
            minor: 0,
            max_transfer: MAX_TRANSFER,
        };
        Message::new(rndis::MessageType::INITIALIZE, &body, &[])
    };
    let answer = queue
        .request(rndis::MessageType::INITIALIZE_COMPLETE, begin)
        .await?;
    let (answer, _) =
        rndis::InitializeComplete::read_from_prefix(&answer).map_err(|_| NetworkError::Protocol)?;
    match answer.status {
        rndis::Status::SUCCESS => Ok(()),
        _ => Err(NetworkError::Protocol),
    }
}

async fn offloads(queue: &Queue, version: Version, settings: &Settings) -> Result<Offloads, NetworkError> {
    // The host is told which form it is asked for.
    let (size, revision) = match version {
        version if version >= Version::V5 => (size_of::<Offload>(), 3),
        version if version >= Version::V4 => (Offload::SIZE_6_1, 2),
        _ => (Offload::SIZE_6_0, 1),
    };
    let mut asked = Offload::new_zeroed();
    asked.header.object_type = OBJECT_OFFLOAD;
    asked.header.revision = revision;
    asked.header.size = size as u16;
    let value = asked.as_bytes().get(..size).unwrap_or_default();
    let said = optional(query(queue, Oid::OFFLOAD_CAPABILITIES, value).await)?;
    let said = said.and_then(|said| Offloads::read(&said, version >= Version::V6_1));
    let Some(offloads) = said.filter(|_| settings.offloads) else {
        return Ok(Offloads::default());
    };
    let size = match version >= Version::V5 {
        true => size_of::<OffloadParameters>(),
        false => OffloadParameters::SIZE_4,
    };
    let parameters = offloads.parameters(size);
    let value = parameters.as_bytes().get(..size).unwrap_or_default();
    match set(queue, Oid::OFFLOAD_PARAMETERS, value).await {
        Ok(()) => Ok(offloads),
        Err(NetworkError::RefusedRequest(..)) => Ok(Offloads::default()),
        Err(error) => Err(error),
    }
}

/// How many channels the host would serve.
async fn channels(queue: &Queue) -> Result<u16, NetworkError> {
    let Some(said) = optional(query(queue, Oid::RECEIVE_SCALE_CAPABILITIES, &[]).await)? else {
        return Ok(1);
    };
    let said = ReceiveScaleCapabilities::read_from_prefix(&said).map(|(said, _)| said);
    let said = said
        .ok()
        .filter(|said| said.header.object_type == OBJECT_CAPABILITIES);
    Ok(said.map_or(1, |said| u16::try_from(said.queues).unwrap_or(u16::MAX).max(1)))
}

/// Asks for something.
pub(super) async fn query(queue: &Queue, oid: Oid, value: &[u8]) -> Result<Vec<u8>, NetworkError> {
    let message = |request| message(rndis::MessageType::QUERY, request, oid, value);
    let body = queue.request(rndis::MessageType::QUERY_COMPLETE, message).await?;
    let (answer, _) = rndis::QueryComplete::read_from_prefix(&body).map_err(|_| NetworkError::Protocol)?;
    match answer.status {
        rndis::Status::SUCCESS => {
            let value = rndis::value(&body, answer.offset, answer.length);
            Ok(value.ok_or(NetworkError::Protocol)?.to_vec())
        }
        status => Err(NetworkError::RefusedRequest(oid, status)),
    }
}

async fn query_number(queue: &Queue, oid: Oid) -> Result<u32, NetworkError> {
    let value = query(queue, oid, &[]).await?;
    u32::read_from_prefix(&value)
        .map(|(number, _)| number)
        .map_err(|_| NetworkError::Protocol)
}

/// Sets something.
pub(super) async fn set(queue: &Queue, oid: Oid, value: &[u8]) -> Result<(), NetworkError> {
    let message = |request| message(rndis::MessageType::SET, request, oid, value);
    let body = queue.request(rndis::MessageType::SET_COMPLETE, message).await?;
    let (answer, _) = rndis::SetComplete::read_from_prefix(&body).map_err(|_| NetworkError::Protocol)?;
    match answer.status {
        rndis::Status::SUCCESS => Ok(()),
        status => Err(NetworkError::RefusedRequest(oid, status)),
    }
}

fn message(message_type: rndis::MessageType, request: u32, oid: Oid, value: &[u8]) -> Option<Message> {
    let body = rndis::Request {
        request,
        oid,
        length: value.len() as u32,
        offset: size_of::<rndis::Request>() as u32,
        virtual_circuit: 0,
    };
    Message::new(message_type, &body, value)
}

/// What a host may refuse to tell.
fn optional<T>(result: Result<T, NetworkError>) -> Result<Option<T>, NetworkError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(NetworkError::RefusedRequest(..)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The body of an NVSP message of this type.
pub(super) fn body<T: FromBytes>(message: &[u8], message_type: MessageType) -> Result<T, NetworkError> {
    let (found, body) = nvsp::split(message).ok_or(NetworkError::Protocol)?;
    if found != message_type {
        return Err(NetworkError::Protocol);
    }
    T::read_from_prefix(body)
        .map(|(body, _)| body)
        .map_err(|_| NetworkError::Protocol)
}

/// Whether an MTU can be asked for.
pub(super) fn is_mtu(mtu: u32) -> bool {
    (MIN_MTU..=MAX_MTU).contains(&mtu)
}
