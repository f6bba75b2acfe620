//! Progress, the lack of it, and the ways back: after a halt, a hang, a reset that does not end.

use std::time::Duration;

use dmaengine::{Completion, Status};

use super::{IoatChannel, START_TIMEOUT, Service};
use crate::{
    Behind,
    descriptor::{self, Control, Operation},
    error::ChanErr,
    incident::IncidentKind,
    registers::{ChanCmd, ChanState, ChanStatus},
    reset::{self, ResetError, Stopped},
    ring::{Index, Mismatch},
    watchdog::Strike,
};

/// Polls without progress before CHANSTS is read, which costs a round trip over the bus: a completion
/// write may be lost, and a halt may have failed to write one.
pub(super) const POLLS_BEFORE_CHANSTS: u32 = 1024;
/// How long a channel that is out of service rests between two tries to bring it back.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Why a channel is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Halted,
    TimedOut,
}

impl IoatChannel {
    pub(super) fn tell(&self, kind: IncidentKind) {
        self.shared.options.tell(self.index, kind);
    }

    pub(super) fn reset(&self, timeout: Duration) -> Result<Stopped, ResetError> {
        let quirks = self.shared.hardware.quirks;
        reset::reset(&self.registers, &*self.shared.platform, quirks, timeout)
    }

    /// Takes operations.
    pub(super) fn serve(&mut self, service: Service) {
        self.service = service;
        self.idle_polls = 0;
        self.watchdog.progress();
        self.make_room();
    }

    /// Takes no operations for now, and says why.
    pub(super) fn out_of_service(&mut self, kind: IncidentKind) {
        self.serve(Service::Down { retry_at: self.registers.now() + RETRY_INTERVAL });
        self.tell(kind);
    }

    /// Descriptors that have ended if `status` is where the channel stands. An address that is not
    /// in flight (the last one reported, 0 after a start, one that is none) means none.
    pub(super) fn completed_by(&self, status: ChanStatus) -> usize {
        let index = self.descriptors.index(status.descriptor());
        index.map_or(0, |index| self.ring.ended_at(index))
    }

    /// Ends the oldest `count` descriptors well; whether there are any.
    pub(super) fn complete(&mut self, count: usize, report: &mut dyn FnMut(Completion)) -> bool {
        let Self { ring, descriptors, sizes, .. } = self;
        let verdict = |index: Index| {
            // Where no results are written, a check that goes on has found nothing.
            if sizes.is_empty() {
                return Mismatch::empty();
            }
            descriptor::result(descriptors.head(index))
        };
        ring.end(count, verdict, report);
        let progress = count > 0;
        if progress {
            self.idle_polls = 0;
            self.watchdog.progress();
        }
        progress
    }

    /// Looks where the channel stands.
    pub(super) fn advance(&mut self, report: &mut dyn FnMut(Completion)) {
        let word = self.completion.read();
        if word != self.seen && self.take_word(word, report) {
            return;
        }
        if self.ring.in_flight() > 0 || self.ring.is_owed() {
            self.idle_polls += 1;
            if self.idle_polls >= POLLS_BEFORE_CHANSTS {
                self.look(report);
            }
        }
    }

    /// Ends what has ended by a new completion word; whether that was anything. A word that tells of
    /// nothing that is in flight is no progress, however often the device writes it.
    fn take_word(&mut self, word: u64, report: &mut dyn FnMut(Completion)) -> bool {
        self.seen = word;
        let status = ChanStatus(word);
        let index = self.descriptors.index(status.descriptor());
        let count = index.map_or(0, |index| self.ring.told_of(index));
        let progress = self.complete(count, report);
        // The register decides: the word may be older.
        if status.state() == ChanState::Halted {
            let status = self.registers.status();
            return self.take_stop(status, report) || progress;
        }
        progress
    }

