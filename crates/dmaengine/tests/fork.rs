//! What a forked child can do with the channels, registries and arenas that it inherits: nothing,
//! and it takes no harm from it, nor does its parent.
//!
//! A program of its own, with real children. A child that hangs is killed by its alarm.

use std::{
    io,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use dmaengine::{
    Arena, Capabilities, CpuDevice, DmaDevice, DmaTarget, Flags, LookupError, Operation, Queue,
    Registry, RemovalError, SharedChannel, SharedError, Status, Stuck, SubmitError, ThreadsDevice,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    mm::{MapFlags, ProtFlags},
};

/// Longer than anything that is waited for.
const LONG: Duration = Duration::from_secs(30);

/// Long enough for the copy to be running when the child is forked.
const LEN: usize = 16 << 20;

fn main() {
    for (name, test) in [
        ("an operation in flight stays the parent's", in_flight as fn()),
        ("bare channels and devices can be dropped", bare_ones_are_dropped),
        ("the parent's event is not taken", event_is_kept),
        ("locks that other threads hold are left alone", locks_are_left_alone),
        ("an arena is left alone", arena_is_left_alone),
    ] {
        println!("fork: {name}");
        test();
    }
}

/// What a child found: `Err` says which check failed.
type Found = Result<(), &'static str>;

fn check(right: bool, what: &'static str) -> Found {
    if right { Ok(()) } else { Err(what) }
}

/// Runs `child` in a forked child. The child does not come back.
fn in_child(child: impl FnOnce() -> Found) {
    // SAFETY: the child runs `child` and ends. It allocates, which the C library allows after its
    // own `fork`; other locks are what this tests.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", io::Error::last_os_error()),
        0 => {
            // SAFETY: sets a timer that ends the process, should it hang.
            unsafe { libc::alarm(20) };
            let code = match child() {
                Ok(()) => 0,
                Err(what) => {
                    eprintln!("in the child: {what}");
                    1
                }
            };
            // SAFETY: ends the process, running nothing.
            unsafe { libc::_exit(code) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: writes a local variable.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            assert!(!libc::WIFSIGNALED(status), "killed by {}", libc::WTERMSIG(status));
            assert_eq!(libc::WEXITSTATUS(status), 0, "the child found something wrong");
        }
    }
}

/// Targets that were given up, in this process.
static DROPPED: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug)]
struct Counted(Vec<u8>);

