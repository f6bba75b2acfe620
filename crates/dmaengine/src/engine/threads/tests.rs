use super::*;
use crate::{Queue, Status};

const TIMEOUT: Duration = Duration::from_secs(10);
const ROUNDS: u64 = if cfg!(miri) { 20 } else { 2000 };

fn queue(options: ThreadsOptions) -> Queue<Vec<u8>, Vec<u8>, usize> {
    Queue::new(ThreadsDevice::with_options(options).request_channel(0).unwrap())
}

#[test]
fn copies_with_and_without_sleep_in_between() {
    for spin in [Duration::ZERO, Duration::from_micros(50)] {
        let mut queue = queue(ThreadsOptions { spin, ..ThreadsOptions::default() });
        for round in 0..ROUNDS {
            for index in 0..4 {
                queue
                    .copy(vec![round as u8; 1 + 100 * index], vec![0; 1 + 100 * index], index)
                    .unwrap();
            }
            let mut expected = 0..4;
            queue
                .wait(TIMEOUT, |done| {
                    assert_eq!((done.status, Some(done.tag)), (Status::Success, expected.next()));
                    assert!(done.target.iter().all(|&byte| byte == round as u8));
                })
                .unwrap();
            assert_eq!(expected.next(), None);
        }
        assert_eq!(queue.stats().completed(), 4 * ROUNDS);
    }
}

#[test]
fn channels_are_exclusive_and_free_after_drop() {
    let device = ThreadsDevice::new(1);
    let channel = device.request_channel(0).unwrap();
    assert!(matches!(device.request_channel(0), Err(RequestError::InUse)));
    assert!(matches!(
        device.request_channel(1),
        Err(RequestError::NoSuchChannel { index: 1, channels: 1 })
    ));
    drop(device);
    drop(channel);
    let device = ThreadsDevice::new(1);
    drop(device.request_channel(0).unwrap());
    assert!(device.request_channel(0).is_ok());
}

#[test]
fn rings_have_a_size_that_is_possible() {
    for (asked, size) in [(0, 1), (1, 1), (5, 8), (1 << 16, 1 << 16), (usize::MAX, 1 << 16)] {
        let options = ThreadsOptions { ring_size: asked, ..ThreadsOptions::default() };
        assert_eq!(ThreadsDevice::with_options(options).channels()[0].ring_size, size);
    }
}

#[test]
#[cfg_attr(miri, ignore = "no poll")]
fn a_blocked_wait_is_woken_by_the_event() {
    let mut queue = queue(ThreadsOptions::default());
    // Long enough for the wait to block.
    queue.copy(vec![7; 32 << 20], vec![0; 32 << 20], 0).unwrap();
    queue.issue_pending();
    assert!(queue.arm());
    let event = queue.event().unwrap();
    let mut poll = [rustix::event::PollFd::new(&event, rustix::event::PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut poll, Some(&timeout)), Ok(1));
    let mut ended = 0;
    queue.poll(|done| ended += usize::from(done.target.iter().all(|&byte| byte == 7)));
    assert_eq!(ended, 1);
    assert!(!queue.arm(), "nothing to wait for");
    let event = queue.event().unwrap();
    let mut poll = [rustix::event::PollFd::new(&event, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut poll, Some(&now)), Ok(0), "arm clears the event");
}

#[test]
fn a_wait_ends_at_its_deadline() {
    let mut queue = queue(ThreadsOptions::default());
    queue.copy(vec![7; 64 << 20], vec![0; 64 << 20], 0).unwrap();
    let timeout = queue.wait(Duration::ZERO, |_| ()).unwrap_err();
    assert_eq!(timeout.in_flight, 1);
    queue.wait(TIMEOUT, |done| assert_eq!(done.status, Status::Success)).unwrap();
}

#[test]
fn terminate_in_time_or_stuck_then_well_again() {
    let mut queue = queue(ThreadsOptions::default());
    for index in 0..3 {
        queue.copy(vec![1; 64 << 20], vec![0; 64 << 20], index).unwrap();
    }
    queue.issue_pending();
    assert_eq!(queue.terminate_sync(Duration::ZERO, |_| ()), Err(Stuck));
    let refused = queue.copy(vec![1], vec![0], 3).unwrap_err();
    assert_eq!(refused.error, SubmitError::ChannelDown);
    let mut ends = Vec::new();
    queue
        .terminate_sync(TIMEOUT, |done| {
            if done.status == Status::Success {
                assert!(done.target.iter().all(|&byte| byte == 1));
            }
            ends.push((done.tag, done.status));
        })
        .unwrap();
    assert_eq!(ends.iter().map(|end| end.0).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(ends[2].1, Status::Aborted, "it had not been started when the stop came");
    queue.copy(vec![5; 100], vec![0; 100], 4).unwrap();
    queue.wait(TIMEOUT, |done| assert_eq!(done.target, [5; 100])).unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "no clocks of threads")]