    /// Ends what has ended if CHANSTS is `status`; whether that was anything. The completion word is
    /// then owed, unless it has come meanwhile.
    pub(super) fn take_register(
        &mut self,
        status: ChanStatus,
        report: &mut dyn FnMut(Completion),
    ) -> bool {
        let count = self.completed_by(status);
        let progress = self.complete(count, report);
        self.ring.owe(count);
        let word = self.completion.read();
        let index = self.descriptors.index(ChanStatus(word).descriptor());
        let more = index.map_or(0, |index| self.ring.told_of(index));
        self.complete(more, report) || progress
    }

    /// Deals with a channel that does not run, if CHANSTS is `status`; whether that was so.
    fn take_stop(&mut self, status: ChanStatus, report: &mut dyn FnMut(Completion)) -> bool {
        if status == ChanStatus::GONE {
            self.lose(report);
            return true;
        }
        let halted = status.state() == ChanState::Halted;
        if halted {
            self.recover(Cause::Halted, report);
        }
        halted
    }

    /// Asks the device where it stands, as its completion word has said nothing for long.
    #[cold]
    fn look(&mut self, report: &mut dyn FnMut(Completion)) {
        self.idle_polls = 0;
        let status = self.registers.status();
        let progress = status != ChanStatus::GONE && self.take_register(status, report);
        if self.take_stop(status, report) {
            return;
        }
        let idle = self.ring.in_flight() == 0;
        if progress {
            // The last of what was issued is always told of, and the read of the register has waited
            // for the writes before it.
            if idle && self.ring.is_owed() {
                self.tell(IncidentKind::CompletionLost);
            }
            return;
        }
        if idle {
            self.have_told();
            return;
        }
        let now = self.registers.now();
        match self.watchdog.stands_still(now, self.shared.options.watchdog) {
            Strike::None => {}
            Strike::Doorbell => {
                self.tell(IncidentKind::NoProgress);
                self.ring_again();
            }
            Strike::Reset => self.recover(Cause::TimedOut, report),
        }
    }

    /// Nothing is in flight, and the completion word has not told of all that was: has it written once
    /// more. If that is lost, again, as long as there are slots.
    fn have_told(&mut self) {
        if self.ring.last_pending().is_some() {
            // It will be with that.
            return;
        }
        if self.ring.has_room_for_null() {
            let index = self.ring.index(self.ring.head());
            self.descriptors.write(index, Operation::Null, Control::COMPL_WRITE);
            self.ring.push_null();
            self.ring_doorbell();
            return;
        }
        match self.reset(reset::TIMEOUT) {
            // On an error the channel is down, and says so at the next submission.
            Ok(_) => drop(self.start(START_TIMEOUT)),
            Err(ResetError::Stuck(stopped)) => self.stick(stopped),
            Err(ResetError::Gone) => self.lose(&mut |_| {}),
        }
    }

    /// Gets a channel going again that has halted or hangs.
    #[cold]
    fn recover(&mut self, cause: Cause, report: &mut dyn FnMut(Completion)) {
        let stands = Stopped { status: self.registers.status(), errors: self.registers.errors() };
        let progress = self.take_register(stands.status, report);
        match cause {
            // It has moved after all.
            Cause::TimedOut if progress => return,
            // A check that has found something is no incident.
            Cause::Halted if self.mismatch(stands).is_some() => {}
            Cause::Halted => self.tell(IncidentKind::Halted(stands.errors)),
            Cause::TimedOut => self.tell(IncidentKind::TimedOut),
        }
        match self.reset(reset::TIMEOUT) {
            Ok(stopped) => self.go_on(stopped, cause, report),
            Err(ResetError::Stuck(stopped)) => self.stick(stopped),
            Err(ResetError::Gone) => self.lose(report),
        }
    }

    /// After a reset: ends what had ended, and what the channel stood at, and goes on with the rest or
    /// ends it.
    fn go_on(&mut self, stopped: Stopped, cause: Cause, report: &mut dyn FnMut(Completion)) {
        let progress = self.complete(self.completed_by(stopped.status), report);
        let mut goes_on = self.shared.options.behind == Behind::Retry;
        if self.ring.in_flight() > 0 {
            if let Some(mismatch) = self.mismatch(stopped) {
                self.ring.end_check(mismatch, report);
                // The check has done what it is for.
                goes_on = true;
            } else if stopped.had_halted() {
                self.ring.end_operation(stopped.errors.status(), report);
            } else if cause == Cause::TimedOut && !progress {
                self.ring.end_operation(Status::TimedOut, report);
            }
        }
        if goes_on && !self.ring.is_empty() {
            self.resume();
            return;
        }
        self.ring.end_all(Status::Aborted, report);
        // On an error the channel is down, and says so at the next submission.
        let _ = self.start(START_TIMEOUT);
    }

