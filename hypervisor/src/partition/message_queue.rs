//! The messages that wait at a port (TLFS, "SynIC Message Buffers"): a ring of them in one frame.

use super::guest_memory::{read_frame, write_frame};
use crate::memory::address::Frame;
use hypercall_api::address::PAGE_SIZE;
use hypercall_api::message::Message;
use zerocopy::{FromBytes, IntoBytes};

/// Messages that can wait at a port.
pub const BUFFERS: u8 = (PAGE_SIZE as usize / size_of::<Message>()) as u8;

/// A queue. Dropping it forgets the frame; its owner gives that back.
#[derive(Clone, Copy)]
pub struct MessageQueue {
    frame: Frame,
    first: u8,
    waiting: u8,
}

impl MessageQueue {
    /// An empty queue in a frame that is its own.
    pub fn new(frame: Frame) -> Self {
        Self {
            frame,
            first: 0,
            waiting: 0,
        }
    }

    /// The frame in which the messages are.
    pub fn frame(&self) -> Frame {
        self.frame
    }

    /// Puts a message behind the others. Returns whether there was a buffer for it.
    #[must_use]
    pub fn push(&mut self, message: &Message) -> bool {
        if self.waiting == BUFFERS {
            return false;
        }
        let place = (self.first + self.waiting) % BUFFERS;
        write_frame(self.frame, offset(place), message.as_bytes());
        self.waiting += 1;
        true
    }

    /// The message that has waited longest.
    pub fn first(&self) -> Option<Message> {
        if self.waiting == 0 {
            return None;
        }
        let mut bytes = [0; size_of::<Message>()];
        read_frame(self.frame, offset(self.first), &mut bytes);
        Message::read_from_bytes(&bytes).ok()
    }

    /// Takes that message away.
    pub fn pop(&mut self) {
        if self.waiting != 0 {
            self.first = (self.first + 1) % BUFFERS;
            self.waiting -= 1;
        }
    }
}

fn offset(place: u8) -> usize {
    place as usize * size_of::<Message>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::frames::FrameSource;
    use crate::memory::frames::tests::TestFrames;
    use hypercall_api::message::MessageType;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use zerocopy::FromZeros;

    fn message(number: u32) -> Message {
        let mut message = Message::new_zeroed();
        message.message_type = MessageType(number | 1);
        message.payload_size = 4;
        message.payload[..4].copy_from_slice(&number.to_le_bytes());
        message
    }

    #[test]
    fn the_seventeenth_message_is_refused_and_the_sixteen_are_as_they_were() {
        let mut test = TestFrames::new(1);
        let mut queue = MessageQueue::new(test.allocator.allocate().unwrap());
        assert!((0..16).all(|number| queue.push(&message(number))));
        assert!(!queue.push(&message(16)));
        for number in 0..16 {
            assert_eq!(queue.first().unwrap().as_bytes(), message(number).as_bytes());
            queue.pop();
        }
        assert!(queue.first().is_none());
    }

    proptest! {
        #[test]
        fn messages_leave_in_the_order_in_which_they_came(steps in prop::collection::vec(any::<bool>(), 0..300)) {
            let mut test = TestFrames::new(1);
            let mut queue = MessageQueue::new(test.allocator.allocate().unwrap());
            let mut model = VecDeque::new();
            for (number, push) in (0..).zip(steps) {
                if push {
                    let room = model.len() < usize::from(BUFFERS);
                    prop_assert_eq!(queue.push(&message(number)), room);
                    if room {
                        model.push_back(number);
                    }
                } else {
                    queue.pop();
                    model.pop_front();
                }
                let (first, expected) = (queue.first(), model.front().map(|number| message(*number)));
                prop_assert_eq!(first.as_ref().map(IntoBytes::as_bytes), expected.as_ref().map(IntoBytes::as_bytes));
            }
        }
    }
}
