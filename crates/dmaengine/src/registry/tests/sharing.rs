use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Barrier,
};

use super::*;
use crate::{
    Channel, Completion, DmaChannel, DmaTarget, Flags, Operation, Stuck, ThreadsDevice,
    puppet as engine,
};

const COPY: Capabilities = Capabilities::MEMCPY;

fn on(node: u32) -> ChannelInfo {
    ChannelInfo { numa_node: Some(node), ..Puppet::info(COPY) }
}

/// What a new thread is given, which keeps it.
fn elsewhere(registry: &Registry, node: Option<u32>) -> SharedChannel {
    thread::scope(|scope| {
        scope.spawn(|| registry.find_channel_near(COPY, node)).join().unwrap().unwrap()
    })
}

fn name(channel: &SharedChannel) -> String {
    channel.name().unwrap()
}

#[test]
fn threads_are_spread_and_counted() {
    let registry = Registry::new();
    let (device, strings) = Puppet::device(&vec![Puppet::info(COPY); 3]);
    registry.register(device);
    registry.register(Arc::new(CpuDevice::new(0)));
    let mut handles: Vec<_> = (0..7).map(|_| elsewhere(&registry, None)).collect();
    assert_eq!(users(&registry), [3, 2, 2]);
    assert_eq!(registry.list()[0].device_users, 7);
    assert_eq!(strings.lock().unwrap().open, 3);

    // The same thread, the same place; each handle counts.
    let mine = [(), ()].map(|()| registry.find_channel(COPY).unwrap());
    assert_eq!(name(&mine[0]), name(&mine[1]));
    assert_eq!(users(&registry).iter().sum::<usize>(), 9);
    let copy = mine[0].clone();
    drop(mine);
    assert_eq!(registry.list()[0].device_users, 8);
    assert!(copy.copy(vec![1], vec![0], LONG).is_ok(), "a clone keeps the place");
    drop(copy);

    // Those who are left are spread again, and what nobody needs is closed.
    handles.drain(..3);
    let mut left = users(&registry);
    left.sort_unstable();
    assert_eq!(left, [1, 1, 2]);
    handles.truncate(1);
    assert_eq!(users(&registry).iter().sum::<usize>(), 1);
    handles[0].copy(vec![1], vec![0], LONG).unwrap();
    assert_eq!(
        strings.lock().unwrap().open,
        1,
        "who moved has opened its channel when it needed it"
    );
    handles.clear();
    assert_eq!((users(&registry), strings.lock().unwrap().open), (vec![0; 3], 0));
}

#[test]
fn the_callers_node_comes_first() {
    let registry = Registry::new();
    registry.register(Puppet::device(&[on(0), on(1), on(1)]).0);
    let near: Vec<_> = (0..4).map(|_| elsewhere(&registry, Some(1))).collect();
    assert_eq!(users(&registry), [0, 2, 2]);
    let far = elsewhere(&registry, Some(7));
    assert_eq!(name(&far), "dma0chan0", "a node without a channel: the emptiest");
    // A channel on the node of those who had none comes: they move to it.
    registry.register(Puppet::device(&[on(7)]).0);
    assert_eq!(name(&far), "dma1chan0");
    drop(near);
}

#[test]
fn a_channel_is_shared_or_exclusive_until_its_last_user_has_gone() {
    let registry = Registry::new();
    registry.register(Arc::new(CpuDevice::new(2)));
    let alone = registry.request("dma0chan0").unwrap();
    let shared = registry.find_channel(COPY).unwrap();
    assert_eq!(name(&shared), "dma0chan1");
    for refused in
        [registry.request("dma0chan1").unwrap_err(), registry.request("dma0chan0").unwrap_err()]
    {
        assert!(matches!(refused, LookupError::Request { source: RequestError::InUse, .. }));
    }
    assert!(matches!(registry.request_matching(COPY, |_, _| true), Err(LookupError::NoMatch)));
    let other = elsewhere(&registry, None);
    assert_eq!(name(&other), "dma0chan1", "there is no other");
    drop(alone);
    assert_eq!(users(&registry), [1, 1], "there is now");
    drop((other, shared));
    let all = ["dma0chan0", "dma0chan1"].map(|name| registry.request(name).unwrap());
    assert!(matches!(registry.find_channel(COPY), Err(LookupError::NoMatch)));
    assert_eq!(users(&registry), [1, 1]);
    drop(all);
}

