//! Copy threads behind rings: the engine that every machine with two processors has, and the
//! reference for what a real one must do.

mod cpu_time;
mod fence;
mod idle;
mod prefetch;
mod ring;
mod staged;
mod sync;

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::event::EventfdFlags;

use self::{
    cpu_time::CpuTime,
    ring::{Submitter, Wake},
};
use super::lanes::{Lane, Lanes};
use crate::{
    Arena, Capabilities, ChannelInfo, Completion, Cookie, DmaChannel, DmaDevice, Flags, Kind,
    MapError, Operation, RequestError, Stuck, SubmitError, Successes,
    fork::Owner,
    software::{self, MAX_SEGMENTS, MAX_SOURCES},
};

/// How a [`ThreadsDevice`] is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadsOptions {
    /// Channels, each with a thread of its own while it is in use.
    pub channels: usize,
    /// Operations per ring; rounded up to a power of two, and no more than 2^16: what is in the ring
    /// takes memory from the start, and Linux's I/OAT driver stops there too.
    pub ring_size: usize,
    /// The longest time for which a thread with nothing to do looks for work before it sleeps; zero
    /// makes it sleep at once.
    ///
    /// Looking costs the machine a processor, sleeping costs the client and the operation the
    /// wake-up. A thread looks for so long only while that has been worth it of late: each time that
    /// it has slept for longer, it halves the time, down to 10 µs; when it was woken within `spin`,
    /// it takes all of it again. It does not look on when another thread took its processor
    /// meanwhile, nor on the processor that the client runs on. Without work it takes no time.
    ///
    /// One copy of 4 KiB after each pause, the client and the thread on a processor each, in a
    /// virtual machine with two processors of an AMD EPYC (Zen 4), where a processor that is halted
    /// takes 20 to 40 µs to wake (`cargo bench -p dmaengine --bench idle`); the median of the
    /// latency, and the thread's processor time:
    ///
    /// | pause | `spin` 0 | | 50 µs | | 200 µs (default) | | 1 ms | |
    /// | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
    /// | 10 µs | 1.0 µs | 75 % | 0.7 µs | 67 % | 0.7 µs | 92 % | 0.6 µs | 84 % |
    /// | 100 µs | 18 µs | 23 % | 19 µs | 32 % | 0.7 µs | 83 % | 0.6 µs | 91 % |
    /// | 300 µs | 21 µs | 10 % | 21 µs | 14 % | 21 µs | 13 % | 0.6 µs | 90 % |
    /// | 1 ms | 25 µs | 4 % | 26 µs | 5 % | 26 µs | 5 % | 0.7 µs | 87 % |
    /// | 10 ms | 42 µs | 0.6 % | 49 µs | 0.6 % | 40 µs | 0.7 % | 39 µs | 0.7 % |
    ///
    /// With work all the time (`ioat demo`) 50 µs and 200 µs take the same.
    pub spin: Duration,
}

impl ThreadsOptions {
    /// As long as Linux polls before it halts a processor that a hypervisor would have to wake
    /// (`guest_halt_poll_ns`): the same costs are weighed there. A round trip within a data centre
    /// and an access to flash take less.
    const SPIN: Duration = Duration::from_micros(200);
    const RING_SIZE: usize = 1024;
    const MAX_RING_SIZE: usize = 1 << 16;
}

impl Default for ThreadsOptions {
    fn default() -> Self {
        Self { channels: 1, ring_size: Self::RING_SIZE, spin: Self::SPIN }
    }
}

/// Threads of this process that copy, one per channel, in order.
///
/// A thread starts when its channel is requested and ends when the channel is dropped. It sleeps
/// while it has nothing to do. A page fault in an operation's memory is taken by the thread; an
/// invalid address kills the process, as it would in the caller.
#[derive(Debug)]
pub struct ThreadsDevice {
    channels: Vec<ChannelInfo>,
    lanes: Lanes,
    cpu_times: Vec<Arc<CpuTime>>,
    spin: Duration,
}

impl ThreadsDevice {
    /// A device of `channels` channels.
    #[must_use]
    pub fn new(channels: usize) -> Self {
        Self::with_options(ThreadsOptions { channels, ..ThreadsOptions::default() })
    }

    /// A device set up as `options` say.
    #[must_use]
    pub fn with_options(options: ThreadsOptions) -> Self {
        let ThreadsOptions { channels, ring_size, spin } = options;
        let info = ChannelInfo {
            capabilities: software::CAPABILITIES | Capabilities::INTERRUPT,
            max_sg: MAX_SEGMENTS,
            max_xor: MAX_SOURCES,
            max_pq: MAX_SOURCES,
            ring_size: ring_size.min(ThreadsOptions::MAX_RING_SIZE).next_power_of_two(),
            ..ChannelInfo::new("threads", Kind::Software)
        };
        Self {
            channels: vec![info; channels],
            lanes: Lanes::new(channels),
            cpu_times: (0..channels).map(|_| Arc::default()).collect(),
            spin,
        }
    }
}

impl DmaDevice for ThreadsDevice {
    fn channels(&self) -> &[ChannelInfo] {
        &self.channels
    }

    fn map(&self, _arena: &Arena) -> Result<(), MapError> {
        Ok(())
    }

    fn request_channel(&self, index: usize) -> Result<Box<dyn DmaChannel>, RequestError> {
        let lane = self.lanes.take(index)?;
        let channel = ThreadsChannel::start(
            self.channels[index].clone(),
            format!("ioat-copy-{index}"),
            self.spin,
            Arc::clone(&self.cpu_times[index]),
            lane,
        );
        channel
            .map(|channel| Box::new(channel) as Box<dyn DmaChannel>)
            .map_err(|error| RequestError::Failed(error.into()))
    }

