//! The engine goes wrong at the k-th copy of a short stream, for every k and in every way: the stream
//! is exact, calls return what POSIX promises, the counters say what happened, and the engine comes
//! back if it can.

use std::{
    io::Write,
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dmaengine::{Delay, Fault, FaultPlan, Faults, Layered, Status, ThreadsDevice, When};
use netdev::{BufferCounts, WireConfig};
use netdma::{Counters, CpuCause};
use sockets::{ReceiveRing, RecvFlags, TcpListener, TcpStream};

use self::pair::{SERVER, connect, pair_on, pattern};

mod pair;

/// Whether the engine fails.
const FAILS: bool = false;

/// Copies of which each has its turn.
const COPIES: u64 = 20;
/// A stream of so many full segments, again and again until the engine had its copies: the CPU has a
/// share in them.
const LEN: usize = 1448 * COPIES as usize + 77;
/// A wake-up that is lost, or an engine that does not come back, shows as this timeout.
const LOST: Duration = Duration::from_secs(30);
/// Most of the time nothing happens: an engine that hangs takes 200 ms to be found out.
const AT_ONCE: usize = 16;

/// What a fault is to leave in the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    /// Nothing: the copies were only late.
    Nothing,
    /// Bytes that the CPU copied for this cause; the copies were not repeated.
    Bytes(CpuCause),
    /// Repeated copies.
    Repeated,
    /// Repeated copies, and an engine that was reset.
    Reset,
    /// Repeated copies, and an engine that is gone for good.
    Gone,
}

impl Leaves {
    /// Whether the k-th copy has been, as the counters tell.
    fn is_seen(self, counters: &Counters, k: u64) -> bool {
        match self {
            Self::Nothing => counters.copies_by_engine >= k,
            Self::Bytes(cause) => counters.bytes_by_cpu[cause as usize] > 0,
            Self::Repeated | Self::Reset | Self::Gone => counters.copies_repeated > 0,
        }
    }
}

fn faults() -> Vec<(Fault, Leaves)> {
    let failures = [
        Status::ReadError,
        Status::WriteError,
        Status::BadAddress,
        Status::BadDescriptor,
        Status::NotAttempted,
        Status::DeviceLost,
    ];
    let mut faults: Vec<_> = failures.map(|status| (Fault::Fail(status), Leaves::Repeated)).into();
    faults.extend([
        (Fault::Delay(Delay::Polls(3)), Leaves::Nothing),
        (Fault::Delay(Delay::Operations(2)), Leaves::Nothing),
        (Fault::Full, Leaves::Bytes(CpuCause::RingFull)),
        (Fault::Lose, Leaves::Reset),
        (Fault::Halt(Status::WriteError), Leaves::Reset),
        (Fault::Vanish { stops: NonZeroU64::new(1) }, Leaves::Reset),
        (Fault::Vanish { stops: NonZeroU64::new(2) }, Leaves::Reset),
        (Fault::Vanish { stops: None }, Leaves::Gone),
    ]);
    faults
}

/// How the server receives.
#[derive(Clone, Copy, Debug)]
enum Way {
    Blocking,
    WaitAll,
    NonBlocking,
    Posted,
}

impl Way {
    const ALL: [Self; 4] = [Self::Blocking, Self::WaitAll, Self::NonBlocking, Self::Posted];

    /// Receives exactly `total` bytes, in pieces of at most `len`.
    fn receive(self, stream: &TcpStream, total: usize, len: usize) -> Vec<u8> {
        if matches!(self, Self::Posted) {
            return post(stream, total, len);
        }
        let flags = match self {
            Self::WaitAll => RecvFlags::WAITALL,
            Self::NonBlocking => RecvFlags::DONTWAIT,
            Self::Blocking | Self::Posted => RecvFlags::empty(),
        };
        let started = Instant::now();
        let mut received = Vec::new();
        while received.len() < total {
            let mut buffer = vec![0; len.min(total - received.len())];
            match stream.recv(&mut buffer, flags) {
                Ok(got) => {
                    let whole = flags.contains(RecvFlags::WAITALL);
                    let promised = if whole { buffer.len() } else { 1 };
                    assert!((promised..=buffer.len()).contains(&got), "{got} of {}", buffer.len());
                    received.extend_from_slice(&buffer[..got]);
                }
                Err(error) => {
                    assert_eq!(
                        (self as u8, error.raw_os_error()),
                        (Self::NonBlocking as u8, Some(11))
                    );
                    assert!(started.elapsed() < LOST, "never readable");
                }
            }
        }
        received
    }
}

