//! The packet memory that sockets hold while nobody reads them.

use std::{net::SocketAddrV4, time::Duration};

use crate::pair::{ADDRESSES, Faults, Pair, WireConfig, config, offloads};
use netstack::{DropReason, LinkCapabilities, SocketId, TcpConfig};

const WIRE: WireConfig = WireConfig {
    latency: Duration::from_micros(100),
    faults: Faults { loss: 0, reordering: 0, duplication: 0, corruption: 0 },
    keep_super_frames: true,
};
/// What the largest frame holds.
const SLOT: usize = 68 << 10;

/// Sends on side 0 as much of `len` bytes as there is room for; returns how many.
fn send(pair: &mut Pair, socket: SocketId, len: usize) -> usize {
    let data = vec![0x33; len];
    pair.stacks[0].send(pair.now, socket, &data).unwrap_or(0)
}

/// Reads on side 1 all that there is; returns how many bytes.
fn read(pair: &mut Pair, socket: SocketId) -> usize {
    let stack = &mut pair.stacks[1];
    let mut len = 0;
    while let Some(segment) = stack.take(socket, usize::MAX) {
        len += segment.payload().len();
        stack.release(pair.now, socket, segment.charge);
    }
    len
}

/// `count` connections, each the client's end and the server's.
fn connect(pair: &mut Pair, count: usize) -> Vec<(SocketId, SocketId)> {
    let address = SocketAddrV4::new(ADDRESSES[1], 80);
    let listener = pair.stacks[1].listen(address, count).expect("free");
    (0..count)
        .map(|_| {
            let client = pair.stacks[0].connect(pair.now, address).expect("a port");
            loop {
                pair.transmit();
                if let Some((server, _)) = pair.stacks[1].accept(listener) {
                    return (client, server);
                }
                pair.advance(pair.next_event().expect("progress"));
            }
        })
        .collect()
}

/// What the sockets hold one by one must be what they hold together.
fn check_charges(pair: &Pair, connections: &[(SocketId, SocketId)], limit: usize) {
    let stack = &pair.stacks[1];
    let charged = |&(_, server): &(SocketId, SocketId)| {
        stack.tcp_info(server).map_or(0, |info| info.receive_charged)
    };
    let sum: usize = connections.iter().map(charged).sum();
    assert_eq!(stack.receive_memory_charged(), sum);
    assert!(sum <= limit + connections.len() * SLOT, "{sum} of {limit}");
}

/// One step of virtual time, of a millisecond at most.
fn step(pair: &mut Pair) {
    pair.transmit();
    let next = pair.now + Duration::from_millis(1);
    pair.advance(pair.next_event().map_or(next, |at| at.min(next)));
}

#[test]
fn connections_that_nobody_reads_leave_memory_to_one_that_is_read() {
    const UNREAD: usize = 5;
    const BULK: usize = 20 << 20;
    for (link, limit) in [
        (offloads(), 13 << 20),
        (offloads(), 4 << 20),
        (offloads(), 8 * SLOT),
        (LinkCapabilities::default(), 8 << 20),
        (LinkCapabilities::default(), 1 << 20),
    ] {
        let tcp = TcpConfig { receive_memory: limit, ..TcpConfig::default() };
        let configs = [config(0, link, TcpConfig::default()), config(1, link, tcp)];
        let mut pair = Pair::new(1, WIRE, configs);
        let connections = connect(&mut pair, UNREAD + 1);
        let (unread, read_too) = connections.split_at(UNREAD);
        let mut sent = [0; UNREAD];
        let feed = |pair: &mut Pair, sent: &mut [usize; UNREAD]| {
            for (sent, &(client, _)) in sent.iter_mut().zip(unread) {
                *sent += send(pair, client, (BULK - *sent).min(100_000));
            }
        };
        let start = pair.now;
        while pair.now - start < Duration::from_secs(5) {
            feed(&mut pair, &mut sent);
            step(&mut pair);
            check_charges(&pair, &connections, limit);
        }

        // 200 KB for somebody who reads, in less time than two retransmission timeouts take.
        let (client, server) = read_too[0];
        let start = pair.now;
        let mut received = 0;
        assert_eq!(send(&mut pair, client, 200_000), 200_000);
        while received < 200_000 {
            step(&mut pair);
            received += read(&mut pair, server);
            check_charges(&pair, &connections, limit);
            let waited = pair.now - start;
            assert!(waited < Duration::from_millis(400), "{limit}: {received} after {waited:?}");
        }

        // The others get everything once they are read.
        let mut received = [0; UNREAD];
        let start = pair.now;
        while received != [BULK; UNREAD] {
            feed(&mut pair, &mut sent);
            step(&mut pair);
            for (received, &(_, server)) in received.iter_mut().zip(unread) {
                *received += read(&mut pair, server);
            }
            check_charges(&pair, &connections, limit);
            assert!(pair.now - start < Duration::from_secs(600), "{limit}: {received:?}");
        }
        assert_eq!(pair.stacks[1].receive_memory_charged(), 0);
    }
}

#[test]
fn unread_data_is_dropped_only_when_the_memory_of_all_is_used_up() {
    let tcp = TcpConfig { receive_memory: 8 * SLOT, ..TcpConfig::default() };
    let configs = [config(0, offloads(), TcpConfig::default()), config(1, offloads(), tcp)];
    let mut pair = Pair::new(1, WIRE, configs);
    let connections = connect(&mut pair, 20);
    for &(client, _) in &connections {
        send(&mut pair, client, 1 << 20);
    }
    pair.run(pair.now + Duration::from_secs(2));
    check_charges(&pair, &connections, 8 * SLOT);
    let drops = &pair.stacks[1].statistics().drops;
    assert!(drops[DropReason::TcpReceiveMemoryFull] > 0);
    assert_eq!(drops[DropReason::TcpReceiveBufferFull], 0);
    // Each has had its first segment, and its peer is heard.
    for &(client, server) in &connections {
        assert!(pair.stacks[1].receive_available(server) > 0);
        pair.stacks[1].send(pair.now, server, b"answer").expect("room");
        pair.run(pair.now + Duration::from_millis(300));
        assert_eq!(pair.stacks[0].receive_available(client), 6);
    }
    // A socket that is closed gives back what it held, taken or not.
    for &(_, server) in &connections {
        assert!(pair.stacks[1].take(server, 10).is_some());
        assert!(pair.stacks[1].take(server, usize::MAX).is_some());
        pair.stacks[1].close(pair.now, server);
    }
    assert_eq!(pair.stacks[1].receive_memory_charged(), 0);
}
