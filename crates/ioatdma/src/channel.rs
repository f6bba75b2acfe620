//! One channel: doorbell, completion, and recovery. What comes before the doorbell is in `submit`.

mod chain;
mod raid;
mod recovery;
mod submit;

use std::{
    collections::VecDeque,
    fmt,
    mem::ManuallyDrop,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use chain::Doorbell;
use dmaengine::{
    ChannelInfo, Completion, Cookie, DmaChannel, Flags, IovaRegion, Status, Stuck, SubmitError,
};
pub(crate) use raid::SuperExtended;
use recovery::POLLS_BEFORE_CHANSTS;

use crate::{
    Completions,
    bar::ChannelRegisters,
    completion::CompletionWord,
    descriptor::{Control, Descriptors, Operation},
    device::Shared,
    error::StartError,
    interrupt::Event,
    lines::Lines,
    registers::{ChanCtrl, ChanState, ChanStatus},
    reset::{ResetError, Stopped},
    ring::Ring,
    watchdog::Watchdog,
};

/// How long a channel that is given up may take to become idle.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the empty descriptor that starts a chain may take, while a client polls.
const START_TIMEOUT: Duration = Duration::from_millis(100);
/// How long it may take when a channel is opened. A model's thread may have to wait for a processor.
const FIRST_START_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether operations are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Up,
    /// Idle, and does not start. It is tried again.
    Down {
        retry_at: Duration,
    },
    /// Not proven idle: its reset does not end. It is tried again.
    Stuck {
        /// Where it stood before the reset.
        stopped: Stopped,
        retry_at: Duration,
    },
    /// The device has left the bus.
    Gone,
}

/// A channel of an I/OAT device.
pub(crate) struct IoatChannel {
    index: usize,
    info: ChannelInfo,
    shared: Arc<Shared>,
    registers: ChannelRegisters,
    /// Leaked if the device cannot be proven idle: it may still read it.
    descriptors: ManuallyDrop<Descriptors>,
    /// Leaked likewise: the device may still write it.
    completion: ManuallyDrop<CompletionWord>,
    /// Leaked likewise. `None` if the device has none.
    super_extended: ManuallyDrop<Option<SuperExtended>>,
    /// The size in each slot that holds a part of a check, over which the device may write its result.
    /// Empty if it never does.
    sizes: Box<[u32]>,
    ring: Ring,
    doorbell: Doorbell,
    /// What the last descriptor of an operation asks for.
    end_control: Control,
    /// The regions that the last source and the last target lay in: most likely the next ones do.
    source_region: IovaRegion,
    target_region: IovaRegion,
    /// The completion word as last looked at.
    seen: u64,
    /// Polls since there was progress.
    idle_polls: u32,
    watchdog: Watchdog,
    /// What clients wait for, if there are interrupts.
    event: Option<Event>,
    /// Ended while the channel was armed or terminated, to be reported by the next poll.
    to_report: VecDeque<Completion>,
    service: Service,
}

impl IoatChannel {
    /// Brings up a channel that [`ChannelRegisters::take`] has taken. On an error it is given
    /// back, unless it has got memory and cannot be stopped.
    pub(crate) fn open(
        shared: Arc<Shared>,
        index: usize,
        info: ChannelInfo,
    ) -> Result<Self, StartError> {
        // Before it gets memory: one that does not stop can be given back, to be tried again.
        let stopped = shared.stop(index);
        let needs = stopped.and_then(|()| Needs::acquire(&shared, index));
        let needs = needs.inspect_err(|_| shared.give_back(index))?;
        let registers = shared.registers(index);
        let Needs { descriptors, completion, super_extended, event } = needs;
        let slots = 1 << shared.options.ring_order;
        let sizes = if shared.hardware.writes_results() { slots } else { 0 };
        // From here on dropping it gives it back.
        let mut channel = Self {
            index,
            info,
            registers,
            descriptors: ManuallyDrop::new(descriptors),
            completion: ManuallyDrop::new(completion),
            super_extended: ManuallyDrop::new(super_extended),
            sizes: vec![0; sizes].into_boxed_slice(),
            ring: Ring::new(shared.options.ring_order),
            doorbell: Doorbell::of(shared.hardware.version),
            end_control: match shared.options.completions {
                Completions::PerOperation => Control::COMPL_WRITE,
                Completions::PerBatch => Control::empty(),
            },
            source_region: IovaRegion::default(),
            target_region: IovaRegion::default(),
            seen: 0,
            idle_polls: 0,
            watchdog: Watchdog::default(),
            event,
            // All that can be in flight, so that reporting never allocates.
            to_report: VecDeque::with_capacity(slots),
            service: Service::Up,
            shared,
        };
        channel.start(FIRST_START_TIMEOUT)?;
        Ok(channel)
    }