/// As [`Way::receive`], into buffers that are posted ahead.
fn post(stream: &TcpStream, total: usize, len: usize) -> Vec<u8> {
    let mut ring = ReceiveRing::new(stream);
    let mut left = total;
    let mut received = Vec::new();
    while received.len() < total {
        while left > 0 && ring.len() < 3 {
            let next = len.min(left);
            // Buffers that come back full: what is posted is what is received.
            ring.post_with(vec![0; next], RecvFlags::WAITALL);
            left -= next;
        }
        let done = ring.wait(Some(LOST)).unwrap().expect("outstanding");
        assert_eq!(done.result.unwrap(), done.buffer.len());
        received.extend(done.buffer);
    }
    received
}

/// One stream, with one fault.
fn stream(fault: Fault, leaves: Leaves, k: u64, way: Way) {
    let case = format!("{fault:?} at copy {k}, {way:?}");
    let plan = FaultPlan { poison: true, partial: true, seed: k, ..FaultPlan::default() };
    let faults = Faults::new(plan.with(When::at(k), fault));
    let device = Arc::new(Layered::new(Arc::new(ThreadsDevice::new(1)), faults));
    let buffers = BufferCounts { small: 256, large: 1 };
    let wire = WireConfig { offload: false, buffers, ..WireConfig::default() };
    let (client, server, _arena) = pair_on(device, &wire);
    let (mut client, stream) = connect(&client, &TcpListener::bind(&server, SERVER).unwrap());
    // Pieces of all lengths: where a copy begins and ends is different each time.
    let len = 700 + 397 * k as usize;
    let data = pattern(LEN, k as u8);
    let counters = || server.statistics().offload;
    let started = Instant::now();
    let mut total = 0;
    while !leaves.is_seen(&counters(), k) {
        let received = thread::scope(|scope| {
            scope.spawn(|| client.write_all(&data).unwrap());
            way.receive(&stream, LEN, len)
        });
        assert!(received == data, "{case}");
        total += LEN as u64;
        assert!(started.elapsed() < LOST, "{case}: too few copies: {:?}", counters());
    }
    check(&counters(), leaves, total, &case);

    // It comes back.
    let (started, before) = (Instant::now(), counters());
    let mut more = 0;
    while counters().bytes_by_engine == before.bytes_by_engine {
        client.write_all(&data[..3000]).unwrap();
        assert!(way.receive(&stream, 3000, len) == data[..3000], "{case}: afterwards");
        more += 3000;
        if leaves == Leaves::Gone && more == 30_000 {
            return;
        }
        assert!(started.elapsed() < LOST, "{case}: it does not come back: {:?}", counters());
    }
    assert!(leaves != Leaves::Gone, "{case}: it was gone for good");
    let counters = counters();
    assert_eq!(counters.bytes_by_engine + counters.bytes_by_cpu_total(), total + more);
    assert!(leaves != Leaves::Reset || counters.engine_resets > 0, "{case}: {counters:?}");
}

/// What the counters say when the stream has been received.
fn check(counters: &Counters, leaves: Leaves, total: u64, case: &str) {
    let bytes = |cause| counters.bytes_by_cpu[cause as usize];
    let (by_engine, by_cpu) = (counters.bytes_by_engine, counters.bytes_by_cpu_total());
    assert_eq!(by_engine + by_cpu, total, "{case}");
    let repeats = !matches!(leaves, Leaves::Nothing | Leaves::Bytes(_));
    // A copy thread that got no processor for 200 ms has failed as well.
    let is_late = counters.engine_resets > 0;
    assert!(repeats == (counters.copies_repeated > 0) || is_late, "{case}: {counters:?}");
    assert_eq!(bytes(CpuCause::Failed) > 0, counters.copies_repeated > 0, "{case}: {counters:?}");
    match leaves {
        Leaves::Nothing => {
            assert!(by_cpu == bytes(CpuCause::Shared) || is_late, "{case}: {counters:?}");
        }
        Leaves::Bytes(cause) => assert!(bytes(cause) > 0 || is_late, "{case}: {counters:?}"),
        Leaves::Repeated | Leaves::Reset | Leaves::Gone => {
            assert!(counters.copies_repeated > 0, "{case}: {counters:?}");
        }
    }
}

#[test]
fn a_fault_at_any_copy_leaves_the_stream_exact() {
    let faults = faults();
    let faults = &faults;
    let cases: Vec<_> = Way::ALL
        .into_iter()
        .flat_map(|way| faults.iter().map(move |fault| (way, fault)))
        .flat_map(|(way, fault)| (1..=COPIES).map(move |k| (way, fault, k)))
        .collect();
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                // Relaxed: each case has one thread, whichever.
                while let Some(&(way, &(fault, leaves), k)) =
                    cases.get(next.fetch_add(1, Ordering::Relaxed) as usize)
                {
                    stream(fault, leaves, k, way);
                }
            });
        }
    });
}