    fn cpu_time(&self) -> Option<Duration> {
        Some(self.cpu_times.iter().map(|time| time.get()).sum())
    }
}

#[derive(Debug)]
struct ThreadsChannel {
    info: ChannelInfo,
    ring: Submitter,
    /// `None` once joined.
    worker: Option<JoinHandle<()>>,
    event: Arc<OwnedFd>,
    /// A `terminate_sync` has not succeeded yet.
    stopping: bool,
    /// Who has the thread: not a forked child.
    owner: Owner,
    /// Last: the channel is free when the thread has ended.
    _lane: Lane,
}

impl ThreadsChannel {
    fn start(
        info: ChannelInfo,
        name: String,
        spin: Duration,
        cpu_time: Arc<CpuTime>,
        lane: Lane,
    ) -> std::io::Result<Self> {
        let event =
            Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (ring, worker) = ring::ring(info.ring_size);
        let fired = Arc::clone(&event);
        let worker = std::thread::Builder::new().name(name).spawn(move || {
            let _counted = cpu_time.enter();
            worker.run(
                spin,
                // SAFETY: the ring gives out operations that were submitted and not reported, each
                // once, so their memory is ours.
                |descriptor| unsafe {
                    software::execute(&descriptor.operation(), descriptor.flags())
                },
                || {
                    // It can only fail with EAGAIN, at a count of 2^64 - 2: readable all the same.
                    let _ = rustix::io::write(&fired, &1u64.to_ne_bytes());
                },
            );
        })?;
        let (worker, owner) = (Some(worker), Owner::current());
        Ok(Self { info, ring, worker, event, stopping: false, owner, _lane: lane })
    }

    /// As `submit`, of what is no plain copy. Not inlined: a copy needs fewer registers, and none to
    /// be saved.
    #[inline(never)]
    fn submit_other(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
    ) -> Result<Cookie, SubmitError> {
        self.info.check(operation, flags)?;
        if self.stopping {
            return Err(SubmitError::ChannelDown);
        }
        self.ring.submit(operation, flags).map(cookie).ok_or(SubmitError::RingFull)
    }

    fn unpark(&self) {
        if let Some(worker) = &self.worker {
            worker.thread().unpark();
        }
    }
}

// SAFETY: the ring hands each operation to the worker once, reports it once and in order after the
// worker is through with it (release and acquire of `done`), and the worker writes its target only.
// A finished `terminate_sync` has the worker's word that it stopped, and `drop` joins it.
unsafe impl DmaChannel for ThreadsChannel {
    fn info(&self) -> &ChannelInfo {
        &self.info
    }

    fn space(&self) -> usize {
        self.ring.space()
    }

    unsafe fn submit(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
    ) -> Result<Cookie, SubmitError> {
        let Operation::Memcpy { source, target, len } = *operation else {
            return self.submit_other(operation, flags);
        };
        self.info.check_memcpy(source, target, len, flags)?;
        if self.stopping {
            return Err(SubmitError::ChannelDown);
        }
        let position = self.ring.submit_memcpy(source, target, len, flags);
        position.map(cookie).ok_or(SubmitError::RingFull)
    }

    fn issue_pending(&mut self) {
        if !self.stopping && self.ring.issue() == Wake::Unpark {
            self.unpark();
        }
    }

    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        self.ring.look();
        loop {
            let position = self.ring.reported();
            let Some(end) = self.ring.next_end() else { break };
            report(Completion::of(cookie(position), end.status, end.len));
        }
    }

    fn poll_successes(&mut self) -> Successes {
        self.ring.look();
        let first = cookie(self.ring.reported());
        let count = self.ring.take_successes();
        Successes { first, count, more: self.ring.has_ended() }
    }

    fn arm(&mut self) -> bool {
        // Each time, since the worker writes after it has decided to: the event of an earlier request
        // may come between this and the wait. It then wakes somebody too early, and is cleared by
        // the next call. With EAGAIN there is none.
        let _ = rustix::io::read(&self.event, &mut [0u8; 8]);
        self.ring.arm()
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        Some(self.event.as_fd())
    }

    fn terminate_sync(&mut self, timeout: Duration) -> Result<(), Stuck> {
        /// Between two looks at a worker that is in the middle of a copy.
        const INTERVAL: Duration = Duration::from_micros(20);

        self.stopping = true;
        self.ring.stop();
        self.unpark();
        let start = Instant::now();
        while !self.ring.is_stopped() {
            if start.elapsed() >= timeout {
                return Err(Stuck);
            }
            std::thread::sleep(INTERVAL);
        }
        self.ring.abort_and_resume();
        self.unpark();
        self.stopping = false;
        Ok(())
    }
}

/// The cookie of the operation at a position of the ring.
const fn cookie(position: u64) -> Cookie {
    Cookie::FIRST.plus(position)
}

impl Drop for ThreadsChannel {
    fn drop(&mut self) {
        if !self.owner.is_here() {
            // There is no thread to join.
            std::mem::forget(self.worker.take());
            return;
        }
        self.ring.exit();
        self.unpark();
        if let Some(worker) = self.worker.take() {
            // Waits for the operation that is being executed, if any. The thread does not panic,
            // and if it had it would touch no memory either.
            let _ = worker.join();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
