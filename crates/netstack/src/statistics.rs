//! Counters. Every received frame is counted exactly once: accepted, or dropped for one reason.

use std::ops::Index;

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a received frame was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason { $($(#[$doc])* $variant,)* }

        impl DropReason {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The counter's name, as outputs print it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than its Ethernet header.
    EthernetTruncated = "ethernet_truncated",
    /// Addressed to another station.
    EthernetNotForUs = "ethernet_not_for_us",
    /// Sent from a group address, or from our own.
    EthernetBadSource = "ethernet_bad_source",
    /// Neither ARP nor IPv4.
    EthernetUnknownType = "ethernet_unknown_type",
    /// Not an ARP packet for Ethernet and IPv4, or truncated.
    ArpMalformed = "arp_malformed",
    /// Its sender cannot be a neighbour: not on this network, a group, or it claims our address.
    ArpBadSender = "arp_bad_sender",
    /// A question or an answer for somebody else, or an answer to no question.
    ArpNotForUs = "arp_not_for_us",
    /// Truncated, wrong version, or impossible lengths.
    Ipv4Malformed = "ipv4_malformed",
    /// The header's checksum is wrong.
    Ipv4Checksum = "ipv4_checksum",
    /// A fragment: they are refused.
    Ipv4Fragment = "ipv4_fragment",
    /// The source cannot be a host, or is us.
    Ipv4BadSource = "ipv4_bad_source",
    /// Addressed to another host, or to a group.
    Ipv4NotForUs = "ipv4_not_for_us",
    /// UDP: there are no UDP sockets.
    UdpNoPort = "udp_no_port",
    /// Another transport protocol than TCP, UDP and ICMP.
    Ipv4UnknownProtocol = "ipv4_unknown_protocol",
    /// Truncated.
    IcmpMalformed = "icmp_malformed",
    /// The checksum is wrong.
    IcmpChecksum = "icmp_checksum",
    /// A type that nothing here uses.
    IcmpUnknownType = "icmp_unknown_type",
    /// An echo request over the rate or size that is answered.
    IcmpEchoLimit = "icmp_echo_limit",
    /// An error about a packet that we did not send, or not lately (RFC 5927).
    IcmpUnrelated = "icmp_unrelated",
    /// Truncated, or impossible lengths, flags or ports.
    TcpMalformed = "tcp_malformed",
    /// The checksum is wrong.
    TcpChecksum = "tcp_checksum",
    /// No socket has this connection, nor listens on this port.
    TcpNoSocket = "tcp_no_socket",
    /// A reset that no connection takes: wrong sequence number, or no connection.
    TcpBadReset = "tcp_bad_reset",
    /// A listener's backlog is full.
    TcpBacklogFull = "tcp_backlog_full",
    /// An acknowledgment of something never sent, or too old (RFC 5961 section 5).
    TcpBadAck = "tcp_bad_ack",
    /// A SYN inside a connection (RFC 5961 section 4).
    TcpUnexpectedSyn = "tcp_unexpected_syn",
    /// Without the ACK or SYN that its state needs.
    TcpUnexpectedFlags = "tcp_unexpected_flags",
    /// Entirely outside of the window, mostly a repetition.
    TcpOutsideWindow = "tcp_outside_window",
    /// The timestamp is older than the last one (PAWS, RFC 7323 section 5).
    TcpPaws = "tcp_paws",
    /// In the window and in order, but there is no packet memory left for it.
    TcpReceiveBufferFull = "tcp_receive_buffer_full",
    /// In the window and in order, but all sockets together hold as much packet memory as they may
    /// ([`TcpConfig::receive_memory`](crate::TcpConfig::receive_memory)), and this one has unread
    /// data.
    TcpReceiveMemoryFull = "tcp_receive_memory_full",
    /// Out of order, and there is no packet memory left for it.
    TcpOutOfOrderFull = "tcp_out_of_order_full",
    /// Out of order, and all its bytes are there already.
    TcpOutOfOrderDuplicate = "tcp_out_of_order_duplicate",
    /// Data for a program that has closed the socket.
    TcpDataAfterClose = "tcp_data_after_close",
}

/// Received frames that were dropped, by reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Drops {
    const NONE: Self = Self([0; DropReason::ALL.len()]);

    pub(crate) const fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// Each reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL.iter().copied().zip(self.0)
    }

    /// All drops together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl Index<DropReason> for Drops {
    type Output = u64;

    fn index(&self, reason: DropReason) -> &u64 {
        &self.0[reason as usize]
    }
}

/// What TCP did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpStatistics {
    /// Connections opened by a peer.
    pub passive_opens: u64,
    /// Connections opened by [`connect`](crate::Stack::connect).
    pub active_opens: u64,
    /// Connections that failed before they were established.
    pub failed_opens: u64,
    /// Established connections that the peer reset.
    pub resets_received: u64,
    /// Established connections given up for lack of any answer.
    pub timeouts: u64,
    /// Segments received; a super-frame is one.
    pub segments_received: u64,
    /// Payload bytes received in order.
    pub bytes_received: u64,
    /// Segments that left a gap and were kept.
    pub out_of_order: u64,
    /// Kept out-of-order segments that were thrown away to stay within the receive buffer, or
    /// within the memory of all sockets.
    pub out_of_order_pruned: u64,
    /// Segments sent, with their repetitions; a super-frame is one.
    pub segments_sent: u64,
    /// Payload bytes sent, with their repetitions.
    pub bytes_sent: u64,
    /// Segments sent again.
    pub retransmitted_segments: u64,
    /// Losses found by duplicate acknowledgments.
    pub fast_retransmits: u64,
    /// Losses found by the retransmission timer.
    pub retransmission_timeouts: u64,
    /// Probes of a closed window.
    pub window_probes: u64,
    /// Acknowledgments without data.
    pub acks_sent: u64,
    /// Resets.
    pub resets_sent: u64,
    /// Acknowledgments that answer a suspicious RST, SYN or ACK (RFC 5961).
    pub challenge_acks: u64,
    /// Connections that skipped TIME-WAIT because too many are in it.
    pub time_wait_overflows: u64,
}

/// Everything that a stack counts, since it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Frames given to [`receive`](crate::Stack::receive).
    pub frames_received: u64,
    /// Those that were used.
    pub frames_accepted: u64,
    /// Those that were not: `frames_received` is always `frames_accepted` and these together.
    pub drops: Drops,
    /// Frames that [`poll_transmit`](crate::Stack::poll_transmit) gave.
    pub frames_sent: u64,
    /// Replies that were not sent because too many waited already (ARP, ICMP, RST).
    pub replies_suppressed: u64,
    /// Packets that were not sent because their next hop did not answer ARP.
    pub neighbor_unreachable: u64,
    /// TCP's own.
    pub tcp: TcpStatistics,
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            frames_received: 0,
            frames_accepted: 0,
            drops: Drops::NONE,
            frames_sent: 0,
            replies_suppressed: 0,
            neighbor_unreachable: 0,
            tcp: TcpStatistics::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_counts_are_separate() {
        let names: std::collections::BTreeSet<_> =
            DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        let mut drops = Drops::NONE;
        for &reason in DropReason::ALL {
            drops.count(reason);
            assert_eq!(drops[reason], 1);
        }
        assert_eq!(drops.total(), names.len() as u64);
        assert!(drops.iter().all(|(_, count)| count == 1));
    }
}
