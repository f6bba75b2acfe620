//! One channel: doorbell, completion, and recovery. What comes before the doorbell is in `submit`.

mod submit;

use std::{
    collections::VecDeque, fmt, mem::ManuallyDrop, os::fd::BorrowedFd, sync::Arc, time::Duration,
};

use dmaengine::{
    ChannelInfo, Completion, Cookie, DmaChannel, Flags, IovaRegion, Status, Stuck, SubmitError,
};

use crate::{
    bar::ChannelRegisters,
    completion::CompletionWord,
    descriptor::{Control, Descriptors, Operation},
    device::{Completions, Shared},
    error::{Halt, StartError},
    lines::{Lines, Ordering, fence},
    registers::{CHAINADDR, CHANCMP, ChanCtrl, ChanState, ChanStatus},
    reset::{ResetError, Stopped, reset},
    ring::Ring,
};

/// How long a reset may take outside [`DmaChannel::terminate_sync`] (Linux: 200 ms).
const RESET_TIMEOUT: Duration = Duration::from_millis(200);
/// How long a channel that is given up may take to become idle.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the empty descriptor that starts a chain may take.
const START_TIMEOUT: Duration = Duration::from_millis(100);
/// Polls without progress before CHANSTS is read, which costs a round trip over the bus: a completion
/// write may be lost, and a halt may have failed to write one.
const POLLS_BEFORE_CHANSTS: u32 = 1024;

/// Whether operations are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Up,
    /// Not proven idle, or does not start: `terminate_sync` may help.
    Down,
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
    ring: Ring,
    /// What the last descriptor of an operation asks for.
    end_control: Control,
    /// The regions that the last source and the last target lay in: most likely the next ones do.
    source_region: IovaRegion,
    target_region: IovaRegion,
    /// The completion word as last looked at.
    seen: u64,
    /// Polls since there was progress.
    idle_polls: u32,
    /// Ended while the channel was armed or terminated, to be reported by the next poll.
    to_report: VecDeque<Completion>,
    service: Service,
}

impl IoatChannel {
    /// Brings up a channel that [`ChannelRegisters::take`] has taken. On an error it is given
    /// back, unless it cannot be stopped.
    pub(crate) fn open(
        shared: Arc<Shared>,
        index: usize,
        info: ChannelInfo,
    ) -> Result<Self, StartError> {
        let registers = ChannelRegisters::new(Arc::clone(&shared.bar), index);
        let memory = Self::allocate(&shared).inspect_err(|_| {
            registers.release();
            shared.release(index);
        })?;
        let (descriptors, completion) = memory;
        // From here on dropping it gives it back.
        let mut channel = Self {
            index,
            info,
            registers,
            descriptors: ManuallyDrop::new(descriptors),
            completion: ManuallyDrop::new(completion),
            ring: Ring::new(shared.options.ring_order),
            end_control: match shared.options.completions {
                Completions::PerOperation => Control::COMPL_WRITE,
                Completions::PerBatch => Control::empty(),
            },
            source_region: IovaRegion::default(),
            target_region: IovaRegion::default(),
            seen: 0,
            idle_polls: 0,
            // All that can be in flight, so that reporting never allocates.
            to_report: VecDeque::with_capacity(1 << shared.options.ring_order),
            service: Service::Down,
            shared,
        };
        channel.reset(RESET_TIMEOUT)?;
        channel.start()?;
        Ok(channel)
    }

    fn allocate(shared: &Shared) -> Result<(Descriptors, CompletionWord), StartError> {
        let ring = Lines::allocate(shared, 1 << shared.options.ring_order)?;
        Ok((Descriptors::new(ring), CompletionWord::allocate(shared)?))
    }

    fn reset(&self, timeout: Duration) -> Result<Stopped, ResetError> {
        reset(&self.registers, &*self.shared.platform, self.shared.quirks, timeout)
    }

