//! What an attacker off the path must not guess: initial sequence numbers, timestamps and ports.

use siphasher::sip::SipHasher13;
use std::{hash::Hasher, net::SocketAddrV4};

use super::{endpoints::Endpoints, seq::SeqNumber};
use crate::Instant;

/// Ephemeral ports, as Linux's `ip_local_port_range`.
pub(crate) const EPHEMERAL_PORTS: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// What a hash is for: the same secret must not give related values in two places.
#[derive(Clone, Copy)]
enum Purpose {
    SequenceNumber = 1,
    Timestamp = 2,
    Port = 3,
}

/// The stack's secret.
#[derive(Clone, Debug)]
pub(crate) struct Secret {
    key: [u8; 16],
    /// RFC 6056 section 3.3.3: `next_ephemeral`.
    ports_tried: u32,
}

impl Secret {
    pub(crate) const fn new(key: [u8; 16]) -> Self {
        Self { key, ports_tried: 0 }
    }

    fn hash(&self, purpose: Purpose, remote: SocketAddrV4, local_port: u16) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u8(purpose as u8);
        hasher.write_u32(remote.ip().to_bits());
        hasher.write_u16(remote.port());
        hasher.write_u16(local_port);
        hasher.finish()
    }

    /// RFC 6528 section 3: ISN = M + F(connection, secret). The clock M ticks every 64 ns as in
    /// Linux, so it goes around in 275 s.
    pub(crate) fn initial_sequence(&self, now: Instant, endpoints: Endpoints) -> SeqNumber {
        let clock = (now.as_nanos() >> 6) as u32;
        let offset =
            self.hash(Purpose::SequenceNumber, endpoints.remote, endpoints.local_port) as u32;
        SeqNumber(clock.wrapping_add(offset))
    }

    /// What to add to the timestamp clock on one connection (RFC 7323 section 5.4): it tells
    /// neither the uptime nor which connections come from the same host.
    pub(crate) fn timestamp_offset(&self, endpoints: Endpoints) -> u32 {
        self.hash(Purpose::Timestamp, endpoints.remote, endpoints.local_port) as u32
    }

    /// A local port for a connection to `remote` for which `is_free` holds: RFC 6056 algorithm 3.
    pub(crate) fn ephemeral_port(
        &mut self,
        remote: SocketAddrV4,
        is_free: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        let (first, last) = EPHEMERAL_PORTS.into_inner();
        let count = u32::from(last - first) + 1;
        let offset = self.hash(Purpose::Port, remote, 0) as u32;
        for _ in 0..count {
            let at = offset.wrapping_add(self.ports_tried) % count;
            self.ports_tried = self.ports_tried.wrapping_add(1);
            let port = first + u16::try_from(at).ok()?;
            if is_free(port) {
                return Some(port);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn endpoints(remote_port: u16) -> Endpoints {
        let remote = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), remote_port);
        Endpoints { remote, local_port: 80 }
    }

    #[test]
    fn sequence_numbers_rise_with_the_clock_and_differ_by_connection() {
        let secret = Secret::new([1; 16]);
        let first = secret.initial_sequence(Instant::ZERO, endpoints(1));
        let later = secret.initial_sequence(Instant::from_nanos(6400), endpoints(1));
        assert_eq!(later.offset_from(first), 100);
        assert_ne!(secret.initial_sequence(Instant::ZERO, endpoints(2)), first);
        assert_ne!(Secret::new([2; 16]).initial_sequence(Instant::ZERO, endpoints(1)), first);
        assert_ne!(secret.timestamp_offset(endpoints(1)), first.0);
    }

    #[test]
    fn every_free_port_is_found() {
        let mut secret = Secret::new([1; 16]);
        let remote = endpoints(5).remote;
        let first = secret.ephemeral_port(remote, |_| true).expect("free");
        let second = secret.ephemeral_port(remote, |_| true).expect("free");
        assert_ne!(first, second);
        assert!(EPHEMERAL_PORTS.contains(&first));
        assert_eq!(secret.ephemeral_port(remote, |port| port == 60_999), Some(60_999));
        assert_eq!(secret.ephemeral_port(remote, |_| false), None);
    }
}
