//! Loss recovery without selective acknowledgments: fast retransmit and fast recovery (RFC 5681
//! section 3.2, with the partial acknowledgments of RFC 6582), limited transmit (RFC 3042), and
//! what follows a retransmission timeout.

use super::seq::SeqNumber;

/// Duplicate acknowledgments that mean a loss (RFC 5681 section 3.2).
const DUP_ACK_THRESHOLD: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No loss is known.
    Open { dup_acks: u8 },
    /// A loss was found by duplicate acknowledgments.
    Fast {
        /// What duplicate acknowledgments add to the congestion window: each stands for a segment
        /// that has left the network. In bytes.
        inflation: usize,
        /// Acknowledgments of a part of what was sent before.
        partial: Partial,
    },
    /// The timer has expired; everything is sent again in slow start.
    Timeout,
}

/// How many partial acknowledgments there were in a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Partial {
    None,
    First,
    More,
}

/// What the sender has to do about an acknowledgment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// Go on.
    Nothing,
    /// Lower the congestion window and send the first unacknowledged segment again.
    EnterRecovery,
    /// Send the first unacknowledged segment again: it is lost, too.
    Retransmit,
    /// Let the congestion window grow.
    Grow,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovery {
    phase: Phase,
    /// The highest sequence number sent when the last recovery began; losses below it belong to
    /// it. Before any, the initial sequence number (RFC 6582 section 3.2 step 1).
    recover: SeqNumber,
}

impl Recovery {
    pub(crate) const fn new(iss: SeqNumber) -> Self {
        Self { phase: Phase::Open { dup_acks: 0 }, recover: iss }
    }

    /// Bytes to add to the congestion window.
    pub(crate) const fn inflation(&self, mss: usize) -> usize {
        match self.phase {
            // RFC 3042: the first two duplicate acknowledgments release a new segment each.
            Phase::Open { dup_acks } => dup_acks as usize * mss,
            Phase::Fast { inflation, .. } => inflation,
            Phase::Timeout => 0,
        }
    }

    /// Whether the timer goes on, whatever is acknowledged or sent again. RFC 6582 section 3.2 step
    /// 3 and section 4, the impatient variant: the first partial acknowledgment resets the timer,
    /// others do not. After many losses it expires then, and slow start repairs them faster than one
    /// in each round trip does.
    pub(crate) const fn keeps_timer(&self) -> bool {
        matches!(self.phase, Phase::Fast { partial: Partial::More, .. })
    }

    /// An acknowledgment that acknowledges nothing new although there is something to acknowledge.
    pub(crate) fn on_duplicate_ack(
        &mut self,
        una: SeqNumber,
        sent: SeqNumber,
        mss: usize,
    ) -> Reaction {
        match &mut self.phase {
            Phase::Open { dup_acks } => {
                *dup_acks += 1;
                if *dup_acks < DUP_ACK_THRESHOLD {
                    return Reaction::Nothing;
                }
                *dup_acks = 0;
                // RFC 6582 section 3.2 step 2: duplicates may also come from what the last recovery
                // sent needlessly.
                if !una.is_after(self.recover) {
                    return Reaction::Nothing;
                }
                self.recover = sent;
                let inflation = usize::from(DUP_ACK_THRESHOLD) * mss;
                self.phase = Phase::Fast { inflation, partial: Partial::None };
                Reaction::EnterRecovery
            }
            Phase::Fast { inflation, .. } => {
                *inflation = inflation.saturating_add(mss);
                Reaction::Nothing
            }
            Phase::Timeout => Reaction::Nothing,
        }
    }

