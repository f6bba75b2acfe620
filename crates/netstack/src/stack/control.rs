//! Packets that no socket sends: answers of the host itself.

use std::{collections::VecDeque, net::Ipv4Addr, ops::Range};

use crate::{
    MacAddress,
    tcp::Reply,
    wire::{arp, icmp},
};

/// The most answers that wait to be sent. A peer that makes us answer faster than the link sends
/// loses some.
const MAX_WAITING: usize = 256;

/// An answer over IPv4. What it quotes stays in the frame that it answers.
#[derive(Debug)]
pub(super) enum IpControl<B> {
    Tcp(Reply),
    EchoReply { to: Ipv4Addr, frame: B, message: Range<usize> },
    Unreachable { to: Ipv4Addr, reason: icmp::Unreachable, frame: B, packet: Range<usize> },
}

impl<B> IpControl<B> {
    pub(super) const fn destination(&self) -> Ipv4Addr {
        match self {
            Self::Tcp(reply) => *reply.endpoints.remote.ip(),
            Self::EchoReply { to, .. } | Self::Unreachable { to, .. } => *to,
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(super) enum Control<B> {
    Arp { to: MacAddress, packet: arp::Packet },
    Ip(IpControl<B>),
}

/// Answers that wait to be sent.
#[derive(Debug)]
pub(super) struct ControlQueue<B>(VecDeque<Control<B>>);

impl<B> ControlQueue<B> {
    pub(super) const fn new() -> Self {
        Self(VecDeque::new())
    }

    /// `false` if too many wait.
    pub(super) fn push(&mut self, control: Control<B>) -> bool {
        let has_room = self.0.len() < MAX_WAITING;
        if has_room {
            self.0.push_back(control);
        }
        has_room
    }

    pub(super) fn pop(&mut self) -> Option<Control<B>> {
        self.0.pop_front()
    }
}