fn cpu_time_is_counted_and_kept() {
    let device = ThreadsDevice::new(2);
    assert_eq!(device.cpu_time(), Some(Duration::ZERO));
    let mut queue: Queue<Vec<u8>, Vec<u8>, ()> = Queue::new(device.request_channel(1).unwrap());
    queue.copy(vec![1; 32 << 20], vec![0; 32 << 20], ()).unwrap();
    queue.wait(TIMEOUT, |done| assert_eq!(done.status, Status::Success)).unwrap();
    let busy = device.cpu_time().unwrap();
    assert!(busy > Duration::ZERO);
    drop(queue);
    let ended = device.cpu_time().unwrap();
    assert!(ended >= busy);
    assert_eq!(device.cpu_time(), Some(ended), "no thread, no time");
}

/// Whether the thread with this name sleeps: its state in `/proc`. It names itself when it starts.
fn is_asleep(name: &str) -> bool {
    let state = std::fs::read_dir("/proc/self/task").unwrap().find_map(|task| {
        // It may have ended since.
        let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        let (_, rest) = stat.split_once(&format!("({name}) "))?;
        rest.chars().next()
    });
    state == Some('S')
}

#[test]
#[cfg_attr(miri, ignore = "no clocks of threads")]
fn the_thread_of_an_idle_channel_sleeps_and_takes_no_time() {
    /// Looks in succession that must find it asleep and its clock standing.
    const LOOKS: u32 = 30;
    /// Between two looks: as long as it naps where nobody may wake it.
    const INTERVAL: Duration = Duration::from_millis(1);
    /// No other test has threads of that name.
    const CHANNEL: usize = 77;

    let device = ThreadsDevice::new(CHANNEL + 1);
    let mut queue: Queue<Vec<u8>, Vec<u8>, ()> =
        Queue::new(device.request_channel(CHANNEL).unwrap());
    // Of a channel that was never used, then of one that was.
    for _ in 0..3 {
        let start = Instant::now();
        let (mut looks, mut before) = (0, None);
        while looks < LOOKS {
            let is_asleep = is_asleep(&format!("ioat-copy-{CHANNEL}"));
            let now = device.cpu_time();
            looks = if is_asleep && now == before { looks + 1 } else { 0 };
            before = now;
            assert!(start.elapsed() < 6 * TIMEOUT, "it goes on: {now:?}");
            std::thread::sleep(INTERVAL);
        }
        queue.copy(vec![7; 4096], vec![0; 4096], ()).unwrap();
        queue.wait(TIMEOUT, |done| assert_eq!(done.target, [7; 4096])).unwrap();
    }
}

#[test]
fn dropping_a_busy_channel_joins_its_worker() {
    let mut queue = queue(ThreadsOptions::default());
    for index in 0..8 {
        queue.copy(vec![1; 8 << 20], vec![0; 8 << 20], index).unwrap();
    }
    queue.issue_pending();
    let stats = Arc::clone(queue.stats());
    drop(queue);
    assert_eq!((stats.submitted(), stats.completed()), (8, 8));
}

#[test]
#[cfg_attr(miri, ignore = "no poll")]
fn an_event_that_comes_late_is_cleared_by_the_next_arm() {
    let device = ThreadsDevice::new(1);
    let lane = device.lanes.take(0).unwrap();
    let info = device.channels[0].clone();
    let mut channel =
        ThreadsChannel::start(info, "late".to_owned(), Duration::ZERO, Arc::default(), lane)
            .unwrap();
    let is_readable = |channel: &ThreadsChannel| {
        let event = channel.event().unwrap();
        let mut poll = [rustix::event::PollFd::new(&event, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut poll, Some(&now)).unwrap() > 0
    };

    // A worker that has stopped: what is submitted does not end.
    channel.ring.stop();
    channel.unpark();
    while !channel.ring.is_stopped() {
        std::thread::yield_now();
    }
    let (source, mut target) = ([1u8; 8], [0u8; 8]);
    let copy = Operation::Memcpy { source: source.as_ptr(), target: target.as_mut_ptr(), len: 8 };
    // SAFETY: both live longer than the channel, and are not used until it is gone.
    unsafe { channel.submit(&copy, Flags::empty()) }.unwrap();
    channel.issue_pending();
    assert!(channel.arm() && !is_readable(&channel));
    // The event of an earlier request, from a worker that was interrupted before its write.
    rustix::io::write(&channel.event, &1u64.to_ne_bytes()).unwrap();
    assert!(is_readable(&channel), "too early");
    assert!(channel.arm() && !is_readable(&channel), "and not again");
    drop(channel);
    assert_eq!(target, [0; 8]);
}