    /// Begins a chain after a reset, with an empty descriptor that proves that descriptors are read
    /// and the completion word is written. The ring must be empty.
    fn start(&mut self) -> Result<(), StartError> {
        // RESET has forgotten CHANCTRL and CHANCMP.
        self.registers.set_control(ChanCtrl::RUN);
        self.completion.clear();
        self.registers.set_address(CHANCMP, self.completion.iova());
        self.ring.begin_chain();
        let first = self.ring.index(self.ring.head());
        let address = self.descriptors.address(first.get());
        self.registers.set_address(CHAINADDR, address);
        self.descriptors.write(first, Operation::Null, Control::COMPL_WRITE);
        self.ring.push_null();
        self.doorbell();
        let completed = |word: u64| ChanStatus(word).descriptor() == address;
        let done = self.registers.wait(START_TIMEOUT, |registers| {
            completed(self.completion.read()) || registers.status().state() == ChanState::Halted
        });
        let word = self.completion.read();
        let status = self.registers.status();
        // The empty descriptor belongs to nobody, whatever became of it.
        self.ring.end_all(Status::Aborted, &mut |_| {});
        self.seen = word;
        self.idle_polls = 0;
        if completed(word) && done {
            self.serve(Service::Up);
            return Ok(());
        }
        self.serve(Service::Down);
        Err(match status {
            ChanStatus::GONE => StartError::Gone,
            _ if status.state() == ChanState::Halted => StartError::Halted(self.registers.errors()),
            _ if completed(status.0) => StartError::NoCompletionWrite,
            _ => StartError::Silent,
        })
    }

    /// Issues what is in the ring.
    fn doorbell(&mut self) {
        let count = self.ring.issue();
        // Release: the descriptors, and what the CPU wrote into the sources, come before the
        // doorbell. (On x86 stores stay in order anyway; elsewhere the `Bar` adds what its mapping
        // needs.)
        fence(Ordering::Release);
        self.registers.set_dma_count(count);
    }

    /// Takes operations, or takes none any more.
    fn serve(&mut self, service: Service) {
        self.service = service;
        self.make_room();
    }

    /// Lets operations have what has become free.
    fn make_room(&mut self) {
        match self.service {
            // What is to be reported is still the client's.
            Service::Up => self.ring.set_limit(self.to_report.len()),
            Service::Down | Service::Gone => self.ring.close(),
        }
    }

    /// Descriptors that have ended if `status` is where the channel stands. An address that is not
    /// in flight (the last one reported, 0 after a start) means none.
    fn completed_by(&self, status: ChanStatus) -> usize {
        let index = self.descriptors.index(status.descriptor());
        index.map_or(0, |index| self.ring.ended_at(index))
    }

    /// Ends what ended before the channel was stopped, the operation it halted at, and the rest.
    fn settle(&mut self, stopped: Stopped, report: &mut dyn FnMut(Completion)) {
        let Stopped { status, errors } = stopped;
        let count = self.completed_by(status);
        self.ring.end(count, Status::Success, report);
        if stopped.had_halted() && self.ring.in_flight() > 0 {
            self.ring.end_operation(errors.status(), report);
        }
        self.ring.end_all(Status::Aborted, report);
    }

    /// Gets a halted channel going again.
    fn recover(&mut self, report: &mut dyn FnMut(Completion)) {
        if let Some(on_halt) = &self.shared.options.on_halt {
            on_halt(&Halt { channel: self.index, errors: self.registers.errors() });
        }
        match self.reset(RESET_TIMEOUT) {
            Ok(stopped) => {
                self.settle(stopped, report);
                // On an error the channel is down, and says so at the next submission.
                let _ = self.start();
            }
            // What is in flight stays so until `terminate_sync` proves the channel idle.
            Err(ResetError::Stuck) => self.serve(Service::Down),
            Err(ResetError::Gone) => self.lose(report),
        }
    }

    /// The device has left the bus: nothing of it reaches memory any more.
    fn lose(&mut self, report: &mut dyn FnMut(Completion)) {
        self.ring.end_all(Status::DeviceLost, report);
        self.serve(Service::Gone);
    }

    /// Ends what has ended now that the channel stands at `status`.
    fn advance(&mut self, status: ChanStatus, report: &mut dyn FnMut(Completion)) {
        if status == ChanStatus::GONE {
            self.lose(report);
            return;
        }
        let count = self.completed_by(status);
        self.ring.end(count, Status::Success, report);
        // The register decides: the word may be older.
        if status.state() == ChanState::Halted
            && self.registers.status().state() == ChanState::Halted
        {
            self.recover(report);
        }
    }

