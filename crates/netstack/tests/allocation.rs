//! In the steady state the stack allocates nothing.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    net::{Ipv4Addr, SocketAddrV4},
    rc::Rc,
    time::Duration,
};

use netstack::{
    Checksum, Config, Instant, Ipv4Cidr, LinkCapabilities, MacAddress, PacketBuffer, RxMeta,
    SocketId, Stack, TcpConfig,
};

/// Counts the allocations of the thread that asks for it.
struct Counting;

thread_local! {
    static COUNT: Cell<Option<u64>> = const { Cell::new(None) };
}

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get().map(|n| n + 1)));
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above, so from the system's allocator, with `layout`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn counted<T>(total: &mut u64, work: impl FnOnce() -> T) -> T {
    COUNT.with(|count| count.set(Some(0)));
    let result = work();
    *total += COUNT.with(Cell::take).unwrap_or_default();
    result
}

#[derive(Clone)]
struct Frame(Rc<[u8]>);

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl PacketBuffer for Frame {
    fn truesize(&self) -> usize {
        self.0.len()
    }
}

fn stack(last: u8, link: LinkCapabilities) -> Stack<Frame> {
    Stack::new(Config {
        mac: MacAddress([2, 0, 0, 0, 0, last]),
        address: Ipv4Cidr { address: Ipv4Addr::new(10, 0, 0, last), prefix_len: 24 },
        gateway: None,
        link,
        tcp: TcpConfig::default(),
        seed: [last; 16],
    })
    .expect("a sane configuration")
}

struct Hosts {
    stacks: [Stack<Frame>; 2],
    now: Instant,
    allocations: u64,
    scratch: Vec<u8>,
}

impl Hosts {
    /// Passes frames until nobody has any to send.
    fn exchange(&mut self) {
        let Self { stacks, now, allocations, scratch } = self;
        loop {
            let mut sent = false;
            for side in 0..2 {
                while let Some(meta) =
                    counted(allocations, || stacks[side].poll_transmit(*now, scratch))
                {
                    sent = true;
                    let frame = Frame(scratch[..meta.len].into());
                    let meta = RxMeta { checksum: Checksum::Verified };
                    counted(allocations, || stacks[1 - side].receive(*now, frame, meta));
                }
            }
            if !sent {
                break;
            }
            *now += Duration::from_micros(10);
        }
    }

    fn round(&mut self, client: SocketId, server: SocketId, data: &[u8]) -> usize {
        let Self { stacks, now, allocations, .. } = self;
        counted(allocations, || stacks[0].send(*now, client, data)).expect("room");
        self.exchange();
        let Self { stacks, now, allocations, .. } = self;
        let mut received = 0;
        // Some pieces are whole frames, and some are not.
        while let Some(segment) = counted(allocations, || stacks[1].take(server, 5000)) {
            received += segment.payload().len();
            counted(allocations, || stacks[1].release(*now, server, segment.charge));
        }
        for stack in stacks {
            while counted(allocations, || stack.poll_event()).is_some() {}
            if stack.poll_timeout().is_some_and(|at| at <= *now) {
                counted(allocations, || stack.handle_timeout(*now));
            }
        }
        self.exchange();
        received
    }
}

fn stream(link: LinkCapabilities) {
    let stacks = [stack(1, link), stack(2, link)];
    let scratch = vec![0; stacks[0].max_frame_len()];
    let mut hosts = Hosts { stacks, now: Instant::from_millis(1), allocations: 0, scratch };
    let address = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 80);
    let listener = hosts.stacks[1].listen(address, 1).expect("free");
    let client = hosts.stacks[0].connect(hosts.now, address).expect("a port");
    hosts.exchange();
    let (server, _) = hosts.stacks[1].accept(listener).expect("established");

    let data = vec![7; 200_000];
    for _ in 0..100 {
        hosts.round(client, server, &data);
    }
    hosts.allocations = 0;
    for _ in 0..500 {
        assert_eq!(hosts.round(client, server, &data), data.len());
    }
    assert_eq!(hosts.allocations, 0);
}

#[test]
fn super_frames() {
    stream(LinkCapabilities { mtu: 1500, checksum_offload: true, tso_max: Some(65_549) });
}

#[test]
fn single_segments() {
    stream(LinkCapabilities::default());
}