    /// Lets operations have what has become free.
    fn make_room(&mut self) {
        match self.service {
            // What is to be reported is still the client's.
            Service::Up => self.ring.set_limit(self.to_report.len()),
            Service::Down { .. } | Service::Stuck { .. } | Service::Gone => self.ring.close(),
        }
    }
}

/// What a channel needs of the machine.
struct Needs {
    descriptors: Descriptors,
    completion: CompletionWord,
    super_extended: Option<SuperExtended>,
    event: Option<Event>,
}

impl Needs {
    fn acquire(shared: &Shared, index: usize) -> Result<Self, StartError> {
        let slots = 1 << shared.options.ring_order;
        let super_extended = shared.hardware.has_super_extended();
        Ok(Self {
            descriptors: Descriptors::new(Lines::allocate(shared, slots)?),
            completion: CompletionWord::allocate(shared)?,
            super_extended: super_extended
                .then(|| SuperExtended::allocate(shared, slots))
                .transpose()?,
            event: shared.vectors.event(&*shared.platform, index).map_err(StartError::Event)?,
        })
    }
}

// SAFETY:
// - at most once, with its cookie: `Ring` gives cookies in order and takes each operation out once;
// - not touched after its report: a success is reported when CHANSTS or the completion word says
//   that its last descriptor has completed, and the device works in order; everything else after a
//   reset that has ended, or when the device has left the bus;
// - visible: the word is loaded with acquire; a read of CHANSTS waits for the writes before it;
// - nothing else written: descriptors name exactly the translated range, and `IovaMap` translates
//   only what lies within one mapped arena;
// - refused operations: all checks come before the first slot is written;
// - `terminate_sync` and `drop`: see there.
unsafe impl DmaChannel for IoatChannel {
    fn info(&self) -> &ChannelInfo {
        &self.info
    }

    fn space(&self) -> usize {
        self.ring.space()
    }

    unsafe fn submit(
        &mut self,
        operation: &dmaengine::Operation<'_>,
        flags: Flags,
    ) -> Result<Cookie, SubmitError> {
        if let dmaengine::Operation::Memcpy { source, target, len } = *operation
            && flags.is_empty()
            && let Some(cookie) = self.submit_copy(source, target, len, Flags::empty())
        {
            return Ok(cookie);
        }
        self.submit_any(operation, flags)
    }