    /// `acked` new bytes are acknowledged; `una` is the first that is not.
    pub(crate) fn on_new_ack(&mut self, una: SeqNumber, acked: usize, mss: usize) -> Reaction {
        let complete = !una.is_before(self.recover);
        match &mut self.phase {
            Phase::Open { dup_acks } => {
                *dup_acks = 0;
                Reaction::Grow
            }
            Phase::Fast { .. } if complete => {
                self.phase = Phase::Open { dup_acks: 0 };
                Reaction::Nothing
            }
            Phase::Fast { inflation, partial } => {
                *partial = match partial {
                    Partial::None => Partial::First,
                    Partial::First | Partial::More => Partial::More,
                };
                // RFC 6582 section 3.2 step 3: a partial acknowledgment deflates the window by what
                // it acknowledges, and adds back a segment for the one sent again.
                *inflation = inflation.saturating_sub(acked);
                if acked >= mss {
                    *inflation += mss;
                }
                Reaction::Retransmit
            }
            Phase::Timeout => {
                if complete {
                    self.phase = Phase::Open { dup_acks: 0 };
                }
                Reaction::Grow
            }
        }
    }

    /// The timer has expired. Returns whether this is a new loss, rather than that of something
    /// already sent again because of a timeout.
    pub(crate) const fn on_timeout(&mut self, sent: SeqNumber) -> bool {
        let first = !matches!(self.phase, Phase::Timeout);
        // RFC 6582 section 3.2 step 4.
        self.recover = sent;
        self.phase = Phase::Timeout;
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: usize = 100;
    const ISS: SeqNumber = SeqNumber(1000);

    #[test]
    fn three_duplicates_enter_recovery_and_a_full_ack_ends_it() {
        let mut recovery = Recovery::new(ISS);
        let (una, sent) = (ISS + 1, ISS + 1001);
        assert_eq!(recovery.on_duplicate_ack(una, sent, MSS), Reaction::Nothing);
        assert_eq!(recovery.inflation(MSS), MSS);
        assert_eq!(recovery.on_duplicate_ack(una, sent, MSS), Reaction::Nothing);
        assert_eq!(recovery.inflation(MSS), 2 * MSS);
        assert_eq!(recovery.on_duplicate_ack(una, sent, MSS), Reaction::EnterRecovery);
        assert_eq!(recovery.inflation(MSS), 3 * MSS);
        assert_eq!(recovery.on_duplicate_ack(una, sent, MSS), Reaction::Nothing);
        assert_eq!(recovery.inflation(MSS), 4 * MSS);

        assert_eq!(recovery.on_new_ack(una + 200, 200, MSS), Reaction::Retransmit);
        assert_eq!(recovery.inflation(MSS), 3 * MSS);
        assert!(!recovery.keeps_timer(), "the first resets it");
        assert_eq!(recovery.on_new_ack(una + 300, 100, MSS), Reaction::Retransmit);
        assert!(recovery.keeps_timer());
        assert_eq!(recovery.on_new_ack(sent, 700, MSS), Reaction::Nothing);
        assert!(!recovery.keeps_timer());
        assert_eq!(recovery.inflation(MSS), 0);
        assert_eq!(recovery.on_new_ack(sent + 100, 100, MSS), Reaction::Grow);
    }

    #[test]
    fn new_data_resets_the_count() {
        let mut recovery = Recovery::new(ISS);
        let sent = ISS + 1001;
        for una in [1, 101, 201] {
            for _ in 0..2 {
                assert_eq!(recovery.on_duplicate_ack(ISS + una, sent, MSS), Reaction::Nothing);
            }
            assert_eq!(recovery.on_new_ack(ISS + una + 100, 100, MSS), Reaction::Grow);
        }
    }

    #[test]
    fn duplicates_of_the_last_recovery_do_not_start_another() {
        let mut recovery = Recovery::new(ISS);
        let sent = ISS + 1001;
        assert!(recovery.on_timeout(sent));
        assert!(!recovery.on_timeout(sent));
        assert_eq!(recovery.on_duplicate_ack(ISS + 1, sent, MSS), Reaction::Nothing);
        assert_eq!(recovery.on_new_ack(ISS + 101, 100, MSS), Reaction::Grow);
        assert_eq!(recovery.phase, Phase::Timeout);
        assert_eq!(recovery.on_new_ack(sent, 900, MSS), Reaction::Grow);
        assert_eq!(recovery.phase, Phase::Open { dup_acks: 0 });
        for _ in 0..9 {
            assert_eq!(recovery.on_duplicate_ack(sent, sent + 500, MSS), Reaction::Nothing);
        }
    }
}