    /// Where the channel stands, if that may be news.
    fn progress(&mut self) -> Option<ChanStatus> {
        let word = self.completion.read();
        if word != self.seen {
            self.seen = word;
            self.idle_polls = 0;
            return Some(ChanStatus(word));
        }
        if self.ring.in_flight() == 0 {
            return None;
        }
        self.idle_polls += 1;
        if self.idle_polls < POLLS_BEFORE_CHANSTS {
            return None;
        }
        self.idle_polls = 0;
        Some(self.registers.status())
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
        self.doorbell();
    }

    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        if !self.to_report.is_empty() {
            // One by one: should `report` panic, the others are not lost.
            while let Some(completion) = self.to_report.pop_front() {
                report(completion);
            }
            self.make_room();
        }
        if self.service == Service::Up
            && let Some(status) = self.progress()
        {
            self.advance(status, report);
            self.make_room();
        }
    }

    /// The event comes from an empty descriptor behind everything issued so far. There is one such
    /// at a time: if an earlier call's is still in flight, the event comes with it, which may be
    /// early; so poll, and call again if something is still in flight.
    ///
    /// Returns `false` also if something was submitted and not issued: nothing may be put behind it.
    fn arm(&mut self) -> bool {
        let Some(event) = self.shared.platform.interrupt(self.index) else { return false };
        let waits = self.service == Service::Up && self.ring.has_issued_operation();
        if !waits || self.ring.last_pending().is_some() {
            return false;
        }
        // Clears it. It is non-blocking, and not being set is no error.
        let _ = rustix::io::read(event, &mut [0; 8]);
        // Before looking where the channel stands: what ends after the look then interrupts.
        self.registers.set_control(ChanCtrl::RUN);
        let status = self.registers.status();
        if status == ChanStatus::GONE || status.state() == ChanState::Halted {
            // For `poll` to deal with, which is to look at CHANSTS as well: it may be that the
            // completion word was not written.
            self.idle_polls = POLLS_BEFORE_CHANSTS;
            return false;
        }
        let count = self.completed_by(status);
        let Self { ring, to_report, .. } = self;
        ring.end(count, Status::Success, &mut |completion| to_report.push_back(completion));
        let waits = self.ring.has_issued_operation();
        if waits && !self.ring.has_null() {
            let index = self.ring.index(self.ring.head());
            let control = Control::INT_EN | Control::COMPL_WRITE;
            self.descriptors.write(index, Operation::Null, control);
            self.ring.push_null();
            self.doorbell();
        }
        self.make_room();
        waits
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.shared.platform.interrupt(self.index)
    }

    fn terminate_sync(&mut self, timeout: Duration) -> Result<(), Stuck> {
        let mut to_report = std::mem::take(&mut self.to_report);
        let mut report = |completion| to_report.push_back(completion);
        let result = if self.service == Service::Gone {
            Ok(())
        } else {
            match self.reset(timeout) {
                Ok(stopped) => {
                    self.settle(stopped, &mut report);
                    // The channel is idle in any case. If it does not start, it is down.
                    let _ = self.start();
                    Ok(())
                }
                Err(ResetError::Gone) => {
                    self.lose(&mut report);
                    Ok(())
                }
                Err(ResetError::Stuck) => {
                    self.serve(Service::Down);
                    Err(Stuck)
                }
            }
        };
        self.to_report = to_report;
        self.make_room();
        result
    }
}

impl Drop for IoatChannel {
    fn drop(&mut self) {
        match self.reset(DROP_TIMEOUT) {
            Ok(_) => {
                self.registers.release();
                // SAFETY: dropped here and nowhere else. The reset has ended, so the device does not
                // use the ring or the completion word.
                unsafe {
                    ManuallyDrop::drop(&mut self.descriptors);
                    ManuallyDrop::drop(&mut self.completion);
                }
                self.shared.release(self.index);
            }
            Err(ResetError::Gone) => {
                // SAFETY: as above; a device that has left the bus uses nothing.
                unsafe {
                    ManuallyDrop::drop(&mut self.descriptors);
                    ManuallyDrop::drop(&mut self.completion);
                }
            }
            // Ring and completion word are leaked, and the channel stays taken.
            Err(ResetError::Stuck) => {
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