#[test]
fn private_and_unable_channels_are_not_shared() {
    let registry = Registry::new();
    let private = Puppet::info(COPY | Capabilities::PRIVATE);
    registry.register(Puppet::device(&[private, Puppet::info(Capabilities::XOR)]).0);
    for mask in [COPY, Capabilities::PRIVATE, Capabilities::XOR | COPY] {
        assert!(matches!(registry.find_channel(mask), Err(LookupError::NoMatch)), "{mask:?}");
    }
    assert_eq!(name(&registry.find_channel(Capabilities::XOR).unwrap()), "dma0chan1");
}

#[test]
fn idle_clients_move_when_devices_come_and_go() {
    let registry = Registry::new();
    let (device, strings) = Puppet::device(&[Puppet::info(COPY)]);
    registry.register(device);
    let shared = registry.find_channel(COPY).unwrap();
    let works = || shared.fill(0xab, vec![0u8; 1], LONG);
    assert!(matches!(
        works().unwrap_err().error,
        SharedError::Submit(SubmitError::Unsupported { .. })
    ));
    registry.unregister(0, Duration::ZERO).unwrap();
    assert_eq!((strings.lock().unwrap().open, shared.name()), (0, None), "nobody is in its way");
    let refused = works().unwrap_err();
    assert!(matches!(refused.error, SharedError::Lookup(LookupError::NoMatch)));
    assert_eq!(refused.memory, Some(vec![0]), "it comes back");
    registry.register(Arc::new(CpuDevice::new(1)));
    let (end, target) = works().unwrap();
    assert_eq!(
        (end.status, target, name(&shared)),
        (Status::Success, vec![0xab], "dma1chan0".to_owned())
    );
}

#[test]
fn an_operation_at_work_is_waited_for() {
    let registry = Registry::new();
    let (device, strings) = Puppet::device(&[Puppet::info(COPY)]);
    registry.register(Arc::clone(&device) as _);
    let shared = registry.find_channel(COPY).unwrap();
    strings.lock().unwrap().holds = true;
    thread::scope(|scope| {
        let copy = scope.spawn(|| shared.copy(vec![1], vec![0], LONG));
        device.wait_submitted(1);
        let error = registry.unregister(0, Duration::ZERO).unwrap_err();
        let holders = vec![Holder { channel: "dma0chan0".to_owned(), thread: None }];
        assert_eq!(error, RemovalError::InUse { device: 0, holders });
        assert_eq!(users(&registry), [1]);
        let refused = shared.copy(vec![1], vec![0], LONG).unwrap_err();
        assert!(matches!(refused.error, SharedError::Lookup(LookupError::NoMatch)));
        strings.lock().unwrap().holds = false;
        registry.unregister(0, LONG).unwrap();
        assert_eq!(copy.join().unwrap().unwrap().0.status, Status::Success);
    });
}

#[test]
fn many_threads_on_one_channel_each_get_their_own_end() {
    const ROUNDS: usize = 300;

    for device in
        [Arc::new(ThreadsDevice::new(1)) as Arc<dyn DmaDevice>, Arc::new(CpuDevice::new(1))]
    {
        let registry = Registry::new();
        registry.register(device);
        let shared = registry.find_channel(COPY).unwrap();
        thread::scope(|scope| {
            for worker in 1..=6u8 {
                let shared = &shared;
                scope.spawn(move || {
                    // Short ones, and ones that outlast the polling.
                    for round in 0..ROUNDS {
                        let len = if round % 20 == 0 { 300_000 } else { 100 + round };
                        let (end, source, target) =
                            shared.copy(vec![worker; len], vec![0; len], LONG).unwrap();
                        assert_eq!((end.status, end.bytes), (Status::Success, len));
                        assert_eq!(source, target);
                    }
                });
            }
        });
        let stats = registry.list().remove(0).stats;
        assert_eq!((stats.submitted(), stats.completed(), stats.failed()), (1800, 1800, 0));
        assert!(stats.depth.max <= 6);
    }
}

