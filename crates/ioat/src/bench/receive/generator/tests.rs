use std::{io::Read, net::Ipv4Addr};

use netdev::{Faults, Profile};
use netdma::RxPacket;
use netstack::{Instant, Ipv4Cidr, ListenerId, ReceiveStatus, RxMeta};
use sockets::{Config, Stack, TcpListener};

use super::*;

const STACK: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 2);
const HERE: Station = Station { mac: [2, 0, 0, 0, 0, 9], address: Ipv4Addr::new(10, 79, 0, 1) };
const PATIENCE: Duration = Duration::from_secs(20);

fn generator(kind: FrameKind) -> (Generator, GeneratorHandle, Config) {
    let config = Config::new(Ipv4Cidr { address: STACK, prefix_len: 24 });
    let arena = Arena::new(Generator::arena_len(kind)).unwrap();
    let there = Station { mac: config.mac.0, address: STACK };
    let (generator, handle) = Generator::open(&arena, kind, HERE, there).unwrap();
    (generator, handle, config)
}

fn listen(link: impl Link + 'static, config: &Config) -> TcpListener {
    let stack = Stack::start(Box::new(link), None, config).unwrap();
    TcpListener::bind(&stack, SocketAddrV4::new(STACK, 9000)).unwrap()
}

/// Reads a stream to its end in reads of `read_len`; how many bytes there were, all of them right.
fn receive(listener: &TcpListener, handle: &GeneratorHandle, read_len: usize) -> u64 {
    let (mut stream, peer) = listener.accept_timeout(PATIENCE).unwrap();
    assert_eq!(*peer.ip(), HERE.address);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = vec![0; read_len];
    let mut received = 0;
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => return received,
            len => {
                assert_eq!(handle.first_wrong(received, &buffer[..len]), None);
                received += len as u64;
            }
        }
    }
}

#[test]
fn streams_arrive_one_after_the_other_across_the_wrap_of_their_numbers() {
    for (kind, read_len) in [(FrameKind::Super, 65_536), (FrameKind::Segment, 1000)] {
        let (generator, handle, config) = generator(kind);
        let listener = listen(generator, &config);
        for bytes in [1, 7 << 20, 100_000] {
            let sent = handle.start(listener.local_addr(), bytes);
            assert!(sent >= bytes && sent < bytes + kind.payload() as u64);
            assert_eq!(receive(&listener, &handle, read_len), sent);
        }
        assert_eq!(handle.timeouts(), 0);
    }
}

/// A stack on a link, in virtual time.
struct Host<L> {
    stack: netstack::Stack<RxPacket>,
    link: L,
    now: Duration,
}

impl<L: Link> Host<L> {
    fn new(link: L, config: &Config) -> Self {
        let info = link.info();
        let capabilities = netstack::LinkCapabilities {
            mtu: info.mtu,
            checksum_offload: info.checksum_offload,
            tso_max: info.tso_max,
        };
        let stack = netstack::Stack::new(netstack::Config {
            mac: config.mac,
            address: config.address,
            gateway: None,
            link: capabilities,
            tcp: config.tcp,
            seed: [7; 16],
        });
        Self { stack: stack.unwrap(), link, now: Duration::from_secs(1) }
    }

    /// Does what there is to do now, then lets time pass until there is more.
    fn step(&mut self) {
        let Self { stack, link, now } = self;
        let time = Instant::from(*now);
        let received = link.receive(*now, 1000, &mut |packet, info| {
            assert_eq!(info.checksum, Checksum::Verified);
            stack.receive(
                time,
                RxPacket(packet),
                RxMeta { checksum: netstack::Checksum::Verified },
            );
        });
        stack.handle_timeout(time);
        while stack.poll_event().is_some() {}
        let mut frame = vec![0; stack.max_frame_len()];
        let mut sent = 0;
        while let Some(meta) = stack.poll_transmit(time, &mut frame) {
            link.transmit(*now, &frame[..meta.len], TxInfo::default()).unwrap();
            sent += 1;
        }
        if received.unwrap() == 0 && sent == 0 {
            let stack_s = stack.poll_timeout().map(|due| due - Instant::ZERO);
            let due = [stack_s, link.poll_timeout()].into_iter().flatten().min();
            *now = due.expect("somebody goes on").max(*now);
        }
    }

    /// Reads what `listener`'s next connection brings, whenever `reads` says so; how many bytes.
    fn receive(
        &mut self,
        listener: ListenerId,
        handle: &GeneratorHandle,
        mut reads: impl FnMut(&GeneratorHandle) -> bool,
    ) -> u64 {
        let mut socket = None;
        let mut received = 0;
        for _ in 0..1_000_000 {
            self.step();
            socket = socket.or_else(|| self.stack.accept(listener).map(|(id, _)| id));
            let Some(id) = socket.filter(|_| reads(handle)) else { continue };
            while let Some(segment) = self.stack.take(id, usize::MAX) {
                assert_eq!(handle.first_wrong(received, segment.payload()), None);
                received += segment.payload().len() as u64;
                self.stack.release(Instant::from(self.now), id, segment.charge);
            }
            if self.stack.receive_status(id) == ReceiveStatus::EndOfStream {
                self.stack.close(Instant::from(self.now), id);
                self.step();
                return received;
            }
        }
        panic!("{received} bytes, and no end");
    }
}

#[test]
fn a_window_that_is_closed_is_probed() {
    let (generator, handle, mut config) = generator(FrameKind::Super);
    // Less than four frames.
    config.tcp.receive_buffer = 256 << 10;
    let mut host = Host::new(generator, &config);
    let listener = host.stack.listen(SocketAddrV4::new(STACK, 9000), 1).unwrap();
    let sent = handle.start(SocketAddrV4::new(STACK, 9000), 5 << 20);
    let start = host.now;
    // Nothing is read for as long as ten timeouts take.
    let mut sleeping = 10_000;
    let received = host.receive(listener, &handle, |_| {
        sleeping -= 1;
        sleeping < 0
    });
    assert_eq!(received, sent);
    assert!(host.now - start > 10 * RETRANSMISSION_TIMEOUT);
    assert!(handle.timeouts() >= 10);
}

#[test]
fn what_is_lost_either_way_is_sent_again() {
    let (generator, handle, config) = generator(FrameKind::Segment);
    let lossy = Profile { loss: 0.02, ..Profile::default() };
    // Nothing is corrupted, which is what it would take memory for.
    let arena = Arena::new(1).unwrap();
    let link = Faults::new(generator, &arena, 5, lossy, lossy).unwrap();
    let mut host = Host::new(link, &config);
    let listener = host.stack.listen(SocketAddrV4::new(STACK, 9000), 1).unwrap();
    for _ in 0..5 {
        let sent = handle.start(SocketAddrV4::new(STACK, 9000), 100_000);
        assert_eq!(host.receive(listener, &handle, |_| true), sent);
    }
    assert!(handle.timeouts() > 0 && host.link.receive_faults().lost > 0);
}
