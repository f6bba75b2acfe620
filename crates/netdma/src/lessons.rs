//! What receives teach: at their ends it is known what they have cost, and who was late.

use std::time::Duration;

use crate::{
    ReadLines, Tag,
    copies::Chooser,
    reading::{self, Moment},
    receive::Receive,
    share::Share,
    work_clock::WorkClock,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Lessons {
    pub(crate) clock: WorkClock,
    /// How buffers are looked at, if they are.
    pub(crate) read: Option<ReadLines>,
    pub(crate) share: Share,
    pub(crate) chooser: Chooser,
    /// Receives that have ended, and whose engine's part has not.
    shared: usize,
    /// When the engine was last looked at while there was one.
    looked: Duration,
    /// Copies in flight that are measured.
    measured: usize,
    /// What waiting for the engine has cost threads since the last receive that was waited for.
    waited: Duration,
    /// What it costs to collect the end of one copy.
    collecting: Duration,
}

/// One look at the engine.
pub(crate) struct Look {
    /// When it began, if the ends of measured copies may be seen.
    start: Option<Duration>,
    /// A call waits for the engine's part of a shared read.
    is_awaited: bool,
    /// When such an end was seen: one for all.
    seen: Option<Duration>,
    /// What looking at buffers has cost meanwhile.
    reading: Duration,
}

impl Lessons {
    pub(crate) const fn new(clock: WorkClock) -> Self {
        Self {
            clock,
            read: None,
            share: Share::new(),
            chooser: Chooser::new(),
            shared: 0,
            looked: Duration::ZERO,
            measured: 0,
            waited: Duration::ZERO,
            collecting: Duration::ZERO,
        }
    }

    /// The engine was given copies of `receive`.
    pub(crate) fn on_given(&mut self, receive: &Receive, copies: usize) {
        if receive.is_measured() {
            self.measured += copies;
        }
    }

    /// A receive takes no more bytes. If copies are in flight, it teaches with the last of them.
    pub(crate) fn on_end(&mut self, receive: &Receive) {
        if receive.in_flight > 0 {
            self.shared += usize::from(receive.shared.is_some());
        } else {
            self.learn_cost(receive, receive.cost);
        }
    }

    /// The engine is looked at.
    pub(crate) fn look(&self) -> Look {
        let start = (self.measured > 0).then(|| self.clock.now());
        Look { start, is_awaited: self.shared > 0, seen: None, reading: Duration::ZERO }
    }

    /// A copy has ended.
    pub(crate) fn on_copy(&mut self, tag: &Tag) {
        self.measured -= usize::from(tag.is_measured);
    }

    /// The engine has written this for a receive, which its reader does not have yet.
    pub(crate) fn on_written(&mut self, receive: &Receive, piece: &[u8], look: &mut Look) {
        if let (Some(read), Some(decision)) = (self.read, receive.decision)
            && let Some(lines) = reading::lines(piece, Moment::Written)
        {
            let time = read(lines);
            look.reading += time;
            let policy = &mut self.chooser.policy;
            policy.learn_reading(decision.class, Moment::Written, lines.len(), time);
        }
    }

    /// The last copy of a receive that takes no more bytes has ended.
    pub(crate) fn on_last_copy(&mut self, receive: &mut Receive, look: &mut Look) {
        let waited = std::mem::take(&mut self.waited);
        self.learn_cost(receive, receive.cost + receive.given * self.collecting + waited);
        if let Some(part) = receive.shared.take() {
            self.shared -= 1;
            let now = || self.clock.now().saturating_sub(look.reading);
            let end = *look.seen.get_or_insert_with(now);
            self.share.learn(&part, end, self.looked >= part.cpu_end);
        }
    }

    /// So many copies were seen to have ended.
    pub(crate) fn looked(&mut self, look: &Look, copies: usize) {
        if let Some(start) = look.start
            && let Ok(copies @ 1..) = u32::try_from(copies)
        {
            let took = self.clock.now().saturating_sub(start + look.reading) / copies;
            self.collecting = (self.collecting * 7 + took) / 8;
        }
        if look.is_awaited {
            self.looked = look.seen.unwrap_or_else(|| self.clock.now());
        }
    }

    /// Waiting for the engine has cost a thread so much.
    pub(crate) fn add_wait(&mut self, cost: Duration) {
        self.waited += cost;
    }

    fn learn_cost(&mut self, receive: &Receive, cost: Duration) {
        if let Some(decision) = receive.decision.filter(|_| receive.is_measured()) {
            let (bytes, given) = (receive.taken, receive.given_bytes);
            self.chooser.policy.learn(decision, bytes, given, cost);
        }
    }
}