#[test]
fn who_finds_the_ring_full_waits_for_the_others() {
    let registry = Registry::new();
    let info = ChannelInfo { ring_size: 1, ..Puppet::info(COPY) };
    registry.register(Puppet::device(&[info]).0);
    let shared = registry.find_channel(COPY).unwrap();
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                for _ in 0..200 {
                    shared.copy(vec![1], vec![0], LONG).unwrap();
                }
            });
        }
    });
    assert_eq!(registry.list()[0].stats.completed(), 800);
}

#[test]
fn a_timeout_resets_the_channel_for_all() {
    let registry = Registry::new();
    let (device, strings) = Puppet::device(&[Puppet::info(COPY)]);
    registry.register(Arc::clone(&device) as _);
    let shared = registry.find_channel(COPY).unwrap();
    strings.lock().unwrap().holds = true;
    thread::scope(|scope| {
        let patient = scope.spawn(|| shared.copy(vec![1], vec![0], LONG));
        device.wait_submitted(1);
        let (end, ..) = shared.copy(vec![2], vec![0], Duration::ZERO).unwrap();
        assert_eq!((end.status, end.bytes), (Status::TimedOut, 0));
        assert_eq!(patient.join().unwrap().unwrap().0.status, Status::Aborted);
    });
    strings.lock().unwrap().holds = false;
    assert!(shared.copy(vec![3], vec![0], LONG).is_ok(), "it works again");
}