    /// What the check has found at which the channel halted, if that is why it did.
    fn mismatch(&self, stopped: Stopped) -> Option<Mismatch> {
        const RESULTS: ChanErr = ChanErr::XOR_P_OR_CRC.union(ChanErr::XOR_Q);
        let Stopped { errors, .. } = stopped;
        let found = !errors.is_empty() && RESULTS.contains(errors);
        if !(stopped.had_halted() && found && self.ring.oldest_is_check()) {
            return None;
        }
        let mut mismatch = Mismatch::empty();
        mismatch.set(Mismatch::P, errors.contains(ChanErr::XOR_P_OR_CRC));
        mismatch.set(Mismatch::Q, errors.contains(ChanErr::XOR_Q));
        Some(mismatch)
    }

    /// After a reset by which the client, or a late end, stops everything: what had ended, the
    /// operation that the channel halted at, and the rest, which ends with `rest`.
    pub(super) fn settle(
        &mut self,
        stopped: Stopped,
        rest: Status,
        report: &mut dyn FnMut(Completion),
    ) {
        self.complete(self.completed_by(stopped.status), report);
        if stopped.had_halted() && self.ring.in_flight() > 0 {
            match self.mismatch(stopped) {
                Some(mismatch) => self.ring.end_check(mismatch, report),
                None => self.ring.end_operation(stopped.errors.status(), report),
            }
        }
        self.ring.end_all(rest, report);
    }

    /// The reset does not end. What is in flight stays so until it does: the device may still be at it.
    pub(super) fn stick(&mut self, stopped: Stopped) {
        self.serve(Service::Stuck { stopped, retry_at: self.registers.now() + RETRY_INTERVAL });
        self.tell(IncidentKind::Stuck);
    }

    /// The device has left the bus: nothing of it reaches memory any more.
    pub(super) fn lose(&mut self, report: &mut dyn FnMut(Completion)) {
        self.ring.end_all(Status::DeviceLost, report);
        self.serve(Service::Gone);
        self.tell(IncidentKind::Gone);
    }

    /// Tries to bring back a channel that is out of service, if it is time to. A reset that does not
    /// end is only looked at, not waited for.
    #[cold]
    pub(super) fn revive(&mut self, report: &mut dyn FnMut(Completion)) {
        match self.service {
            Service::Up | Service::Gone => {}
            Service::Down { retry_at } => {
                if self.registers.now() < retry_at {
                    return;
                }
                match self.reset(reset::TIMEOUT) {
                    Ok(_) => self.restart(),
                    Err(ResetError::Stuck(stopped)) => self.stick(stopped),
                    Err(ResetError::Gone) => self.lose(report),
                }
            }
            Service::Stuck { stopped, retry_at } => {
                // A device that is gone reads as if it were resetting.
                if !self.registers.is_resetting() {
                    let quirks = self.shared.hardware.quirks;
                    reset::finish(&*self.shared.platform, quirks);
                    self.settle(stopped, Status::DeviceLost, report);
                    self.restart();
                } else if self.registers.status() == ChanStatus::GONE {
                    self.lose(report);
                } else if self.registers.now() >= retry_at {
                    self.registers.command(ChanCmd::RESET);
                    let retry_at = self.registers.now() + RETRY_INTERVAL;
                    self.service = Service::Stuck { stopped, retry_at };
                }
            }
        }
    }

    /// Starts a channel that was out of service and is idle.
    fn restart(&mut self) {
        if self.start(START_TIMEOUT).is_ok() {
            self.tell(IncidentKind::Recovered);
        }
    }
}