impl AsMut<[u8]> for Counted {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // Relaxed, here and below: one thread counts and looks.
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: the bytes are those of a vector that is not touched while the value exists.
unsafe impl DmaTarget for Counted {}

type CountedQueue = Queue<Vec<u8>, Counted, ()>;

fn engines() -> [Arc<dyn DmaDevice>; 2] {
    [Arc::new(ThreadsDevice::new(2)), Arc::new(CpuDevice::new(2))]
}

fn in_flight() {
    for device in engines() {
        let registry = Registry::new();
        registry.register(Arc::clone(&device));
        let mut queue = CountedQueue::new(registry.request("dma0chan0").unwrap());
        let shared = registry.find_channel(Capabilities::MEMCPY).unwrap();
        // One is issued and runs, or has ended; one waits for its doorbell.
        queue.copy(vec![1; LEN], Counted(vec![0; LEN]), ()).unwrap();
        queue.issue_pending();
        queue.copy(vec![2; LEN], Counted(vec![0; LEN]), ()).unwrap();
        let mut inherited = Some((queue, shared, registry));
        let dropped = DROPPED.load(Ordering::Relaxed);
        in_child(|| {
            let (queue, shared, registry) = inherited.take().ok_or("nothing inherited")?;
            child_of_engine(queue, &shared, &registry)?;
            check(DROPPED.load(Ordering::Relaxed) == dropped + 1, "memory in flight is leaked")?;
            // To let go of everything neither waits nor reaches the parent.
            drop((shared, registry));
            own_channels()
        });
        let (mut queue, shared, registry) = inherited.unwrap();
        let mut ends = Vec::new();
        queue.wait(LONG, |done| ends.push((done.status, done.target.0 == done.source))).unwrap();
        assert_eq!(ends, [(Status::Success, true); 2]);
        drop(queue);
        let target = shared.copy(vec![5; 100], vec![0; 100], LONG).unwrap().2;
        assert_eq!(target, [5; 100]);
        drop(shared);
        registry.unregister(0, LONG).unwrap();
    }
}

fn child_of_engine(mut queue: CountedQueue, shared: &SharedChannel, registry: &Registry) -> Found {
    let refused = queue.copy(vec![3; 10], Counted(vec![0; 10]), ()).err().ok_or("submitted")?;
    check(refused.error == SubmitError::Forked, "submit says why")?;
    check(refused.source == [3; 10], "the memory comes back")?;
    drop(refused);
    queue.issue_pending();
    check(queue.poll(|_| ()) == 0 && queue.in_flight() == 2, "nothing is reported")?;
    check(!queue.arm() && queue.event().is_none(), "there is no event")?;
    check(queue.wait(LONG, |_| ()).is_err(), "nothing ends, and nobody waits for it")?;
    check(queue.terminate_sync(LONG, |_| ()) == Err(Stuck), "nothing is proven idle")?;
    drop(queue);

    let refused = shared.copy(vec![1], vec![0], LONG).err().ok_or("shared: submitted")?;
    check(matches!(refused.error, SharedError::Lookup(LookupError::Forked)), "shared says why")?;
    drop(shared.clone());
    check(matches!(registry.request("dma0chan1"), Err(LookupError::Forked)), "request")?;
    check(matches!(registry.find_channel(Capabilities::MEMCPY), Err(LookupError::Forked)), "find")?;
    check(registry.unregister(0, LONG) == Err(RemovalError::Forked), "unregister")?;
    check(registry.list().is_empty() && registry.cpu_time().is_zero(), "there are no devices")?;
    registry.register(Arc::new(CpuDevice::new(1)));
    check(registry.list().is_empty() && registry.subscribe().recv().is_err(), "none can be added")
}

/// A child can have what its parent had, made anew.
fn own_channels() -> Found {
    for device in engines() {
        let registry = Registry::new();
        registry.register(device);
        let channel = registry.request("dma0chan0").map_err(|_| "an own channel")?;
        let mut queue = Queue::new(channel);
        queue.copy(vec![4; 100], vec![0; 100], ()).map_err(|_| "an own copy")?;
        let mut copied = false;
        queue.wait(LONG, |done| copied = done.target == [4; 100]).map_err(|_| "an own end")?;
        check(copied, "the bytes of an own copy")?;
    }
    Ok(())
}

/// Those that no registry, and no queue, stands before.
fn bare_ones_are_dropped() {
    for device in engines() {
        let mut channel = device.request_channel(0).unwrap();
        let (source, mut target) = (vec![1u8; 64], vec![0u8; 64]);
        let copy =
            Operation::Memcpy { source: source.as_ptr(), target: target.as_mut_ptr(), len: 64 };
        // SAFETY: both are used by nobody else until the channel has been dropped.
        unsafe { channel.submit(&copy, Flags::empty()) }.unwrap();
        channel.issue_pending();
        let mut inherited = Some((channel, device));
        in_child(|| {
            drop(inherited.take());
            Ok(())
        });
        drop(inherited);
        assert!(target == source || target == [0; 64]);
    }
}

fn event_is_kept() {
    let registry = Registry::new();
    registry.register(Arc::new(ThreadsDevice::new(1)));
    let mut queue = Queue::new(registry.request("dma0chan0").unwrap());
    let is_readable = |fd: &dyn AsFd, timeout: Duration| {
        let timeout = Timespec::try_from(timeout).unwrap();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&timeout)).unwrap() == 1
    };
    let mut armed = false;
    // A copy may end before the event is asked for.
    while !armed {
        queue.copy(vec![1; LEN], vec![0; LEN], ()).unwrap();
        queue.issue_pending();
        armed = queue.arm();
    }
    assert!(is_readable(&queue.event().unwrap(), LONG), "it has fired");
    in_child(|| check(!queue.arm() && queue.event().is_none(), "there is no event"));
    assert!(is_readable(&queue.event().unwrap(), Duration::ZERO), "the child has taken it");
    queue.wait(LONG, |done| assert_eq!(done.status, Status::Success)).unwrap();
}

/// Children are forked while other threads are in the middle of everything that takes a lock.
fn locks_are_left_alone() {
    const CHILDREN: usize = 100;

    let registry = Registry::new();
    registry.register(Arc::new(CpuDevice::new(4)));
    let arena = Arena::new(1 << 20).unwrap();
    let shared = registry.find_channel(Capabilities::MEMCPY).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Relaxed, all: the threads need to see it some time.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let mine = registry.find_channel(Capabilities::XOR).unwrap();
                assert!(registry.list().len() == 4 && mine.name().is_some());
                drop(arena.alloc(100).unwrap());
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                shared.copy(vec![1; 5000], vec![0; 5000], LONG).unwrap();
            }
        });
        // Also if a check fails: the scope waits for the threads.
        let _stop = OnDrop(|| stop.store(true, Ordering::Relaxed));
        for _ in 0..CHILDREN {
            let mut buffer = Some(arena.alloc(100).unwrap());
            in_child(|| {
                check(registry.list().is_empty() && shared.name().is_none(), "inert")?;
                check(shared.copy(vec![1], vec![0], LONG).is_err(), "shared: submitted")?;
                drop((shared.clone(), buffer.take()));
                check(arena.alloc(1).is_err(), "memory that is not there")
            });
        }
    });
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn arena_is_left_alone() {
    let arena = Arena::new(1 << 16).unwrap();
    let mut inherited = Some((arena.alloc(100).unwrap(), arena));
    in_child(|| {
        let (buffer, arena) = inherited.take().ok_or("nothing inherited")?;
        // Where the arena was in the parent, the child has something of its own.
        // SAFETY: nothing is mapped there, or the call fails.
        let own = unsafe {
            rustix::mm::mmap_anonymous(
                arena.base().cast_mut().cast(),
                arena.len(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE,
            )
        };
        let own = own.map_err(|_| "the arena was inherited")?.cast::<u8>();
        drop((buffer, arena));
        // SAFETY: mapped above, if it still is: otherwise the child is killed.
        unsafe { own.write_volatile(1) };
        Ok(())
    });
    let (mut buffer, _arena) = inherited.unwrap();
    buffer.fill(7);
    assert!(buffer.iter().all(|&byte| byte == 7));
}