/// A target that tells when it is given up.
#[derive(Debug)]
struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl AsMut<[u8]> for Counted {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // Relaxed: one thread.
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: the bytes are those of a vector that is not touched while the value exists.
unsafe impl DmaTarget for Counted {}

#[test]
fn memory_that_an_engine_may_still_write_is_not_given_back() {
    let registry = Registry::new();
    let (device, strings) = Puppet::device(&[Puppet::info(COPY)]);
    registry.register(device);
    let shared = registry.find_channel(COPY).unwrap();
    {
        let mut strings = strings.lock().unwrap();
        (strings.holds, strings.stuck) = (true, true);
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let target = || Counted(vec![0], Arc::clone(&dropped));
    // The second polls while the first is still out.
    for _ in 0..2 {
        let refused = shared.copy(vec![1], target(), Duration::from_millis(5)).unwrap_err();
        assert!(matches!(refused.error, SharedError::Stuck(Stuck)));
        assert!(refused.memory.is_none());
    }
    // Their late ends are nobody's, and the channel serves others.
    {
        let mut strings = strings.lock().unwrap();
        (strings.holds, strings.stuck) = (false, false);
    }
    let (end, _, second) = shared.copy(vec![1], target(), LONG).unwrap();
    assert_eq!(end.status, Status::Success);
    drop(shared);
    // Relaxed, both: one thread.
    assert_eq!(dropped.load(Ordering::Relaxed), 0);
    drop(second);
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    assert_eq!(registry.list()[0].stats.depth.now, 0);
}

#[test]
fn bad_lengths_are_refused_with_their_memory() {
    let registry = Registry::new();
    registry.register(Arc::new(CpuDevice::new(1)));
    let shared = registry.find_channel(COPY).unwrap();
    let refused = shared.copy(vec![1; 3], vec![0; 4], LONG).unwrap_err();
    let lengths = SubmitError::LengthMismatch { source_len: 3, target_len: 4 };
    assert!(matches!(refused.error, SharedError::Submit(error) if error == lengths));
    assert_eq!(refused.memory, Some((vec![1; 3], vec![0; 4])));
    let refused = shared.fill(1, vec![], LONG).unwrap_err();
    assert!(matches!(refused.error, SharedError::Submit(SubmitError::ZeroLength)));
}

#[test]
fn a_channel_that_does_not_open_is_left_out_until_somebody_has_had_it() {
    let registry = Registry::new();
    let (device, strings) = Puppet::device(&[Puppet::info(COPY)]);
    registry.register(device);
    strings.lock().unwrap().refuses = true;
    let refused = registry.find_channel(COPY).unwrap_err();
    assert!(matches!(refused, LookupError::Request { .. }), "{refused}");
    assert_eq!(users(&registry), [0], "nobody has it");
    registry.register(Arc::new(CpuDevice::new(1)));
    let shared = registry.find_channel(COPY).unwrap();
    assert_eq!(name(&shared), "dma1chan0");
    strings.lock().unwrap().refuses = false;
    assert_eq!(name(&elsewhere(&registry, None)), "dma1chan0");
    drop(registry.request("dma0chan0").unwrap());
    assert_eq!(name(&elsewhere(&registry, None)), "dma0chan0");

    // It may also be found out by an operation, after the client was moved.
    strings.lock().unwrap().refuses = true;
    registry.unregister(1, LONG).unwrap();
    let refused = shared.copy(vec![1], vec![0], LONG).unwrap_err();
    assert!(matches!(refused.error, SharedError::Lookup(LookupError::Request { .. })));
}

#[test]
fn any_operation_can_be_executed() {
    let registry = Registry::new();
    registry.register(Arc::new(CpuDevice::new(1)));
    let shared = registry.find_channel(Capabilities::XOR).unwrap();
    let (a, b, mut parity) = ([0xf0u8; 32], [0x3cu8; 32], [0u8; 32]);
    let sources = [a.as_ptr(), b.as_ptr()];
    let xor = Operation::Xor { sources: &sources, target: parity.as_mut_ptr(), len: 32 };
    // SAFETY: three arrays of that length, which nobody touches meanwhile; the engine is the
    // calling thread.
    let end: Completion = unsafe { shared.execute(&xor, Flags::empty(), LONG) }.unwrap();
    assert_eq!((end.status, parity), (Status::Success, [0xcc; 32]));
}

/// A device of one channel that is there already.
#[derive(Debug)]
struct One(ChannelInfo, Mutex<Option<Channel>>);

impl DmaDevice for One {
    fn channels(&self) -> &[ChannelInfo] {
        std::slice::from_ref(&self.0)
    }

    fn map(&self, _arena: &Arena) -> Result<(), MapError> {
        Ok(())
    }

    fn request_channel(&self, _index: usize) -> Result<Box<dyn DmaChannel>, RequestError> {
        let channel = self.1.lock().unwrap().take().ok_or(RequestError::InUse)?;
        Ok(Box::new(channel))
    }
}

#[test]
fn a_driver_that_panics_keeps_the_memory_and_not_the_channel() {
    let (channel, strings) = engine::Puppet::with_ring(1);
    let registry = Registry::new();
    registry.register(Arc::new(One(channel.info().clone(), Mutex::new(Some(channel)))));
    let shared = registry.find_channel(COPY).unwrap();
    let copy = |timeout| shared.copy(strings.memory(b"from"), strings.memory(b"to.."), timeout);
    strings.panic_in_poll(1);
    let panic = catch_unwind(AssertUnwindSafe(|| copy(LONG).is_ok()));
    assert!(panic.is_err());
    assert_eq!((strings.in_ring(), strings.dropped()), (1, (0, 0)), "the engine has it");

    // The engine writes what is still there. Its end is nobody's, but it makes room.
    strings.end_after_polls(0);
    let (end, _, target) = copy(LONG).unwrap();
    assert_eq!((end.status, target.as_ref()), (Status::Success, &b"from"[..]));
    drop(target);
    assert_eq!((strings.in_ring(), strings.dropped()), (0, (2, 0)));

    // So it is with one that the driver had taken when it panicked.
    strings.end_after_polls(u32::MAX);
    strings.panic_in_submit("driver");
    assert!(catch_unwind(AssertUnwindSafe(|| copy(LONG).is_ok())).is_err());
    assert_eq!((strings.in_ring(), strings.dropped()), (1, (2, 0)));
    // None is left behind whose end would be waited for.
    let refused = copy(Duration::MAX).unwrap_err();
    assert!(matches!(refused.error, SharedError::Submit(SubmitError::RingFull)));
}