    fn issue_pending(&mut self) {
        let Some(last) = self.ring.last_pending() else { return };
        if self.service != Service::Up {
            return;
        }
        // What ends a batch always tells.
        self.descriptors.add(last, Control::COMPL_WRITE);
        self.ring_doorbell();
    }

    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        if !self.to_report.is_empty() {
            // One by one: should `report` panic, the others are not lost.
            while let Some(completion) = self.to_report.pop_front() {
                report(completion);
            }
            self.make_room();
        }
        if self.service == Service::Up {
            self.advance(report);
            self.make_room();
        } else {
            self.revive(report);
        }
    }

    /// The event comes from an empty descriptor behind everything issued so far. There is one such
    /// at a time: if an earlier call's is still in flight, the event comes with it, which may be
    /// early; so poll, and call again if something is still in flight. It also comes when nothing has
    /// happened for as long as [`Options::watchdog`](crate::Options::watchdog) says.
    ///
    /// Returns `false` also if something was submitted and not issued: nothing may be put behind it.
    fn arm(&mut self) -> bool {
        let Some(event) = &self.event else { return false };
        let waits = self.service == Service::Up && self.ring.has_issued_operation();
        if !waits || self.ring.last_pending().is_some() {
            return false;
        }
        let Shared { bar, platform, vectors, options, .. } = &*self.shared;
        event.within(options.watchdog);
        vectors.clear(&**bar, &**platform, self.index);
        // Before looking where the channel stands: what ends after the look then interrupts.
        self.registers.set_control(ChanCtrl::RUN);
        let status = self.registers.status();
        if status == ChanStatus::GONE || status.state() == ChanState::Halted {
            // For `poll` to deal with, which is to look.
            self.idle_polls = POLLS_BEFORE_CHANSTS;
            return false;
        }
        let mut to_report = std::mem::take(&mut self.to_report);
        self.take_register(status, &mut |completion| to_report.push_back(completion));
        self.to_report = to_report;
        let waits = self.ring.has_issued_operation();
        if waits {
            // The time runs while the client waits.
            let now = self.registers.now();
            self.watchdog.starts(now);
            // Who has waited finds out whether the completion word was lost.
            self.idle_polls = POLLS_BEFORE_CHANSTS;
            if !self.ring.has_null() {
                let index = self.ring.index(self.ring.head());
                let control = Control::INT_EN | Control::COMPL_WRITE;
                self.descriptors.write(index, Operation::Null, control);
                self.ring.push_null();
                self.ring_doorbell();
            }
        }
        self.make_room();
        waits
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.event.as_ref().map(AsFd::as_fd)
    }

    fn terminate_sync(&mut self, timeout: Duration) -> Result<(), Stuck> {
        if self.service == Service::Gone {
            return Ok(());
        }
        let mut to_report = std::mem::take(&mut self.to_report);
        let mut report = |completion| to_report.push_back(completion);
        let result = match self.reset(timeout) {
            Ok(stopped) => {
                let stopped = match self.service {
                    // The registers have forgotten it by now.
                    Service::Stuck { stopped, .. } => stopped,
                    _ => stopped,
                };
                self.settle(stopped, Status::Aborted, &mut report);
                // The channel is idle in any case. If it does not start, it is down.
                let _ = self.start(START_TIMEOUT);
                Ok(())
            }
            Err(ResetError::Gone) => {
                self.lose(&mut report);
                Ok(())
            }
            Err(ResetError::Stuck(stopped)) => {
                if !matches!(self.service, Service::Stuck { .. }) {
                    self.stick(stopped);
                }
                Err(Stuck)
            }
        };
        self.to_report = to_report;
        self.make_room();
        result
    }
}

impl Drop for IoatChannel {
    fn drop(&mut self) {
        let reset = self.reset(DROP_TIMEOUT);
        if reset.is_ok() {
            self.registers.release();
        }
        match reset {
            Ok(_) | Err(ResetError::Gone) => {
                // SAFETY: dropped here and nowhere else. The reset has ended, or the device has left
                // the bus, so that it uses none of it.
                unsafe {
                    ManuallyDrop::drop(&mut self.descriptors);
                    ManuallyDrop::drop(&mut self.completion);
                    ManuallyDrop::drop(&mut self.super_extended);
                }
            }
            // Ring and completion word are leaked, and the channel stays taken.
            Err(ResetError::Stuck(_)) => {
                if self.ring.has_operation() {
                    eprintln!(
                        "ioatdma: channel {} of {} cannot be stopped and may still write to memory \
                         that is about to be reused; the process ends here",
                        self.index, self.info.engine
                    );
                    std::process::abort();
                }
            }
        }
        if reset.is_ok() {
            self.shared.release(self.index);
        }
    }
}

impl fmt::Debug for IoatChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoatChannel")
            .field("engine", &self.info.engine)
            .field("index", &self.index)
            .field("service", &self.service)
            .field("ring", &self.ring)
            .finish_non_exhaustive()
    }
}
