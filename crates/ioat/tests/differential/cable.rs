//! Two stacks, a connection, and the frames between them.

use std::net::{Ipv4Addr, SocketAddrV4};

use dmaengine::PacketPool;
use netdma::RxPacket;
use netstack::{
    Checksum, Config, Instant, Ipv4Cidr, LinkCapabilities, MacAddress, RxMeta, SocketId, Stack,
    TcpConfig,
};

use crate::script::{Frames, JUMBO_MTU};

pub(crate) struct Cable {
    pub(crate) sender: Stack<RxPacket>,
    pub(crate) receiver: Stack<RxPacket>,
    pub(crate) client: SocketId,
    pub(crate) server: SocketId,
    frame: Vec<u8>,
}

fn stack(number: u8, frames: Frames) -> Stack<RxPacket> {
    let link = LinkCapabilities::default();
    let link = match frames {
        Frames::Ethernet => link,
        Frames::Jumbo => LinkCapabilities { mtu: JUMBO_MTU, ..link },
    };
    Stack::new(Config {
        mac: MacAddress([2, 0, 0, 0, 0, number]),
        address: Ipv4Cidr { address: Ipv4Addr::new(10, 0, 0, number), prefix_len: 24 },
        gateway: None,
        link,
        // Larger than any script needs: how long the engine keeps memory must not show.
        tcp: TcpConfig { receive_buffer: 16 << 20, send_buffer: 512 << 10, ..TcpConfig::default() },
        seed: [number; 16],
    })
    .expect("a valid configuration")
}

impl Cable {
    pub(crate) fn new(pool: &PacketPool, now: Instant, frames: Frames) -> Self {
        let (mut sender, mut receiver) = (stack(1, frames), stack(2, frames));
        let address = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 9000);
        let listener = receiver.listen(address, 1).expect("a free port");
        let client = sender.connect(now, address).expect("a route");
        sender.set_nodelay(now, client, true);
        let mut frame = vec![0; sender.max_frame_len()];
        let server = loop {
            while carry(&mut sender, &mut receiver, pool, &mut frame, now) {}
            while carry(&mut receiver, &mut sender, pool, &mut frame, now) {}
            if let Some((server, _)) = receiver.accept(listener) {
                break server;
            }
        };
        Self { sender, receiver, client, server, frame }
    }

    /// Delivers up to `frames` of what the sender has to send.
    pub(crate) fn deliver(&mut self, pool: &PacketPool, now: Instant, frames: usize) -> usize {
        let Self { sender, receiver, frame, .. } = self;
        (0..frames).take_while(|_| carry(sender, receiver, pool, frame, now)).count()
    }

    /// Delivers what the receiver has to send.
    pub(crate) fn answer(&mut self, pool: &PacketPool, now: Instant) {
        let Self { sender, receiver, frame, .. } = self;
        while carry(receiver, sender, pool, frame, now) {}
    }
}

/// Carries one frame; `false` if there is none.
fn carry(
    from: &mut Stack<RxPacket>,
    to: &mut Stack<RxPacket>,
    pool: &PacketPool,
    frame: &mut [u8],
    now: Instant,
) -> bool {
    let Some(meta) = from.poll_transmit(now, frame) else { return false };
    let mut slot = pool.take().expect("enough buffers");
    slot.as_mut()[..meta.len].copy_from_slice(&frame[..meta.len]);
    // The checksum is no engine's business, and takes time.
    let info = RxMeta { checksum: Checksum::Verified };
    to.receive(now, RxPacket(slot.freeze(meta.len)), info);
    true
}
